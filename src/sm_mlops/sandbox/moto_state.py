"""Keeps the state of moto's services (IAM, Events, Secrets Manager...) across restarts.

S3 is not among them: objects have a module of their own. Written against moto 5.2: a service's
state is what its backends hold, one per account and region.
"""

from __future__ import annotations

import contextlib
import copy
import copyreg
import hashlib
import io
import logging
import pickle
import threading
import time
from collections import defaultdict
from typing import Any
from urllib.parse import parse_qs, unquote
from weakref import WeakValueDictionary

from moto.backends import get_backend
from moto.core.base_backend import BackendDict

from sm_mlops.sandbox import pickling
from sm_mlops.sandbox.jobs import LOG_GROUPS
from sm_mlops.sandbox.metrics import NAMESPACE
from sm_mlops.sandbox.objects import Objects
from sm_mlops.sandbox.serving import LOG_GROUP
from sm_mlops.sandbox.storage import Store

READING = (
    "Describe",
    "Get",
    "List",
    "Head",
    "BatchGet",
    "Search",
    "Simulate",
    "Validate",
    "Filter",
)
QUICK_SECONDS = 0.02
READING_ATTEMPTS = 50
PAUSE_SECONDS = 1.0
log = logging.getLogger(__name__)


class MotoState:
    """Writes a service's state after a request that may have changed it.

    State that is quick to write is written before the request is answered; what takes longer is
    written at most once a second, and when the sandbox ends.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._digests: dict[str, bytes] = {}
        self._slow: set[str] = set()
        self._due: set[str] = set()
        self._timer: threading.Timer | None = None
        for name, body in store.blobs("moto"):
            # The state is in a folder that only its user can write.
            for account, regions in pickle.loads(body).items():  # nosec B301
                backends: Any = get_backend(name)  # type: ignore[call-overload]
                for region, backend in regions.items():
                    dict.__setitem__(backends[account], region, backend)

    def after_request(self, service: str, environ: dict[str, Any], objects: Objects) -> None:
        """Keep what a request has changed."""
        if service in ("s3", "s3bucket_path"):
            _after_s3_request(environ, objects)
        elif not _only_reads(environ):
            self.keep(service)

    def keep(self, *services: str) -> None:
        """Keep what has changed in these services."""
        with self._lock:
            for service in set(services) - self._slow:
                self._write(service)
            self._due |= self._slow.intersection(services)
            if self._due and self._timer is None:
                self._timer = threading.Timer(PAUSE_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write what is due."""
        if self._due:
            with self._lock:
                due, self._due, self._timer = self._due, set(), None
                for service in due:
                    self._write(service)

    def _write(self, service: str) -> None:
        # Processor time: on a busy machine everything would count as slow.
        began = time.thread_time()
        backends = _loaded().get(service)
        if backends is None:
            return
        try:
            body = _settled(service, backends)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            log.warning("the state of %s is kept until this server ends only: %s", service, error)
            return
        digest = hashlib.sha256(body).digest()
        if self._digests.get(service) != digest:
            self.store.put_blobs("moto", {service: body})
            self._digests[service] = digest
        if time.thread_time() - began > QUICK_SECONDS:
            self._slow.add(service)


def _settled(service: str, backends: BackendDict[Any]) -> bytes:
    """Return a service's state as bytes, from a moment at which no other request changed it."""
    for _ in range(READING_ATTEMPTS):
        with contextlib.suppress(RuntimeError):  # "dictionary changed size during iteration"
            return pickling.dumps(_state(service, backends))
        time.sleep(0.001)
    return pickling.dumps(_state(service, backends))


def _loaded() -> dict[str, BackendDict[Any]]:
    """Return the backends in use by moto's name of their service."""
    found = {}
    for backends in list(BackendDict._instances):  # type: ignore[misc]
        name = backends.backend.__module__.split(".")[1]
        if name not in ("s3", "s3bucket_path", "s3control"):
            found[name] = backends
    return found


def _state(service: str, backends: BackendDict[Any]) -> dict[str, dict[str, Any]]:
    slim = SLIM.get(service)
    return {
        account: {
            region: slim(copy.copy(backend)) if slim else backend
            for region, backend in list(regions.items())
        }
        for account, regions in list(backends.items())
    }


def _slim_logs(backend: Any) -> Any:
    # The logs of jobs are files already, and may be large.
    backend.groups = {
        name: group
        for name, group in backend.groups.items()
        if name not in LOG_GROUPS.values() and not name.startswith(LOG_GROUP)
    }
    return backend


def _slim_functions(backend: Any) -> Any:
    # Dictionaries that make their members with a lambda cannot be pickled.
    backend._lambdas = copy.copy(backend._lambdas)
    backend._lambdas._aliases = defaultdict(dict, backend._lambdas._aliases)
    return backend


def _slim_metrics(backend: Any) -> Any:
    # What endpoints have reported is lost with this server.
    backend.metric_data = [m for m in backend.metric_data if m.namespace != NAMESPACE]
    return backend


SLIM = {"awslambda": _slim_functions, "cloudwatch": _slim_metrics, "logs": _slim_logs}


def _weak(values: dict[Any, Any]) -> WeakValueDictionary[Any, Any]:
    return WeakValueDictionary(values)


# Lambda's functions and layers are also held by weak references, which pickle does not know.
copyreg.pickle(WeakValueDictionary, lambda values: (_weak, (dict(values),)))


def _only_reads(environ: dict[str, Any]) -> bool:
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        return True
    action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    source = environ["wsgi.input"]
    if not action and isinstance(source, io.BytesIO):  # A form that moto has read already.
        action = parse_qs(source.getvalue().decode("utf-8", "replace")).get("Action", [""])[0]
    return action.startswith(READING)


def _after_s3_request(environ: dict[str, Any], objects: Objects) -> None:
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        return
    path = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"]
    bucket, _, key = unquote(path.partition("?")[0]).lstrip("/").partition("/")
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    if environ["REQUEST_METHOD"] == "PUT" and "uploadId" in query:
        return  # A part of an upload: nothing of the bucket has changed yet.
    objects.save(bucket, key)
    if "tagging" in query or "HTTP_X_AMZ_TAGGING" in environ:
        objects.save_tags(bucket)
