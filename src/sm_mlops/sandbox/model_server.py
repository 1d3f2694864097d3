"""Serves one model as the managed containers do: /ping and /invocations, through the WSGI
application of the image. Started as a script, in a process of its own; must not know about the
sandbox.

The first argument is the number of a listening socket that this process inherits: early clients
wait until the model is loaded. As a worker of the container does, it answers one request at a time.
"""

import gc
import hmac
import io
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Requests have to bring in this header what is in this variable.
TOKEN, TOKEN_HEADER = "MODEL_SERVER_TOKEN", "X-Model-Server-Token"


class Handler(BaseHTTPRequestHandler):
    """Passes requests to the application; connections stay open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # The head and a small body leave as one packet.
    application: Any
    lock = threading.Lock()
    token: str

    def parse_request(self) -> bool:
        """Refuse whoever is not the sandbox, such as a page in a browser."""
        if not super().parse_request():
            return False
        given = self.headers.get(TOKEN_HEADER, "")
        del self.headers[TOKEN_HEADER]
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            self.send_error(403)
            return False
        return True

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.lock:
            answer = b"".join(self.application(self.environment(body), self.begin))
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def environment(self, body: bytes) -> dict[str, Any]:
        """Return a request as PEP 3333 describes it."""
        given = {f"HTTP_{n.upper().replace('-', '_')}": text for n, text in self.headers.items()}
        given.pop("HTTP_CONTENT_LENGTH", None)
        if "HTTP_CONTENT_TYPE" in given:
            given["CONTENT_TYPE"] = given.pop("HTTP_CONTENT_TYPE")
        return {
            **given,
            "CONTENT_LENGTH": str(len(body)),
            "PATH_INFO": self.path,
            "QUERY_STRING": "",
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(self.connection.getsockname()[1]),
            "SERVER_PROTOCOL": self.request_version,
            "wsgi.errors": sys.stderr,
            "wsgi.input": io.BytesIO(body),
            "wsgi.multiprocess": True,
            "wsgi.multithread": False,
            "wsgi.run_once": False,
            "wsgi.url_scheme": "http",
            "wsgi.version": (1, 0),
        }

    def begin(self, status: str, headers: Iterable[tuple[str, str]], *_: Any) -> None:
        """Send the head of an answer but its length."""
        code = int(status[:3])
        if code >= 400:
            print(f"{self.requestline} {status}", file=sys.stderr, flush=True)
        self.send_response_only(code)
        for name, value in headers:
            if name.lower() != "content-length":
                self.send_header(name, value)


class ModelServer(ThreadingHTTPServer):
    """A server on a socket that is listening already."""

    daemon_threads = True

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(listening.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close the connection."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            traceback.print_exc()


def main() -> None:
    """Load the model and serve it until the process is ended."""
    Handler.token = os.environ.pop(TOKEN)
    sys.path.pop(0)  # The folder of this script.
    try:
        from xgboost_image import quick

        Handler.application = staticmethod(quick.application())
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    # What is loaded now stays; collecting garbage in it would delay requests.
    gc.collect()
    gc.freeze()
    print("the model is loaded and answers", flush=True)
    ModelServer(socket.socket(fileno=int(sys.argv[1]))).serve_forever()


if __name__ == "__main__":
    main()
