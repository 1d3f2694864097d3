"""Serves one model as the managed containers do: /ping and /invocations, through AWS's inference
toolkit. Started as a script, in a process of its own; must not know about the sandbox.

The first argument is the number of a listening socket that this process inherits: early clients
wait until the model is loaded. As in a container with one worker, the model's functions are
called by one request at a time, so that inference.py need not be safe for threads.
"""

import gc
import hmac
import json
import os
import socket
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Headers = dict[str, str]
# Requests have to bring in this header what is in this variable.
TOKEN, TOKEN_HEADER = "MODEL_SERVER_TOKEN", "X-Model-Server-Token"


class Context:
    """What the model server passes to the toolkit besides the body: one object for all requests.

    The parts of multi-model-server's `mms.context.Context` that handlers use.
    """

    def __init__(self, model_dir: str) -> None:
        self.system_properties = {"model_dir": model_dir, "gpu_id": None}
        self.request_processor = [self]
        self.begin({})

    def begin(self, headers: Headers) -> None:
        """Forget the last request."""
        self.request, self.status = headers, 200
        self.response: Headers = {}

    def get_request_properties(self) -> Headers:
        """Return the request's headers."""
        return self.request

    def get_request_header(self, idx: int, key: str) -> str | None:
        """Return one header of the request."""
        return next((v for k, v in self.request.items() if k.lower() == key.lower()), None)

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the answer's content type."""
        self.response["Content-Type"] = value

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of the answer."""
        self.response[key] = value

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the answer's status."""
        self.status = code


class Model:
    """The loaded model, used by one request at a time."""

    def __init__(self, model_dir: str) -> None:
        # Imported here: the toolkit reads SAGEMAKER_BASE_DIR while it is imported.
        from sagemaker_inference.transformer import Transformer

        self.context, self.lock = Context(model_dir), threading.Lock()
        self.transformer = Transformer()
        self.transformer.validate_and_initialize(model_dir=model_dir, context=self.context)

    def answer(self, body: bytes, headers: Headers) -> tuple[int, Headers, bytes]:
        """Return status, headers and body of the answer."""
        with self.lock:
            self.context.begin(headers)
            result = self.transformer.transform([{"body": body}], self.context)[0]
            status, response = self.context.status, self.context.response
        try:
            return status, response, encoded(result)
        except (TypeError, ValueError) as error:
            return 500, {}, f"output_fn has returned what cannot be sent: {error}".encode()


def encoded(result: Any) -> bytes:
    """Return what output_fn has returned as bytes."""
    if isinstance(result, bytes):
        return result
    if isinstance(result, bytearray | memoryview):
        return bytes(result)
    return (result if isinstance(result, str) else json.dumps(result)).encode()


class Handler(BaseHTTPRequestHandler):
    """Answers the two paths; connections stay open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # The head and a small body leave as one packet.
    model: Model
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
        """Answer /ping."""
        self.send(200 if self.path == "/ping" else 404, {}, b"")

    def do_POST(self) -> None:
        """Answer /invocations."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/invocations":
            return self.send(404, {}, b"")
        status, headers, answer = self.model.answer(body, dict(self.headers.items()))
        if status >= 400:
            text = answer.decode("utf-8", "replace")
            shown = text if status >= 500 else text.partition("\n")[0]
            print(f"POST /invocations {status} {shown.strip()}", file=sys.stderr, flush=True)
        self.send(status, headers, answer)

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        """Send an answer."""
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, str(value).replace("\r", " ").replace("\n", " "))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


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
    model_dir = os.path.join(os.environ["SAGEMAKER_BASE_DIR"], "model")  # noqa: PTH118
    code = Path(model_dir, "code")
    Handler.token = os.environ.pop(TOKEN)
    # Where the toolkit's own handler service puts it; not the folder of this script.
    sys.path[0] = str(code)
    os.environ["PYTHONPATH"] = f"{code}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    try:
        Handler.model = Model(model_dir)
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
