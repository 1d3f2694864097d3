"""The folder of one job, laid out like SageMaker's /opt/ml, with its inputs and outputs.

Layout and file names are from AWS's pages "How SageMaker Processing runs your processing container"
and "How SageMaker provides training information".
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
import subprocess
import tarfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from sm_mlops.sandbox.access import RoleObjects
from sm_mlops.sandbox.objects import NoSuchObject
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import Caller, pick

LONGEST_REASON = 1024
_OPT_ML = re.compile(r"(^|=)/opt/ml(?=/|$)")


class JobFailed(Exception):
    """Why a job failed, in the words of FailureReason."""


@dataclass
class Running:
    """A running job: its folder and its process."""

    record: Record
    caller: Caller
    folder: Path
    objects: RoleObjects
    done: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    process: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> Path:
        """Return the folder that stands for /opt/ml."""
        return self.folder / "ml"

    def mapped(self, text: str) -> str:
        """Return a text in which /opt/ml means the job's folder, also inside a JSON string."""
        if text.startswith('"/opt/ml') and text.endswith('"'):
            return json.dumps(self.mapped(json.loads(text)))
        return _OPT_ML.sub(lambda match: f"{match[1]}{self.base}", text)

    def inside(self, local: str) -> Path:
        """Return where a path of the container is. Raises JobFailed outside of /opt/ml."""
        if not local.startswith("/opt/ml/"):
            raise JobFailed(f"ClientError: LocalPath '{local}' is not below /opt/ml")
        path = self.base / local.removeprefix("/opt/ml/")
        if not path.resolve().is_relative_to(self.base.resolve()):
            raise JobFailed(f"ClientError: LocalPath '{local}' leads out of /opt/ml")
        return path

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of the configuration that the container reads."""
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    def text(self, *names: str) -> str | None:
        """Return the text of the first of these files that is not empty."""
        for name in names:
            path = self.base / name
            if path.is_file():
                with path.open("rb") as file:
                    found = file.read(LONGEST_REASON).decode("utf-8", "replace").strip()
                if found:
                    return found
        return None

    def download(self, uri: str, target: Path, may_be_empty: bool = False) -> None:
        """Copy objects into a folder as the input mode File does. Raises JobFailed."""
        target.mkdir(parents=True, exist_ok=True)
        bucket, prefix = split_uri(uri)
        try:
            keys = [k for k in self.objects.find(bucket, prefix) if not k.endswith("/")]
        except NoSuchObject as error:
            raise JobFailed(f"ClientError: {error}") from error
        if not keys and not may_be_empty:
            raise JobFailed(
                f"ClientError: No S3 objects found under S3 URL '{uri}' given in input data "
                "source. Please ensure that the bucket exists in the selected region, that objects "
                "exist under that S3 prefix"
            )
        for key in keys:
            path = target / relative_key(prefix, key)
            if not path.resolve().is_relative_to(target.resolve()):
                raise JobFailed(f"ClientError: key {key!r} would be written outside of its folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            # A copy, not a link: a job may change its input without changing the object.
            shutil.copyfile(self.objects.path(bucket, key), path)

    def upload(self, folder: Path, uri: str) -> None:
        """Store every file below a folder under an address. Raises JobFailed."""
        bucket, prefix = split_uri(uri)
        prefix = prefix.rstrip("/")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                key = f"{prefix}/{name}" if prefix else name
                try:
                    self.objects.put(bucket, key, path, move=not path.is_symlink())
                except NoSuchObject as error:
                    raise JobFailed(f"ClientError: {error}") from error

    def upload_packed(self, folder: str, name: str) -> None:
        """Store a folder as an archive next to the model of a Training job, unless it is empty."""
        source = self.base / folder
        if not source.is_dir() or not any(source.iterdir()):
            return
        archive = self.folder / name
        pack(source, archive)
        uri = self.record["ModelArtifacts"]["S3ModelArtifacts"].rpartition("/")[0]
        bucket, key = split_uri(f"{uri}/{name}")
        self.objects.put(bucket, key, archive, move=True)

    def algorithm_error(self, text: str | None, code: int) -> str:
        """Return the FailureReason of a process with this exit code and message."""
        if not text and code > 128:
            text = f"the process was ended by {_signal_name(code - 128)}"
        shown = text or "See job logs for more information"
        ending = f", exit code: {code}"
        room = LONGEST_REASON - len("AlgorithmError: ") - len(ending)
        return f"AlgorithmError: {shown[:room]}{ending}"


def resources(config: dict[str, Any]) -> dict[str, Any]:
    """Return the content of resourceconfig.json."""
    # One host, and one whose name resolves: the toolkit waits minutes for "algo-1".
    group = {
        "instance_group_name": "homogeneousCluster",
        "instance_type": config.get("InstanceType", "local"),
        "hosts": ["localhost"],
    }
    return {
        "current_host": "localhost",
        "current_instance_type": group["instance_type"],
        "current_group_name": "homogeneousCluster",
        "hosts": ["localhost"],
        "instance_groups": [group],
        "network_interface_name": "lo",
    }


def channel_config(channel: Record) -> dict[str, Any]:
    """Return the entry of a channel in inputdataconfig.json."""
    source = channel["DataSource"]["S3DataSource"]
    return {
        "TrainingInputMode": "File",
        "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
        "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        **pick(channel, "ContentType"),
    }


def pack(folder: Path, archive: Path) -> None:
    """Write a .tar.gz of a folder's content that depends on nothing but names and content."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
        return info

    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name, filter=plain)


def split_uri(uri: str) -> tuple[str, str]:
    """Return (bucket, key) of an s3:// address. Raises JobFailed for anything else."""
    parts = urlparse(uri, allow_fragments=False)
    if parts.scheme != "s3" or not parts.netloc:
        raise JobFailed(f"ClientError: '{uri}' is not an S3 address")
    key = parts.path.removeprefix("/")
    return parts.netloc, f"{key}?{parts.query}" if parts.query else key


def relative_key(prefix: str, key: str) -> str:
    """Return the name that an object found under a prefix gets in its folder."""
    if key == prefix:
        return key.rpartition("/")[2]
    if prefix.endswith("/") or not prefix:
        return key[len(prefix) :]
    if key.startswith(f"{prefix}/"):
        return key[len(prefix) + 1 :]
    return key[prefix.rfind("/") + 1 :]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def keep_log_only(folder: Path) -> None:
    """Delete everything in the folder of an ended job but its log."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name != "log.txt":
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()
