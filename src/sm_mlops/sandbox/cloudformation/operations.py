"""CloudFormation's API: what each operation refuses, starts and shows.

One method per operation; the engine then changes the stack.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
import uuid
from collections.abc import Callable

from sm_mlops.sandbox import wire
from sm_mlops.sandbox.cloudformation import changes, engine, imports, targets, template
from sm_mlops.sandbox.cloudformation.engine import scope_of
from sm_mlops.sandbox.cloudformation.expressions import Unresolved
from sm_mlops.sandbox.cloudformation.ledger import CHANGE_SET, STACK
from sm_mlops.sandbox.cloudformation.runner import Runner
from sm_mlops.sandbox.cloudformation.template import invalid
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import ApiError, Caller, Params, not_implemented, pick

UPDATABLE = (
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
    "IMPORT_ROLLBACK_COMPLETE",
)
NO_CHANGES = (
    "The submitted information didn't contain changes. "
    "Submit different information to create a change set."
)
PAGE = 100
_TEMPLATE = "StackName TemplateBody TemplateURL UsePreviousTemplate Parameters Tags Capabilities"
# What the tool, Service Catalog and SageMaker's projects call, with the members that they give.
OPERATIONS = {
    "ContinueUpdateRollback": "StackName",
    "CreateChangeSet": f"{_TEMPLATE} ChangeSetName ChangeSetType ClientToken ResourcesToImport",
    "CreateStack": f"{_TEMPLATE} RoleARN",
    "DeleteChangeSet": "ChangeSetName StackName",
    "DeleteStack": "StackName",
    "DescribeChangeSet": "ChangeSetName StackName NextToken",
    "DescribeStackEvents": "StackName NextToken",
    "DescribeStacks": "StackName NextToken",
    "ExecuteChangeSet": "ChangeSetName StackName ClientRequestToken",
    "ListChangeSets": "StackName NextToken",
    "ListImports": "ExportName NextToken",
    "ListStackResources": "StackName NextToken",
    "UpdateStack": f"{_TEMPLATE} RoleARN",
    "ValidateTemplate": "TemplateBody TemplateURL",
}
log = logging.getLogger(__name__)


class Stacks(Runner):
    """Operations on stacks and change sets, a method for each of OPERATIONS."""

    def operation(self, name: str, caller: Caller) -> Callable[[Params], Params]:
        """Return the function that answers an operation. Raises ApiError for an unknown one."""
        if name not in OPERATIONS:
            raise not_implemented(f"cloudformation:{name}", "InvalidAction")

        def answer(params: Params) -> Params:
            unknown = sorted(set(params) - set(OPERATIONS[name].split()))
            if unknown:
                members = ", ".join(unknown)
                raise not_implemented(f"{members} of cloudformation:{name}", "ValidationError")
            found: Params = getattr(self, wire.snake_case(name))(params, caller)
            return found

        return answer

    # Changing stacks.

    def create_stack(self, params: Params, caller: Caller) -> Params:
        with self._admission:
            if self.ledger.find(params["StackName"], caller) is not None:
                raise ApiError(
                    "AlreadyExistsException", f"Stack [{params['StackName']}] already exists"
                )
            stack = self._new(params, caller)
            stack |= targets.aim(params, caller, stack, None, self.ledger, self.clients(caller))
            self.begin_create(stack)
        return {"StackId": stack["StackId"]}

    def update_stack(self, params: Params, caller: Caller) -> Params:
        with self._admission:
            stack = self._existing(params["StackName"], caller)
            _refuse_unless_updatable(stack)
            target = targets.aim(params, caller, stack, stack, self.ledger, self.clients(caller))
            if not self._plan(stack, target) and not _outputs_differ(stack, target):
                raise invalid("No updates are to be performed.")
            stack |= {"_token": None, "_access_key": caller.access_key}
            self.begin_update(stack, target)
        return {"StackId": stack["StackId"]}

    def delete_stack(self, params: Params, caller: Caller) -> Params:
        """Answer DeleteStack, also for a stack that does not exist."""
        with self._admission:
            stack = self.ledger.find(params["StackName"], caller)
            if stack is None or stack["StackStatus"] in ("DELETE_COMPLETE", "DELETE_IN_PROGRESS"):
                return {}
            status = stack["StackStatus"]
            if status == "CREATE_IN_PROGRESS" and stack["StackId"] in self.running:
                operation = self.running[stack["StackId"]]
                operation.unwanted = True
                operation.cancel.set()
                return {}
            if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
                raise invalid(
                    f"Stack [{stack['StackId']}] cannot be deleted while in status {status}"
                )
            stack |= {"_token": None, "_access_key": caller.access_key}
            stack["StackStatus"] = "DELETE_IN_PROGRESS"
            self._forget_change_sets(stack)
            self.start(stack, lambda operation: operation.delete())
        return {}

    def continue_update_rollback(self, params: Params, caller: Caller) -> Params:
        with self._admission:
            stack = self._existing(params["StackName"], caller)
            if stack["StackStatus"] != "UPDATE_ROLLBACK_FAILED":
                raise invalid(
                    f"Stack:{stack['StackId']} is in {stack['StackStatus']} state and can not "
                    "continue rollback."
                )
            stack |= {"_token": None, "_access_key": caller.access_key}
            stack["StackStatus"] = "UPDATE_ROLLBACK_IN_PROGRESS"
            self.start(stack, lambda operation: operation.roll_back("User Initiated"))
        return {}

    # Change sets.

    def create_change_set(self, params: Params, caller: Caller) -> Params:
        """Answer CreateChangeSet; type CREATE creates the stack in REVIEW_IN_PROGRESS."""
        name, kind = params["ChangeSetName"], params.get("ChangeSetType", "UPDATE")
        if params.get("ResourcesToImport") and kind != "IMPORT":
            raise invalid("ResourcesToImport goes with a change set of type IMPORT only")
        with self._admission:
            stack = self.ledger.find(params["StackName"], caller)
            status = stack["StackStatus"] if stack else None
            if kind == "CREATE" and stack is not None and status != "REVIEW_IN_PROGRESS":
                raise invalid(
                    f"Stack [{stack['StackName']}] already exists and cannot be created again "
                    f"with the changeSet [{name}]."
                )
            if kind == "UPDATE" and stack is None:
                raise invalid(f"Stack [{params['StackName']}] does not exist")
            if stack is not None and (kind == "UPDATE" or status != "REVIEW_IN_PROGRESS"):
                _refuse_unless_updatable(stack)
            new = stack is None
            stack = stack or self._new(params, caller)
            known = self._change_set_of(stack, name)
            if known and params.get("ClientToken", "") == known["_token"] != "":
                return {"Id": known["ChangeSetId"], "StackId": stack["StackId"]}
            if known is not None:
                raise ApiError(
                    "AlreadyExistsException",
                    f"ChangeSet {name} cannot be created due to a mismatch with existing "
                    "attribute(s)",
                )
            fresh = kind == "CREATE" or status in (None, "REVIEW_IN_PROGRESS")
            previous = None if fresh else stack
            target = targets.aim(params, caller, stack, previous, self.ledger, self.clients(caller))
            imported: imports.Chosen = {}
            if kind == "IMPORT":
                imported = imports.chosen(params, target, stack, self.ledger, caller)
            if new:
                self.ledger.status(stack, "REVIEW_IN_PROGRESS", "User Initiated")
            arn = caller.arn(f"changeSet/{name}/{uuid.uuid4()}", "cloudformation")
            record: Record = {
                "ChangeSetName": name,
                "ChangeSetId": arn,
                "StackId": stack["StackId"],
                "StackName": stack["StackName"],
                "Status": "CREATE_IN_PROGRESS",
                "ExecutionStatus": "UNAVAILABLE",
                "Changes": [],
                "_target": target,
                "_type": kind,
                "_token": params.get("ClientToken", ""),
                "_imported": imported,
            }
            self.store.put(CHANGE_SET, arn, record)
        threading.Thread(target=self._fill, args=(record, stack), daemon=True).start()
        return {"Id": arn, "StackId": stack["StackId"]}

    def _fill(self, change_set: Record, stack: Record) -> None:
        try:
            with self._admission:
                found = self._plan(stack, change_set["_target"])
                if change_set["_type"] == "IMPORT":
                    found = imports.changes_of(found, change_set["_imported"])
            empty = not found and not (
                change_set["_type"] == "UPDATE" and _outputs_differ(stack, change_set["_target"])
            )
            if empty:
                self.fail(change_set, NO_CHANGES)
                return
            change_set |= {
                "Changes": found,
                "Status": "CREATE_COMPLETE",
                "ExecutionStatus": "AVAILABLE",
            }
            self.store.put(CHANGE_SET, change_set["ChangeSetId"], change_set)
        except (ApiError, Unresolved) as error:
            self.fail(change_set, error.message if isinstance(error, ApiError) else str(error))
        except Exception as error:
            log.exception("change set %s", change_set["ChangeSetId"])
            self.fail(change_set, f"Internal error of the sandbox, see server.log: {error!r}")

    def describe_change_set(self, params: Params, caller: Caller) -> Params:
        record = self._change_set(params, caller)
        rows, token = wire.page(record["Changes"], params, PAGE)
        return {**wire.public(record), "Changes": rows, **token}

    def execute_change_set(self, params: Params, caller: Caller) -> Params:
        """Answer ExecuteChangeSet, which deletes the stack's other change sets."""
        with self._admission:
            record = self._change_set(params, caller)
            stack = self.store.get(STACK, record["StackId"])
            assert stack is not None
            token = params.get("ClientRequestToken")
            known = stack["_tokens"].get(token)
            if known == record["ChangeSetId"]:
                return {}
            if known is not None:
                raise ApiError(
                    "TokenAlreadyExistsException", f"Token {token} has been used for {known}"
                )
            if record["ExecutionStatus"] != "AVAILABLE":
                raise ApiError(
                    "InvalidChangeSetStatus",
                    f"ChangeSet [{record['ChangeSetId']}] cannot be executed in its current status "
                    f"of [{record['Status']}]",
                )
            if stack["StackStatus"] != "REVIEW_IN_PROGRESS":
                _refuse_unless_updatable(stack)
            record["ExecutionStatus"] = "EXECUTE_COMPLETE"
            self.store.put(CHANGE_SET, record["ChangeSetId"], record)
            self._forget_change_sets(stack, but=record["ChangeSetId"])
            stack |= {
                "ChangeSetId": record["ChangeSetId"],
                "_token": token,
                "_tokens": stack["_tokens"] | ({token: record["ChangeSetId"]} if token else {}),
                "_access_key": caller.access_key,
            }
            self._execute(stack, record)
        return {}

    def _execute(self, stack: Record, record: Record) -> None:
        if record["_type"] == "CREATE":
            stack |= record["_target"]
            stack["CreationTime"] = time.time()
            self.begin_create(stack)
        elif record["_type"] == "IMPORT":
            engine.keep_target(stack)
            stack |= record["_target"]
            stack["_imported"] = record["_imported"]
            stack["StackStatus"] = "IMPORT_IN_PROGRESS"
            self.ledger.save(stack)
            self.start(stack, lambda operation: operation.bring_in())
        else:
            self.begin_update(stack, record["_target"])

    def delete_change_set(self, params: Params, caller: Caller) -> Params:
        """Answer DeleteChangeSet, also for one that does not exist."""
        try:
            record = self._change_set(params, caller)
        except ApiError as error:
            if error.code == "ChangeSetNotFound":
                return {}
            raise
        self.store.delete(CHANGE_SET, record["ChangeSetId"])
        return {}

    def list_change_sets(self, params: Params, caller: Caller) -> Params:
        stack = self._existing(params["StackName"], caller)
        rows = [
            pick(record, "ChangeSetId", "ChangeSetName", "ExecutionStatus", "Status")
            for record in list(self.store.all(CHANGE_SET).values())
            if record["StackId"] == stack["StackId"]
        ]
        rows, token = wire.page(rows, params, PAGE)
        return {"Summaries": rows, **token}

    # Showing.

    def describe_stacks(self, params: Params, caller: Caller) -> Params:
        """Answer DescribeStacks, by name or id; by id also for a deleted stack."""
        if params.get("StackName"):
            rows = [self._existing(params["StackName"], caller, "Stack with id {} does not exist")]
        else:
            rows = [s for s in self.ledger.stacks(caller) if s["StackStatus"] != "DELETE_COMPLETE"]
        rows, token = wire.page(rows[::-1], params, PAGE)
        with self.store.lock:
            return {"Stacks": [_shown(stack) for stack in rows], **token}

    def describe_stack_events(self, params: Params, caller: Caller) -> Params:
        """Answer DescribeStackEvents: the newest first."""
        stack = self._existing(params["StackName"], caller)
        rows, token = wire.page(self.ledger.events(stack), params, PAGE)
        return {"StackEvents": rows, **token}

    def list_stack_resources(self, params: Params, caller: Caller) -> Params:
        stack = self._existing(params["StackName"], caller, "Stack with id {} does not exist")
        rows = [_resource(stack, record) for record in stack["_resources"].values()]
        rows, token = wire.page(rows, params, PAGE)
        return {"StackResourceSummaries": rows, **token}

    def validate_template(self, params: Params, caller: Caller) -> Params:
        """Answer ValidateTemplate, which Service Catalog calls for each version of a product."""
        parsed = template.parse(targets.body_of(params, self.clients(caller)))
        targets.check_types(parsed)
        return {"Parameters": [{"ParameterKey": name} for name in parsed.parameters]}

    def list_imports(self, params: Params, caller: Caller) -> Params:
        rows = self.ledger.importers(params["ExportName"], caller)
        if not rows:
            raise invalid(f"Export '{params['ExportName']}' is not imported by any stack.")
        rows, token = wire.page(rows, params, PAGE)
        return {"Imports": rows, **token}

    # Finding.

    def _existing(
        self, name: str, caller: Caller, words: str = "Stack [{}] does not exist"
    ) -> Record:
        stack = self.ledger.find(name, caller)
        if stack is None:
            raise invalid(words.format(name))
        return stack

    def _change_set_of(self, stack: Record, name: str) -> Record | None:
        for record in list(self.store.all(CHANGE_SET).values()):
            if record["StackId"] == stack["StackId"] and record["ChangeSetName"] == name:
                return record
        return None

    def _change_set(self, params: Params, caller: Caller) -> Record:
        name = params["ChangeSetName"]
        if name.startswith("arn:"):
            record = self.store.get(CHANGE_SET, name)
        else:
            if not params.get("StackName"):
                raise invalid(
                    "StackName must be specified if ChangeSetName is not specified as an ARN."
                )
            record = self._change_set_of(self._existing(params["StackName"], caller), name)
        if record is None:
            raise ApiError("ChangeSetNotFound", f"ChangeSet [{name}] does not exist", 404)
        return record

    def _forget_change_sets(self, stack: Record, but: str = "") -> None:
        for arn, record in list(self.store.all(CHANGE_SET).items()):
            if record["StackId"] == stack["StackId"] and arn != but:
                self.store.delete(CHANGE_SET, arn)

    # Targets.

    def _new(self, params: Params, caller: Caller) -> Record:
        name = params["StackName"]
        return {
            "StackId": caller.arn(f"stack/{name}/{uuid.uuid4()}", "cloudformation"),
            "StackName": name,
            "CreationTime": time.time(),
            "StackStatus": "REVIEW_IN_PROGRESS",
            "StackStatusReason": None,
            "Description": None,
            "Parameters": [],
            "Tags": [],
            "Outputs": [],
            "Capabilities": [],
            "_account": caller.account,
            "_region": caller.region,
            "_access_key": caller.access_key,
            "_template": "{}",
            "_values": {},
            "_imports": [],
            "_resources": {},
            "_before": None,
            "_orphans": [],
            "_leftovers": [],
            "_token": None,
            "_tokens": {},
        }

    def _plan(self, stack: Record, target: Record) -> list[Params]:
        tags = {tag["Key"]: tag["Value"] for tag in target["Tags"]}
        scope = scope_of(self.ledger, {**stack, **target})
        old = scope_of(self.ledger, stack) if stack["_resources"] else None
        return changes.plan(stack["_resources"], scope, old, tags)


def _refuse_unless_updatable(stack: Record) -> None:
    if stack["StackStatus"] not in UPDATABLE:
        raise invalid(
            f"Stack:{stack['StackId']} is in {stack['StackStatus']} state and can not be updated."
        )


def _outputs_differ(stack: Record, target: Record) -> bool:
    old, new = (template.parse(text).outputs for text in (stack["_template"], target["_template"]))
    return bool(old != new)


def _shown(stack: Record) -> Params:
    answer = copy.deepcopy(wire.public(stack))
    return {name: value for name, value in answer.items() if value is not None}


def _resource(stack: Record, record: Record) -> Params:
    return {
        **pick(
            record,
            "LogicalResourceId",
            "PhysicalResourceId",
            "ResourceType",
            "ResourceStatus",
            "ResourceStatusReason",
        ),
        "LastUpdatedTimestamp": record["Timestamp"],
    }
