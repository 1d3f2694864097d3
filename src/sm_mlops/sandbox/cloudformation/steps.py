"""Single resources of a stack: created, changed, replaced and deleted, several in parallel.

Knows neither the API nor any resource type, nor the target of the whole stack: that is the
engine's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sm_mlops.sandbox.cloudformation import changes, schemas
from sm_mlops.sandbox.cloudformation.calls import Call, Cancelled, ResourceFailed, reason
from sm_mlops.sandbox.cloudformation.changes import Wanted
from sm_mlops.sandbox.cloudformation.expressions import Made, Scope, Unresolved
from sm_mlops.sandbox.cloudformation.ledger import Ledger, caller_of
from sm_mlops.sandbox.cloudformation.providers import PROVIDERS
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import ApiError

AT_ONCE = 8
NOUNS = {"CREATE": "creation", "UPDATE": "update", "DELETE": "deletion", "IMPORT": "import"}
REPLACING = "Requested update requires the creation of a new physical resource; hence creating one."
CUSTOM_NAME = (
    "CloudFormation cannot update a stack when a custom-named resource requires replacing. "
    "Rename {name} and update the stack again."
)
log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The sandbox is ending; its next start resumes from here."""


class Steps:
    """The steps of an operation on a stack's resources. `client` makes clients by service."""

    def __init__(self, ledger: Ledger, stack: Record, client: Callable[[str], Any]) -> None:
        self.ledger, self.stack, self.client = ledger, stack, client
        self.cancel = threading.Event()
        self.closing = threading.Event()
        self.unwanted = False

    def _change(self, scope: Scope, logical: str, tags: dict[str, str]) -> bool:
        """Make one resource match the template; return whether that succeeded."""
        resources = self.stack["_resources"]
        record = resources.get(logical)
        kind = scope.template.resources[logical]["Type"]
        try:
            want = changes.wanted(scope, logical, tags)
        except (ApiError, Unresolved) as error:
            message = error.message if isinstance(error, ApiError) else str(error)
            if record is None:
                record = resources[logical] = new_record(
                    logical, Wanted(kind, {}, {}, None, None, None, [])
                )
            verb = "UPDATE" if record["PhysicalResourceId"] else "CREATE"
            self._mark(record, f"{verb}_FAILED", message)
            return False
        if record is None:
            return self._make(logical, want, None)
        names = changes.changed(record, want)
        if changes.needs_replacement(want.kind, names):
            custom = self._custom_name(want)
            if custom and custom == record["_name"]:
                self._mark(record, "UPDATE_IN_PROGRESS")
                self._mark(record, "UPDATE_FAILED", CUSTOM_NAME.format(name=custom))
                return False
            return self._make(logical, want, record)
        if names:
            return self._update(record, want)
        with self.ledger.lock:
            record |= _policies(want)
        return True

    def _make(self, logical: str, want: Wanted, replaces: Record | None) -> bool:
        record = new_record(logical, want)
        name = PROVIDERS[want.kind].name
        record["_name"] = self._custom_name(want) or (
            name.new(self.stack["StackName"], logical) if name else ""
        )
        with self.ledger.lock:
            self.stack["_resources"][logical] = record
            if replaces is not None:
                self._orphan(replaces)
        verb = "UPDATE" if replaces else "CREATE"
        self._mark(record, f"{verb}_IN_PROGRESS", REPLACING if replaces else None)
        call = self._call(record, want.properties, want.tags)
        call.on_made = lambda physical: self._begun(record, physical, verb)
        return self._finish(record, want, PROVIDERS[want.kind].create, call, verb)

    def _begun(self, record: Record, physical: str, verb: str) -> None:
        if record["PhysicalResourceId"] != physical:
            record["PhysicalResourceId"] = physical
            self._mark(record, f"{verb}_IN_PROGRESS", "Resource creation Initiated")

    def _update(self, record: Record, want: Wanted) -> bool:
        call = self._call(record, want.properties, want.tags)
        call.previous, call.previous_tags = record["_properties"], record["_tags"]
        with self.ledger.lock:
            record["_attempt"] = {"properties": want.properties, "tags": want.tags}
        self._mark(record, "UPDATE_IN_PROGRESS")
        update = PROVIDERS[want.kind].update
        assert update is not None
        return self._finish(record, want, update, call, "UPDATE")

    def _finish(
        self, record: Record, want: Wanted, work: Callable[[Call], Made], call: Call, verb: str
    ) -> bool:
        wrong = schemas.violations(want.kind, {**want.properties, **_tags_again(want)})
        if wrong:
            logical = record["LogicalResourceId"]
            message = (
                f"Properties validation failed for resource {logical} with message:\n"
                f"[{', '.join(wrong)}]"
            )
            self._mark(record, f"{verb}_FAILED", message)
            return False
        made = self._try(record, work, call, verb)
        if made is None:
            return False
        with self.ledger.lock:
            record |= {
                "PhysicalResourceId": made.ref,
                "_ref": made.ref,
                "_attributes": made.attributes,
                "_properties": want.properties,
                "_tags": want.tags,
                **_policies(want),
            }
        self._mark(record, f"{verb}_COMPLETE")
        return True

    def _try(self, record: Record, work: Callable[[Call], Any], call: Call, verb: str) -> Any:
        """Call a provider; return None if that failed, with the reason in the record."""
        noun = NOUNS[verb]
        try:
            answer = work(call)
            self.ledger.settle()
            return True if answer is None else answer
        except Interrupted:
            raise
        except Cancelled:
            why = f"Resource {noun} cancelled"
        except (ResourceFailed, ClientError, BotoCoreError, ApiError) as error:
            # A sibling that fails while this one is being cancelled is not the cause.
            why = reason(error, record["ResourceType"])
        except Exception as error:  # A defect of a provider must not leave a stack stuck.
            log.exception("%s of %s", noun, record["LogicalResourceId"])
            why = f"Internal error of the sandbox, see server.log: {error!r}"
        self._mark(record, f"{verb}_FAILED", why)
        return None

    def _call(self, record: Record, properties: Any, tags: dict[str, str]) -> Call:
        caller = caller_of(self.stack)
        return Call(
            client=self.client,
            kind=record["ResourceType"],
            name=record["_name"],
            properties=properties,
            tags=tags,
            account=caller.account,
            region=caller.region,
            physical=record["PhysicalResourceId"],
            previous={},
            previous_tags={},
            on_made=lambda physical: None,
            cancelled=self.cancel,
        )

    def _custom_name(self, want: Wanted) -> str | None:
        name = PROVIDERS[want.kind].name
        found = want.properties.get(name.property) if name else None
        return str(found) if found else None

    def _orphan(self, record: Record) -> None:
        """Remember a resource that is neither in the target nor in the state before the update."""
        before = self.stack.get("_before") or {"_resources": {}}
        kept = before["_resources"].get(record["LogicalResourceId"], {})
        physical = record["PhysicalResourceId"]
        if physical and physical != kept.get("PhysicalResourceId"):
            self.stack["_orphans"].append(record)

    # Deleting.

    def _delete_all(self, records: list[Record], kept: Callable[[Record], bool]) -> list[str]:
        """Delete resources, dependents first; return the logical names of those that stay."""
        names = {str(index): record for index, record in enumerate(records)}
        graph = {
            index: {
                other
                for other, dependent in names.items()
                if record["LogicalResourceId"] in dependent["_depends"]
            }
            for index, record in names.items()
        }

        def work(index: str) -> bool:
            record = names[index]
            if kept(record):
                self._mark(record, "DELETE_SKIPPED")
                return True
            if record["PhysicalResourceId"]:
                self._mark(record, "DELETE_IN_PROGRESS")
                call = self._call(record, record["_properties"], record["_tags"])
                delete = PROVIDERS[record["ResourceType"]].delete
                if self._try(record, delete, call, "DELETE") is None:
                    return False
            self._mark(record, "DELETE_COMPLETE")
            return True

        failed = self._run(graph, work, stop=False)
        return [names[index]["LogicalResourceId"] for index in failed]

    # Running in parallel.

    def _run(
        self, graph: dict[str, set[str]], work: Callable[[str], bool], stop: bool = True
    ) -> list[str]:
        """Work on each name after its dependencies; return those that failed, in order.

        `stop`: the first failure cancels what runs and starts nothing more. Otherwise only
        dependents of the failed one are skipped.
        """
        waiting = {name: set(needs) for name, needs in graph.items()}
        running: dict[Future[bool], str] = {}
        failed: list[str] = []
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="stack") as pool:
            while waiting or running:
                if not self.cancel.is_set():
                    for name in [name for name, needs in waiting.items() if not needs]:
                        del waiting[name]
                        running[pool.submit(work, name)] = name
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    if future.result():
                        for needs in waiting.values():
                            needs.discard(name)
                    else:
                        failed.append(name)
                        if stop:
                            self.cancel.set()
        if self.closing.is_set():
            raise Interrupted
        return failed

    def _fresh(self) -> None:
        """Reset the cancellation for what follows."""
        if self.closing.is_set():
            raise Interrupted
        self.cancel = threading.Event()

    def end(self) -> None:
        self.closing.set()
        self.cancel.set()

    # Recording.

    def _status(self, status: str, why: str | None = None) -> None:
        if self.closing.is_set():
            raise Interrupted
        self.ledger.status(self.stack, status, why)

    def _mark(self, record: Record, status: str, why: str | None = None) -> None:
        with self.ledger.lock:
            if self.closing.is_set():
                raise Interrupted
            record["ResourceStatus"], record["ResourceStatusReason"] = status, why
            record["Timestamp"] = time.time()
            self.ledger.event(self.stack, record, status, why)
            self.ledger.save(self.stack)


def new_record(logical: str, want: Wanted) -> Record:
    """Return the record of a resource that does not exist yet."""
    return {
        "LogicalResourceId": logical,
        "PhysicalResourceId": "",
        "ResourceType": want.kind,
        "ResourceStatus": "CREATE_IN_PROGRESS",
        "_name": "",
        "_ref": "",
        "_attributes": {},
        "_properties": want.properties,
        "_tags": want.tags,
        **_policies(want),
    }


def _policies(want: Wanted) -> Record:
    return {
        "_metadata": want.metadata,
        "_deletion": want.deletion,
        "_replacement": want.replacement,
        "_depends": want.depends,
    }


def _tags_again(want: Wanted) -> Record:
    # Tags are checked with the properties.
    if not want.tags:
        return {}
    return {"Tags": [{"Key": key, "Value": value} for key, value in want.tags.items()]}
