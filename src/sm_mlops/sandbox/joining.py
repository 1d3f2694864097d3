"""What a transform job's DataProcessing does with CSV and JSON Lines: it selects what the container
gets, joins the answers with their rows and selects what is stored.

Knows bytes only. Sources: API_DataProcessing in the API reference, and
https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any

INPUT, OUTPUT = "SageMakerInput", "SageMakerOutput"
CSV, LINES = "text/csv", "application/jsonlines"
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\.?\[([^\[\]]+)\]")
_NAMES = re.compile(r"'[^']+'(?:\s*,\s*'[^']+')*")
_SPAN = re.compile(r"(-?\d+)?(:)?(-?\d+)?")
Select = Callable[[Any], Any]


class Mismatch(Exception):
    """A path, a row or an answer that does not fit; the message is one line."""


class Joining:
    """The rules of one job. Raises Mismatch for a path that is none."""

    def __init__(self, given: dict[str, str], kind: str, accept: str) -> None:
        self.joins = given.get("JoinSource") == "Input"
        self._kind, self._accept = kind, accept
        self._input = _path(given.get("InputFilter", "$"))
        self._output = _path(given.get("OutputFilter", "$"))

    def asked(self, piece: bytes) -> bytes:
        """Return what the container gets of a piece."""
        return _lines([self._input(row) for row in _rows(piece, self._kind)], self._kind)

    def joined(self, piece: bytes, answer: bytes) -> bytes:
        """Return what is stored: the answers to a piece, with its rows if they are joined."""
        found = _rows(answer, self._accept)
        if self.joins:
            rows = _rows(piece, self._kind)
            if len(rows) != len(found):
                raise Mismatch(f"{len(found)} predictions for {len(rows)} records cannot be joined")
            found = [_join(row, one) for row, one in zip(rows, found, strict=True)]
        kind = self._kind if self.joins else self._accept
        return _lines([self._output(row) for row in found], kind)


def _join(row: Any, answer: Any) -> Any:
    if isinstance(row, list) and isinstance(answer, list):
        return [*row, *answer]
    if isinstance(row, dict):
        return {**row, OUTPUT: answer}
    return {INPUT: row, OUTPUT: answer}


def _rows(body: bytes, kind: str) -> list[Any]:
    try:
        # Not splitlines(), which also splits at characters that JSON and CSV keep within a row.
        lines = [line.removesuffix("\r") for line in body.decode("utf-8").split("\n")]
        if kind == CSV:
            return [row for row in csv.reader(lines, strict=True) if row]
        return [json.loads(line) for line in lines if line.strip()]
    except (ValueError, csv.Error) as error:
        raise Mismatch(f"a record is not {kind}: {error}") from error


def _lines(rows: list[Any], kind: str) -> bytes:
    if kind != CSV:
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(row if isinstance(row, list) else [row] for row in rows)
    return text.getvalue().removesuffix("\n").encode()


def _path(text: str) -> Select:
    """Return the function of a path such as $.features, $['id','SageMakerOutput'] or $[0,5:]."""
    steps, position = [], 1
    while position < len(text):
        found = _STEP.match(text, position)
        if not found:
            break
        steps.append(_names([found[1]]) if found[1] else _bracket(found[2].strip(), text))
        position = found.end()
    if not text.startswith("$") or position < len(text):
        raise Mismatch(f"{text} is not a JSONPath expression that SageMaker supports")

    def select(value: Any) -> Any:
        try:
            for step in steps:
                value = step(value)
        except (KeyError, IndexError, TypeError) as error:
            raise Mismatch(f"{text} selects nothing in a record: {error!r}") from error
        return value

    return select


def _bracket(inside: str, text: str) -> Select:
    if _NAMES.fullmatch(inside):
        return _names(re.findall("'([^']+)'", inside))
    spans = [_SPAN.fullmatch(part.strip()) for part in inside.split(",")]
    if any(span is None or not span[0] for span in spans):
        raise Mismatch(f"{text} is not a JSONPath expression that SageMaker supports")
    chosen = [span for span in spans if span]
    if len(chosen) == 1 and not chosen[0][2]:
        return lambda value: _listed(value)[int(chosen[0][1])]
    return lambda value: [one for span in chosen for one in _span(_listed(value), span)]


def _span(values: list[Any], span: re.Match[str]) -> list[Any]:
    start = int(span[1]) if span[1] else 0
    if not span[2]:
        return [values[start]]
    end = int(span[3]) if span[3] else len(values)
    if not -len(values) <= start < len(values) or end > len(values):
        raise IndexError(span[0])
    return values[start:end]


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not an array")
    return value


def _names(names: list[str]) -> Select:
    if len(names) == 1:
        return lambda value: value[names[0]]
    return lambda value: {name: value[name] for name in names}
