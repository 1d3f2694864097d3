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
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sm_mlops.tabular import baseline, captured, drift, labels, mlops_yaml, monitor_report
from sm_mlops.tabular.baseline import Baseline
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.labels import Labels
from sm_mlops.tabular.tally import Tally
from sm_mlops.tabular.text import visible
from sm_mlops.tabular.windows import File, Store, Window

FORMAT = 1
EARLIER = 7
NAMESPACE = "sm-mlops"
LINES, BYTES = 5000, 8 << 20  # captured requests that are parsed at once
LONGEST = 1000  # characters of a message
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
        verdict = Job(clients, store, given.group, settings).run(window, given.output)
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

    def __init__(self, clients: Clients, store: Store, group: str, settings: Settings) -> None:
        self.clients, self.store, self.group = clients, store, group
        self.settings = settings
        self.baselines: dict[str, Baseline | None] = {}

    def run(self, newest: Window, output: Path) -> dict[str, Any]:
        """Check the windows, and return the verdict."""
        before = [newest.before(steps) for steps in range(EARLIER, 0, -1)]
        known = {window: self.store.result(window) for window in (*before, newest)}
        windows = [window for window in known if known[window] or window == newest]
        late = self._labels(windows)
        made, added = dict[Window, dict[str, Any]](), list[dict[str, Any]]()
        for window, held in zip(windows, late, strict=True):
            old = known[window]
            digest = self._digest(window, held)
            if old is not None and old["digest"] == digest:
                continue
            result = made[window] = self._check(window, held, digest)
            if window != newest and old is not None:
                seen = {_identity(each) for each in old["violations"]}
                own = [each for each in result["violations"] if _identity(each) not in seen]
                added += [each | {"window": window.name} for each in own]
        result = made.get(newest) or known[newest] or {}
        # Metrics first: a run that is repeated finds them missing, or puts them twice.
        for window in made:
            if window != newest:
                self._measure(made[window], window.end, newest.end)
        if made:
            self._measure(result, None, newest.end, len(added))
        page = ""
        for window in made:
            page = monitor_report.render(made[window], self.store.earlier(window))
            self.store.keep(window, "report.html", page, "text/html; charset=utf-8")
            text = json.dumps(made[window], ensure_ascii=False, allow_nan=False)
            self.store.keep(window, "result.json", text, "application/json")
        verdict = verdict_of(result, added)
        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(verdict, ensure_ascii=False)
        (output / "verdict.json").write_text(text + "\n", encoding="utf-8")
        if newest not in made:
            page = monitor_report.render(result, self.store.earlier(newest))
        (output / "report.html").write_text(page, encoding="utf-8")
        return verdict

    def _labels(self, windows: list[Window]) -> list[Labels]:
        found = [Labels(window) for window in windows]
        files = self.store.labels(windows[0].start - OLDEST_LABELS)
        files = [file for file in files if file.key.endswith(labels.ENDINGS)]
        for file, _, content in self.store.opened(files):
            labels.add(found, file.key, content)
        return found

    def _digest(self, window: Window, held: Labels) -> str:
        """Return what changes with the files, the labels and the settings of a window."""
        whole = hashlib.sha256(json.dumps([FORMAT, repr(self.settings), held.digest]).encode())
        for files in (self.store.captured(window), self.store.asynchronous(window)):
            for file in files:
                whole.update(f"\0{file.key}\0{file.mark}".encode())
        return whole.hexdigest()

    def _check(self, window: Window, held: Labels, digest: str) -> dict[str, Any]:
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
        return result_of(self.store, window, ordered, self.settings, digest)

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
        for group in _grouped([file for file in files if not file.version]):
            self._take(of(most), group, outputs=False)
        for version in counts:
            for group in _grouped([file for file in outputs if file.version == version]):
                self._take(of(version), group, outputs=True)

    def _take(self, tally: Tally, files: list[File], *, outputs: bool) -> None:
        if tally.baseline is None:
            tally.requests += 0 if outputs else len(files)
            return
        bodies = [body for _, kind, content in self.store.opened(files)
                  if (body := captured.body_of(kind, content.read()))]  # fmt: skip
        tally.add(captured.unpaired(bodies, tally.baseline.schema, outputs=outputs))

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
        s3 = self.clients.s3
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            key = f"{key.rpartition('/')[0]}/{baseline.FILE}"
            try:
                answer = s3.get_object(Bucket=bucket, Key=key)
            except s3.exceptions.NoSuchKey:
                return None
            (folder / baseline.FILE).write_bytes(answer["Body"].read())
            return baseline.load(folder)

    def _measure(
        self, result: dict[str, Any], at: datetime | None, now: datetime, added: int = 0
    ) -> None:
        """Put the metrics of a window: those of the newest at the time of arrival, because an alarm
        does not look back."""
        if at is not None and now - at > OLDEST_METRIC:
            return
        values = metrics_of(result)
        if at is None:
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


def _grouped(files: list[File]) -> Iterator[list[File]]:
    for start in range(0, len(files), 100):
        yield files[start : start + 100]


def _identity(violation: Mapping[str, Any]) -> tuple[Any, ...]:
    return violation["version"], violation["kind"], violation["column"]


# Results


def result_of(
    store: Store, window: Window, tallies: list[Tally], settings: Settings, digest: str
) -> dict[str, Any]:
    """Return the content of result.json."""
    judged = [t for t in tallies if t.baseline is not None and t.rows >= settings.min_rows]
    parts = [
        tally.judged(settings.limits if tally in judged else {}, settings.metric)
        for tally in tallies
    ]
    result: dict[str, Any] = {
        "format": FORMAT,
        "project": store.project,
        "stage": store.stage,
        "window": {"start": _iso(window.start), "end": _iso(window.end)},
        "requests": sum(tally.requests for tally in tallies),
        "refused": sum(tally.refused for tally in tallies),
        "rows": sum(tally.rows for tally in tallies),
        "versions": {tally.version: tally.rows for tally in tallies},
        "judged": [tally.version for tally in judged],
        "without_baseline": [tally.version for tally in tallies if tally.baseline is None],
        "violations": [each for part in parts for each in part["violations"]],
        "columns": _ranked(parts, "columns"),
        "predictions": _ranked(parts, "predictions"),
        "quality": [part["quality"] for part in parts if part["quality"]],
        "digest": digest,
    }
    result["status"] = _status(result, bool(judged))
    result["worst"] = worst_of(result)
    result["message"] = _message(result, window, settings)
    return result


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _ranked(parts: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return sorted((e for part in parts for e in part[name]), key=lambda each: -each["worst"])


def _status(result: Mapping[str, Any], judged: bool) -> str:
    if not result["requests"]:
        return "no requests"
    if result["violations"]:
        return "violation"
    if judged:
        return "ok"
    known = set(result["versions"]) - set(result["without_baseline"])
    return "too few rows" if known else "no baseline"


def worst_of(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the value that is largest beside its limit; None if nothing has a limit."""
    tests = [
        {"version": each["version"], "column": each["name"], **test}
        for each in (*result["columns"], *result["predictions"])
        for test in each["tests"]
        if test["limit"]
    ]
    tests += [
        {"version": each["version"], "column": None, "kind": "quality", "value": each["worse_by"],
         "limit": each["limit"], "text": each["text"]}
        for each in result["quality"]
        if each.get("limit")
    ]  # fmt: skip
    if not tests:
        return None
    found = max(tests, key=lambda test: test["value"] / test["limit"])
    return {name: found[name] for name in ("version", "column", "kind", "value", "limit", "text")}


def _message(result: Mapping[str, Any], window: Window, settings: Settings) -> str:
    hours = "1 hour" if window.hours == 1 else f"{window.hours} hours"
    rows, violations = result["rows"], result["violations"]
    start = f"{result['stage']}, {hours} to {window.name}: "
    without = result["without_baseline"]
    notes = f"; version {', '.join(without)} has no baseline and is not judged" if without else ""
    if violations:
        count = "1 violation" if len(violations) == 1 else f"{len(violations)} violations"
        return _cut(f"{start}{count} in {rows:,} rows{notes}: ", [v["text"] for v in violations])
    worst = result["worst"]
    closest = ""
    if worst:
        name = f"{worst['kind']} of {worst['column']}" if worst["column"] else worst["kind"]
        closest = f"; closest to its limit: {name}, {worst['text']}"
    text = {
        "no requests": "no requests were captured",
        "ok": f"nothing above its limit in {rows:,} rows{notes}{closest}",
        "too few rows": f"{rows:,} rows are too few to judge; monitoring.min_rows is "
        f"{settings.min_rows:,}{notes}",
        "no baseline": f"{result['requests']:,} requests were answered by version "
        f"{', '.join(without)}, which has no baseline to compare with; a version that is trained "
        "now has one",
    }[result["status"]]
    return visible(f"{start}{text}")[:LONGEST]


def _cut(start: str, texts: list[str]) -> str:
    """Return texts after a start, as many as a message may hold."""
    shown, text = 0, visible(start)
    for each in map(visible, texts):
        more = f"{'; ' if shown else ''}{each}"
        if len(text) + len(more) > LONGEST - 20:
            break
        text, shown = text + more, shown + 1
    return text if shown == len(texts) else f"{text}; {len(texts) - shown} more"[:LONGEST]


def verdict_of(result: Mapping[str, Any], added: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of verdict.json: the newest window, and what late files and labels have
    `added` to windows before it."""
    message = result["message"]
    if added:
        texts = [f"window to {each['window']}: {each['text']}" for each in added]
        late = _cut("late files or labels: ", texts)
        message = f"{late}; {message}" if not result["violations"] else f"{message}; {late}"
    return {
        "violations": len(result["violations"]) + len(added),
        "message": message[:LONGEST],
        "window": result["window"],
    }


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of CloudWatch's metrics by name."""
    found: dict[str, float] = {
        "Requests": result["requests"],
        "Rows": result["rows"],
        "Violations": len(result["violations"]),
    }
    for name, part in (("Drift", "columns"), ("PredictionDrift", "predictions")):
        ratios = [each["worst"] for each in result[part] if any(t["limit"] for t in each["tests"])]
        if ratios:
            found[name] = max(ratios)
    measured = [each["value"] for each in result["quality"] if each["value"] is not None]
    if measured:
        found["Quality"] = measured[-1]
    return found
