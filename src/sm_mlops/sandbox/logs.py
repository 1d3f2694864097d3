"""Makes the logs of jobs and endpoints readable through CloudWatch Logs, in the groups and streams
AWS uses."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from moto.logs.models import LogStream, logs_backends

from sm_mlops.sandbox import policies, replies
from sm_mlops.sandbox.endpoints import SERVING_LOG
from sm_mlops.sandbox.jobs import LOG_GROUPS, Jobs
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import Caller, partition

LONGEST_LINE = 256 * 1024


class Logs:
    """Copies new lines of the log files into moto when a client requests logs.

    The files are authoritative; moto's copies of these groups are not saved.
    """

    def __init__(self, store: Store, jobs: Jobs, serving: Path) -> None:
        self.store, self.jobs, self.serving = store, jobs, serving
        self._read: dict[str, int] = {}
        self._finished: set[str] = set()
        self._lock = threading.Lock()

    def update(self) -> None:
        with self._lock:
            for kind, group in LOG_GROUPS.items():
                for arn, record in list(self.store.all(kind).items()):
                    if arn not in self._finished:
                        self._copy(group, arn, record[f"{kind}Name"], record)
            for instance, record in list(self.store.all(SERVING_LOG).items()):
                self._copy_serving(instance, record)

    def name_streams(self, environ: dict[str, Any], caller: Caller) -> None:
        """Replace FilterLogEvents' prefix, which moto ignores, with the streams' names."""
        if not environ.get("HTTP_X_AMZ_TARGET", "").endswith(".FilterLogEvents"):
            return
        body = replies.read(environ)
        request = json.loads(body)
        prefix = request.pop("logStreamNamePrefix", None)
        group = logs_backends[caller.account][caller.region].groups.get(request["logGroupName"])
        if prefix and group:
            names = [name for name in group.streams if name.startswith(prefix)]
            # No names would mean every stream; no stream has the prefix as its name.
            request["logStreamNames"] = names or [prefix]
            body = json.dumps(request).encode()
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))

    def _copy(self, group: str, arn: str, name: str, record: Record) -> None:
        ended = arn not in self.jobs.running
        moment = record["LastModifiedTime"] if ended else time.time()
        _, _, _, region, account, _ = arn.split(":", 5)
        stream = f"{name}/algo-1-{int(record['CreationTime'])}"
        lines = []
        if _may_log(record["RoleArn"], (account, region, group, stream)):
            lines = self._new_lines(arn, self.jobs.log_path(name), ended)
        if lines:
            _put(account, region, group, stream, lines, moment)
        if ended:
            self._finished.add(arn)

    def _copy_serving(self, instance: str, record: Record) -> None:
        where = (record["Account"], record["Region"], record["Group"], record["Stream"])
        if "Role" in record and not _may_log(record["Role"], where):
            return
        # A transform job's is beside the folder of the endpoints, which may not exist.
        path = Path(os.path.normpath(self.serving / record["File"]))
        lines = self._new_lines(instance, path, ended=False)
        if lines:
            _put(*where, lines, path.stat().st_mtime)

    def _new_lines(self, key: str, path: Path, ended: bool) -> list[str]:
        if not path.is_file():
            return []
        if path.stat().st_size < self._read.get(key, 0):  # It was truncated.
            self._read[key] = 0
        with path.open("rb") as file:
            file.seek(self._read.get(key, 0))
            content = file.read()
        if not ended:  # The last line may be incomplete.
            content = content[: content.rfind(b"\n") + 1]
        self._read[key] = self._read.get(key, 0) + len(content)
        return content.decode("utf-8", "replace").splitlines()


def _may_log(role: str, where: tuple[str, str, str, str]) -> bool:
    """Tell whether a role may write a log; without the right a job or endpoint has none."""
    account, region, group, stream = where
    place = f"arn:{partition(region)}:logs:{region}:{account}:log-group:{group}"
    resource = f"{place}:log-stream:{stream}"
    return all(
        policies.role_may(role, f"logs:{action}", resource, region)
        for action in ("CreateLogStream", "PutLogEvents")
    )


def _put(
    account: str, region: str, group: str, stream: str, lines: list[str], moment: float
) -> None:
    backend: Any = logs_backends[account][region]
    backend.ensure_log_group(group)
    backend.ensure_log_stream(group, stream)
    found: LogStream = backend.groups[group].streams[stream]
    found.put_log_events(
        [{"timestamp": int(moment * 1000), "message": line[:LONGEST_LINE]} for line in lines]
    )
