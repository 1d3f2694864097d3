"""Started by the Python of an image's environment: packed models in the worker of AWS's own
framework, `sagemaker_containers`, with one request and one answer per line of standard input and
output. The first argument is a folder with code/, the others are folders of models.

As `serving.py` of https://github.com/aws/sagemaker-xgboost-container makes the application.
"""

import base64
import collections
import collections.abc
import importlib
import io
import json
import sys
import time
import traceback

# The image's build changes this name in the framework's file.
collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]

from sagemaker_containers.beta.framework import (  # noqa: E402
    transformer,
    worker,
)


def application(module, folder):  # type: ignore[no-untyped-def]
    """Return the WSGI application for the model in this folder."""
    found = transformer.Transformer(
        model_fn=lambda _: module.model_fn(folder), transform_fn=module.transform_fn
    )
    found.initialize()
    return worker.Worker(transform_fn=found.transform, module_name="inference")


def answer(app, body, headers):  # type: ignore[no-untyped-def]
    """Return status, content type, body and CPU seconds."""
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/invocations",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "CONTENT_LENGTH": str(len(body)),
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
        environ[key] = value.encode().decode("latin-1")
    sent = []
    begun = time.process_time()
    content = b"".join(app(environ, lambda status, head, info=None: sent.append((status, head))))
    status, head = sent[-1]
    kind = {name.lower(): value for name, value in head}.get("content-type", "")
    return int(status.split()[0]), kind, content, time.process_time() - begun


def main() -> None:
    """Answer until standard input ends."""
    sys.path.insert(0, f"{sys.argv[1]}/code")
    module = importlib.import_module("inference")
    apps = [application(module, folder) for folder in sys.argv[2:]]
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            found = answer(apps[asked["model"]], base64.b64decode(asked["body"]), asked["headers"])
        except Exception:
            found = 599, "", traceback.format_exc().encode(), 0.0
        status, kind, content, seconds = found
        text = base64.b64encode(content).decode()
        answers.write(json.dumps([status, kind, text, seconds]) + "\n")
        answers.flush()


main()
