"""How states are colored, what is only shown, and how long to wait before the next poll."""

from __future__ import annotations

import io
import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hostile import HOSTILE
from sm_mlops import display, errors
from sm_mlops.cli import console


@pytest.mark.parametrize(
    ("state", "color"),
    [
        ("Succeeded", "green"),
        ("UPDATE_COMPLETE", "green"),
        ("UPDATE_ROLLBACK_COMPLETE", "red"),
        ("CREATE_FAILED", "red"),
        ("UpdateRollbackFailed", "red"),
        ("CREATE_IN_PROGRESS", "yellow"),
        ("Updating", "yellow"),
        ("Waiting", "dim"),
        ("maybe replaced", "magenta"),
    ],
)
def test_a_state_has_the_color_of_its_outcome(state: str, color: str) -> None:
    found = display.colored(state)
    assert (found.plain, found.style) == (state, color)


def test_polls_are_frequent_at_first_and_then_at_most_so_far_apart() -> None:
    now = time.monotonic()
    assert display.pause(now + 60) == 0.2
    assert display.pause(now - 3600) == 5.0
    assert display.pause(now - 3600, longest=10.0) == 10.0


def printed(thing: object, width: int = 200) -> str:
    """Return what a terminal receives: with colors, as it would take them."""
    sink = io.StringIO()
    console = Console(file=sink, force_terminal=True, color_system="truecolor", width=width)
    if isinstance(thing, str):
        display.tell(console, thing)
    else:
        console.print(thing)
    return sink.getvalue()


STYLED = re.compile(r"\x1b\[[0-9;]*m")


def is_only_shown(text: str) -> None:
    """Fail if anything but rich's own colors would be obeyed."""
    plain = STYLED.sub("", text)
    assert [c for c in plain if not c.isprintable() and c not in "\n\t"] == []
    for line in plain.splitlines():
        assert not re.match(r"(?i)\s*::(error|warning|set-output|add-mask)\b.*::", line)
        assert "##[" not in line


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_is_shown_and_not_obeyed(text: str) -> None:
    is_only_shown(printed(f"file {text}"))
    is_only_shown(printed(text))
    assert printed("[red]brackets[/] :smile:") == "[red]brackets[/] :smile:\n"


@pytest.mark.parametrize("width", [30, 200])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_is_shown_and_not_obeyed_however_it_is_folded(text: str, width: int) -> None:
    view = display.table("a", "b")
    view.add_row(text, text)
    view.add_row(display.colored(text), "[bold]x[/]")
    said = printed(view, width)
    is_only_shown(said)
    assert "[bold]x[/]" in STYLED.sub("", said)


@pytest.mark.slow
@given(st.text())
def test_no_text_is_obeyed_and_printable_text_stays_what_it_is(text: str) -> None:
    is_only_shown(printed(text))
    if text.isprintable() and "#[" not in text and "::" not in text:
        assert STYLED.sub("", printed(text, 10_000)) == f"{text}\n"


def test_json_is_ascii_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    data = {text: text for text in HOSTILE}
    console.print_json(data)
    said = STYLED.sub("", capsys.readouterr().out)
    is_only_shown(said)
    assert said.isascii()
    assert json.loads(said) == data


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_line_is_shown_and_not_obeyed(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console.fail(f"data.csv: column '{errors.one_line(text)}' is missing")
    console.fail(f"data.csv: column '{text}' is missing")
    is_only_shown(capsys.readouterr().err)
