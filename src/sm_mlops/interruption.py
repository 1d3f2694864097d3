"""Ctrl-C, and SIGTERM, with which CI systems end a job: what they interrupt is known afterwards.

A KeyboardInterrupt that leaves `answered` carries, as its only argument, what the call answered, or
None if that is not known. Without an argument nothing was asked for.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """Interrupts like Ctrl-C, but nobody is there to decide what becomes of what was started."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise Terminated in this block, so that every `finally` runs."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def answered(call: Callable[..., Any], **request: Any) -> Any:
    """Return what a call answers; an interruption waits for that, a second one does not."""
    future: Future[Any] = Future()

    def ask() -> None:
        try:
            future.set_result(call(**request))
        except BaseException as error:
            future.set_exception(error)

    try:
        threading.Thread(target=ask, daemon=True).start()
        return _result(future)
    except KeyboardInterrupt as interruption:
        try:
            interruption.args = (_result(future),)
        except KeyboardInterrupt as again:
            again.args = (None,)
            raise
        raise


def _result(future: Future[Any]) -> Any:
    """Return the result. Looks up twice a second: a signal right before a wait does not end it."""
    while not future.done():
        wait([future], timeout=0.5)
    return future.result()
