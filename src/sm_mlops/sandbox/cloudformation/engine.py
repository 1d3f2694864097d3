"""One operation on one stack, from its first event to its last: create, update, roll back, delete.

Knows neither the API nor any resource type. Everything it needs is in the stack's record, so the
next start resumes an operation that a kill ended. Statuses and the order of events are those of
AWS's pages "Stack status codes" and "Updating stacks using direct updates".
"""

from __future__ import annotations

import copy
import logging

from sm_mlops.sandbox.cloudformation import changes, template
from sm_mlops.sandbox.cloudformation.calls import Call, ResourceFailed
from sm_mlops.sandbox.cloudformation.expressions import Made, Scope, Unresolved
from sm_mlops.sandbox.cloudformation.ledger import TARGET, Ledger, caller_of
from sm_mlops.sandbox.cloudformation.providers import PROVIDERS
from sm_mlops.sandbox.cloudformation.steps import Steps, new_record
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import ApiError, as_text

KILLED = "The sandbox ended while this operation was running."
log = logging.getLogger(__name__)


def scope_of(ledger: Ledger, stack: Record) -> Scope:
    """Return the scope in which a stack's template is evaluated."""
    caller = caller_of(stack)
    exports = {name: value for name, (value, _) in ledger.exports(caller).items()}
    resources: dict[str, Record] = stack["_resources"]

    def made(logical: str) -> Made | None:
        record = resources.get(logical)
        return Made(record["_ref"], record["_attributes"]) if record else None

    return Scope(
        template=template.parse(stack["_template"]),
        parameters=stack["_values"],
        account=caller.account,
        region=caller.region,
        stack_id=stack["StackId"],
        stack_name=stack["StackName"],
        made=made,
        exports=exports,
    )


def keep_target(stack: Record) -> None:
    """Save a stack's state before its record gets a new target."""
    stack["_before"] = copy.deepcopy({name: stack.get(name) for name in (*TARGET, "_resources")})


class Operation(Steps):
    """An operation on a stack, from its first status to its last."""

    def create(self) -> None:
        self._status("CREATE_IN_PROGRESS", "User Initiated")
        why = self._apply()
        if self.unwanted:  # Deleted while it was being created.
            self.delete()
        elif why is None:
            self._status("CREATE_COMPLETE")
        else:
            self.undo_create(f"{why} Rollback requested by user.")

    def bring_in(self, announced: bool = False) -> None:
        """Import what the record's `_imported` names, unchanged; all of it or nothing."""
        if not announced:
            self._status("IMPORT_IN_PROGRESS", "User Initiated")
        scope = scope_of(self.ledger, self.stack)
        tags = {tag["Key"]: tag["Value"] for tag in self.stack["Tags"]}
        imported: dict[str, str] = self.stack["_imported"]
        for logical, physical in imported.items():
            want = changes.wanted(scope, logical, tags)
            record = self.stack["_resources"][logical] = new_record(logical, want)
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
        """Fill in the physical ids of resources that were being created when the sandbox was
        killed: it is unknown whether the service got the request, but the id is predictable."""
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

    def update(self) -> None:
        """Bring a stack to the target in its record; call `keep_target` first."""
        self._status("UPDATE_IN_PROGRESS", "User Initiated")
        why = self._apply()
        if why is None:
            self._complete_update()
        else:
            self.roll_back(why)

    def _complete_update(self) -> None:
        before = self.stack["_before"]["_resources"]
        now = self.stack["_resources"]
        with self.ledger.lock:
            left = self.stack["_orphans"]
            scope = scope_of(self.ledger, self.stack)
            for logical in set(now) - scope.active():
                record = now.pop(logical)
                if logical not in before:
                    left.append(record)
            for logical, record in before.items():
                kept = now.get(logical)
                if kept is None:
                    left.append({**record, "_keep": _kept(record)})
                elif kept["PhysicalResourceId"] != record["PhysicalResourceId"]:
                    left.append({**record, "_keep": record.get("_replacement")})
            self.stack |= {"_before": None, "_orphans": [], "_leftovers": left}
            self._forget_attempts()
        self._status("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        self.clean_up("UPDATE_COMPLETE", "Update successful. ")

    def clean_up(self, status: str, prefix: str = "") -> None:
        """Delete the leftovers of an update or its rollback, and end with this status."""
        self._fresh()
        left = self.stack["_leftovers"]
        failed = self._delete_all(left, lambda record: record.get("_keep") == "Retain")
        why = f"{prefix}One or more resources could not be deleted." if failed else None
        self.stack["_leftovers"] = []
        self._status(status, why)

    def roll_back(self, why: str) -> None:
        """Restore a stack to its state before the failed update."""
        self._fresh()
        self._status("UPDATE_ROLLBACK_IN_PROGRESS", why)
        before = self.stack["_before"]
        old, now = before["_resources"], self.stack["_resources"]
        graph = {
            logical: {needed for needed in record["_depends"] if needed in old}
            for logical, record in old.items()
        }
        failed = self._run(graph, lambda logical: self._restore(logical, old[logical]))
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

    def _restore(self, logical: str, before: Record) -> bool:
        now = self.stack["_resources"].get(logical)
        if now is not None and now["PhysicalResourceId"] == before["PhysicalResourceId"]:
            attempt = now.get("_attempt")
            if attempt is None:
                return True
            self._mark(now, "UPDATE_IN_PROGRESS")
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

    def delete(self, announced: bool = False) -> None:
        self._fresh()
        if not announced:
            self._status("DELETE_IN_PROGRESS", "User Initiated")
        used = self._exports_in_use(keep={})
        if used:
            self._status("DELETE_FAILED", used)
            return
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
        failed = self._delete_all(records, lambda record: _kept(record) == "Retain")
        if failed:
            self._status("DELETE_FAILED", _which(failed, "delete"))
            return
        with self.ledger.lock:
            self.stack |= {"_before": None, "_orphans": [], "Outputs": [], "_imports": []}
        self._status("DELETE_COMPLETE")

    # Moving to the target.

    def _apply(self) -> str | None:
        """Make and change resources; return why that has failed."""
        scope = scope_of(self.ledger, self.stack)
        graph = template.order(scope.template, scope.active())
        tags = {tag["Key"]: tag["Value"] for tag in self.stack["Tags"]}
        failed = self._run(graph, lambda logical: self._change(scope, logical, tags))
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
            row = {"OutputKey": name, "OutputValue": as_text(value)}
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

    def _forget_attempts(self) -> None:
        for record in self.stack["_resources"].values():
            record.pop("_attempt", None)


def _found(call: Call) -> Made:
    """Return an imported resource, as the service has it. Raises ResourceFailed."""
    provider = PROVIDERS[call.kind]
    assert provider.exists is not None and provider.update is not None
    if not provider.exists(call):
        raise ResourceFailed(f"Resource of type {call.kind} with identifier {call.name} is missing")
    # Nothing differs from before: this only reads the attributes.
    return provider.update(call)


def _which(names: list[str], verb: str) -> str:
    return f"The following resource(s) failed to {verb}: [{', '.join(names)}]."


def _kept(record: Record) -> str:
    """Return the deletion policy of a resource whose stack has once been complete."""
    return str(record.get("_deletion")).removesuffix("ExceptOnCreate")
