"""One operation on one stack, from its first event to its last: create, update, roll back, delete.

Knows neither the API nor any resource type. Everything it decides by is in the stack's record, so
an operation that a kill has ended is taken up again from there. Statuses and the order of events
are those of AWS's pages "Stack status codes" and "Updating stacks using direct updates".
"""

from __future__ import annotations

import copy
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sm_mlops.sandbox.cloudformation import changes, schemas, template
from sm_mlops.sandbox.cloudformation.calls import Call, Cancelled, ResourceFailed, reason
from sm_mlops.sandbox.cloudformation.changes import Wanted
from sm_mlops.sandbox.cloudformation.expressions import Made, Scope, Unresolved
from sm_mlops.sandbox.cloudformation.ledger import TARGET, Ledger, caller_of
from sm_mlops.sandbox.cloudformation.providers import PROVIDERS
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import ApiError

AT_ONCE = 8
NOUNS = {"CREATE": "creation", "UPDATE": "update", "DELETE": "deletion", "IMPORT": "import"}
MINUTE = 60.0
REPLACING = "Requested update requires the creation of a new physical resource; hence creating one."
KILLED = "The sandbox ended while this operation was running."
CUSTOM_NAME = (
    "CloudFormation cannot update a stack when a custom-named resource requires replacing. "
    "Rename {name} and update the stack again."
)
DYNAMIC = re.compile(r"\{\{resolve:(ssm|ssm-secure|secretsmanager):([^{}]+)\}\}")
log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The sandbox ends: nothing more is written, the next start takes up from here."""


def scope_of(ledger: Ledger, stack: Record) -> Scope:
    """Return the world in which a stack's template is evaluated."""
    caller = caller_of(stack)
    exports = {name: value for name, (value, _) in ledger.exports(caller).items()}
    resources: dict[str, Record] = stack["_resources"]

    def made(logical: str) -> Made | None:
        record = resources.get(logical)
        return Made(record["_ref"], record["_attributes"]) if record else None

    return Scope(
        template=template.parse(stack["_template"]),
        parameters=stack["_values"],
        resolved=stack["_resolved"],
        account=caller.account,
        region=caller.region,
        stack_id=stack["StackId"],
        stack_name=stack["StackName"],
        topics=stack.get("NotificationARNs", []),
        made=made,
        exports=exports,
    )


def keep_target(stack: Record) -> None:
    """Write down how a stack is, before its record gets a new target."""
    if stack["_before"] is None:  # An update that failed without a rollback has done so already.
        names = (*TARGET, "_resources")
        stack["_before"] = copy.deepcopy({name: stack.get(name) for name in names})


class Operation:
    """What runs on a stack. `client` makes clients by service, in the stack's account."""

    def __init__(self, ledger: Ledger, stack: Record, client: Callable[[str], Any]) -> None:
        self.ledger, self.stack, self.client = ledger, stack, client
        self.cancel = threading.Event()
        self.closing = threading.Event()
        self.cancelled_by_user = False
        self.unwanted = False
        self._deadline: float | None = None
        self._timed_out = False

    # The operations.

    def create(self, on_failure: str) -> None:
        """Make a new stack. `on_failure`: ROLLBACK, DELETE or DO_NOTHING."""
        minutes = self.stack.get("TimeoutInMinutes")
        self._deadline = time.monotonic() + MINUTE * minutes if minutes else None
        self._status("CREATE_IN_PROGRESS", "User Initiated")
        why = self._apply()
        if self.unwanted:  # Deleted while it was being created.
            self.delete()
        elif why is None:
            self._status("CREATE_COMPLETE")
        elif on_failure == "DO_NOTHING":
            self._status("CREATE_FAILED", why)
        elif on_failure == "DELETE":
            self._status("DELETE_IN_PROGRESS", f"{why} Delete requested by user.")
            self.delete(announced=True)
        else:
            self.undo_create(f"{why} Rollback requested by user.")

    def bring_in(self, announced: bool = False) -> None:
        """Take over what the record's `_imported` names, unchanged; all of it or nothing."""
        if not announced:
            self._status("IMPORT_IN_PROGRESS", "User Initiated")
        scope = scope_of(self.ledger, self.stack)
        tags = {tag["Key"]: tag["Value"] for tag in self.stack["Tags"]}
        imported: dict[str, str] = self.stack["_imported"]
        for logical, physical in imported.items():
            want = changes.wanted(scope, logical, tags)
            record = self.stack["_resources"][logical] = _record(logical, want)
            record["PhysicalResourceId"] = record["_name"] = physical
            self._mark(record, "IMPORT_IN_PROGRESS", "Resource import started.")
            call = self._call(record, want.properties, want.tags)
            call.previous, call.previous_tags = want.properties, want.tags
            if not self._finish(record, want, _found, call, "IMPORT"):
                self._leave(imported)
                return
        with self.ledger.lock:
            self.stack |= {"_before": None, "_imported": {}}
        self._status("IMPORT_COMPLETE")

    def _leave(self, imported: dict[str, str]) -> None:
        """Undo an import, which has changed none of the resources."""
        with self.ledger.lock:
            for logical in imported:
                self.stack["_resources"].pop(logical, None)
            self.stack |= {name: self.stack["_before"].get(name) for name in TARGET}
            self.stack |= {"_before": None, "_imported": {}}
        self._status("IMPORT_ROLLBACK_IN_PROGRESS")
        self._status("IMPORT_ROLLBACK_COMPLETE")

    def find_begun(self) -> None:
        """Note where the resources are that were being made when the sandbox was killed: whether
        the service had been reached is not known, but to what it would have led is."""
        for record in self.stack["_resources"].values():
            begun = record["ResourceStatus"] in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS")
            if begun and not record["PhysicalResourceId"]:
                call = self._call(record, record["_properties"], record["_tags"])
                found = PROVIDERS[record["ResourceType"]].physical(call)
                record["PhysicalResourceId"] = found

    def undo_create(self, why: str) -> None:
        """Roll the creation of a stack back: delete what it has made."""
        self._fresh()
        self._status("ROLLBACK_IN_PROGRESS", why)
        records = list(self.stack["_resources"].values())
        failed = self._delete_all(records, lambda record: record.get("_deletion") == "Retain")
        if failed:
            self._status("ROLLBACK_FAILED", _which(failed, "delete"))
        else:
            self._status("ROLLBACK_COMPLETE")

    def update(self, disable_rollback: bool) -> None:
        """Bring a stack to the target that its record already holds; `keep_target` came first."""
        self._status("UPDATE_IN_PROGRESS", "User Initiated")
        why = self._apply()
        if why is None:
            self._complete_update()
        elif disable_rollback and not self.cancelled_by_user:
            self._status("UPDATE_FAILED", why)
        else:
            self.roll_back("User Initiated" if self.cancelled_by_user else why)

    def _complete_update(self) -> None:
        before = self.stack["_before"]["_resources"]
        now = self.stack["_resources"]
        with self.ledger.lock:
            left = self.stack["_orphans"]
            scope = scope_of(self.ledger, self.stack)
            for logical in set(now) - scope.active():
                if logical not in before:
                    left.append(now.pop(logical))
                else:
                    del now[logical]
            for logical, record in before.items():
                kept = now.get(logical)
                if kept is None:
                    left.append({**record, "_keep": record.get("_deletion")})
                elif kept["PhysicalResourceId"] != record["PhysicalResourceId"]:
                    left.append({**record, "_keep": record.get("_replacement")})
            self.stack |= {"_before": None, "_orphans": [], "_leftovers": left}
            self._forget_attempts()
        self._status("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        self.clean_up("UPDATE_COMPLETE", "Update successful. ")

    def clean_up(self, status: str, prefix: str = "") -> None:
        """Delete what an update or its rollback has left over, and end with this status."""
        self._fresh()
        left = self.stack["_leftovers"]
        failed = self._delete_all(left, lambda record: record.get("_keep") == "Retain")
        why = f"{prefix}One or more resources could not be deleted." if failed else None
        self.stack["_leftovers"] = []
        self._status(status, why)

    def roll_back(self, why: str, skip: Iterable[str] = ()) -> None:
        """Bring a stack back to how it was before the update that has failed."""
        self._fresh()
        self._status("UPDATE_ROLLBACK_IN_PROGRESS", why)
        before, skip = self.stack["_before"], set(skip)
        old, now = before["_resources"], self.stack["_resources"]
        graph = {
            logical: {needed for needed in record["_depends"] if needed in old}
            for logical, record in old.items()
        }
        failed = self._run(graph, lambda logical: self._restore(logical, old[logical], skip))
        if failed:
            self._status("UPDATE_ROLLBACK_FAILED", _which(failed, "update"))
            return
        with self.ledger.lock:
            left = [*self.stack["_orphans"], *(now.pop(name) for name in set(now) - set(old))]
            for record in left:
                record["_keep"] = record.get("_deletion")
            self.stack |= {name: before.get(name) for name in TARGET}
            self.stack |= {"_before": None, "_orphans": [], "_leftovers": left}
            self._forget_attempts()
        self._status("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        self.clean_up("UPDATE_ROLLBACK_COMPLETE")

    def _restore(self, logical: str, before: Record, skip: set[str]) -> bool:
        now = self.stack["_resources"].get(logical)
        if now is not None and now["PhysicalResourceId"] == before["PhysicalResourceId"]:
            attempt = now.get("_attempt")
            if attempt is None:
                return True
            self._mark(now, "UPDATE_IN_PROGRESS")
            if logical not in skip:
                call = self._call(now, before["_properties"], before["_tags"])
                call.previous, call.previous_tags = attempt["properties"], attempt["tags"]
                update = PROVIDERS[now["ResourceType"]].update
                assert update is not None
                if self._try(now, update, call, "UPDATE") is None:
                    return False
        elif now is not None and now["PhysicalResourceId"]:
            with self.ledger.lock:
                self.stack["_orphans"].append(now)
        restored = copy.deepcopy(before)
        with self.ledger.lock:
            self.stack["_resources"][logical] = restored
        self._mark(restored, "UPDATE_COMPLETE")
        return True

    def delete(self, retain: Iterable[str] = (), announced: bool = False) -> None:
        """Delete a stack; `retain` are resources that could not be deleted before."""
        self._fresh()
        if not announced:
            self._status("DELETE_IN_PROGRESS", "User Initiated")
        used = self._exports_in_use(keep={})
        if used:
            self._status("DELETE_FAILED", used)
            return
        kept = set(retain)
        before = self.stack.get("_before") or {"_resources": {}}
        now = self.stack["_resources"]
        older = [
            record
            for logical, record in before["_resources"].items()
            if record["PhysicalResourceId"]
            != now.get(logical, {"PhysicalResourceId": ""})["PhysicalResourceId"]
        ]
        records = [*self.stack["_orphans"], *older, *now.values()]
        records = [
            r for r in records if r["ResourceStatus"] not in ("DELETE_COMPLETE", "DELETE_SKIPPED")
        ]
        failed = self._delete_all(
            records,
            lambda record: (
                record.get("_deletion") in ("Retain", "RetainExceptOnCreate")
                or record["LogicalResourceId"] in kept
            ),
        )
        if failed:
            self._status("DELETE_FAILED", _which(failed, "delete"))
            return
        with self.ledger.lock:
            self.stack |= {"_before": None, "_orphans": [], "Outputs": [], "_imports": []}
        self._status("DELETE_COMPLETE")

    # Towards the target.

    def _apply(self) -> str | None:
        """Make and change resources; return why that has failed."""
        scope = scope_of(self.ledger, self.stack)
        graph = template.order(scope.template, scope.active())
        tags = {tag["Key"]: tag["Value"] for tag in self.stack["Tags"]}
        failed = self._run(graph, lambda logical: self._change(scope, logical, tags))
        if self._timed_out:
            return "Stack creation time exceeded the specified timeout."
        if failed:
            return self._why(failed)
        if self.cancel.is_set():
            return "User Initiated"
        try:
            outputs = self._outputs(scope)
        except (ApiError, Unresolved) as error:
            return error.message if isinstance(error, ApiError) else str(error)
        used = self._exports_in_use(
            {o["ExportName"]: o["OutputValue"] for o in outputs if "ExportName" in o}
        )
        if used:
            return used
        with self.ledger.lock:
            self.stack |= {"Outputs": outputs, "_imports": sorted(scope.imported)}
        return None

    def _why(self, failed: list[str]) -> str:
        statuses = {name: self.stack["_resources"][name]["ResourceStatus"] for name in failed}
        sentences = []
        for verb in ("create", "update"):
            names = [n for n in failed if statuses[n] == f"{verb.upper()}_FAILED"]
            if names:
                sentences.append(_which(names, verb))
        return " ".join(sentences)

    def _change(self, scope: Scope, logical: str, tags: dict[str, str]) -> bool:
        """Bring one resource to what the template asks for; tell whether it is so now."""
        resources = self.stack["_resources"]
        record = resources.get(logical)
        kind = scope.template.resources[logical]["Type"]
        try:
            want = changes.wanted(scope, logical, tags)
        except (ApiError, Unresolved) as error:
            message = error.message if isinstance(error, ApiError) else str(error)
            if record is None:
                record = resources[logical] = _record(
                    logical, Wanted(kind, {}, {}, None, None, None, [])
                )
            verb = "UPDATE" if record["PhysicalResourceId"] else "CREATE"
            self._mark(record, f"{verb}_FAILED", message)
            return False
        if record is None:
            return self._make(logical, want, None)
        if record["ResourceStatus"] == "CREATE_FAILED":
            self._orphan(record)
            return self._make(logical, want, None)
        names = changes.changed(record, want)
        if changes.needs_replacement(want.kind, names):
            denied = self._denied(logical, "Update:Replace")
            custom = self._custom_name(want)
            if custom and custom == record["_name"]:
                denied = CUSTOM_NAME.format(name=custom)
            if denied:
                self._mark(record, "UPDATE_IN_PROGRESS")
                self._mark(record, "UPDATE_FAILED", denied)
                return False
            return self._make(logical, want, record)
        if names:
            return self._update(record, want)
        with self.ledger.lock:
            record |= _policies(want)
        return True

    def _make(self, logical: str, want: Wanted, replaces: Record | None) -> bool:
        record = _record(logical, want)
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
        denied = self._denied(record["LogicalResourceId"], "Update:Modify")
        call = self._call(record, want.properties, want.tags)
        call.previous, call.previous_tags = record["_properties"], record["_tags"]
        with self.ledger.lock:
            if not denied:
                record["_attempt"] = {"properties": want.properties, "tags": want.tags}
        self._mark(record, "UPDATE_IN_PROGRESS")
        if denied:
            self._mark(record, "UPDATE_FAILED", denied)
            return False
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
        """Do something to a resource; None when it has failed, and the record says why."""
        noun = NOUNS[verb]
        try:
            if verb != "DELETE":
                call.properties = self._with_secrets(call.properties)
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

    def _with_secrets(self, value: Any) -> Any:
        """Return properties with their dynamic references resolved."""
        if isinstance(value, dict):
            return {name: self._with_secrets(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._with_secrets(item) for item in value]
        if not isinstance(value, str) or "{{resolve:" not in value:
            return value
        return DYNAMIC.sub(lambda match: self._secret(match[1], match[2]), value)

    def _secret(self, service: str, reference: str) -> str:
        if service != "secretsmanager":
            answer = self.client("ssm").get_parameter(Name=reference, WithDecryption=True)
            return str(answer["Parameter"]["Value"])
        place = 7 if reference.startswith("arn:") else 1
        parts = reference.split(":")
        secret, rest = ":".join(parts[:place]), [*parts[place:], "", "", "", ""]
        version = {"VersionStage": rest[2]} if rest[2] else {}
        version |= {"VersionId": rest[3]} if rest[3] else {}
        answer = self.client("secretsmanager").get_secret_value(SecretId=secret, **version)
        text = str(answer["SecretString"])
        return str(json.loads(text)[rest[1]]) if rest[1] else text

    def _custom_name(self, want: Wanted) -> str | None:
        name = PROVIDERS[want.kind].name
        found = want.properties.get(name.property) if name else None
        return str(found) if found else None

    def _orphan(self, record: Record) -> None:
        """Remember what neither the target nor the state before the update holds any more."""
        before = self.stack.get("_before") or {"_resources": {}}
        kept = before["_resources"].get(record["LogicalResourceId"], {})
        physical = record["PhysicalResourceId"]
        if physical and physical != kept.get("PhysicalResourceId"):
            self.stack["_orphans"].append(record)

    def _denied(self, logical: str, action: str) -> str | None:
        """Return how the stack policy words that it does not allow a change, None if it does."""
        text = self.stack.get("_policy")
        if not text:
            return None
        allowed = False
        for number, statement in enumerate(json.loads(text)["Statement"], 1):
            names = _matching(statement, "Resource", f"LogicalResourceId/{logical}")
            if names and _matching(statement, "Action", action):
                if statement["Effect"] == "Deny":
                    return (
                        f"Action denied by stack policy: Statement [#{number}] does not allow "
                        f"[{action}] for resource [{logical}]"
                    )
                allowed = True
        if allowed:
            return None
        return (
            f"Action denied by stack policy: no statement allows [{action}] for resource "
            f"[{logical}]"
        )

    def _outputs(self, scope: Scope) -> list[Record]:
        outputs = []
        others = self.ledger.exports(caller_of(self.stack), without=self.stack["StackId"])
        for name, output in scope.template.outputs.items():
            if "Condition" in output and not scope.holds(output["Condition"]):
                continue
            value = scope.resolve(output["Value"])
            if isinstance(value, (list, dict)):
                raise template.invalid(
                    f"Template format error: Output {name} is malformed. The Value field of "
                    "every Outputs member must evaluate to a String."
                )
            if isinstance(value, bool):
                value = str(value).lower()
            row = {"OutputKey": name, "OutputValue": str(value)}
            if output.get("Description"):
                row["Description"] = output["Description"]
            if "Export" in output:
                export = row["ExportName"] = str(scope.resolve(output["Export"]["Name"]))
                if export in others:
                    owner = others[export][1]["StackName"]
                    raise template.invalid(
                        f"Export with name {export} is already exported by stack {owner}. "
                        "Rolling back"
                    )
            outputs.append(row)
        return outputs

    def _exports_in_use(self, keep: dict[str, str]) -> str | None:
        for output in self.stack.get("Outputs", []):
            name = output.get("ExportName")
            if name and keep.get(name) != output["OutputValue"]:
                users = self.ledger.importers(name, caller_of(self.stack))
                if users:
                    verb = "updated" if name in keep else "deleted"
                    return f"Export {name} cannot be {verb} as it is in use by {', '.join(users)}"
        return None

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

    # Doing things side by side.

    def _run(
        self, graph: dict[str, set[str]], work: Callable[[str], bool], stop: bool = True
    ) -> list[str]:
        """Work on every name after those that it waits for; return those that failed, in order.

        `stop`: the first failure cancels what runs and starts nothing more. Otherwise only what
        waits for the failed one is left out.
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
                done, _ = wait(running, self._left(), FIRST_COMPLETED)
                if not done:
                    self.cancel.set()
                    self._deadline, self._timed_out = None, True
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

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _fresh(self) -> None:
        """Let what follows run, whatever has been cancelled before."""
        if self.closing.is_set():
            raise Interrupted
        self.cancel = threading.Event()
        self._deadline = None

    def end(self) -> None:
        """Stop at once, because the sandbox ends."""
        self.closing.set()
        self.cancel.set()

    # Writing down.

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

    def _forget_attempts(self) -> None:
        for record in self.stack["_resources"].values():
            record.pop("_attempt", None)


def _found(call: Call) -> Made:
    """What an import takes over, as the service has it. Raises ResourceFailed."""
    provider = PROVIDERS[call.kind]
    assert provider.exists is not None and provider.update is not None
    if not provider.exists(call):
        raise ResourceFailed(f"Resource of type {call.kind} with identifier {call.name} is missing")
    # Nothing differs from before: this only reads the attributes.
    return provider.update(call)


def _record(logical: str, want: Wanted) -> Record:
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
    # Tags are checked with the properties; those with a schema of their own form are maps.
    if not want.tags or schemas.schema(want.kind)["properties"]["Tags"].get("type") == "object":
        return {}
    return {"Tags": [{"Key": key, "Value": value} for key, value in want.tags.items()]}


def _which(names: list[str], verb: str) -> str:
    return f"The following resource(s) failed to {verb}: [{', '.join(names)}]."


def _matching(statement: Record, key: str, value: str) -> bool:
    negated = f"Not{key}"
    given: Any = statement.get(key, statement.get(negated, []))
    patterns = [given] if isinstance(given, str) else given
    found = any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), value) for pattern in patterns
    )
    return found != (negated in statement)
