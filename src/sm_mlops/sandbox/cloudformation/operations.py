"""CloudFormation's API: what each operation refuses, starts and shows.

One method per operation; what then happens to a stack is the engine's.
"""

from __future__ import annotations

import copy
import functools
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox import grants, wire
from sm_mlops.sandbox.cloudformation import changes, engine, imports, targets, template
from sm_mlops.sandbox.cloudformation.engine import Interrupted, Operation, scope_of
from sm_mlops.sandbox.cloudformation.expressions import Scope, Unresolved
from sm_mlops.sandbox.cloudformation.ledger import CHANGE_SET, STACK, Ledger, caller_of
from sm_mlops.sandbox.cloudformation.template import Template, invalid
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller, Params, pick

UPDATABLE = (
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "UPDATE_FAILED",
    "IMPORT_COMPLETE",
    "IMPORT_ROLLBACK_COMPLETE",
)
NO_CHANGES = (
    "The submitted information didn't contain changes. "
    "Submit different information to create a change set."
)
PAGE = 100
log = logging.getLogger(__name__)


class Stacks:
    """Operations on stacks and change sets.

    `client` returns a boto3 client of this sandbox by service, region and access key; `on_end` is
    called when an operation ends.
    """

    def __init__(self, store: Store, client: Callable[[str, str, str], Any]) -> None:
        self.ledger, self._client = Ledger(store), client
        self.store = store
        self.running: dict[str, Operation] = {}
        # Not the store's lock: what is asked of other services meanwhile may need that one.
        self._admission = threading.RLock()
        self.on_end: Callable[[], None] = lambda: None
        self._threads: set[threading.Thread] = set()
        self._closing = False

    def operation(self, name: str, caller: Caller) -> Callable[[Params], Params]:
        """Return what answers an operation. Raises ApiError when nothing does."""
        method = getattr(self, wire.snake_case(name), None)
        if method is None:
            raise ApiError("InvalidAction", f"The sandbox's CloudFormation has no {name}")

        def answer(params: Params) -> Params:
            found: Params = method(params, caller)
            return found

        return answer

    # Life.

    def recover(self) -> None:
        """Take up what a kill has interrupted: a change under way is rolled back, a rollback, a
        cleanup or a deletion goes on."""
        for change_set in list(self.store.all(CHANGE_SET).values()):
            if change_set["Status"] == "CREATE_IN_PROGRESS":
                self._fail(change_set, engine.KILLED)
        for stack in list(self.store.all(STACK).values()):
            status = stack["StackStatus"]
            if not status.endswith("_IN_PROGRESS") or status == "REVIEW_IN_PROGRESS":
                continue
            self._start(stack, functools.partial(_resume, status=status))

    def end(self) -> None:
        """Stop every operation where it is; the next start takes it up."""
        self._closing = True
        for operation in list(self.running.values()):
            operation.end()

    def close(self) -> None:
        """Wait until nothing runs after `end`."""
        for thread in list(self._threads):
            thread.join(timeout=5)

    def _start(self, stack: Record, work: Callable[[Operation], None]) -> None:
        operation = Operation(self.ledger, stack, self._clients(_actor(stack)))
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

    # Changing stacks.

    def create_stack(self, params: Params, caller: Caller) -> Params:
        """CreateStack."""
        on_failure = params.get("OnFailure")
        if on_failure and "DisableRollback" in params:
            raise invalid("You can specify either DisableRollback or OnFailure, but not both.")
        with self._admission:
            existing = self.ledger.find(params["StackName"], caller)
            if existing is not None:
                if self._repeated(existing, params, "CreateStack"):
                    return {"StackId": existing["StackId"]}
                raise ApiError(
                    "AlreadyExistsException", f"Stack [{params['StackName']}] already exists"
                )
            stack = self._new(params, caller)
            target = self._target(params, caller, stack, None)
            self._act_as(stack, params, caller, "CreateStack")
            stack |= target
            stack["StackStatus"] = "CREATE_IN_PROGRESS"
            stack |= {
                **pick(params, "TimeoutInMinutes"),
                "EnableTerminationProtection": params.get("EnableTerminationProtection", False),
                "DisableRollback": params.get("DisableRollback", False),
            }
            stack["_policy"] = params.get("StackPolicyBody")
            policy = on_failure or ("DO_NOTHING" if stack["DisableRollback"] else "ROLLBACK")
            stack["_on_failure"] = policy
            self.ledger.save(stack)
            self._start(stack, lambda operation: operation.create(policy))
        return {"StackId": stack["StackId"]}

    def update_stack(self, params: Params, caller: Caller) -> Params:
        """UpdateStack."""
        with self._admission:
            stack = self._existing(params["StackName"], caller)
            if self._repeated(stack, params, "UpdateStack"):
                return {"StackId": stack["StackId"]}
            _refuse_unless_updatable(stack)
            target = self._target(params, caller, stack, stack)
            if not self._plan(stack, target) and not _outputs_differ(stack, target):
                raise invalid("No updates are to be performed.")
            if "StackPolicyBody" in params:
                stack["_policy"] = params["StackPolicyBody"]
            self._act_as(stack, params, caller, "UpdateStack")
            self._begin_update(stack, target, params.get("DisableRollback", False))
        return {"StackId": stack["StackId"]}

    def _begin_update(self, stack: Record, target: Record, disable_rollback: bool) -> None:
        engine.keep_target(stack)
        stack |= target
        stack["LastUpdatedTime"] = time.time()
        stack["StackStatus"] = "UPDATE_IN_PROGRESS"
        self.ledger.save(stack)
        self._start(stack, lambda operation: operation.update(disable_rollback))

    def delete_stack(self, params: Params, caller: Caller) -> Params:
        """DeleteStack: of a stack that does not exist, too."""
        with self._admission:
            stack = self.ledger.find(params["StackName"], caller)
            if stack is None or stack["StackStatus"] in ("DELETE_COMPLETE", "DELETE_IN_PROGRESS"):
                return {}
            name, status = stack["StackName"], stack["StackStatus"]
            if stack.get("EnableTerminationProtection"):
                raise invalid(
                    f"Stack [{name}] cannot be deleted while TerminationProtection is enabled"
                )
            retain = params.get("RetainResources", [])
            if retain and status != "DELETE_FAILED":
                raise invalid(
                    f"Invalid operation on stack [{stack['StackId']}]. Specify which resources to "
                    "retain only when the stack is in the DELETE_FAILED state."
                )
            if status == "CREATE_IN_PROGRESS" and stack["StackId"] in self.running:
                operation = self.running[stack["StackId"]]
                operation.unwanted = True
                operation.cancel.set()
                return {}
            if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
                raise invalid(
                    f"Stack [{stack['StackId']}] cannot be deleted while in status {status}"
                )
            self._act_as(stack, params, caller, "DeleteStack")
            stack["StackStatus"] = "DELETE_IN_PROGRESS"
            self._forget_change_sets(stack)
            self._start(stack, lambda operation: operation.delete(retain))
        return {}

    def cancel_update_stack(self, params: Params, caller: Caller) -> Params:
        """CancelUpdateStack."""
        with self._admission:
            stack = self._existing(params["StackName"], caller)
            operation = self.running.get(stack["StackId"])
            if stack["StackStatus"] != "UPDATE_IN_PROGRESS" or operation is None:
                raise invalid("CancelUpdateStack cannot be called from current stack status")
            operation.cancelled_by_user = True
            operation.cancel.set()
        return {}

    def continue_update_rollback(self, params: Params, caller: Caller) -> Params:
        """ContinueUpdateRollback."""
        with self._admission:
            stack = self._existing(params["StackName"], caller)
            if self._repeated(stack, params, "ContinueUpdateRollback"):
                return {}
            if stack["StackStatus"] != "UPDATE_ROLLBACK_FAILED":
                raise invalid(
                    f"Stack:{stack['StackId']} is in {stack['StackStatus']} state and can not "
                    "continue rollback."
                )
            skip = params.get("ResourcesToSkip", [])
            failed = [
                name
                for name, record in stack["_resources"].items()
                if record["ResourceStatus"] == "UPDATE_FAILED"
            ]
            wrong = [name for name in skip if name not in failed]
            if wrong:
                raise invalid(
                    f"ResourcesToSkip must be in UPDATE_FAILED state: [{', '.join(wrong)}]"
                )
            self._act_as(stack, params, caller, "ContinueUpdateRollback")
            stack["StackStatus"] = "UPDATE_ROLLBACK_IN_PROGRESS"
            self._start(stack, lambda operation: operation.roll_back("User Initiated", skip))
        return {}

    def rollback_stack(self, params: Params, caller: Caller) -> Params:
        """RollbackStack: of an update or a creation that failed without a rollback."""
        with self._admission:
            stack = self._existing(params["StackName"], caller)
            if self._repeated(stack, params, "RollbackStack"):
                return {"StackId": stack["StackId"]}
            status = stack["StackStatus"]
            self._act_as(stack, params, caller, "RollbackStack")
            if status == "UPDATE_FAILED":
                stack["StackStatus"] = "UPDATE_ROLLBACK_IN_PROGRESS"
                self._start(stack, lambda operation: operation.roll_back("User Initiated"))
            elif status == "CREATE_FAILED":
                stack["StackStatus"] = "ROLLBACK_IN_PROGRESS"
                self._start(stack, lambda operation: operation.undo_create("User Initiated"))
            else:
                raise invalid(
                    f"Stack:{stack['StackId']} is in {status} state and can not be rolled back."
                )
        return {"StackId": stack["StackId"]}

    def update_termination_protection(self, params: Params, caller: Caller) -> Params:
        """UpdateTerminationProtection."""
        stack = self._existing(params["StackName"], caller)
        with self.store.lock:
            stack["EnableTerminationProtection"] = params["EnableTerminationProtection"]
            self.ledger.save(stack)
        return {"StackId": stack["StackId"]}

    def set_stack_policy(self, params: Params, caller: Caller) -> Params:
        """SetStackPolicy: the engine obeys it."""
        stack = self._existing(params["StackName"], caller)
        if "StackPolicyBody" not in params:
            raise invalid("The sandbox takes stack policies as StackPolicyBody only")
        with self.store.lock:
            stack["_policy"] = params["StackPolicyBody"]
            self.ledger.save(stack)
        return {}

    def get_stack_policy(self, params: Params, caller: Caller) -> Params:
        """GetStackPolicy."""
        stack = self._existing(params["StackName"], caller)
        return {"StackPolicyBody": stack["_policy"]} if stack.get("_policy") else {}

    # Change sets.

    def create_change_set(self, params: Params, caller: Caller) -> Params:
        """CreateChangeSet: of type CREATE it makes the stack, in REVIEW_IN_PROGRESS."""
        name, kind = params["ChangeSetName"], params.get("ChangeSetType", "UPDATE")
        if params.get("ImportExistingResources"):
            raise invalid("The sandbox imports what ResourcesToImport names only")
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
            target = self._target(params, caller, stack, None if fresh else stack)
            imported: imports.Chosen = {}
            if kind == "IMPORT":
                imported = imports.chosen(params, target, stack, self.ledger, caller)
            if new:
                self.ledger.status(stack, "REVIEW_IN_PROGRESS", "User Initiated")
            arn = caller.arn(f"changeSet/{name}/{uuid.uuid4()}", "cloudformation")
            record: Record = {
                **pick(params, "Description", "OnStackFailure", "Capabilities"),
                "ChangeSetName": name,
                "ChangeSetId": arn,
                "StackId": stack["StackId"],
                "StackName": stack["StackName"],
                "CreationTime": time.time(),
                "Parameters": target["Parameters"],
                "Tags": target["Tags"],
                "NotificationARNs": target["NotificationARNs"],
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
                self._fail(change_set, NO_CHANGES)
                return
            change_set |= {
                "Changes": found,
                "Status": "CREATE_COMPLETE",
                "ExecutionStatus": "AVAILABLE",
            }
            self.store.put(CHANGE_SET, change_set["ChangeSetId"], change_set)
        except (ApiError, Unresolved) as error:
            self._fail(change_set, error.message if isinstance(error, ApiError) else str(error))
        except Exception as error:
            log.exception("change set %s", change_set["ChangeSetId"])
            self._fail(change_set, f"Internal error of the sandbox, see server.log: {error!r}")

    def _fail(self, change_set: Record, why: str) -> None:
        change_set |= {"Status": "FAILED", "StatusReason": why}
        self.store.put(CHANGE_SET, change_set["ChangeSetId"], change_set)

    def describe_change_set(self, params: Params, caller: Caller) -> Params:
        """DescribeChangeSet."""
        record = self._change_set(params, caller)
        answer = wire.public(record)
        rows, token = wire.page(record["Changes"], params, PAGE)
        if not params.get("IncludePropertyValues"):
            rows = copy.deepcopy(rows)
            for row in rows:
                change = row["ResourceChange"]
                change.pop("BeforeContext", None)
                change.pop("AfterContext", None)
                for detail in change["Details"]:
                    for name in ("Path", "BeforeValue", "AfterValue", "AttributeChangeType"):
                        detail["Target"].pop(name, None)
        return {**answer, "Changes": rows, **token}

    def execute_change_set(self, params: Params, caller: Caller) -> Params:
        """ExecuteChangeSet: the other change sets of the stack are deleted."""
        with self._admission:
            record = self._change_set(params, caller)
            stack = self.store.get(STACK, record["StackId"])
            assert stack is not None
            if self._repeated(stack, params, "ExecuteChangeSet"):
                return {}
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
            stack["ChangeSetId"] = record["ChangeSetId"]
            target = record["_target"]
            self._act_as(stack, params, caller, "ExecuteChangeSet")
            stack["DisableRollback"] = params.get("DisableRollback", False)
            if record["_type"] == "CREATE":
                stack |= target
                stack["StackStatus"] = "CREATE_IN_PROGRESS"
                stack["CreationTime"] = time.time()
                policy = record.get("OnStackFailure") or (
                    "DO_NOTHING" if stack["DisableRollback"] else "ROLLBACK"
                )
                stack["_on_failure"] = policy
                self.ledger.save(stack)
                self._start(stack, lambda operation: operation.create(policy))
            elif record["_type"] == "IMPORT":
                engine.keep_target(stack)
                stack |= target
                stack["_imported"] = record["_imported"]
                stack["StackStatus"] = "IMPORT_IN_PROGRESS"
                self.ledger.save(stack)
                self._start(stack, lambda operation: operation.bring_in())
            else:
                disable = stack["DisableRollback"] or record.get("OnStackFailure") == "DO_NOTHING"
                self._begin_update(stack, target, disable)
        return {}

    def delete_change_set(self, params: Params, caller: Caller) -> Params:
        """DeleteChangeSet: also of one that does not exist."""
        try:
            record = self._change_set(params, caller)
        except ApiError as error:
            if error.code == "ChangeSetNotFound":
                return {}
            raise
        self.store.delete(CHANGE_SET, record["ChangeSetId"])
        return {}

    def list_change_sets(self, params: Params, caller: Caller) -> Params:
        """ListChangeSets."""
        stack = self._existing(params["StackName"], caller)
        rows = [
            pick(record, "StackId", "StackName", "ChangeSetId", "ChangeSetName", "Description",
                 "ExecutionStatus", "Status", "StatusReason", "CreationTime")
            for record in list(self.store.all(CHANGE_SET).values())
            if record["StackId"] == stack["StackId"]
        ]  # fmt: skip
        rows, token = wire.page(rows, params, PAGE)
        return {"Summaries": rows, **token}

    # Showing.

    def describe_stacks(self, params: Params, caller: Caller) -> Params:
        """DescribeStacks: by name, or by id after the deletion as well."""
        if params.get("StackName"):
            rows = [self._existing(params["StackName"], caller, "Stack with id {} does not exist")]
        else:
            rows = [s for s in self.ledger.stacks(caller) if s["StackStatus"] != "DELETE_COMPLETE"]
        rows, token = wire.page(rows[::-1], params, PAGE)
        with self.store.lock:
            return {"Stacks": [_shown(stack) for stack in rows], **token}

    def list_stacks(self, params: Params, caller: Caller) -> Params:
        """ListStacks: deleted ones as well."""
        wanted = params.get("StackStatusFilter")
        rows = [
            {
                **pick(stack, "StackId", "StackName", "CreationTime", "LastUpdatedTime",
                       "DeletionTime", "StackStatus", "StackStatusReason"),
                **({"TemplateDescription": stack["Description"]} if stack["Description"] else {}),
                "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
            }
            for stack in self.ledger.stacks(caller)[::-1]
            if not wanted or stack["StackStatus"] in wanted
        ]  # fmt: skip
        rows, token = wire.page(rows, params, PAGE)
        return {"StackSummaries": rows, **token}

    def describe_stack_events(self, params: Params, caller: Caller) -> Params:
        """DescribeStackEvents: the newest first."""
        stack = self._existing(params["StackName"], caller)
        rows, token = wire.page(self.ledger.events(stack), params, PAGE)
        return {"StackEvents": rows, **token}

    def describe_stack_resource(self, params: Params, caller: Caller) -> Params:
        """DescribeStackResource."""
        stack = self._existing(params["StackName"], caller)
        logical = params["LogicalResourceId"]
        record = stack["_resources"].get(logical)
        if record is None:
            raise invalid(f"Resource {logical} does not exist for stack {stack['StackName']}")
        detail = _resource(stack, record, "LastUpdatedTimestamp")
        if record.get("_metadata") is not None:
            detail["Metadata"] = changes._shown(record["_metadata"])
        return {"StackResourceDetail": detail}

    def describe_stack_resources(self, params: Params, caller: Caller) -> Params:
        """DescribeStackResources: of a stack, or of the stack that a physical id belongs to."""
        physical, logical = params.get("PhysicalResourceId"), params.get("LogicalResourceId")
        if params.get("StackName"):
            stack = self._existing(params["StackName"], caller, "Stack with id {} does not exist")
        else:
            owners = [
                stack
                for stack in self.ledger.stacks(caller)
                if any(r["PhysicalResourceId"] == physical for r in stack["_resources"].values())
            ]
            if not owners or not physical:
                raise invalid(f"Stack for {physical} does not exist")
            stack = owners[-1]
        return {
            "StackResources": [
                _resource(stack, record, "Timestamp")
                for name, record in stack["_resources"].items()
                if logical in (None, name)
            ]
        }

    def list_stack_resources(self, params: Params, caller: Caller) -> Params:
        """ListStackResources."""
        stack = self._existing(params["StackName"], caller, "Stack with id {} does not exist")
        rows = [_resource(stack, r, "LastUpdatedTimestamp") for r in stack["_resources"].values()]
        rows, token = wire.page(rows, params, PAGE)
        return {"StackResourceSummaries": rows, **token}

    def get_template(self, params: Params, caller: Caller) -> Params:
        """GetTemplate, of a stack or a change set."""
        if params.get("ChangeSetName"):
            body = self._change_set(params, caller)["_target"]["_template"]
        else:
            name = params.get("StackName", "")
            body = self._existing(name, caller, "Stack with id {} does not exist")["_template"]
        return {"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]}

    def get_template_summary(self, params: Params, caller: Caller) -> Params:
        """GetTemplateSummary."""
        if params.get("StackName"):
            parsed = template.parse(self._existing(params["StackName"], caller)["_template"])
        else:
            parsed = template.parse(targets.body_of(params, self._clients(caller)))
        rows = []
        for row, declared in zip(_declared(parsed), parsed.parameters.values(), strict=True):
            row["ParameterType"] = declared["Type"]
            if "AllowedValues" in declared:
                values = [str(value) for value in declared["AllowedValues"]]
                row["ParameterConstraints"] = {"AllowedValues": values}
            rows.append(row)
        answer: Params = {
            "Parameters": rows,
            "ResourceTypes": parsed.types(),
            "DeclaredTransforms": parsed.transforms,
            **targets.capabilities_shown(parsed),
        }
        if parsed.metadata:
            answer["Metadata"] = changes._shown(parsed.metadata)
        return answer | _if(Description=parsed.description, Version=parsed.version)

    def validate_template(self, params: Params, caller: Caller) -> Params:
        """ValidateTemplate."""
        parsed = template.parse(targets.body_of(params, self._clients(caller)))
        targets.check_types(parsed)
        return {
            "Parameters": _declared(parsed),
            "DeclaredTransforms": parsed.transforms,
            **targets.capabilities_shown(parsed),
            **_if(Description=parsed.description),
        }

    def list_exports(self, params: Params, caller: Caller) -> Params:
        """ListExports."""
        rows = [
            {"ExportingStackId": stack["StackId"], "Name": name, "Value": value}
            for name, (value, stack) in sorted(self.ledger.exports(caller).items())
        ]
        rows, token = wire.page(rows, params, PAGE)
        return {"Exports": rows, **token}

    def list_imports(self, params: Params, caller: Caller) -> Params:
        """ListImports."""
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

    def _repeated(self, stack: Record, params: Params, action: str) -> bool:
        """Tell whether this request, by its token, has been answered already."""
        token = params.get("ClientRequestToken")
        if not token or token not in stack["_tokens"]:
            return False
        if stack["_tokens"][token] != action:
            raise ApiError(
                "TokenAlreadyExistsException",
                f"Token {token} has been used for {stack['_tokens'][token]}",
            )
        return True

    # Towards a target.

    def _new(self, params: Params, caller: Caller) -> Record:
        name = params["StackName"]
        return {
            "StackId": caller.arn(f"stack/{name}/{uuid.uuid4()}", "cloudformation"),
            "StackName": name,
            "CreationTime": time.time(),
            "StackStatus": "REVIEW_IN_PROGRESS",
            "StackStatusReason": None,
            "DisableRollback": False,
            "EnableTerminationProtection": False,
            "Description": None,
            "Parameters": [],
            "Tags": [],
            "Outputs": [],
            "Capabilities": [],
            "NotificationARNs": [],
            "_account": caller.account,
            "_region": caller.region,
            "_access_key": caller.access_key,
            "_template": "{}",
            "_values": {},
            "_resolved": {},
            "_imports": [],
            "_resources": {},
            "_before": None,
            "_orphans": [],
            "_leftovers": [],
            "_policy": None,
            "_token": None,
            "_tokens": {},
            "_on_failure": "ROLLBACK",
        }

    def _act_as(self, stack: Record, params: Params, caller: Caller, action: str) -> None:
        """Note who asks for an operation, and by which token it can be asked for again."""
        token = params.get("ClientRequestToken")
        stack["_token"], stack["_access_key"] = token, caller.access_key
        if token:
            stack["_tokens"][token] = action

    def _target(
        self, params: Params, caller: Caller, stack: Record, previous: Record | None
    ) -> Record:
        client = self._clients(caller)
        return targets.aim(params, caller, stack, previous, self.ledger, client)

    def _clients(self, caller: Caller) -> Callable[[str], Any]:
        """Return what makes clients by service, for whoever calls."""
        return lambda service: self._client(service, caller.region, caller.access_key)

    def _plan(self, stack: Record, target: Record) -> list[Params]:
        tags = {tag["Key"]: tag["Value"] for tag in target["Tags"]}
        scope = scope_of(self.ledger, {**stack, **target})
        old: Scope | None = None
        before: Template | None = None
        if stack["_resources"]:
            old = scope_of(self.ledger, stack)
            before = old.template
        return changes.plan(before, stack["_resources"], scope, old, tags)


def _actor(stack: Record) -> Caller:
    """Return who changes a stack's resources: the role it was given, or who asked."""
    caller = caller_of(stack)
    if not stack.get("RoleARN"):
        return caller
    session = grants.session(stack["RoleARN"], "AWSCloudFormation", caller.region)
    return Caller(caller.account, caller.region, session["AWS_ACCESS_KEY_ID"])


def _resume(operation: Operation, status: str) -> None:
    operation.find_begun()
    if status == "CREATE_IN_PROGRESS" and operation.stack["_on_failure"] == "DO_NOTHING":
        operation.ledger.status(operation.stack, "CREATE_FAILED", engine.KILLED)
    elif status in ("CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"):
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


def _refuse_unless_updatable(stack: Record) -> None:
    if stack["StackStatus"] not in UPDATABLE:
        raise invalid(
            f"Stack:{stack['StackId']} is in {stack['StackStatus']} state and can not be updated."
        )


def _declared(parsed: Template) -> list[Params]:
    rows = []
    for name, declared in parsed.parameters.items():
        row: Params = {
            "ParameterKey": name,
            "NoEcho": str(declared.get("NoEcho", "")).lower() == "true",
        }
        if "Default" in declared:
            row["DefaultValue"] = str(declared["Default"])
        rows.append(row | _if(Description=declared.get("Description")))
    return rows


def _outputs_differ(stack: Record, target: Record) -> bool:
    old, new = (template.parse(text).outputs for text in (stack["_template"], target["_template"]))
    return bool(old != new)


def _shown(stack: Record) -> Params:
    answer = copy.deepcopy(wire.public(stack))
    return {
        **{name: value for name, value in answer.items() if value is not None},
        "RollbackConfiguration": {},
        "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
    }


def _resource(stack: Record, record: Record, time_name: str) -> Params:
    return {
        "StackName": stack["StackName"],
        "StackId": stack["StackId"],
        **pick(
            record,
            "LogicalResourceId",
            "PhysicalResourceId",
            "ResourceType",
            "ResourceStatus",
            "ResourceStatusReason",
        ),
        time_name: record["Timestamp"],
        "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"},
    }


def _if(**given: Any) -> Params:
    return {name: value for name, value in given.items() if value}
