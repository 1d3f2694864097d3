"""SageMaker's managed containers without Docker: their toolkits, user, folders and packages.

A folder stands for /opt/ml. What SageMaker puts there is read-only. Processes belong to nobody if
the tests run as root; they find the packages of the image, nothing of the installed tool and no
network. Knows nothing of the sandbox but its network guard and its model server.
"""

from __future__ import annotations

import functools
import gzip
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sm_mlops
from image_packages import CONTAINER
from repos import TEMPLATE
from sm_mlops.bundle import Bundle
from sm_mlops.training.definition import Compiled

SUPPORT = Path(__file__).resolve().parent
TOOL = Path(sm_mlops.__file__).resolve().parent
NOBODY = 65534
CHANNELS = ("train", "validation", "preprocessor")
TOOLKITS = ("sagemaker-training", "sagemaker-containers")
"""The one of today's images; the one of the XGBoost image, 2.8.6.post2 (its requirements.txt)."""


@dataclass(frozen=True)
class Container:
    """A container. `base` stands for /opt/ml; `toolkit` is one of TOOLKITS."""

    folder: Path
    toolkit: str = TOOLKITS[0]

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
        self,
        command: Sequence[str | Path],
        path: Iterable[Path] = (),
        also: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a process in this container, in its own process group, with one output stream.

        It finds modules in `path`, and the packages `also` besides those of the image.
        """
        (self.folder / "tmp").mkdir(exist_ok=True)
        (self.folder / "tmp").chmod(0o777)
        return subprocess.Popen(
            [*prefix(), *map(str, command)],
            cwd="/",
            env={
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
                "HOME": "/nonexistent",
                "TMPDIR": str(self.folder / "tmp"),
                "LANG": "C.UTF-8",
                "PYTHONPATH": os.pathsep.join(map(str, (self._site(also), *path))),
                "PYTHONUNBUFFERED": "1",
                "AWS_REGION": "eu-west-1",
                "SAGEMAKER_BASE_DIR": str(self.base),
                **(environment or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _site(self, also: tuple[str, ...]) -> Path:
        site = self.folder / "site"
        if not site.exists():
            site.mkdir()
            shutil.copyfile(SUPPORT / "image_site.py", site / "sitecustomize.py")
            shutil.copyfile(
                TOOL / "sandbox" / "guard" / "sitecustomize.py", site / "network_guard.py"
            )
            (site / "tool.txt").write_text(str(TOOL.parent), encoding="utf-8")
            (site / "absent.txt").write_text("\n".join(sorted(absent(*also))), encoding="utf-8")
        return site

    # Processing: the image's python3 runs the script.

    def process(self, code: Bundle, arguments: Sequence[str | Path]) -> str:
        """Run a step's script, which must succeed, and return what it printed."""
        folder = self.bring("processing/input/code", dict(code.files))
        self.allow("processing/output", "output")
        return succeeded(self.start([sys.executable, folder / code.script, *arguments]))

    # Training: script mode of the toolkit.

    def train(
        self,
        code: Bundle,
        channels: Mapping[str, Mapping[str, bytes | Path]],
        hyperparameters: Mapping[str, str],
        hosts: Sequence[str] = ("localhost",),
        host: str = "localhost",
    ) -> subprocess.Popen[str]:
        """Start training on `host`. The checkpoint folder keeps its content."""
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
        if self.toolkit == TOOLKITS[0]:
            return self.start([sys.executable, Path(sys.executable).parent / "train"])
        return self._train_installed(code, channels, hyperparameters, hosts, host)

    def _train_installed(
        self,
        code: Bundle,
        channels: Iterable[str],
        hyperparameters: Mapping[str, str],
        hosts: Sequence[str],
        host: str,
    ) -> subprocess.Popen[str]:
        """Train as the older toolkit does: the bundle is installed by pip with the folders in it,
        and the script is run by its module's name."""
        packages = self.bring("../site-packages", {**dict(code.files), "setup.py": b""}).resolve()
        arguments = [w for name, value in hyperparameters.items() for w in (f"--{name}", value)]
        return self.start(
            [sys.executable, "-m", code.script.removesuffix(".py"), *arguments],
            path=[packages],
            environment={
                "SM_MODEL_DIR": str(self.base / "model"),
                "SM_HOSTS": json.dumps(list(hosts)),
                "SM_CURRENT_HOST": host,
                **{
                    f"SM_CHANNEL_{name.upper()}": str(self.base / "input/data" / name)
                    for name in channels
                },
            },
        )

    # Hosting.

    def serve(self, model: Path, questions: Sequence[Mapping[str, str]]) -> list[Any]:
        """Return what the packed model answers through the toolkit: [status, body] per question."""
        code = self.base / "model/code"
        self.bring("model", {name: model / name for name in files_below(model)})
        path: tuple[Path, ...] = ()
        if self.toolkit == TOOLKITS[1]:  # which installs the code here, too
            path = (self.bring("../site-packages", {n: code / n for n in files_below(code)}),)
        server = TOOL / "sandbox" / "model_server.py"
        script = f"""
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("model_server", {str(server)!r})
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)
model = server.Model({str(self.base / "model")!r})
for question in json.loads({json.dumps(json.dumps(questions))}):
    headers = {{"Content-Type": question["type"], "Accept": "application/json"}}
    status, _, body = model.answer(question["body"].encode(), headers)
    print("ANSWER", json.dumps([status, body.decode()]))
"""
        said = succeeded(
            self.start(
                [sys.executable, "-c", script],
                path=path or [code],
                also=("sagemaker-inference",),
                environment={
                    "SAGEMAKER_PROGRAM": "inference.py",
                    "SAGEMAKER_SUBMIT_DIRECTORY": str(code),
                },
            )
        )
        lines = [line for line in said.splitlines() if line.startswith("ANSWER ")]
        return [json.loads(line.removeprefix("ANSWER ")) for line in lines]


@contextmanager
def container(toolkit: str = TOOLKITS[0]) -> Iterator[Container]:
    """Make a fresh one, in a folder that everybody may enter (pytest's are for the user alone)."""
    folder = Path(tempfile.mkdtemp(prefix="container-")).resolve()
    folder.chmod(0o755)
    (folder / "ml").mkdir()
    try:
        yield Container(folder, toolkit)
    finally:
        for entry in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            entry.chmod(0o755)
        shutil.rmtree(folder)


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
        command = [*words, sys.executable, "-c", script]
        if subprocess.run(command, capture_output=True, cwd="/").returncode == 0:
            return words
    return ()


@functools.cache
def absent(*also: str) -> frozenset[str]:
    """Return the top-level modules of this environment that the image does not have: neither those
    of its packages (`CONTAINER` and `also`) nor those that they require."""
    image: set[str] = set()
    waiting = [*CONTAINER, *also]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in image:
            continue
        image.add(name)
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in required:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    elsewhere = {
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if not {canonicalize_name(package) for package in packages} & image
    }
    # Bundles carry parts of the tool; sitecustomize hides the installed one.
    return frozenset(
        elsewhere - {"sm_mlops", *(path.stem for path in (TEMPLATE / "model").glob("*.py"))}
    )


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
