"""DataProcessing of transform jobs: what is selected, and how answers join their rows."""

from __future__ import annotations

import pytest

from sm_mlops.sandbox.joining import CSV, LINES, Joining, Mismatch

JOIN = {"JoinSource": "Input"}
ROWS = b'{"id": 1, "x": [1, 2, 3]}\n{"id": 2, "x": [4, 5, 6]}\n'
TABLE = b'7,"a,b",0.5\n8,c,1.5\n'
# Format, the settings, a piece, what the container is asked, its answer, what is stored.
CASES: dict[str, tuple[str, dict[str, str], bytes, bytes, bytes, bytes]] = {
    "rows keep their members": (
        LINES,
        JOIN,
        ROWS,
        ROWS.strip(),
        b'"no"\n"yes"\n',
        b'{"id": 1, "x": [1, 2, 3], "SageMakerOutput": "no"}\n'
        b'{"id": 2, "x": [4, 5, 6], "SageMakerOutput": "yes"}',
    ),
    "a line separator is no end of a row": (
        LINES,
        JOIN,
        '{"t": "a\u2028b"}\n'.encode(),
        '{"t": "a\u2028b"}'.encode(),
        b"1",
        '{"t": "a\u2028b", "SageMakerOutput": 1}'.encode(),
    ),
    "members are selected": (
        LINES,
        {"InputFilter": "$.x[1:]", **JOIN, "OutputFilter": "$['id','SageMakerOutput']"},
        ROWS,
        b"[2, 3]\n[5, 6]",
        b"0.5\n0.7",
        b'{"id": 1, "SageMakerOutput": 0.5}\n{"id": 2, "SageMakerOutput": 0.7}',
    ),
    "what is no object becomes one": (
        LINES,
        JOIN,
        b"[1, 2]\n",
        b"[1, 2]",
        b"3",
        b'{"SageMakerInput": [1, 2], "SageMakerOutput": 3}',
    ),
    "only the answer is selected from": (
        LINES,
        {"OutputFilter": "$.p[-1]"},
        ROWS,
        ROWS.strip(),
        b'{"p": [1, 2]}\n{"p": [3, 4]}',
        b"2\n4",
    ),
    "columns are appended": (
        CSV,
        JOIN,
        TABLE,
        TABLE.strip(),
        b"0.1\n0.2",
        b'7,"a,b",0.5,0.1\n8,c,1.5,0.2',
    ),
    "columns are selected": (
        CSV,
        {"InputFilter": "$[1:]", **JOIN, "OutputFilter": "$[0,3:]"},
        TABLE,
        b'"a,b",0.5\nc,1.5',
        b"0.1,no\n0.2,yes",
        b"7,0.1,no\n8,0.2,yes",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_are_filtered_joined_and_filtered_again(case: str) -> None:
    kind, given, piece, asked, answer, stored = CASES[case]
    joining = Joining(given, kind, kind)
    assert joining.asked(piece) == asked
    assert joining.joined(piece, answer) == stored


@pytest.mark.parametrize(
    ("given", "piece", "answer", "words"),
    [
        (JOIN, b"{}\n{}", b"1", "1 predictions for 2 records"),
        ({"OutputFilter": "$.b"}, b"{}", b'{"a": 1}', r"\$\.b selects nothing"),
        (JOIN, b"{}\n", b"not json", "a record is not application/jsonlines"),
    ],
)
def test_what_does_not_fit_is_an_error(
    given: dict[str, str], piece: bytes, answer: bytes, words: str
) -> None:
    with pytest.raises(Mismatch, match=words):
        Joining(given, LINES, LINES).joined(piece, answer)


def test_columns_beyond_the_row_are_an_error() -> None:
    with pytest.raises(Mismatch, match="selects nothing"):
        Joining({"InputFilter": "$[0,5:]"}, CSV, CSV).asked(b"1,2,3")


@pytest.mark.parametrize("path", ["x", "$..a", "$.a[?(@.b)]", "$[]", "$.a[", "$['a'.'b']"])
def test_a_path_that_sagemaker_does_not_support_is_refused(path: str) -> None:
    with pytest.raises(Mismatch, match="not a JSONPath expression that SageMaker supports"):
        Joining({"InputFilter": path}, LINES, LINES)
