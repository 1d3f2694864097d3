"""The monitoring job: compare what a stage answered in a window with the baseline of the version
that answered.

A window ends at the full hour of --until. Windows before it, which have a result, are checked again
if their captured files or labels have changed since: late files belong to their hour. The same
files give the same result and no new metrics.

Input:  monitoring and gate.metric of mlops.yaml beside the script; in --bucket, below --prefix:
        capture/<stage>/, async/<stage>/ and labels/<stage>/; the baselines of the versions in the
        model package group --group.
Output: monitor/<stage>/<end of the window>/result.json and report.html, metrics in CloudWatch;
        in the folder --output: verdict.json, which a pipeline's condition reads, and report.html.

Violations are no error: the exit code is 0. Must not know how values are compared.
"""

import argparse
import gc
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sm_mlops.tabular import (
    baseline,
    captured,
    drift,
    labels,
    mlops_yaml,
    monitor_report,
    monitor_result,
)
from sm_mlops.tabular.baseline import Baseline
from sm_mlops.tabular.captured import Body
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.labels import Labels
from sm_mlops.tabular.tally import Tally
from sm_mlops.tabular.windows import File, Store, Window, read

FORMAT = 1
EARLIER = 7
NAMESPACE = "sm-mlops"
LINES, BYTES = 5000, 8 << 20  # captured requests that are parsed at once
OLDEST_LABELS = timedelta(days=30)  # before the earliest window
OLDEST_METRIC = timedelta(days=13)  # CloudWatch takes two weeks


@dataclass(frozen=True)
class Settings:
    """What mlops.yaml says about monitoring."""

    window_hours: int = 24
    min_rows: int = 500
    limits: Mapping[str, Any] = field(default_factory=lambda: drift.LIMITS)
    metric: str = "auc"


@dataclass(frozen=True)
class Clients:
    """The job's clients of AWS."""

    s3: Any
    sagemaker: Any
    cloudwatch: Any


def main(folder: Path) -> None:
    """Run the job, whose script is in `folder`, from the command line."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bucket", required=True, help="bucket of what the stage keeps")
    parser.add_argument("--prefix", required=True, help="name of the project")
    parser.add_argument("--stage", required=True)
    parser.add_argument("--until", default="now", help="ISO time at which the window ends, or now")
    parser.add_argument("--group", required=True, help="model package group: name or ARN")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--region", required=True)
    given = parser.parse_args()
    session = boto3.Session(region_name=given.region)
    clients = Clients(*(session.client(name) for name in ("s3", "sagemaker", "cloudwatch")))
    settings = read_settings(folder)
    store = Store(clients.s3, given.bucket, given.prefix, given.stage)
    window = Window.ending(moment(given.until), settings.window_hours)
    try:
        job = Job(clients, store, given.group, settings, moment("now"))
        verdict = job.run(window, given.output)
    except (BotoCoreError, ClientError) as error:
        raise DataError(f"monitoring of {given.stage}: {error}") from error
    print(verdict["message"])


def moment(text: str) -> datetime:
    """Return a time. Raise DataError if the text is none."""
    if text == "now":
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(
            f"--until is {text!r}: give a time such as 2026-11-28T06:00:00Z, or now"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def read_settings(folder: Path) -> Settings:
    """Return the settings in mlops.yaml of `folder` or the one above, where there is one."""
    _, content = mlops_yaml.beside(folder)
    own, gate = content.get("monitoring") or {}, content.get("gate") or {}
    return Settings(
        int(own.get("window_hours") or Settings.window_hours),
        int(own.get("min_rows") or Settings.min_rows),
        own.get("limits", drift.LIMITS),
        gate.get("metric") or Settings.metric,
    )


class Job:
    """One run of the job."""

    def __init__(
        self, clients: Clients, store: Store, group: str, settings: Settings, now: datetime
    ) -> None:
        self.clients, self.store, self.group = clients, store, group
        self.settings, self.now = settings, now
        self.baselines: dict[str, Baseline | None] = {}
        self.unread: list[str] = []
        """Files of labels that cannot be read, and why."""

    def run(self, newest: Window, output: Path) -> dict[str, Any]:
        """Check the windows, and return the verdict."""
        known = self._known(newest)
        late = self._labels(list(known))
        self.store.look(next(iter(known)), newest)
        made, added = dict[Window, dict[str, Any]](), list[dict[str, Any]]()
        for (window, old), held in zip(known.items(), late, strict=True):
            digests = self._digests(window, held)
            # New settings are for the newest window: of those before it, only new files matter.
            same = ["digest", *["settings_digest"] * (window == newest)]
            if old is not None and all(old[name] == digests[name] for name in same):
                continue
            result = made[window] = self._check(window, held) | digests
            if window != newest and old is not None:
                added += monitor_result.added_to(result, old, window)
        result = made.get(newest) or known[newest] or {}
        # An alarm's message quotes the newest result, which has to be there before the metrics.
        # Digests come last: if the job dies between, the next run puts the metrics again.
        if newest in made:
            self._keep(newest, result | {"digest": ""})
        for window in made:
            if window != newest:
                self._measure(made[window], window.end)
        if made:
            at = newest.end if self.store.later(newest, self.now) else None
            self._measure(result, at, len(added))
        for window in made:
            page = monitor_report.render(made[window], self.store.earlier(window))
            self.store.keep(window, "report.html", page, "text/html; charset=utf-8")
            self._keep(window, made[window])
        if newest not in made:
            page = monitor_report.render(result, self.store.earlier(newest))
        verdict = monitor_result.verdict_of(result, added)
        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(verdict, ensure_ascii=False)
        (output / "verdict.json").write_text(text + "\n", encoding="utf-8")
        (output / "report.html").write_text(page, encoding="utf-8")
        return verdict

    def _keep(self, window: Window, result: Mapping[str, Any]) -> None:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False)
        self.store.keep(window, "result.json", text, "application/json")

    def _known(self, newest: Window) -> dict[Window, dict[str, Any] | None]:
        """Return the results of the newest window and of those before it that were checked."""
        found = dict[Window, dict[str, Any] | None]()
        for steps in range(EARLIER, -1, -1):
            window = newest.before(steps)
            old = self.store.result(window)
            same = old is not None and old["window"]["start"] == monitor_result.iso(window.start)
            if same or window == newest:
                found[window] = old if same else None
        return found

    def _labels(self, windows: list[Window]) -> list[Labels]:
        found = [Labels(window) for window in windows]
        files = self.store.labels(windows[0].start - OLDEST_LABELS)
        files = [file for file in files if file.key.lower().endswith(labels.ENDINGS)]
        for file, _, content in self.store.opened(files):
            try:
                labels.add(found, file.key, content)
            except DataError as error:
                self.unread.append(str(error))
        return found

    def _digests(self, window: Window, held: Labels) -> dict[str, str]:
        """Return what changes with the files and labels of a window, and with the settings."""
        files = hashlib.sha256(held.digest.encode())
        for listed in (self.store.captured(window), self.store.asynchronous(window)):
            for file in listed:
                files.update(f"\0{file.key}\0{file.mark}".encode())
        settings = hashlib.sha256(repr((FORMAT, self.settings, self.unread)).encode())
        return {"digest": files.hexdigest(), "settings_digest": settings.hexdigest()}

    def _check(self, window: Window, held: Labels) -> dict[str, Any]:
        """Return the result of a window."""
        tallies: dict[str, Tally] = {}

        def of(version: str) -> Tally:
            if version not in tallies:
                tallies[version] = Tally(version, self._baseline(version), held)
            return tallies[version]

        gc.disable()  # parsed JSON has no cycles, and looking for them takes a third of the time
        try:
            for version, lines in batches(self.store, window):
                tally = of(version)
                if tally.baseline is None:
                    tally.requests += len(lines)
                else:
                    tally.add(captured.read(lines, tally.baseline.schema))
            self._asynchronous(window, of)
        finally:
            gc.enable()
        ordered = sorted(tallies.values(), key=lambda tally: int(tally.version))
        about = {"format": FORMAT, "project": self.store.project, "stage": self.store.stage,
                 "unread": self.unread}  # fmt: skip
        given = self.settings
        return monitor_result.of(about, window, ordered, given.min_rows, given.limits, given.metric)

    def _asynchronous(self, window: Window, of: Any) -> None:
        """Give what an asynchronous endpoint got and answered to the version that answered most."""
        files = list(self.store.asynchronous(window))
        outputs = [file for file in files if file.version]
        if not outputs:
            return
        counts = {file.version: 0 for file in outputs}
        for version in [file.version for file in outputs]:
            counts[version] += 1
            of(version)
        most = max(counts, key=lambda version: (counts[version], int(version)))
        self._take(of(most), [file for file in files if not file.version], outputs=False)
        for version in counts:
            own = [file for file in outputs if file.version == version]
            self._take(of(version), own, outputs=True)

    def _take(self, tally: Tally, files: list[File], *, outputs: bool) -> None:
        if tally.baseline is None:
            tally.requests += 0 if outputs else len(files)
            return
        bodies, size = list[Body](), 0
        for place, (_, kind, content) in enumerate(self.store.opened(files), 1):
            body = captured.body_of(kind, content.read())
            if body is not None:
                bodies.append(body)
                size += len(body.text)
            if size >= BYTES or place == len(files):
                tally.add(captured.unpaired(bodies, tally.baseline.schema, outputs=outputs))
                bodies, size = [], 0

    def _baseline(self, version: str) -> Baseline | None:
        """Return the baseline of a version; None if it has none, or is deleted."""
        if version not in self.baselines:
            self.baselines[version] = self._load(version)
        return self.baselines[version]

    def _load(self, version: str) -> Baseline | None:
        client = self.clients.sagemaker
        if not self.group.startswith("arn:"):
            described = client.describe_model_package_group(ModelPackageGroupName=self.group)
            self.group = described["ModelPackageGroupArn"]
        arn = self.group.replace(":model-package-group/", ":model-package/") + f"/{version}"
        try:
            package = client.describe_model_package(ModelPackageName=arn)
        except client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
                raise
            return None
        checks = package.get("DriftCheckBaselines", {}).get("ModelDataQuality", {})
        uri = checks.get("Statistics", {}).get("S3Uri", "")
        if not uri:
            return None
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        content = read(self.clients.s3, bucket, f"{key.rpartition('/')[0]}/{baseline.FILE}")
        return None if content is None else baseline.parsed(content)

    def _measure(self, result: dict[str, Any], at: datetime | None, added: int = 0) -> None:
        """Put the metrics of a window: those of a stage's newest at the time of arrival, because an
        alarm does not look back; of all others at the end of the window."""
        if at is not None and self.now - at > OLDEST_METRIC:
            return
        values = monitor_result.metrics_of(result)
        if at is None and added:
            values["Violations"] = len(result["violations"]) + added
        where = {"Project": self.store.project, "Stage": self.store.stage}
        self.clients.cloudwatch.put_metric_data(
            Namespace=NAMESPACE,
            MetricData=[
                {
                    "MetricName": name,
                    "Dimensions": [{"Name": n, "Value": v} for n, v in where.items()],
                    "Value": value,
                    "Unit": "Count" if name in ("Requests", "Rows", "Violations") else "None",
                    **({"Timestamp": at} if at else {}),
                }
                for name, value in values.items()
            ],
        )


def batches(store: Store, window: Window) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the captured requests of a window by version, a bounded number at a time."""
    version, lines, size = "", list[bytes](), 0
    for file, _, content in store.opened(store.captured(window)):
        if lines and file.version != version:
            yield version, lines
            lines, size = [], 0
        version = file.version
        for line in content:
            if not line.isspace():
                lines.append(line)
                size += len(line)
            if len(lines) >= LINES or size >= BYTES:
                yield version, lines
                lines, size = [], 0
    if lines:
        yield version, lines
