"""A review as Markdown, for a comment and a job's summary: verdict, metrics, change of definition.

Knows what a Review holds, not how it was made.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

from sm_mlops.commit import short
from sm_mlops.settings import HIGHER_IS_BETTER, Gate
from sm_mlops.training.review import Review, Trained

# A longer change of the definition is shown up to here.
DIFF_LINES = 300


def markdown(review: Review) -> str:
    """Return the whole report."""
    parts = [
        f"## {_verdict(review)}",
        _fenced(*review.change.failure) if review.change.failure else "",
        _behind(review),
        _comparison(review),
        "### Pipeline definition",
        _definition(review.base, review.change),
        f"<sub>{_provenance(review)}</sub>",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def refused(project: str, base: str, reason: str) -> str:
    """Return the report of a review that could not take place."""
    return f"## ❌ {project}: not reviewed\n\n{_fenced(reason)}\n\n<sub>base {base[:40]}</sub>\n"


def _verdict(review: Review) -> str:
    project = review.settings.project.project
    if review.passed:
        return f"✅ {project}: passes the gate"
    if review.change.gate is not None:
        return f"❌ {project}: stopped by the gate"
    return f"❌ {project}: could not be trained"


def _behind(review: Review) -> str:
    if not review.behind:
        return ""
    has = "a commit" if review.behind == 1 else f"{review.behind} commits"
    return (
        f"The base has {has} that this change was not made on. What they brought is missing here, "
        "and counts against the change: merge or rebase, and review again."
    )


def _comparison(review: Review) -> str:
    gate, base = review.change.gate, review.base
    lines = []
    if base.failure:
        lines += [f"`{short(review.base_commit)}` gave no champion to compare with:", ""]
        lines += [_fenced(*base.failure), ""]
    if gate is None:
        return "\n".join(lines).rstrip()
    lines += [
        f"| metric | this change | base `{short(review.base_commit)}` | |",
        "|---|--:|--:|---|",
    ]
    rule = review.settings.gate
    shown = {name: entry for name, entry in gate["metrics"].items() if abs(entry["value"]) < 1e300}
    for name, entry in sorted(shown.items(), key=lambda item: item[0] != rule.metric):
        lines.append(_row(name, entry, rule))
    if rule.metric not in shown:
        lines += ["", gate["metrics"][rule.metric]["text"]]
    if base.test_rows and base.test_rows != review.change.test_rows:
        lines += [
            "",
            "The two were split differently: the base may have learned from rows that it is "
            "measured on here.",
        ]
    return "\n".join(lines)


def _row(name: str, entry: dict[str, Any], rule: Gate) -> str:
    value, champion = entry["value"], entry["champion"]
    title = name
    if name == rule.metric:
        limit = "at least" if name in HIGHER_IS_BETTER else "at most"
        title = f"**{name}**, wanted {limit} {rule.threshold:g}, {rule.tolerance:g} worse at most"
    if champion is None:
        return f"| {title} | {value:.4f} | | |"
    gain = value - champion
    better = gain > 0 if name in HIGHER_IS_BETTER else gain < 0
    word = "same" if f"{value:.4f}" == f"{champion:.4f}" else "better" if better else "worse"
    told = word if word == "same" else f"{word} by {abs(gain):.4f}"
    return f"| {title} | {value:.4f} | {champion:.4f} | {told} |"


def _definition(base: Trained, change: Trained) -> str:
    if not base.definition or not change.definition:
        return f"Not compared: there is none of {'this change' if base.definition else 'the base'}."
    before, after = json.loads(base.definition), json.loads(change.definition)
    if before == after:
        return "Unchanged."
    told = [*_parameters(before, after), *_steps(before, after)]
    # Those from one definition have the same form; the sides may be from different SDKs.
    old, new = (json.dumps(item, indent=2).splitlines() for item in (before, after))
    diff = list(difflib.unified_diff(old, new, "base", "this change", lineterm=""))
    shown = diff[:DIFF_LINES]
    if len(diff) > len(shown):
        shown.append(f"... and {len(diff) - len(shown)} lines more")
    changed = sum(line[:1] in "+-" for line in diff[2:])
    return "\n".join(
        (
            *(f"- {line}" for line in told),
            "",
            f"<details><summary>{changed} changed lines</summary>",
            "",
            _fenced(*shown, language="diff"),
            "</details>",
        )
    )


def _parameters(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    old, new = (
        {item["Name"]: item.get("DefaultValue") for item in side["Parameters"]}
        for side in (before, after)
    )
    told = []
    for name in dict.fromkeys((*old, *new)):
        if name not in new:
            told.append(f"parameter `{name}` removed")
        elif name not in old:
            told.append(f"parameter `{name}` added: {_code(new[name])}")
        elif old[name] != new[name]:
            told.append(f"parameter `{name}`: {_code(old[name])} → {_code(new[name])}")
    return told


def _steps(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    old, new = _by_name(before["Steps"]), _by_name(after["Steps"])
    told = []
    for name in dict.fromkeys((*old, *new)):
        if name not in new:
            told.append(f"step `{name}` removed")
        elif name not in old:
            told.append(f"step `{name}` added")
        elif _without_code(old[name]) == _without_code(new[name]):
            if old[name] != new[name]:
                told.append(f"step `{name}`: only the code that it runs, or the settings in it")
        else:
            told.append(f"step `{name}` changed")
    return told


def _without_code(step: dict[str, Any]) -> str:
    """Return the step as text without its code, which is named by its content."""
    return re.sub(r"/code/[0-9a-f]{32}\b", "/code", json.dumps(step, sort_keys=True))


def _by_name(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return every step by name, those in the branches of a condition on their own."""
    found: dict[str, Any] = {}
    for step in steps:
        arguments = dict(step.get("Arguments", {}))
        inner = [*arguments.pop("IfSteps", []), *arguments.pop("ElseSteps", [])]
        found[step["Name"]] = {**step, "Arguments": arguments}
        found |= _by_name(inner)
    return found


def _provenance(review: Review) -> str:
    data = review.data
    gate = review.change.gate or {}
    counts = gate.get("rows", {})
    rows = f", {counts['train']} rows to train, {counts['test']} to test" if counts else ""
    return (
        f"Trained in a sandbox on the same data ({data.files} "
        f"file{'s' * (data.files != 1)}{rows}, sha256 {data.digest[:12]}): "
        f"{short(review.commit)} against {short(review.base_commit)}. "
        f"The same at home: `mlops review --base {short(review.base_commit)}`"
    )


def _code(value: object) -> str:
    """Return `text` as code in a line of Markdown, in which nothing has a meaning."""
    text = str(value).replace("`", "'").replace("|", "\\|")
    return f"`{' '.join(text.split()) or ' '}`"


def _fenced(*lines: str, language: str = "") -> str:
    """Return a block in which everything is text: its fence is longer than any in it."""
    fence = "```"
    while any(fence in line for line in lines):
        fence += "`"
    return "\n".join((f"{fence}{language}", *lines, fence))
