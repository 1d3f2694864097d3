"""Runs the operations on stacks: starts them, resumes them after a kill, stops them with the
server. One thread per stack. `operations` decides what a request may start."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox import grants
from sm_mlops.sandbox.cloudformation import engine
from sm_mlops.sandbox.cloudformation.engine import Operation
from sm_mlops.sandbox.cloudformation.ledger import CHANGE_SET, STACK, Ledger, caller_of
from sm_mlops.sandbox.cloudformation.steps import Interrupted
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import Caller

log = logging.getLogger(__name__)


class Runner:
    """The stacks of one server and their running operations.

    `client` returns a boto3 client of this sandbox by service, region and access key; `on_end` is
    called when an operation ends.
    """

    def __init__(self, store: Store, client: Callable[[str, str, str], Any]) -> None:
        self.ledger, self._client = Ledger(store), client
        self.store = store
        self.running: dict[str, Operation] = {}
        # Not the store's lock, which other services may need while a request is checked.
        self._admission = threading.RLock()
        self.on_end: Callable[[], None] = lambda: None
        self._threads: set[threading.Thread] = set()
        self._closing = False

    def recover(self) -> None:
        """Resume what a kill interrupted: roll back a change, continue a rollback, cleanup or
        deletion."""
        for change_set in list(self.store.all(CHANGE_SET).values()):
            if change_set["Status"] == "CREATE_IN_PROGRESS":
                self.fail(change_set, engine.KILLED)
        for stack in list(self.store.all(STACK).values()):
            status = stack["StackStatus"]
            if not status.endswith("_IN_PROGRESS") or status == "REVIEW_IN_PROGRESS":
                continue
            self.start(stack, functools.partial(_resume, status=status))

    def end(self) -> None:
        """Stop every operation where it is; the next start resumes it."""
        self._closing = True
        for operation in list(self.running.values()):
            operation.end()

    def close(self) -> None:
        """Wait until nothing runs after `end`."""
        for thread in list(self._threads):
            thread.join(timeout=5)

    def start(self, stack: Record, work: Callable[[Operation], None]) -> None:
        """Run an operation on a stack in a thread of its own."""
        operation = Operation(self.ledger, stack, self.clients(_actor(stack)))
        identity = stack["StackId"]
        self.running[identity] = operation
        if self._closing:
            operation.end()

        def run() -> None:
            try:
                work(operation)
            except Interrupted:
                pass
            except Exception as error:  # A defect of the engine: the stack must say so.
                log.exception("operation on %s", identity)
                _give_up(self.ledger, stack, error)
            finally:
                self.running.pop(identity, None)
                self._threads.discard(thread)
                self.on_end()

        thread = threading.Thread(target=run, name=f"stack {stack['StackName']}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def begin_create(self, stack: Record) -> None:
        stack["StackStatus"] = "CREATE_IN_PROGRESS"
        self.ledger.save(stack)
        self.start(stack, lambda operation: operation.create())

    def begin_update(self, stack: Record, target: Record) -> None:
        engine.keep_target(stack)
        stack |= target
        stack["LastUpdatedTime"] = time.time()
        stack["StackStatus"] = "UPDATE_IN_PROGRESS"
        self.ledger.save(stack)
        self.start(stack, lambda operation: operation.update())

    def fail(self, change_set: Record, why: str) -> None:
        """End the computation of a change set with a reason."""
        change_set |= {"Status": "FAILED", "StatusReason": why}
        self.store.put(CHANGE_SET, change_set["ChangeSetId"], change_set)

    def clients(self, caller: Caller) -> Callable[[str], Any]:
        return lambda service: self._client(service, caller.region, caller.access_key)


def _actor(stack: Record) -> Caller:
    """Return who changes a stack's resources: its role, or else the caller."""
    caller = caller_of(stack)
    if not stack.get("RoleARN"):
        return caller
    session = grants.session(stack["RoleARN"], "AWSCloudFormation", caller.region)
    return Caller(caller.account, caller.region, session["AWS_ACCESS_KEY_ID"])


def _resume(operation: Operation, status: str) -> None:
    operation.find_begun()
    if status in ("CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"):
        operation.undo_create(f"{engine.KILLED} Rollback requested by user.")
    elif status in ("UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS"):
        operation.roll_back(engine.KILLED)
    elif status == "DELETE_IN_PROGRESS":
        operation.delete(announced=True)
    elif status.startswith("IMPORT_"):
        operation.bring_in(announced=True)
    else:
        operation.clean_up(status.replace("_CLEANUP_IN_PROGRESS", ""))


def _give_up(ledger: Ledger, stack: Record, error: Exception) -> None:
    status = stack["StackStatus"]
    failed = {
        "CREATE_IN_PROGRESS": "CREATE_FAILED",
        "ROLLBACK_IN_PROGRESS": "ROLLBACK_FAILED",
        "DELETE_IN_PROGRESS": "DELETE_FAILED",
    }.get(status, "UPDATE_ROLLBACK_FAILED")
    ledger.status(stack, failed, f"Internal error of the sandbox, see server.log: {error!r}")
