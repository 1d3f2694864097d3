"""A GitHub on its own port, without AWS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

from sm_mlops.sandbox.github.service import API, PREFIX, GitHub, mounted
from sm_mlops.sandbox.storage import Store


class Quiet(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


class Standalone:
    """A GitHub with its state in a folder; a context manager."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.store = Store(folder)
        self.github = GitHub(self.store, folder / "git")
        self._http = make_server(
            "127.0.0.1", port, self._answer, threaded=True, request_handler=Quiet
        )

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        return mounted(self.github, environ, start)

    @property
    def url(self) -> str:
        """Return the address of this GitHub."""
        return f"http://127.0.0.1:{self._http.server_port}{PREFIX}"

    @property
    def api(self) -> str:
        """Return the address of its REST API."""
        return self.url + API

    def __enter__(self) -> Standalone:
        """Start answering."""
        threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="github", daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()
        self.store.close()
