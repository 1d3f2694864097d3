"""The result of a monitored window: its status, its violations, and both in words and metrics.

Must not know where rows come from, or how a page shows a result.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sm_mlops.tabular import drift
from sm_mlops.tabular.tally import Tally
from sm_mlops.tabular.text import visible
from sm_mlops.tabular.windows import Window

LONGEST = 1000  # characters of a message


def of(
    about: Mapping[str, Any],
    window: Window,
    tallies: list[Tally],
    min_rows: int,
    limits: Mapping[str, Any],
    metric: str,
) -> dict[str, Any]:
    """Return the content of result.json, without its digests.

    Args:
        about: The format, the project, the stage, and files of labels that were `unread`.
    """
    judged = [t for t in tallies if t.baseline is not None and t.rows >= min_rows]
    parts = [tally.judged(limits if tally in judged else {}, metric) for tally in tallies]
    result: dict[str, Any] = {
        **about,
        "window": {"start": iso(window.start), "end": iso(window.end)},
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
    }
    result["status"] = _status(result, bool(judged))
    result["worst"] = worst_of(result)
    result["message"] = _message(result, window, min_rows)
    return result


def iso(time: datetime) -> str:
    """Return a time as results have it."""
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
        if test["limit"] is not None
    ]
    tests += [
        {"version": each["version"], "column": None, "kind": "quality", "value": each["worse_by"],
         "limit": each["limit"], "text": each["text"]}
        for each in result["quality"]
        if each.get("limit") is not None
    ]  # fmt: skip
    if not tests:
        return None
    found = max(tests, key=lambda test: drift.ratio(test["value"], test["limit"]))
    return {name: found[name] for name in ("version", "column", "kind", "value", "limit", "text")}


def _message(result: Mapping[str, Any], window: Window, min_rows: int) -> str:
    hours = "1 hour" if window.hours == 1 else f"{window.hours} hours"
    rows, violations = result["rows"], result["violations"]
    start = f"{result['stage']}, {hours} to {window.name}: "
    without = result["without_baseline"]
    notes = f"; version {', '.join(without)} has no baseline and is not judged" if without else ""
    if violations:
        count = _count(len(violations), "violation")
        texts = [each["text"] for each in violations] + result["unread"]
        return _cut(f"{start}{count} in {_count(rows, 'row')}{notes}: ", texts)
    worst = result["worst"]
    closest = ""
    if worst:
        name = f"{worst['kind']} of {worst['column']}" if worst["column"] else worst["kind"]
        closest = f"; closest to its limit: {name}, {worst['text']}"
    few = {name: n for name, n in result["versions"].items() if name not in without}
    too_few = f"{_count(rows, 'row')}, too few to judge; monitoring.min_rows is {min_rows:,}"
    if len(few) > 1:
        each = ", ".join(f"{name}: {n:,}" for name, n in few.items())
        too_few = f"no version answered {min_rows:,} rows ({each}), as monitoring.min_rows demands"
    text = {
        "no requests": f"all requests ({result['refused']:,}) were refused or cannot be read"
        if result["refused"]
        else "no requests were captured",
        "ok": f"nothing above its limit in {_count(rows, 'row')}{notes}{closest}",
        "too few rows": f"{too_few}{notes}",
        "no baseline": f"version{'s' * (len(without) > 1)} {', '.join(without)}, which answered "
        f"{_count(result['requests'], 'request')}, {'have' if len(without) > 1 else 'has'} no "
        "baseline to compare with; a version that is trained now has one",
    }[result["status"]]
    return _cut("", [visible(f"{start}{text}")[: LONGEST - 20], *result["unread"]])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _cut(start: str, texts: list[str]) -> str:
    """Return texts after a start, as many as a message may hold."""
    shown, text = 0, visible(start)
    for each in map(visible, texts):
        more = f"{'; ' if shown else ''}{each}"
        if len(text) + len(more) > LONGEST - 20:
            break
        text, shown = text + more, shown + 1
    return text if shown == len(texts) else f"{text}; {len(texts) - shown} more"[:LONGEST]


def added_to(
    result: Mapping[str, Any], old: Mapping[str, Any], window: Window
) -> list[dict[str, Any]]:
    """Return the violations that an older result of the same window did not have."""
    seen = [_identity(each) for each in old["violations"]]
    found = [each for each in result["violations"] if _identity(each) not in seen]
    return [each | {"window": window.name} for each in found]


def _identity(violation: Mapping[str, Any]) -> tuple[Any, ...]:
    return violation["version"], violation["kind"], violation["column"]


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
    """Return the values of CloudWatch's metrics by name; no `Violations` of a window that was not
    judged, which would end an alarm."""
    found: dict[str, float] = {"Requests": result["requests"], "Rows": result["rows"]}
    if result["judged"]:
        found["Violations"] = len(result["violations"])
    for name, part in (("Drift", "columns"), ("PredictionDrift", "predictions")):
        ratios = [
            each["worst"]
            for each in result[part]
            if any(test["limit"] is not None for test in each["tests"])
        ]
        if ratios:
            found[name] = max(ratios)
    measured = [each["value"] for each in result["quality"] if each["value"] is not None]
    if measured:
        found["Quality"] = measured[-1]
    return found
