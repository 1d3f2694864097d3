"""A review as Markdown, for the pull request and the job's summary: verdict, metrics, definition.

Knows what a Review holds, not how it was made.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

from sm_mlops import executions
from sm_mlops.actions import code, fenced
from sm_mlops.commit import short
from sm_mlops.settings import HIGHER_IS_BETTER, LOWER_IS_BETTER, Gate
from sm_mlops.training.review import Review, Trained

DIFF_LINES = 300  # of the definition that are shown


def markdown(review: Review) -> str:
    """Return the whole report."""
    parts = [
        f"## {_verdict(review)}",
        fenced(*review.change.failure) if review.change.failure else "",
        _behind(review),
        _comparison(review),
        "### Pipeline definition",
        _definition(review.base, review.change),
        f"<sub>{_provenance(review)}</sub>",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def refused(project: str, base: str, reason: str) -> str:
    """Return the report of a review that was not possible."""
    return (
        f"## ❌ {project}: not reviewed\n\n{fenced(reason)}\n\n<sub>base {code(base[:40])}</sub>\n"
    )


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
    commits = "1 commit" if review.behind == 1 else f"{review.behind} commits"
    return (
        f"This change is {commits} behind the base and is measured without them. "
        "Merge or rebase, then review again."
    )


def _comparison(review: Review) -> str:
    gate, base = review.change.gate, review.base
    lines = []
    if base.failure:
        lines += [f"No champion from `{short(review.base_commit)}` to compare with:", ""]
        lines += [fenced(*base.failure), ""]
    if gate is None:
        return "\n".join(lines).rstrip()
    lines.append(f"| metric | this change | base `{short(review.base_commit)}` | |")
    lines.append("|---|--:|--:|---|")
    rule = review.settings.gate
    shown = {name: entry for name, entry in gate["metrics"].items() if abs(entry["value"]) < 1e300}
    for name, entry in sorted(shown.items(), key=lambda item: item[0] != rule.metric):
        lines.append(_row(name, entry, rule))
    if rule.metric not in shown:
        lines += ["", code(gate["metrics"][rule.metric]["text"])]
    measured = gate["metrics"][rule.metric]
    if (
        rule.metric in shown
        and measured["champion"] is None
        and gate.get("champion", "none") != "none"
    ):
        lines += [
            "",
            f"**The base cannot be scored**: {code(measured['text'])}. On main this stops "
            "`mlops run` unless it is waived there: `--set WaiveChampion=yes`.",
        ]
    if base.test_rows and base.test_rows != review.change.test_rows:
        lines += [
            "",
            "The two split the data differently: the base may have been trained on rows that it "
            "is measured on here.",
        ]
    return "\n".join(lines)


def _row(name: str, entry: dict[str, Any], rule: Gate) -> str:
    value, champion = entry["value"], entry["champion"]
    # A team's own evaluate.py may report others.
    title = name if name in HIGHER_IS_BETTER or name in LOWER_IS_BETTER else code(name)
    if name == rule.metric:
        limit = "at least" if name in HIGHER_IS_BETTER else "at most"
        title = f"**{name}**, {limit} {rule.threshold:g}, at most {rule.tolerance:g} worse"
    if champion is None:
        return f"| {title} | {value:.4f} | | |"
    gain = value - champion
    better = gain > 0 if name in HIGHER_IS_BETTER else gain < 0
    word = "same" if f"{value:.4f}" == f"{champion:.4f}" else "better" if better else "worse"
    comparison = word if word == "same" else f"{word} by {abs(gain):.4f}"
    return f"| {title} | {value:.4f} | {champion:.4f} | {comparison} |"


def _definition(base: Trained, change: Trained) -> str:
    if not base.definition or not change.definition:
        return f"Not compared: {'this change' if base.definition else 'the base'} has none."
    before, after = json.loads(base.definition), json.loads(change.definition)
    if before == after:
        return "Unchanged."
    # The JSON is formatted again, since the sides may come from different SDKs.
    old, new = (json.dumps(item, indent=2).splitlines() for item in (before, after))
    diff = list(difflib.unified_diff(old, new, "base", "this change", lineterm=""))
    shown = diff[:DIFF_LINES]
    if len(diff) > len(shown):
        shown.append(f"... and {len(diff) - len(shown)} more lines")
    changed = sum(line[:1] in "+-" for line in diff[2:])
    lines = [f"- {line}" for line in _changes(base.definition, change.definition)]
    lines += ["", f"<details><summary>{changed} changed lines</summary>", ""]
    lines += [fenced(*shown, language="diff"), "</details>"]
    return "\n".join(lines)


def _changes(before: str, after: str) -> list[str]:
    old, new = _parts(before), _parts(after)
    lines = []
    # Parameters first; sorting keeps the order otherwise.
    for title in sorted(dict.fromkeys((*old, *new)), key=lambda title: title.startswith("step")):
        was, now = old.get(title), new.get(title)
        is_step = title.startswith("step")
        if title not in new:
            lines.append(f"{title} removed")
        elif title not in old:
            lines.append(f"{title} added" if is_step else f"{title} added: {code(now)}")
        elif not is_step and was != now:
            lines.append(f"{title}: {code(was)} → {code(now)}")
        elif is_step and _without_code(was) != _without_code(now):
            lines.append(f"{title} changed")
        elif was != now:
            lines.append(f"{title}: only its code, or the settings in it")
    return lines


def _parts(definition: str) -> dict[str, Any]:
    """Return the default of each parameter, and each step without those that it decides on."""
    found = {
        f"parameter {code(item['Name'])}": item.get("DefaultValue")
        for item in json.loads(definition)["Parameters"]
    }
    for step in executions.all_steps(definition):
        given = (step.get("Arguments") or {}).items()
        own = {name: value for name, value in given if name not in ("IfSteps", "ElseSteps")}
        found[f"step {code(step['Name'])}"] = {**step, "Arguments": own}
    return found


def _without_code(step: Any) -> str:
    """Return the step as text without the address of its code, which depends on the content."""
    return re.sub(r"/code/[0-9a-f]{32}\b", "/code", json.dumps(step, sort_keys=True))


def _provenance(review: Review) -> str:
    data = review.data
    gate = review.change.gate or {}
    counts = gate.get("rows", {})
    rows = (
        f", {int(counts['train'])} training and {int(counts['test'])} test rows" if counts else ""
    )
    return (
        f"Trained in a sandbox on the same data ({data.files} "
        f"file{'s' * (data.files != 1)}{rows}, sha256 {data.digest[:12]}): "
        f"{short(review.commit)} against {short(review.base_commit)}. "
        f"To repeat it: `mlops review --base {short(review.base_commit)}`"
    )
