"""How states are colored, and how long to wait before the next poll."""

from __future__ import annotations

import time

import pytest

from sm_mlops import display


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
    assert display.colored(state) == f"[{color}]{state}[/]"


def test_polls_are_frequent_at_first_and_then_at_most_so_far_apart() -> None:
    now = time.monotonic()
    assert display.pause(now + 60) == 0.2
    assert display.pause(now - 3600) == 5.0
    assert display.pause(now - 3600, longest=10.0) == 10.0
