"""Test an endpoint with the rows registered with its version, and with rows that it must refuse.

Of a stage that is batch only, look at the model: a job would take minutes and a machine.

Must not know the model.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from sm_mlops import display, objects, registry
from sm_mlops.aws import Aws
from sm_mlops.deployment import access, endpoints, predict
from sm_mlops.deployment.endpoints import Endpoint
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError, one_line

JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"
FILES = {CSV: "rows.csv", LINES: "rows.jsonl", JSON: "rows.json"}
EXPECTED = "expected.json"
# In the sample of a version whose model refuses requests with a status and a reason as JSON. The
# image of one without, of 0.1.0, answers text as text/html and refusals as status 500.
CONTRACT = "contract.json"
OLD = "as the image does for a version of 0.1.0, whose refusals set off the alarms: train a new one"
MEMBERS, BYTES = 1_000, 256 << 20  # What may be unpacked of a sample.
# Absolute up to 1, relative above: the endpoint has another processor than the evaluation.
TOLERANCE = 1e-4
LATENCY_LIMIT = 2000.0  # milliseconds, network included
LATENCY_REQUESTS = 15
# The check that a stage without an endpoint leaves open.
PREDICTIONS = "predictions"


@dataclass(frozen=True)
class Check:
    """`passed` is None if the sample has nothing to check with."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Sample:
    """The registered rows by content type, and the predictions of the evaluation."""

    bodies: dict[str, bytes]
    expected: list[Any]
    content_types: tuple[str, ...]
    strict: bool = True

    @property
    def first(self) -> Any:
        """Return the first row, as in JSON."""
        return json.loads(self.bodies[JSON])["instances"][0]


def smoke(
    aws: Aws,
    stage: Stage,
    arn: str | None = None,
    *,
    tolerance: float = TOLERANCE,
    latency_limit: float | None = None,
) -> list[Check]:
    """Return the checks in their order; with `arn` the endpoint must run that version.

    Records on the endpoint that it was tested: the next deployment may have waited for that.
    `latency_limit` is in milliseconds; an asynchronous endpoint has none by default. Raises
    MlopsError if there is no endpoint or no sample.
    """
    there = access.enter(aws, stage)
    endpoint = endpoints.serving(there, stage.stack, stage.name, batch=True)
    if not endpoint.package:
        raise MlopsError(f"{stage.stack} runs no version of the registry")
    right = not arn or endpoint.package == arn
    wanted = "" if right else f", not {str(arn).rpartition('/')[2]}"
    detail = f"version {endpoint.version}{wanted}, {endpoint.kind}, {endpoint.status}"
    serves = endpoint.status in ("InService", endpoints.BATCH)
    checks = [Check("in service", serves and right, detail)]
    if right and endpoint.kind == "batch":
        checks += _unasked(aws, endpoint, stage.name)
    elif right:
        try:
            checks += _checks(aws, there, endpoint, tolerance, latency_limit)
        finally:
            endpoints.note_test(there, endpoint)
    return checks


def _checks(
    aws: Aws, there: Aws, endpoint: Endpoint, tolerance: float, latency_limit: float | None
) -> list[Check]:
    """Return the checks of an endpoint's answers."""
    checks: list[Check] = []
    sample = load_sample(aws, endpoint.package)

    def ask(body: bytes, content_type: str, accept: str) -> predict.Answer:
        return predict.invoke(there, endpoint, body, content_type, accept)

    for kind in sample.content_types:
        checks += _answers(ask, sample, kind, tolerance)
    if checks[-1].passed is False and not any(c.passed for c in checks):
        return checks  # It answers nothing: latency and refusals would say no more.
    checks.append(_latency(ask, sample, endpoint, latency_limit))
    # The status of an asynchronous refusal may be unknown, and then counts as 400.
    unsupported = (400, 415) if endpoint.kind == "asynchronous" else (415,)
    checks += _refusals(ask, sample, unsupported)
    return checks


def _unasked(aws: Aws, endpoint: Endpoint, stage: str) -> list[Check]:
    """Return the checks of a model without an endpoint."""
    assert endpoint.version is not None
    artifacts = registry.version(aws, endpoint.version).artifacts
    gone = [uri for uri in artifacts if not objects.exists(aws, uri)]
    rows = len(load_sample(aws, endpoint.package).expected)
    found = f"its artifact is there, and the {rows} rows registered with it"
    command = f"{aws.command} predict ROWS OUTPUT --stage {stage}"
    return [
        Check("model", not gone, f"{gone[0]} does not exist" if gone else found),
        Check(PREDICTIONS, None, f"no endpoint to ask; {command} starts a job"),
    ]


def load_sample(aws: Aws, arn: str) -> Sample:
    """Return the sample payload of a version. Raises MlopsError if it has no valid one."""
    package = aws.sagemaker.describe_model_package(ModelPackageName=arn)
    number, uri = arn.rpartition("/")[2], package.get("SamplePayloadUrl", "")
    if not uri:
        raise MlopsError(f"version {number} was registered without a sample payload")
    archive = objects.find(aws, uri)
    if not archive:
        raise MlopsError(f"the sample payload of version {number} does not exist: {uri}")
    declared = package.get("InferenceSpecification", {}).get("SupportedContentTypes", ())
    try:
        found = unpack(archive)
        expected = json.loads(found[EXPECTED])["predictions"]
        bodies = {kind: found[name] for kind, name in FILES.items() if name in found}
        sample = Sample(bodies, expected, tuple(declared), CONTRACT in found)
        if not isinstance(expected, list) or not expected:
            raise ValueError("no predictions")
        _ = sample.first
    except (tarfile.TarError, KeyError, IndexError, TypeError, ValueError) as error:
        raise MlopsError(
            f"the sample payload of version {number} ({uri}) must have {FILES[JSON]} with "
            f"instances and {EXPECTED} with predictions, as the Evaluate step writes them: {error}"
        ) from error
    return sample


def unpack(archive: bytes) -> dict[str, bytes]:
    """Return the content of the files by name, without their folders."""
    found, size = {}, 0
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for count, member in enumerate(tar, 1):
            size += member.size
            if count > MEMBERS or size > BYTES:
                raise ValueError(f"it holds more than {MEMBERS:,} members or {BYTES:,} bytes")
            content = tar.extractfile(member) if member.isfile() else None
            if content is not None:
                found[member.name.rpartition("/")[2]] = content.read()
    return found


Ask = Callable[[bytes, str, str], predict.Answer]


def _answers(ask: Ask, sample: Sample, kind: str, tolerance: float) -> list[Check]:
    """Check the answers to the whole sample in one content type: their form and their values."""
    if kind not in sample.bodies:
        return [Check(kind, None, f"the sample has no rows as {kind}")]
    try:
        answer = ask(sample.bodies[kind], kind, kind)
        rows, note = _read(answer, kind, sample.strict)
    except (MlopsError, ValueError) as error:
        return [Check(kind, False, one_line(error))]
    if len(rows) != len(sample.expected):
        return [Check(kind, False, f"{len(rows)} answers to {len(sample.expected)} rows")]
    worst = 0.0
    for number, (row, wanted) in enumerate(zip(rows, sample.expected, strict=True), 1):
        got, expected = _leaves(row), _leaves(wanted)
        # CSV has no names and only text: the same values in the same order.
        if len(got) != len(expected) or (kind != CSV and got.keys() != expected.keys()):
            return [Check(kind, False, f"row {number}: {_short(row)} for {_short(wanted)}")]
        values = got.values() if kind == CSV else [got[name] for name in expected]
        for value, right in zip(values, expected.values(), strict=True):
            same_type = kind == CSV or _type(value) == _type(right)
            off = _distance(value, right) if same_type else None
            if off is None or off > tolerance:
                return [Check(kind, False, f"row {number}: {value!r}, evaluated as {right!r}")]
            worst = max(worst, off)
    apart = f", at most {worst:.0e} off" if worst else ""
    return [Check(kind, True, f"{len(rows)} rows as evaluated{apart}{note}")]


def _read(answer: predict.Answer, kind: str, strict: bool) -> tuple[list[Any], str]:
    """Return the rows of an answer, and a note on a content type that is wrong but excused."""
    got, note = answer.content_type.split(";")[0].strip(), ""
    if got != kind:
        note = f"; answered as {got or 'nothing'}, {OLD}"
        if strict or got != "text/html":
            raise ValueError(f"answered as {got or 'nothing'}, not as {kind}")
    text = answer.body.decode("utf-8")
    if kind == CSV:
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row], note
    if kind == LINES:
        return [json.loads(line) for line in text.split("\n") if line.strip()], note
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("predictions"), list):
        raise ValueError(f"no list of predictions in {_short(content)}")
    return list(content["predictions"]), note


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Return the single values of an answer by path, in their order."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {
            name: leaf
            for key, item in items
            for name, leaf in _leaves(item, f"{path}/{key}").items()
        }
    return {path: value}


def _type(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number else type(value).__name__


def _distance(got: Any, wanted: Any) -> float | None:
    """Return the distance of two values, relative above 1; None for different labels."""
    if _type(wanted) == "number":
        try:
            off = abs(float(got) - wanted) / max(1.0, abs(wanted))
        except (TypeError, ValueError):
            return None
        return off if math.isfinite(off) else None
    same = got == wanted or (isinstance(got, str) and got == _label(wanted))
    return 0.0 if same else None


def _label(value: Any) -> str:
    """Return a label as it is written in CSV."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _latency(ask: Ask, sample: Sample, endpoint: Endpoint, limit: float | None) -> Check:
    """Check the latency of single rows in sequence; earlier requests have warmed the endpoint."""
    slow = endpoint.kind == "asynchronous"
    body = json.dumps({"instances": [sample.first]}).encode()
    count = 2 if slow else LATENCY_REQUESTS
    try:
        took = [ask(body, JSON, JSON).seconds * 1000 for _ in range(count)]
    except MlopsError as error:
        return Check("latency", False, str(error))
    median = statistics.median(took)
    allowed = limit if limit is not None else None if slow else LATENCY_LIMIT
    detail = f"median {median:.0f} ms, slowest {max(took):.0f} ms of {count} single rows"
    if allowed is None:
        return Check("latency", True, detail)
    return Check("latency", median <= allowed, f"{detail}; limit {allowed:.0f} ms")


def _refusals(ask: Ask, sample: Sample, unsupported: tuple[int, ...]) -> list[Check]:
    checks, strict = [], sample.strict
    if CSV in sample.bodies and CSV in sample.content_types:
        rows = list(csv.reader(io.StringIO(sample.bodies[CSV].decode("utf-8"), newline="")))
        if len(rows) > 1:
            text = io.StringIO(newline="")
            csv.writer(text).writerows([*rows[:2], [*rows[1], "surplus"]])
            checks.append(_refused(ask, strict, "a row with an extra field", text.getvalue(), CSV))
    checks.append(_refused(ask, strict, "a row without columns", '{"instances": [{}]}', JSON))
    checks.append(_refused(ask, strict, "a truncated body", '{"instances": [{', JSON))
    other = "application/x-other"
    checks.append(_refused(ask, strict, "another content type", "x", other, unsupported))
    return checks


def _refused(
    ask: Ask, strict: bool, what: str, body: str, kind: str, allowed: tuple[int, ...] = (400,)
) -> Check:
    name = f"refuses {what}"
    try:
        answer = ask(body.encode(), kind, JSON)
    except predict.Refused as refusal:
        if not strict and refusal.status >= 500:
            return Check(name, None, f"{refusal}; {OLD}")
        right = refusal.status in allowed if strict else 400 <= refusal.status < 500
        if right and strict and not refusal.reason.get("error"):
            return Check(name, False, f"no reason as JSON: {refusal}")
        return Check(name, right, str(refusal))
    except MlopsError as error:
        return Check(name, False, str(error))
    return Check(name, False, f"answered {_short(answer.body.decode('utf-8', 'replace'))}")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def table(checks: list[Check]) -> Table:
    view = display.table("", "check", "result")
    marks = {True: ("ok", "green"), False: ("failed", "red"), None: ("not checked", "dim")}
    for check in checks:
        view.add_row(display.colored(*marks[check.passed]), check.name, check.detail)
    return view


def passed(checks: list[Check]) -> bool:
    """Return whether no check failed, and at least one passed besides the first, the status."""
    return all(check.passed is not False for check in checks) and any(
        check.passed for check in checks[1:]
    )
