"""Faults on demand, for tests of what retries them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Fault:
    """An error in the place of an answer: the first `after` requests that fit pass, the next
    `times` fail.

    Status 0 drops the connection. `acts`: the request is carried out, and only its answer is lost.
    """

    where: str
    status: int
    message: str = "injected"
    times: int = 1
    after: int = 0
    acts: bool = False
    code: str = ""
    agent: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class Faults(list[Fault]):
    """The faults that wait for a request; safe for threads."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def take(self, fits: Callable[[Fault], bool]) -> Fault | None:
        """Return the fault that meets a request, None if the request passes."""
        with self._lock:
            for fault in self:
                if not fits(fault):
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self.remove(fault)
                return fault
        return None
