"""What serves an endpoint: the fleet in service and, during an update, the new one."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from sm_mlops.sandbox.serving import Container

DRAIN_SECONDS = 60.0


@dataclass(frozen=True)
class Fleet:
    """What serves one endpoint configuration: its variant's name, process and instance count."""

    variant: str
    container: Container
    instances: int

    def end(self) -> None:
        """Answer the requests that have begun, then end the process."""
        self.container.drain(DRAIN_SECONDS)
        self.container.end()


@dataclass
class Live:
    """The fleet that serves an endpoint now and, during an update, the new one with its share of
    the traffic."""

    blue: Fleet | None = None
    green: Fleet | None = None
    share: float = 0.0
    leaving: list[Fleet] = field(default_factory=list)
    """Fleets that drain and then end."""
    thread: threading.Thread | None = None

    def fleets(self) -> list[Fleet]:
        return [fleet for fleet in (self.blue, self.green, *self.leaving) if fleet]

    def dismiss(self, fleet: Fleet | None) -> None:
        if fleet is not None:
            self.leaving.append(fleet)
            fleet.end()
            self.leaving.remove(fleet)
