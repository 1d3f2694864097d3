"""The quality gate of an execution: what was measured, what was wanted, and the verdict, which is
added to the report when it is shown.

Evaluate cannot write it: its limits are parameters of an execution, and its result may be cached.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sm_mlops import executions, objects, registry
from sm_mlops.aws import ABSENT, DENIED, Aws, ignoring
from sm_mlops.registry import Report
from sm_mlops.tabular.text import metric_text, visible

UNDEFINED = 1e308  # what Evaluate writes for a metric that is undefined
_MEASURED = re.compile(r"metrics\.(.+)\.(value|worse_by)")


@dataclass(frozen=True)
class Condition:
    """One condition of the gate, on `value` or `worse_by` of a metric in gate.json."""

    metric: str
    about: str
    limit: float
    at_least: bool

    def holds(self, measured: dict[str, Any]) -> bool:
        """Return whether a gate.json fulfills it."""
        found = measured["metrics"][self.metric][self.about]
        return bool(found >= self.limit if self.at_least else found <= self.limit)


def conditions(aws: Aws, arn: str) -> list[Condition]:
    """Return the gate of an execution; nothing if it is gone or its parameters may not be read."""
    with ignoring(*ABSENT, *DENIED):
        answer = aws.sagemaker.describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)
        given = executions.parameters(aws, arn)
        definition = json.loads(answer["PipelineDefinition"])
        defaults = {item["Name"]: item.get("DefaultValue") for item in definition["Parameters"]}
        return list(_conditions(answer["PipelineDefinition"], defaults | given))
    return []


def _conditions(definition: str, values: dict[str, Any]) -> Iterator[Condition]:
    for step in executions.all_steps(definition):
        for item in (step.get("Arguments") or {}).get("Conditions", ()):
            left, limit = item.get("LeftValue"), item.get("RightValue")
            path = left.get("Std:JsonGet", {}).get("Path", "") if isinstance(left, dict) else ""
            found = _MEASURED.fullmatch(str(path))
            if found and item["Type"] in ("GreaterThanOrEqualTo", "LessThanOrEqualTo"):
                if isinstance(limit, dict):
                    limit = values[limit["Get"].removeprefix("Parameters.")]
                yield Condition(found[1], found[2], float(limit), item["Type"][0] == "G")


def download_report(aws: Aws, report: Report, file: Path) -> None:
    """Write a report to a file, with the verdict if the gate of its execution is known."""
    registry.download(aws, report.uri, file)
    content = objects.find(aws, f"{report.uri.rpartition('/')[0]}/gate.json")
    rules = conditions(aws, report.execution) if content and report.execution else []
    if content is None or not rules:
        return
    shown, page = section(rules, json.loads(content)), file.read_text(encoding="utf-8")
    file.write_text(page.replace("</header>", f"</header>{shown}", 1), encoding="utf-8")


def section(rules: list[Condition], measured: dict[str, Any]) -> str:
    """Return the verdict as HTML."""
    rules = [rule for rule in rules if rule.metric in measured["metrics"]]
    passed = all(rule.holds(measured) for rule in rules)
    items = "".join(
        f"<li class={'better' if rule.holds(measured) else 'worse'}>"
        f"{html.escape(visible(_sentence(rule, measured)))}</li>"
        for rule in rules
    )
    word = "passed" if passed else "not passed"
    return f"<section class=gate><h2>Quality gate: {word}</h2><ul>{items}</ul></section>"


def _sentence(rule: Condition, measured: dict[str, Any]) -> str:
    entry, champion = measured["metrics"][rule.metric], measured["champion"]
    limit = f"{'at least' if rule.at_least else 'at most'} {rule.limit:g}"
    if rule.about == "value":
        value = entry["value"]
        if abs(value) >= UNDEFINED:
            return f"{entry['text']}; wanted: {limit}"
        # Rounded alike, a value and its limit would not show which is larger.
        alike = metric_text(value) == metric_text(rule.limit)
        shown = f"{value:.6g}" if alike else metric_text(value)
        return f"{rule.metric} is {shown}; wanted: {limit}"
    if champion == "none":
        return f"There is no champion to compare with yet; tolerance: {limit} worse"
    against = f"the champion, version {champion}"
    if entry["champion"] is None:
        waived = "waived" if rule.holds(measured) else "not possible"
        return f"The comparison with {against}, was {waived}; tolerance: {limit} worse"
    worse = (
        f"{metric_text(entry['worse_by'])} worse than"
        if entry["worse_by"] > 0
        else "not worse than"
    )
    return f"It is {worse} {against} ({metric_text(entry['champion'])}); tolerance: {limit} worse"
