"""What a transform job's DataProcessing does with JSON Lines: it joins the answers with their rows.

Knows bytes only. Sources: API_DataProcessing in the API reference, and
https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html
"""

from __future__ import annotations

import json
from typing import Any

INPUT, OUTPUT = "SageMakerInput", "SageMakerOutput"
LINES = "application/jsonlines"


class Mismatch(Exception):
    """A row or an answer that does not fit; the message is one line."""


def joined(piece: bytes, answer: bytes) -> bytes:
    """Return what is stored: the rows of a piece with the answers to them. Raises Mismatch."""
    rows, found = _rows(piece), _rows(answer)
    if len(rows) != len(found):
        raise Mismatch(f"{len(found)} predictions for {len(rows)} records cannot be joined")
    whole = (_join(row, one) for row, one in zip(rows, found, strict=True))
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in whole).encode()


def _join(row: Any, answer: Any) -> Any:
    return {**(row if isinstance(row, dict) else {INPUT: row}), OUTPUT: answer}


def _rows(body: bytes) -> list[Any]:
    try:
        # Not splitlines(), which also splits at characters that JSON keeps within a row.
        return [json.loads(line) for line in body.decode("utf-8").split("\n") if line.strip()]
    except ValueError as error:
        raise Mismatch(f"a record is not {LINES}: {error}") from error
