"""Ctrl-C and SIGTERM while a call is on its way."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from sm_mlops import interruption
from sm_mlops.interruption import Terminated, answered, terminable


def test_an_interrupted_call_is_waited_for_and_its_answer_known() -> None:
    asked = []

    def call(name: str) -> str:
        asked.append(name)
        os.kill(os.getpid(), signal.SIGINT)
        return "begun"

    with pytest.raises(KeyboardInterrupt) as caught:
        answered(call, name="it")
    assert (asked, caught.value.args) == (["it"], ("begun",))


def test_a_second_interruption_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interruption, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        answered(never.wait)
    never.set()
    assert caught.value.args == (None,)


def test_what_a_call_raises_is_raised() -> None:
    def call() -> None:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        answered(call)


def test_sigterm_interrupts_like_ctrl_c_and_the_handler_is_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
