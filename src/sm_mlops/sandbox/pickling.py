"""Turns moto's backends into bytes, including what Python cannot pickle: locks, private keys,
anonymous functions, dictionaries that need arguments. `pickle.loads` reads them."""

from __future__ import annotations

import importlib
import io
import marshal
import pickle
import threading
from collections import defaultdict
from types import CellType, FunctionType
from typing import Any

LOCK, RLOCK = type(threading.Lock()), type(threading.RLock())


def dumps(state: Any) -> bytes:
    """Return the pickle of a state. Raises what `pickle.dumps` raises."""
    target = io.BytesIO()
    _Pickler(target, pickle.HIGHEST_PROTOCOL).dump(state)
    return target.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType) and "<" in obj.__qualname__:
            cells = tuple(cell.cell_contents for cell in obj.__closure__ or ())
            return _function, (obj.__module__, marshal.dumps(obj.__code__), cells)
        if isinstance(obj, defaultdict) and type(obj) is not defaultdict:
            # It may be made with arguments that only its maker knows.
            content = (type(obj), obj.default_factory)
            return _mapping, content, vars(obj), None, iter(obj.items())
        # No thread waits for these after a restart.
        for kind, make in ((LOCK, threading.Lock), (RLOCK, threading.RLock)):
            if isinstance(obj, kind):
                return make, ()
        if isinstance(obj, threading.Condition):
            return threading.Condition, ()
        if type(obj).__module__.startswith("cryptography."):
            return _key_reduced(obj)
        return NotImplemented


def _mapping(kind: type[defaultdict[Any, Any]], factory: Any) -> defaultdict[Any, Any]:
    made = kind.__new__(kind)
    made.default_factory = factory
    return made


def _key_reduced(key: Any) -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if not hasattr(key, "private_bytes"):
        return NotImplemented
    return _key, (key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),)


def _key(content: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    return load_der_private_key(content, None)


def _function(module: str, code: bytes, cells: tuple[Any, ...]) -> FunctionType:
    world = vars(importlib.import_module(module))
    loaded = marshal.loads(code)  # nosec B302 # see moto_state
    return FunctionType(loaded, world, closure=tuple(map(CellType, cells)))
