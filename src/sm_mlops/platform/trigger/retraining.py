"""What may start a training by itself: an alarm about drift, and a stage's schedule.

Events and inputs are hints: the alarm's tags and the schedule itself say whether it is wanted. Each
starts one training and then waits, so drift that a new model does not end starts no loop.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError
from claims import Claim  # type: ignore[import-not-found]
from registry import Ignored, client, ignoring_absence  # type: ignore[import-not-found]

# Between the scheduled times of two trainings, however many come late.
_HOUR = timedelta(hours=1)
_DAY = 24 * 3600
LONGEST_REASON = 500
# Of the results of checks, as the monitoring job keeps them: the names of their folders, and how
# many windows before the newest it checks again.
_WINDOW, _EARLIER = "%Y-%m-%dT%HZ", 7
_RECENT = timedelta(days=30)
# Between a job's writing of a result and the alarm that this raises, at most.
_RAISED = timedelta(hours=2)
# The only stage that trains: a name that could be split in two ways, as churn-eu-production into
# churn and eu-production, would let a project speak for another.
_STAGE = "production"
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
# Of <aws.scheduler.scheduled-time>.
_TIME = "%Y-%m-%dT%H:%M:%S%z"
_ALARM = re.compile(rf"{_NAME.pattern}-drift")


@dataclass(frozen=True)
class Retraining:
    """A training to start: of which project, because of which of its stages, and why."""

    project: str
    stage: str
    reason: str
    claim: Claim


@dataclass(frozen=True)
class Drift:
    """An alarm about drift that is in ALARM, and what its tags say."""

    alarm: str
    project: str
    stage: str
    moment: float
    retrains: bool
    cool_down_days: float


def drift(event: dict[str, Any], context: Any) -> Drift:
    """Return the alarm of an event. Raise Ignored if it is no stage's, or not in ALARM."""
    detail = event["detail"]
    name, state = detail.get("alarmName"), detail.get("state")
    if not (isinstance(name, str) and _ALARM.fullmatch(name)):
        raise Ignored("not an alarm about drift")
    value = state.get("value") if isinstance(state, dict) else None
    if value != "ALARM":
        raise Ignored(f"{name} is not in ALARM but {value}")
    if not context:
        raise Ignored("no function of an account was called")
    # Never the event's own address: accounts can forward events.
    partition, _, region, account = context.invoked_function_arn.split(":")[1:5]
    if (event.get("account"), event.get("region")) != (account, region):
        raise Ignored("an alarm of another account or region")
    arn = f"arn:{partition}:cloudwatch:{region}:{account}:alarm:{name}"
    with ignoring_absence(f"{name} was deleted in the meantime"):
        tags = client("cloudwatch").list_tags_for_resource(ResourceARN=arn)["Tags"]
    found = {tag["Key"]: tag["Value"] for tag in tags}
    project, stage = found.get("project", ""), found.get("stage", "")
    if name != f"{project}-{stage}-drift":
        raise Ignored(f"{name} is not the alarm of a stage: its tags name {project} {stage}")
    try:
        moment = datetime.fromisoformat(event["time"]).timestamp()
        days = float(found.get("cool-down-days", "7"))
    except (KeyError, TypeError, ValueError) as error:
        raise Ignored(f"{name}: its event or its tag cool-down-days is malformed") from error
    return Drift(name, project, stage, moment, found.get("retrain-on-drift") == "true", days)


def finding(found: Drift) -> str:
    """Return what a check found, "" if no result is in the artifact bucket. Raise Ignored if the
    results there have no violation that can have raised the alarm: any project can put the metric
    of another."""
    results = _results(found)
    newest = next(results, None)
    if newest is None:
        return ""
    # A check that finds a violation, also in an earlier window, writes that result.
    since = datetime.fromtimestamp(found.moment, UTC) - _RAISED
    for result in itertools.chain([newest], results):
        if result.status == "violation" and result.written >= since:
            return result.message
    if newest.is_complete:
        raise Ignored(f"{found.alarm}: no violation was found in the two hours before")
    return newest.message


@dataclass(frozen=True)
class _Result:
    """The result of a check of one window. It is complete once the job that checks has written all
    results, also those of earlier windows with late labels; the metrics come before that."""

    status: str
    message: str
    start: datetime
    end: datetime
    written: datetime
    is_complete: bool


def _results(found: Drift) -> Iterator[_Result]:
    """Yield the newest result at the time of an alarm, then those of the windows before it that the
    same check looks at again."""
    s3, bucket = client("s3"), os.environ["CLAIMS_BUCKET"]
    prefix = f"{found.project}/monitor/{found.stage}/"

    def read(end: str) -> _Result:
        answer = s3.get_object(Bucket=bucket, Key=f"{prefix}{end}/result.json")
        content, written = json.loads(answer["Body"].read()), answer["LastModified"]
        start, until = (datetime.fromisoformat(content["window"][at]) for at in ("start", "end"))
        message = " ".join(str(content["message"]).split())[:1000]
        complete = content["digest"] != ""
        return _Result(content["status"], message, start, until, written, complete)

    moment = datetime.fromtimestamp(found.moment, UTC)
    # So one page has them all: at most one an hour, sorted by time.
    since = f"{prefix}{moment - _RECENT:{_WINDOW}}"
    try:
        listed = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/", StartAfter=since)
        ends = [item["Prefix"][len(prefix) : -1] for item in listed.get("CommonPrefixes", ())]
        newest = read(max(end for end in ends if end <= f"{moment:{_WINDOW}}"))
        yield newest
        for steps in range(1, _EARLIER + 1):
            # Most are not there, which S3 may report as forbidden, as for claims.
            with contextlib.suppress(ClientError):
                yield read(f"{newest.end - steps * (newest.end - newest.start):{_WINDOW}}")
    except (ClientError, KeyError, TypeError, ValueError):
        return


def by_alarm(event: dict[str, Any], context: Any) -> Retraining:
    """Return the training that an alarm starts. Raise Ignored if it starts none.

    The time between two is that between the alarms, not between their deliveries.
    """
    found = drift(event, context)
    if found.stage != _STAGE:
        raise Ignored(f"only {_STAGE} starts a training, not {found.stage}")
    if not found.retrains:
        raise Ignored(f"retraining.on_drift of {found.project} is false")

    def is_due(last: dict[str, Any]) -> bool:
        if found.moment - float(last["about"]) >= found.cool_down_days * _DAY:
            return True
        began = f"{datetime.fromtimestamp(float(last['about']), UTC):%Y-%m-%d %H:%M}"
        raise Ignored(
            f"drift started a training at {began} UTC, which is less than "
            f"{found.cool_down_days:g} days ago"
        )

    claim = Claim(f"{found.project}/approvals/retrain-drift.json", is_due, str(found.moment))
    what = finding(found)
    alarm = f"drift in {found.stage}: alarm {found.alarm} at {event['time']}"
    reason = f"drift: {what}" if what else alarm
    return Retraining(found.project, found.stage, reason[:LONGEST_REASON].rstrip(), claim)


def by_schedule(event: Any) -> Retraining:
    """Return the training that a schedule starts. Raise Ignored if the schedule is not there.

    Any schedule can name any project here. That it is the project's own shows the ARN of its stack,
    which ends with a random identifier: no other project may read it in the schedule itself.
    """
    given = event.get("Retrain") if isinstance(event, dict) else None
    given = given if isinstance(given, dict) else {}
    texts = [given.get(name) for name in ("Project", "Stage", "Scheduled", "Stack")]
    if not all(isinstance(text, str) for text in texts):
        raise Ignored("not the input of a schedule for retraining")
    project, stage, at = (str(text)[:64] for text in texts[:3])
    try:
        moment = datetime.strptime(at, _TIME)
    except ValueError:
        raise Ignored(f"not the time of a schedule: {at}") from None
    if not (_NAME.fullmatch(project) and _NAME.fullmatch(stage)):
        raise Ignored("not the input of a schedule for retraining")
    if stage != _STAGE:
        raise Ignored(f"only {_STAGE} starts a training, not {stage}")
    name = f"{project}-{stage}-retrain"
    with ignoring_absence(f"there is no schedule {name}"):
        schedule = client("scheduler").get_schedule(Name=name)
    if schedule["State"] != "ENABLED":
        raise Ignored(f"schedule {name} is {schedule['State']}")
    if not _asks(schedule, project, stage, str(given["Stack"])):
        raise Ignored(f"not what schedule {name} itself asks for")

    def is_due(last: dict[str, Any]) -> bool:
        if last["about"] == at:
            return False
        if moment - datetime.strptime(last["about"], _TIME) < _HOUR:
            raise Ignored(
                f"schedule {name} started a training for {last['about']}, which is less than an "
                "hour before, or later"
            )
        return True

    claim = Claim(f"{project}/approvals/retrain-{stage}.json", is_due, at)
    return Retraining(project, stage, f"schedule of {stage}, {at}", claim)


def _asks(schedule: dict[str, Any], project: str, stage: str, stack: str) -> bool:
    """Return whether a schedule's own input names this project, stage and stack."""
    try:
        own = json.loads(schedule["Target"]["Input"])["Retrain"]
        wanted = (project, stage, stack)
        return bool(stack) and (own["Project"], own["Stage"], own["Stack"]) == wanted
    except (KeyError, TypeError, ValueError):
        return False
