"""Messages to people: what happened, where, what to do next, and a link. Each is sent once.

Must not know the credential, and starts nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import registry  # type: ignore[import-not-found]
import retraining  # type: ignore[import-not-found]
from claims import Claim  # type: ignore[import-not-found]
from registry import Ignored, client

# Of SNS, for e-mail: ASCII, without line breaks.
LONGEST_SUBJECT = 100
_REASON = re.compile(r"\. Reason: (.*)", re.DOTALL)
_JOBS = {"ProcessingJob", "TrainingJob"}
_FAILED = re.compile(".*(FAILED|ROLLBACK_COMPLETE)")


@dataclass(frozen=True)
class Notice:
    """A message. `identity` is that of what happened, whatever event announces it."""

    identity: str
    subject: str
    happened: list[str]
    to_do: list[str]
    link: str

    @property
    def text(self) -> str:
        lines = [*self.happened, "", "What to do next:", *(f"  {line}" for line in self.to_do)]
        return "\n".join([*lines, "", self.link, ""])


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Tell the topic's subscribers what an event means for them. Return `{"sent": bool, ...}`.

    Raise what a retry may fix.
    """
    try:
        kind = event.get("detail-type") if isinstance(event, dict) else None
        if kind not in _KINDS or not isinstance(event.get("detail"), dict):
            raise Ignored("not an event that people are notified about")
        own = context.invoked_function_arn.split(":")
        if [event.get("region"), event.get("account")] != own[3:5]:
            raise Ignored("an event of another account or region")
        notice = _KINDS[kind](event, context)
        key = hashlib.sha256(notice.identity.encode()).hexdigest()[:32]
        Claim(f"platform/notices/{key}.json").once(lambda: _publish(notice))
    except Ignored as why:
        line = {"sent": False, "why": str(why)}
    else:
        line = {"sent": True, "subject": notice.subject}
    print(json.dumps(line))
    return line


def _publish(notice: Notice) -> str:
    subject = notice.subject.encode("ascii", "replace").decode()
    answer = client("sns").publish(
        TopicArn=os.environ["TOPIC_ARN"],
        Subject=" ".join(subject.split())[:LONGEST_SUBJECT],
        Message=notice.text,
    )
    return str(answer["MessageId"])


def _waiting(event: dict[str, Any], _: Any) -> Notice:
    """Return the message that a version waits for approval."""
    arn = str(event["detail"].get("ModelPackageArn"))
    package = registry.describe(arn)
    status = package.get("ModelApprovalStatus")
    if status != "PendingManualApproval":
        raise Ignored(f"the version is {status}")
    where = registry.origin(package)
    project, number = package["ModelPackageGroupName"], package["ModelPackageVersion"]
    commit = package["MetadataProperties"].get("CommitId", "unknown")
    evaluation = package.get("CustomerMetadataProperties", {}).get("Evaluation", "")
    return Notice(
        f"waiting {arn}",
        f"{project}: version {number} waits for approval",
        [
            f"Version {number} of {project} waits for approval.",
            *([evaluation] if evaluation else []),
            f"Trained from commit {commit} of {where.path}.",
        ],
        [
            f"mlops report {number}   shows what was measured",
            f"mlops approve {number}  deploys it; or mlops reject {number}",
        ],
        f"https://{where.host}/{where.path}"
        + (f"/commit/{commit[:40]}" if registry.COMMIT.match(commit) else ""),
    )


def _trained(event: dict[str, Any], _: Any) -> Notice:
    """Return the message that a retraining ended, or that a check failed."""
    detail = event["detail"]
    arn = str(detail.get("pipelineExecutionArn"))
    status = detail.get("currentPipelineExecutionStatus")
    if arn.split("/")[1].endswith("-monitor"):
        return _unchecked(arn, str(status))
    said = _REASON.search(str(detail.get("pipelineExecutionDescription", "")))
    if not said or status not in ("Succeeded", "Failed", "Stopped"):
        raise Ignored("not the end of a retraining")
    steps = client("sagemaker").list_pipeline_execution_steps(
        PipelineExecutionArn=arn, SortOrder="Ascending", MaxResults=100
    )["PipelineExecutionSteps"]
    pipeline, execution = arn.split("/")[1], arn.rpartition("/")[2]
    outcome, to_do = _outcome(steps, str(status), execution)
    # On a miss it may be there with an empty ARN.
    hits = [s for s in steps if s.get("CacheHitResult", {}).get("SourcePipelineExecutionArn")]
    jobs = [s for s in steps if _JOBS & s.get("Metadata", {}).keys()]
    # The reason is an argument of Evaluate, which therefore runs.
    ran = [s for s in jobs if s not in hits and s["StepName"] != "Evaluate"]
    unchanged = "The model is unchanged: data and code are those of an earlier training."
    return Notice(
        f"trained {arn} {status}",
        f"{pipeline}: retraining {status}",
        [
            f"The retraining of {pipeline} {outcome}.",
            f"Reason: {said[1]}",
            *([unchanged] if hits and not ran else []),
            f"Execution: {arn}",
        ],
        to_do,
        _actions_page(pipeline, steps),
    )


def _unchecked(arn: str, status: str) -> Notice:
    """Return the message that a check failed, which is none if it found a violation: the alarm
    about drift tells that."""
    steps = client("sagemaker").list_pipeline_execution_steps(PipelineExecutionArn=arn)
    broken = [
        step
        for step in steps["PipelineExecutionSteps"]
        if step.get("StepStatus") == "Failed" and "Fail" not in step.get("Metadata", {})
    ]
    if status != "Failed" or not broken:
        raise Ignored("not the end of a retraining")
    project, name = arn.split("/")[1].removesuffix("-monitor"), broken[0]["StepName"]
    why = " ".join(str(broken[0].get("FailureReason", "")).split())
    return Notice(
        f"unchecked {arn}",
        f"{project}: a check failed",
        [
            f"A monitoring check of {project} failed: {why[:500]}",
            f"Execution: {arn}",
        ],
        [
            f"mlops logs {name} --execution {arn.rpartition('/')[2]}",
            "mlops monitor   shows the checks before",
        ],
        _console("sagemaker/home", "/pipelines"),
    )


def _outcome(steps: list[dict[str, Any]], status: str, execution: str) -> tuple[str, list[str]]:
    """Return how an execution ended, and what to do then."""
    if arn := _registered(steps):
        number = arn.rpartition("/")[2]
        return f"registered version {number}", [
            f"mlops report {number}   shows what was measured",
            f"mlops approve {number}  deploys it; or mlops reject {number}",
        ]
    for step in steps:
        if "Fail" in step.get("Metadata", {}):
            why = step["Metadata"]["Fail"].get("ErrorMessage", "")
            return f"registered no version: {why}", [
                f"mlops report {execution}   shows what was measured"
            ]
    for step in steps:
        if step.get("StepStatus") == "Failed":
            name, why = step["StepName"], " ".join(str(step.get("FailureReason", "")).split())
            return f"failed in step {name}: {why[:500]}", [
                f"mlops logs {name} --execution {execution}"
            ]
    return f"ended: {status}", [f"mlops follow {execution}"]


def _registered(steps: list[dict[str, Any]]) -> str:
    """Return the ARN of the version that an execution registered, or empty."""
    found = (step.get("Metadata", {}).get("RegisterModel", {}).get("Arn") for step in steps)
    return next(filter(None, found), "")


def _actions_page(project: str, steps: list[dict[str, Any]]) -> str:
    """Return the address where a project's trainings run; of the console if that is unknown."""
    try:
        if arn := _registered(steps):
            where = registry.origin(registry.describe(arn))
        else:
            where = registry.champions_repository(project)
    except Ignored:
        return _console("sagemaker/home", "/pipelines")
    if where.ci == "jenkins":
        return f"{os.environ.get('JENKINS_URL', '').rstrip('/')}/job/{where.owner}/job/{where.name}"
    return f"https://{where.host}/{where.path}/actions/workflows/build.yml"


def _failed(event: dict[str, Any], _: Any) -> Notice:
    """Return the message that the deployment of a stage failed or was rolled back."""
    detail = event["detail"]
    arn = str(detail.get("stack-id"))
    status = str((detail.get("status-details") or {}).get("status"))
    if not _FAILED.fullmatch(status):
        raise Ignored(f"a stack is {status}")
    formation = client("cloudformation")
    with registry.ignoring_absence("the stack was deleted in the meantime"):
        [stack] = formation.describe_stacks(StackName=arn)["Stacks"]
        events = formation.describe_stack_events(StackName=arn)["StackEvents"]
    tags = {tag["Key"]: tag["Value"] for tag in stack.get("Tags", ())}
    project, stage = tags.get("project", ""), tags.get("stage", "")
    if stack["StackName"] not in (f"{project}-{stage}", f"{project}-{stage}-watch"):
        raise Ignored(f"{stack['StackName']} is not the stack of a stage")
    subject, happened, to_do = _ended(
        stack["StackName"] == f"{project}-{stage}-watch", stage, status
    )
    return Notice(
        f"failed {arn} {status} {event.get('time')}",
        f"{project}: {subject}",
        [
            f"{happened} of {project} ended as {status}.",
            *_first_failure(events, detail.get("client-request-token")),
            *(["The previous version keeps serving."] * (status == "UPDATE_ROLLBACK_COMPLETE")),
        ],
        ["mlops status   shows what runs", *to_do],
        _console("cloudformation/home", f"/stacks/events?stackId={urllib.parse.quote(arn, '')}"),
    )


def _ended(watches: bool, stage: str, status: str) -> tuple[str, str, list[str]]:
    """Return the subject, what ended, and what to do, of a stage's stack or of its second one."""
    what = f"the schedules and alarm of {stage}" if watches else f"stage {stage}"
    deploy = f"mlops deploy {stage} --model-package-arn ARN   tries it again"
    destroy = f"mlops destroy {stage}   tries it again"
    if status == "DELETE_FAILED":
        # The second stack is also deleted by a deployment that no longer wants it.
        to_do = [f"{deploy}, if the stage stays", f"{destroy}, if not"] if watches else [destroy]
        return f"deleting {what} failed", f"Deleting {what}", to_do
    ended = "rolled back" if "ROLLBACK_C" in status else "failed"
    verb = "" if ended == "failed" else "were " if watches else "was "
    return (
        f"{what} {verb}{ended}",
        f"The deployment of {what}",
        [f"{deploy} once the reason is fixed"],
    )


def _first_failure(events: list[dict[str, Any]], token: Any) -> list[str]:
    """Return the line about the resource that failed first in the last operation, if one did."""
    told = [
        f"{item['LogicalResourceId']}: {' '.join(item['ResourceStatusReason'].split())[:500]}"
        # The newest events come first.
        for item in events
        if item["ResourceStatus"].endswith("_FAILED")
        and item.get("ResourceStatusReason")
        and "cancelled" not in item["ResourceStatusReason"]
        and token in (None, item.get("ClientRequestToken"))
    ]
    return told[-1:]


def _drifted(event: dict[str, Any], context: Any) -> Notice:
    """Return the message that the data of a stage drifted."""
    found = retraining.drift(event, context)
    next_one = (
        f"a training starts by itself, at most once in {found.cool_down_days:g} days"
        if found.retrains
        else "mlops run --reason drift   starts a new training"
    )
    state = event["detail"]["state"]
    return Notice(
        f"drift {found.alarm} {state.get('timestamp') or found.moment}",
        f"{found.project}: drift in {found.stage}",
        [
            f"The requests to {found.stage} of {found.project} have drifted.",
            *filter(None, [retraining.finding(found)]),
        ],
        [f"mlops monitor {found.stage} --report   shows which columns, and how far", next_one],
        _console("cloudwatch/home", f"alarmsV2:alarm/{found.alarm}"),
    )


def _console(page: str, place: str) -> str:
    region = os.environ["AWS_REGION"]
    domain = "amazonaws-us-gov.com" if region.startswith("us-gov-") else "aws.amazon.com"
    return f"https://{region}.console.{domain}/{page}?region={region}#{place}"


_KINDS: dict[str, Callable[[dict[str, Any], Any], Notice]] = {
    "SageMaker Model Package State Change": _waiting,
    "SageMaker Model Building Pipeline Execution Status Change": _trained,
    "CloudFormation Stack Status Change": _failed,
    "CloudWatch Alarm State Change": _drifted,
}
