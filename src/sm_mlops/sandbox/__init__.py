"""An AWS on the laptop: moto answers the APIs, real processes run the jobs, state lives in
.sandbox/.

Production code must not import this package; only `mlops --sandbox` and tests start it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_mlops.sandbox.client import FOLDER as FOLDER
from sm_mlops.sandbox.client import SandboxError as SandboxError
from sm_mlops.sandbox.client import Status as Status
from sm_mlops.sandbox.client import connect as connect
from sm_mlops.sandbox.client import control as control
from sm_mlops.sandbox.client import reset as reset
from sm_mlops.sandbox.client import start as start
from sm_mlops.sandbox.client import status as status
from sm_mlops.sandbox.client import stop as stop
from sm_mlops.sandbox.client import workflow_environment as workflow_environment

if TYPE_CHECKING:
    from sm_mlops.sandbox.server import Server as Server


def __getattr__(name: str) -> Any:
    """Import the server lazily: moto costs a second that `mlops --help` must not pay."""
    if name != "Server":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sm_mlops.sandbox.server import Server

    return Server
