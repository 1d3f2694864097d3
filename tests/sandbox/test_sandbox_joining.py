"""DataProcessing of transform jobs: how answers join their rows."""

from __future__ import annotations

import pytest

from sm_mlops.sandbox.joining import Mismatch, joined

# A piece, the container's answer to it, what is stored.
CASES = {
    "rows keep their members": (
        b'{"id": 1, "x": [1, 2, 3]}\n{"id": 2, "x": [4, 5, 6]}\n',
        b'"no"\n"yes"\n',
        b'{"id": 1, "x": [1, 2, 3], "SageMakerOutput": "no"}\n'
        b'{"id": 2, "x": [4, 5, 6], "SageMakerOutput": "yes"}',
    ),
    "a line separator is no end of a row": (
        '{"t": "a\u2028b"}\n'.encode(),
        b"1",
        '{"t": "a\u2028b", "SageMakerOutput": 1}'.encode(),
    ),
    "what is no object becomes one": (
        b"[1, 2]\r\n",
        b"3",
        b'{"SageMakerInput": [1, 2], "SageMakerOutput": 3}',
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_answers_join_their_rows(case: str) -> None:
    piece, answer, stored = CASES[case]
    assert joined(piece, answer) == stored


@pytest.mark.parametrize(
    ("piece", "answer", "words"),
    [
        (b"{}\n{}", b"1", "1 predictions for 2 records"),
        (b"{}\n", b"not json", "a record is not application/jsonlines"),
    ],
)
def test_what_does_not_fit_is_an_error(piece: bytes, answer: bytes, words: str) -> None:
    with pytest.raises(Mismatch, match=words):
        joined(piece, answer)
