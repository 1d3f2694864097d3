"""Deploy one approved version to one stage with `infra/endpoint.yml`, and verify that it runs.

The version is named by its ARN; nothing here ever looks for the latest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console

from sm_mlops import display, objects, quotas, registry, stacks, templates
from sm_mlops.aws import DENIED, NO_OBJECT, Aws, ignoring, split_s3
from sm_mlops.deployment import access, endpoints, records, stages, watch
from sm_mlops.deployment.stages import Stage
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError
from sm_mlops.quotas import Need
from sm_mlops.registry import Version
from sm_mlops.stacks import Change, Outcome, Overtaken, Stack, StackFailed

# The versions that a stage ran, oldest first, for `mlops rollback`. It is a tag of the stack, so a
# failed update rolls it back, too.
TRAIL = "deployed-versions"
# When the run that deployed the present version began: an older run does not replace it.
STARTED = "deployment-started"
TAG_LENGTH = 256
LOG_LINES = 15


@dataclass(frozen=True)
class Deployment:
    """`changed` is False if the stage already ran exactly this; `planned` is True after a dry run
    that found changes. `left` has the resources that could not be deleted afterwards."""

    stage: str
    endpoint: str
    kind: str
    version: int
    model_package: str
    commit: str
    changed: bool
    planned: bool
    seconds: float
    changes: tuple[Change, ...]
    left: tuple[str, ...] = ()


class DeploymentFailed(MlopsError):
    """The stack operation failed. `log` has the last lines of the container's log, `running` is the
    version that the stage still runs."""

    def __init__(self, message: str, log: tuple[str, ...], running: int | None) -> None:
        super().__init__(message)
        self.log, self.running = log, running


class WatchFailed(DeploymentFailed):
    """The stage runs the version, but its second stack failed."""


class Superseded(MlopsError):
    """The stage has received a version since whose run began later; nothing was changed."""


def moment(at: datetime | None = None) -> str:
    """Return a time, by default the present one, as in the tag of a stage."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")


def deploy(
    aws: Aws,
    stage: Stage,
    arn: str,
    console: Console,
    *,
    started: str = "",
    in_turn: bool = False,
    execute: bool = True,
    continue_rollback: bool = False,
    back: RollbackTarget | None = None,
) -> Deployment:
    """Deploy the version `arn`; return once the endpoint is in service with this version, and what
    runs by itself has been deployed after it.

    `started` is when the approved run began; raises Superseded if a later one was faster. Without
    it, no run is too late. With `in_turn` the version before stays until it was tested. `back` is
    what a rollback was decided by; raises Superseded if another version runs by then. Raises
    MlopsError, or DeploymentFailed once it began.
    """
    began = time.monotonic()
    package = approved(aws, arn)
    _require_unchanged(aws, package)
    there = access.enter(aws, stage)
    access.require(aws, there, stage, package.image)
    watch.require(aws, there, stage, console)
    limit = _boundary(there)
    own = {**_artifact_key(aws, package), **limit, **watch.capture(aws.settings, stage)}
    parameters = stages.stack_parameters(aws.settings, stage, aws.bucket, package.arn, **own)
    run = _Run(
        *(there, stage, package, parameters, console, started),
        *(in_turn, execute, continue_rollback, back),
    )
    if execute and (fleet := stages.fleet(there.settings, stage)):
        name, setting = quotas.name(fleet.instance, "endpoint"), f"infra/{stage.name}.json"
        quotas.require(there, [Need(f"stage {stage.name}", name, fleet.least, setting)])
    since = datetime.now().astimezone()
    try:
        outcome = run.until_alone()
    except StackFailed as failure:
        raise _with_log(there, stage, failure, since) from failure
    if execute or not outcome.changes:
        _verify(there, stage, package, back)
    if execute:
        records.keep(aws, there, stage, package.version, console)
    second = run.watched(aws, limit)
    changes = (*outcome.changes, *second.changes)
    return Deployment(
        stage=stage.name,
        endpoint=stage.stack,
        kind=stage.kind,
        version=package.version,
        model_package=package.arn,
        commit=package.commit,
        changed=outcome.executed or second.executed,
        planned=not execute and bool(changes),
        seconds=round(time.monotonic() - began, 1),
        changes=changes,
        left=tuple(f"{event.resource} {event.physical}: {event.reason}" for event in outcome.left),
    )


@dataclass(frozen=True)
class _Run:
    """One run of `deploy`, whose arguments it has, towards its stage. Others may run beside it."""

    there: Aws
    stage: Stage
    package: Version
    parameters: Mapping[str, str | None]
    console: Console
    started: str
    in_turn: bool
    execute: bool
    continue_rollback: bool
    back: RollbackTarget | None

    def until_alone(self) -> Outcome:
        """Update the stack; look at it anew where another run was faster."""
        for _ in range(watch.ATTEMPTS - 1):
            try:
                return self._attempt()
            except Overtaken as other:
                tell(self.console, f"{self.stage.name}: {other}")
        return self._attempt()

    def watched(self, aws: Aws, boundary: Mapping[str, str]) -> Outcome:
        """Deploy the second stack, too. Raises WatchFailed."""
        how = {"execute": self.execute, "continue_rollback": self.continue_rollback}
        try:
            return watch.deploy(aws, self.there, self.stage, boundary, self.console, **how)
        except MlopsError as failure:
            if not self.execute:
                raise
            number = self.package.version
            raise WatchFailed(
                f"{self.stage.name} runs version {number}; its schedules and alarm were not "
                f"deployed: {failure}",
                *((), number),
            ) from failure

    def _attempt(self) -> Outcome:
        before = self._ready()
        if self.execute and before and self._is_blocked(before):
            return self._update_unscaled(before)
        return self._update(before)

    def _ready(self) -> Stack | None:
        """Return the stack once it is this run's turn."""
        before = self._stack()
        seen: dict[str, float] = {}
        while self.in_turn and before:
            config = endpoints.untested(self.there, self.stage.stack)
            if config and config not in seen:
                tell(self.console, f"{self.stage.name} is being tested by another run: waiting")
            began = seen.setdefault(config, time.monotonic())
            if not config or time.monotonic() - began > endpoints.TEST_TIME.total_seconds():
                break
            time.sleep(display.pause(began, longest=10.0))
            before = self._stack()
        return before

    def _stack(self) -> Stack | None:
        """Return the stack to update, None if it is to be created. Raises MlopsError."""
        there, stage, again = self.there, self.stage, self.continue_rollback
        found = stacks.describe(there, stage.stack)
        stages.require_own(there.settings, stage, found.parameters if found else {})
        ready = stacks.make_ready(
            there, stage.stack, self.console, continue_rollback=again, execute=self.execute
        )
        before = ready if ready and ready.status in stacks.READY else None
        # CloudFormation would find out while it updates the endpoint, and again in the rollback.
        if before:
            runs = endpoints.running(there, stage.stack)
            if runs is None or runs.status == "Deleting":
                raise MlopsError(_missing(there, stage, runs.status if runs else ""))
            if self.execute and runs.status in endpoints.CHANGING:
                # It scales, or AWS updates it, and SageMaker would refuse another change.
                tell(self.console, f"{stage.name} is {runs.status}: waiting")
                runs = endpoints.settled(there, stage.stack) or runs
            if self.back and runs.version != self.back.running:
                raise Superseded(
                    f"{stage.name} was not changed: it received version {runs.version} meanwhile; "
                    "run the command again if it shall return from that one"
                )
        had = before.outputs.get("EndpointKind", stage.kind) if before else stage.kind
        # UpdateEndpoint would refuse any other change of the kind, minutes later. Sources:
        # https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints-update.html and,
        # for asynchronous ones, https://github.com/aws/sagemaker-python-sdk/pull/3124
        converts = had != stage.kind and "batch" not in (had, stage.kind)
        if converts and (had, stage.kind) != ("serverless", "real-time"):
            raise MlopsError(
                f"{stage.stack} is {had}, and SageMaker cannot change it to {stage.kind}: run "
                f"{there.command} destroy {stage.name} first"
            )
        self._require_newest(before)
        return before

    def _require_newest(self, before: Stack | None) -> None:
        """Raise Superseded if the stage's version came by a run that began after this one."""
        running, number = read_trail(before)[-1:], self.package.version
        if not self.started or before is None or running in ((), (number,)):
            return
        if before.tags.get(STARTED, "") > self.started:
            raise Superseded(
                f"{self.stage.name} was not changed: version {number} is superseded by version "
                f"{running[0]}, approved later; to roll back, run {self.there.command} trigger "
                f"{number} or {self.there.command} rollback {self.stage.name} --to {number}"
            )

    def _update(self, before: Stack | None) -> Outcome:
        return stacks.deploy(
            self.there,
            self.stage.stack,
            stages.template(self.there.settings),
            {**self._without_alarms(before), **self.parameters},
            self._tags(before),
            watch.CAPABILITIES,
            self.console,
            execute=self.execute,
            continue_rollback=self.continue_rollback,
            had=before.tags if before else {},
        )

    def _without_alarms(self, before: Stack | None) -> dict[str, str | None]:
        """Return the parameter with which no alarm ends the update, where one is in ALARM already.

        SageMaker counts what the running version does wrong, too: the update to a better one, and
        a rollback, would be cancelled. Source:
        https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-configuration.html
        """
        declared = templates.parameters(stages.template(self.there.settings))
        if before is None or "AutoRollback" not in declared or "AutoRollback" in self.parameters:
            return {}
        if not self._changes(before, "ModelPackageArn", "InstanceType", "InstanceCount"):
            # The endpoint keeps its configuration, so nothing of it shall change.
            return {"AutoRollback": None} if "AutoRollback" in before.parameters else {}
        if self.stage.kind == "serverless":
            return {}
        names = [f"{before.name}-{what}" for what in ("errors", "latency")]
        ringing: list[str] = []
        with ignoring(*DENIED):
            found = self.there.client("cloudwatch").describe_alarms(AlarmNames=names)
            alarms = found["MetricAlarms"]
            ringing = sorted(each["AlarmName"] for each in alarms if each["StateValue"] == "ALARM")
        if not ringing:
            return {}
        tell(
            self.console,
            f"{' and '.join(ringing)} went off before: no alarm will end this deployment",
        )
        return {"AutoRollback": "off"}

    def _is_blocked(self, before: Stack) -> bool:
        """Return whether autoscaling blocks the update, as it does a change of the instance type.

        Source: https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html
        """
        if "Autoscaling" not in before.parameters:
            return False
        changes = self._changes(before, "InstanceType")
        return changes and bool(endpoints.scalable_targets(self.there, self.stage.stack))

    def _changes(self, before: Stack, *names: str) -> bool:
        """Return whether the stack will have another value of one of these parameters."""
        declared = templates.parameters(stages.template(self.there.settings))
        wanted = {
            name: self.parameters.get(name) or str(declared[name].get("Default"))
            for name in names
            if name in declared
        }
        return any(before.parameters.get(name) != value for name, value in wanted.items())

    def _update_unscaled(self, before: Stack) -> Outcome:
        """Update the endpoint without autoscaling; restore autoscaling if the update fails."""
        name, console = before.name, self.console
        tell(console, f"InstanceType changes: deregistering {name} from autoscaling first")
        self._set_autoscaling(before, "off")
        try:
            return self._update(before)
        except Overtaken:
            raise
        except Exception:
            tell(console, f"registering {name} with autoscaling again")
            try:
                self._set_autoscaling(before, before.parameters["Autoscaling"])
            except Overtaken:
                tell(console, "another run has deployed meanwhile, with autoscaling as it wants it")
            except MlopsError as error:
                tell(console, f"no autoscaling until the next deployment: {error}")
            raise

    def _set_autoscaling(self, before: Stack, value: str) -> None:
        given = {**dict.fromkeys(before.parameters), "Autoscaling": value}
        stacks.deploy(
            *(self.there, before.name, None, given, before.tags, watch.CAPABILITIES, self.console),
            had=before.tags,
        )

    def _tags(self, before: Stack | None) -> dict[str, str]:
        version, former = self.package.version, read_trail(before)
        started = self.started or moment()
        if before and former[-1:] == (version,):
            # The same version again changes nothing.
            started = before.tags.get(STARTED, "")
        trail = self.back.trail if self.back else former
        return {
            **self.stage.tags,
            "model-version": str(version),
            "commit": self.package.commit or "unknown",
            **({STARTED: started} if started else {}),
            TRAIL: _tag(trail if trail[-1:] == (version,) else (*trail, version)),
        }


def approved(aws: Aws, arn: str, commit: str = "") -> Version:
    """Return the version of an ARN. Raises MlopsError if it must not be deployed.

    `commit`, if given, must be the version's own.
    """
    ours = aws.arn("sagemaker", f"model-package/{aws.settings.model_package_group}/")
    number = arn[len(ours) :]
    # SageMaker lowercases the names in ARNs.
    if not arn.lower().startswith(ours.lower()) or not re.fullmatch("[0-9]+", number):
        raise MlopsError(
            f"{arn} is not a version of this project in this account and region, {ours}NUMBER: see "
            f"{aws.command} models --json"
        )
    package = registry.version(aws, int(number))
    if package.approval != "Approved":
        raise MlopsError(
            f"version {number} is {package.approval}, not Approved: {aws.command} approve {number}"
        )
    if commit and commit != package.commit:
        raise MlopsError(
            f"version {number} was trained from commit {package.commit or 'unknown'}, not {commit}"
        )
    return package


def unusual(aws: Aws, stage: Stage, package: Version) -> list[str]:
    """Return what a person should know before this version reaches the last stage."""
    lines = []
    if package.commit.endswith("-dirty"):
        lines.append("was trained with uncommitted changes: no commit has its code")
    for name in stages.names(aws.settings):
        if name == stage.name:
            break
        other = stages.load(aws.settings, name)
        ran = read_trail(stacks.describe(access.enter(aws, other), other.stack))
        if package.version not in ran:
            lines.append(f"has never run in {name}")
    return lines


def _require_unchanged(aws: Aws, package: Version) -> None:
    """Raise MlopsError if the artifact is no longer what was evaluated and approved.

    The jobs of the pipeline may write there. The versions of an object tell more than its time:
    that of an upload in parts is when it began.
    """
    for uri in package.artifacts:
        bucket, key = split_s3(uri)
        written = {}
        # An adopted registry may name what the roles of stages may not list.
        with ignoring(*DENIED):
            rows = objects.versions(aws, bucket, key)
            own = [row for row in rows if row["Key"] == key and "ETag" in row]
            written = {row["ETag"]: row["LastModified"] for row in own}
        if len(written) > 1 or any(each > package.created for each in written.values()):
            raise MlopsError(
                f"version {package.version} is not deployed: {key} in {bucket} has been written "
                "again since its training; find out by whom, and train a new version"
            )


def _boundary(there: Aws) -> dict[str, str]:
    """Return the platform's permissions boundary if the account has one: the role of the workflows
    may not create a role for the endpoint without it."""
    settings = there.settings
    name = f"sm-mlops-boundary-{settings.project.region}"
    arn = f"arn:{settings.partition}:iam::{there.account}:policy/{name}"
    # Without permission to read it, try without; IAM refuses if it is required.
    with ignoring("NoSuchEntity", "AccessDenied"):
        there.client("iam").get_policy(PolicyArn=arn)
        return {"PermissionsBoundaryArn": arn}
    return {}


def _artifact_key(aws: Aws, package: Version) -> dict[str, str]:
    """Return the key that encrypts model.tar.gz: the endpoint's role needs it.

    It is read from the artifact: when it was trained, mlops.yaml may have named another key.
    """
    key = aws.settings.aws.kms_key
    for uri in package.artifacts:
        bucket, name = split_s3(uri)
        # An adopted registry may name what the roles of stages may not read; SageMaker reports it.
        with ignoring(*DENIED, "403", *NO_OBJECT):
            key = aws.s3.head_object(Bucket=bucket, Key=name).get("SSEKMSKeyId")
    if not key:
        return {}
    if ":key/" not in key:
        # Policies need the ARN; mlops.yaml may have the key's ID or alias.
        key = aws.client("kms").describe_key(KeyId=key)["KeyMetadata"]["Arn"]
    return {"ArtifactKmsKeyArn": key}


def _missing(there: Aws, stage: Stage, what: str = "") -> str:
    """Return what to do about an endpoint that is not there, or is `what`."""
    state = f"its endpoint is {what}" if what else f"it has no endpoint {stage.stack}"
    again = f"{there.command} destroy {stage.name}, then deploy again"
    return f"the stack is complete, but {state}: {again}"


def _verify(there: Aws, stage: Stage, package: Version, back: RollbackTarget | None) -> None:
    """Raise MlopsError unless the endpoint is in service with this version."""
    found = endpoints.settled(there, stage.stack) or endpoints.running(there, stage.stack)
    if found is None:
        raise MlopsError(_missing(there, stage))
    if found.status not in ("InService", endpoints.BATCH):
        why = f" ({found.reason})" if found.reason else ""
        raise MlopsError(_missing(there, stage, found.status + why))
    if found.package != package.arn:
        stack = stacks.describe(there, stage.stack)
        assert stack is not None
        *before, last = read_trail(stack)
        if last != package.version:
            raise Superseded(
                f"{stage.name} received version {package.version}, and since then version {last} "
                "by another run"
            )
        why = f" ({found.reason})" if found.reason else ""
        likely = (
            f"{why}: most likely an alarm made SageMaker return to it. See why the alarms "
            f"{stage.stack}-* went off"
        )
        if not found.model:
            raise MlopsError(
                "the stack is complete, but its endpoint runs a former configuration, which "
                f"CloudFormation has deleted{likely}, and deploy the version that shall run; if it "
                f"cannot be updated, run {there.command} destroy {stage.name} first"
            )
        if found.version in (*before, *([back.running] if back else ())):
            raise MlopsError(
                f"the stack is complete, but its endpoint runs version {found.version}{likely}; to "
                f"make the stack agree, run {there.command} deploy {stage.name} "
                f"--model-package-arn {found.package}"
            )
        # CloudFormation does not notice changes made outside of it. This restores its configuration
        # without downtime.
        held = {item.name: item.physical for item in stacks.resources(there, stack)}
        config = held["EndpointConfig"].rpartition("/")[2]
        runs = f"version {found.version}" if found.version else f"model {found.model}"
        raise MlopsError(
            f"the stack is complete, but its endpoint runs {runs}, which was set outside of it: "
            f"aws sagemaker update-endpoint --endpoint-name {stage.stack} "
            f"--endpoint-config-name {config}, then deploy again"
        )


def _with_log(
    there: Aws, stage: Stage, failure: StackFailed, started: datetime
) -> DeploymentFailed:
    log: list[str] = []
    if failure.event and failure.event.kind == "AWS::SageMaker::Endpoint":
        log = endpoints.log_lines(there, stage.stack, started)[-LOG_LINES:]
    found = endpoints.describe(there, stage.stack)
    running = found.version if found and found.status == "InService" else None
    return DeploymentFailed(str(failure), tuple(log), running)


def read_trail(stack: Stack | None) -> tuple[int, ...]:
    """Return the versions that a stage ran, the present one last."""
    text = stack.tags.get(TRAIL, "") if stack else ""
    return tuple(int(word) for word in text.split() if word.isdigit())


def _tag(trail: tuple[int, ...]) -> str:
    """Return the trail as the value of a tag: without the oldest versions if it is too long."""
    text = " ".join(map(str, trail))
    return text if len(text) <= TAG_LENGTH else _tag(trail[1:])


@dataclass(frozen=True)
class RollbackTarget:
    """The version to return to, and the trail of the stage afterwards."""

    running: int
    arn: str
    version: int
    trail: tuple[int, ...]


def rollback_target(aws: Aws, stage: Stage, to: int | None) -> RollbackTarget:
    """Return the version to roll back to: `to`, or the one that ran before.

    Raises MlopsError if that is unknown or no longer approved.
    """
    there = access.enter(aws, stage)
    running = endpoints.serving(there, stage.stack, stage.name, batch=True).version
    if running is None:
        raise MlopsError(f"{stage.stack} runs no version of the registry")
    trail = read_trail(stacks.describe(there, stage.stack))
    # A version deployed by other means is not in the trail.
    before = _until(trail, running) if running in trail else ()
    number = to if to is not None else next(iter(before[::-1]), None)
    choices = [
        found.version
        for found in registry.versions(aws)
        if found.approval == "Approved" and found.version != running
    ]
    hint = "no other version is approved"
    if choices:
        hint = f"name one with --to (approved: {', '.join(map(str, choices))})"
    if number is None:
        raise MlopsError(
            f"stage {stage.name} runs version {running} and has no record of a previous one: {hint}"
        )
    if number == running:
        raise MlopsError(f"stage {stage.name} already runs version {running}")
    found = registry.version(aws, number)
    if found.approval != "Approved":
        which = f"the previous version, {number}," if to is None else f"version {number}"
        raise MlopsError(f"{which} is {found.approval}: {hint}")
    before = (*_until(before, number), number) if number in before else (*before, number)
    return RollbackTarget(running, found.arn, number, before)


def _until(trail: tuple[int, ...], version: int) -> tuple[int, ...]:
    """Return the versions before the last run of this one."""
    return trail[: len(trail) - 1 - trail[::-1].index(version)]
