"""SageMaker's managed containers without Docker: their user, folders, packages and entry points.

A folder stands for /opt/ml. What SageMaker puts there is read-only. Processes run in an environment
of the image; they belong to nobody if the tests run as root, and have no network. Knows nothing of
the sandbox but its images and its network guard.
"""

from __future__ import annotations

import functools
import gzip
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import sm_mlops
from sandbox_cases import IMAGE
from sm_mlops.bundle import Bundle
from sm_mlops.sandbox import images
from sm_mlops.training.definition import Compiled
from wheels import pack_installed

TOOL = Path(sm_mlops.__file__).resolve().parent
NOBODY = 65534
CHANNELS = ("train", "validation", "preprocessor")
NO_INDEX = "http://127.0.0.1:9/simple"
"""An address that refuses connections."""
SKLEARN = IMAGE.replace("xgboost:3.2-0", "scikit-learn:1.9-0-cpu-py3")
CURED = {"PIP_NO_BUILD_ISOLATION": "0"}
GUNICORN = """#!/bin/sh
# On this machine only, instead of on 0.0.0.0 as `serve` wants it.
exec "${0%/*}/python" -c 'import sys; from gunicorn.app.wsgiapp import run
sys.argv[1:] = [word.replace("0.0.0.0", "127.0.0.1") for word in sys.argv[1:]]; run()' "$@"
"""


@dataclass(frozen=True)
class Container:
    """A container. `base` stands for /opt/ml; pip finds packages at the address `index` only."""

    folder: Path
    index: str = NO_INDEX
    image: str = IMAGE

    @property
    def training(self) -> tuple[list[str], str]:
        """Return the sandbox's command that trains, and the module that the toolkit calls."""
        return images.training(images.find(self.image))

    @property
    def base(self) -> Path:
        return self.folder / "ml"

    def bring(self, path: str, files: Mapping[str, bytes | Path]) -> Path:
        """Put files into a folder below /opt/ml as SageMaker does: read-only."""
        target = self.base / path
        for name, content in files.items():
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        for entry in (target, *target.rglob("*")):
            entry.chmod(0o555 if entry.is_dir() else 0o444)
        return target

    def allow(self, *paths: str) -> None:
        """Make folders below /opt/ml into which the process may write."""
        for path in paths:
            (self.base / path).mkdir(parents=True, exist_ok=True)
            if prefix():
                os.chown(self.base / path, NOBODY, NOBODY)

    def start(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a process in this container, in its own process group, with one output stream."""
        return subprocess.Popen(
            [*prefix(), "/usr/bin/env", *map(str, command)],
            cwd="/",
            env={
                "PATH": f"{self.folder}/environment/bin:/usr/bin:/bin",
                "HOME": "/nonexistent",
                "TMPDIR": str(self.folder / "tmp"),
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(TOOL / "sandbox" / "guard"),
                "PYTHONUNBUFFERED": "1",
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_INDEX_URL": self.index,
                "PIP_RETRIES": "0",
                "AWS_REGION": "eu-west-1",
                "SAGEMAKER_BASE_DIR": str(self.base),
                "SAGEMAKER_TRAINING_MODULE": self.training[1],
                "SAGEMAKER_SERVING_MODULE": images.SERVING,
                **(environment or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    # Processing: the image's python3 runs the script.

    def process(self, code: Bundle, arguments: Sequence[str | Path]) -> str:
        """Run a step's script, which must succeed, and return what it printed."""
        folder = self.bring("processing/input/code", dict(code.files))
        self.allow("processing/output", "output")
        files = [folder / name for name in (code.installer, code.script) if name]
        return succeeded(self.start(["python3", *files, *arguments]))

    # Training: the image's `train`.

    def train(
        self,
        code: Bundle,
        channels: Mapping[str, Mapping[str, bytes | Path]],
        hyperparameters: Mapping[str, str],
        environment: Mapping[str, str] | None = None,
        hosts: Sequence[str] = ("localhost",),
        host: str = "localhost",
    ) -> subprocess.Popen[str]:
        """Start training on `host` with the job's environment; without one, as the sandbox does,
        which leaves out pip. The checkpoint folder keeps its content."""
        self.bring("input/data/code", {"source.tar.gz": code.tar_gz()})
        for name, files in channels.items():
            self.bring(f"input/data/{name}", files)
        self.allow(".", "model", "output", "output/data", "checkpoints")
        given = {
            "sagemaker_program": code.script,
            "sagemaker_submit_directory": str(self.base / "input/data/code/source.tar.gz"),
            **hyperparameters,
        }
        resources = {"current_host": host, "hosts": list(hosts), "network_interface_name": "lo"}
        config: dict[str, Any] = {
            "hyperparameters": given,
            "inputdataconfig": {name: {"TrainingInputMode": "File"} for name in channels},
            "resourceconfig": resources,
        }
        files = {f"{name}.json": json.dumps(content).encode() for name, content in config.items()}
        self.bring("input/config", files)
        if environment is None:
            return self.start(self.training[0], CURED)
        return self.start(["python", "-m", "sagemaker_containers.cli.train"], environment)

    # Hosting: the image's `serve`, without nginx.

    @contextmanager
    def serve(self, model: Path, environment: Mapping[str, str]) -> Iterator[Served]:
        """Start serving a model folder with the version's environment, and yield what serves."""
        self.bring("model", {name: model / name for name in files_below(model)})
        for entry in (self.base / "model").rglob("*"):
            # SageMaker mounts the folder read-only; its files and folders belong to another user.
            entry.chmod(0o755 if entry.is_dir() else 0o644)
        self.allow(".")
        given = {
            name: text.replace("/opt/ml", str(self.base)) for name, text in environment.items()
        }
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        gunicorn = self.folder / "environment" / "bin" / "gunicorn"
        gunicorn.write_text(GUNICORN)
        gunicorn.chmod(0o755)
        process = self.start(
            ["python", "-m", "sagemaker_containers.cli.serve"],
            {**given, "SAGEMAKER_USE_NGINX": "false", "SAGEMAKER_BIND_TO_PORT": str(port)},
        )
        try:
            yield Served(process, port)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@dataclass(frozen=True)
class Served:
    """A container that serves."""

    process: subprocess.Popen[str]
    port: int

    def ask(self, body: str | None = None, kind: str = "") -> tuple[int, str, str]:
        """Return status, content type and body of the answer to a request, or to a ping."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Content-Type": kind, "Accept": "application/json"} if kind else {}
        path = ("GET", "/ping") if body is None else ("POST", "/invocations")
        try:
            connection.request(*path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
        finally:
            connection.close()

    def wait(self) -> int:
        """Return the status of the first answered ping, 0 if the container ends before."""
        while self.process.poll() is None:
            try:
                return self.ask()[0]
            except ConnectionRefusedError:
                time.sleep(0.1)
        return 0


@contextmanager
def container(index: str = NO_INDEX, image: str = IMAGE) -> Iterator[Container]:
    """Make a fresh one, in a folder that everybody may enter (pytest's are for the user alone)."""
    folder = Path(tempfile.mkdtemp(prefix="container-")).resolve()
    folder.chmod(0o755)
    for name in ("ml", "tmp"):
        (folder / name).mkdir()
    images.overlay(images.find(image), folder / "environment")
    for entry in (folder / "tmp", *(folder / "environment").rglob("*")):
        if prefix() and not entry.is_symlink():
            os.chown(entry, NOBODY, NOBODY)
    try:
        yield Container(folder, index, image)
    finally:
        for entry in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            entry.chmod(0o755)
        shutil.rmtree(folder)


def require_sklearn() -> None:
    """Make SageMaker's scikit-learn image, as `make test` does before."""
    if images.interpreter() is None:
        pytest.skip("Python 3.12 is not installed: CI has it")
    images.make(images.HERE / "sklearn-1.9-0.lock")


# What the report draws with, which the scikit-learn image lacks.
DRAWING = (
    *("matplotlib", "contourpy", "cycler", "fonttools", "kiwisolver", "packaging", "pillow"),
    "pyparsing",
)


def sklearn_links(folder: Path, *more: str) -> dict[str, str]:
    """Make the scikit-learn image, and return variables with which pip finds in `folder` what it
    lacks: for drawing, and `more` packages that these tests run with."""
    require_sklearn()
    xgboost, sklearn = (
        images.site_packages(images.FOLDER / name) for name in ("xgboost-3.2-0", "sklearn-1.9-0")
    )
    pack_installed(xgboost, DRAWING, folder)
    pack_installed(sklearn, ("python_dateutil", "six", "numpy", "scipy"), folder)
    pack_installed(Path(sysconfig.get_path("platlib")), more, folder)
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}


@contextmanager
def package_index() -> Iterator[str]:
    """Yield the address of an index on this machine that has setuptools, as in the image."""
    folder = Path(tempfile.mkdtemp(prefix="index-"))
    pack_installed(images.site_packages(images.find(IMAGE)), ["setuptools"], folder)
    [wheel] = folder.iterdir()
    name, packed = wheel.name, wheel.read_bytes()
    shutil.rmtree(folder)

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.endswith(".whl")
            body = packed if found else f'<a href="/{name}">{name}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/zip" if found else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


def succeeded(process: subprocess.Popen[str]) -> str:
    """Return what a process printed until its end, which must be a good one."""
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


def files_below(folder: Path) -> list[str]:
    """Return the names of the files below a folder, except compiled ones."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    )


@functools.cache
def prefix() -> tuple[str, ...]:
    """Return the words before a command that run it as nobody; none if the tests are not root's.

    If root's interpreter is in a folder of root's own, nobody may read everything, but may not
    write more for that.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return ()
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    for words in (user, (*user, *reading)):
        # One that it starts itself: setpriv still opens the first one as root.
        script = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', '']))"
        command = [*words, str(images.find(IMAGE) / "bin" / "python"), "-c", script]
        if subprocess.run(command, capture_output=True, cwd="/").returncode == 0:
            return words
    return ()


def bundles(compiled: Compiled) -> dict[str, Bundle]:
    """Return what a compiled pipeline has uploaded for each script that its jobs run."""
    found = {}
    for step in json.loads(compiled.definition)["Steps"]:
        arguments = step["Arguments"]
        if step["Type"] == "Processing":
            script = Path(arguments["AppSpecification"]["ContainerEntrypoint"][-1]).name
            [code] = [i for i in arguments["ProcessingInputs"] if i["InputName"] == "code"]
            prefix = code["S3Input"]["S3Uri"].split("/", 3)[-1] + "/"
            files = {k.removeprefix(prefix): v for k, v in compiled.objects.items()}
            files = {k: v for k, v in files.items() if prefix + k in compiled.objects}
            found[script] = Bundle(script, tuple(sorted(files.items())))
        elif step["Type"] == "Training":
            script = arguments["HyperParameters"]["sagemaker_program"]
            [code] = [c for c in arguments["InputDataConfig"] if c["ChannelName"] == "code"]
            key = code["DataSource"]["S3DataSource"]["S3Uri"].split("/", 3)[-1]
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(compiled.objects[key]))) as tar:
                files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
            found[script] = Bundle(script, tuple(sorted(files.items())))
    return found
