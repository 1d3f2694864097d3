"""The trigger: an approved version starts its deployment; drift or a schedule starts a training.

One function serves every model repo of an account. EventBridge's event is a hint; the registry says
what is deployed, from which repository and commit. Needs only Lambda's Python; signing in as a
GitHub App (app.py) needs the layer.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from typing import Any

import ci  # type: ignore[import-not-found]
import registry  # type: ignore[import-not-found]
import retraining  # type: ignore[import-not-found]
from claims import Claim  # type: ignore[import-not-found]
from registry import Ignored, TriggerError, Version

# The functions' timeout in platform.yml, and how much of it is reserved for the claim.
SECONDS, SPARE = 30, 5
_ARN = re.compile(
    r"(arn:aws[a-z-]*):sagemaker:([a-z0-9-]+):([0-9]{12}):model-package/"
    r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}/[1-9][0-9]{0,8}"
)
# Changing only these is no approval, although the event says Approved again.
# Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateModelPackage.html
_NO_APPROVAL = {
    *("AdditionalInferenceSpecifications", "AdditionalInferenceSpecificationsToAdd"),
    *("ApprovalDescription", "CustomerMetadataProperties", "CustomerMetadataPropertiesToRemove"),
    *("InferenceSpecification", "ModelCard", "ModelLifeCycle", "SourceUri"),
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Start the deployment of the version an event names, once per approval; for an alarm about
    drift, the training.

    With `{"detail": {"ModelPackageArn": ..., "Replay": true}}` start a deployment again. Return
    `{"started": bool, ...}`. Raise TriggerError, or the error of an AWS service, for what a retry
    may fix or a person must know.
    """
    deadline = _deadline(context)
    detail = event.get("detail") if isinstance(event, dict) else None
    detail = detail if isinstance(detail, dict) else {}
    if "alarmName" in detail:
        return _retrain(lambda: retraining.by_alarm(event, context), deadline)
    given = detail.get("ModelPackageArn")
    arn = given[:300] if isinstance(given, str) else ""
    about = {"modelPackageArn": arn}

    def work() -> str:
        _check_origin(arn, context)
        _check_change(detail.get("UpdatedModelPackageFields"))
        found = registry.approved(arn)
        about.update(
            project=found.project,
            version=found.number,
            repository=found.repository.path,
            commit=found.commit,
        )
        return Claim(claimed(found)).once(
            lambda: ci.start(found.repository, _deployment(found), deadline),
            again=detail.get("Replay") is True,
        )

    return _answer(about, work)


def scheduled(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Start the training that a schedule asks for with `{"Retrain": ...}`, and nothing else: the
    projects' own roles may call this function. Return and raise as `handler` does."""
    return _retrain(lambda: retraining.by_schedule(event), _deadline(context))


def _deadline(context: Any) -> float:
    """Return the reading of time.monotonic by which GitHub must have answered."""
    left = context.get_remaining_time_in_millis() / 1000 if context else SECONDS
    return time.monotonic() + left - SPARE


def claimed(version: Version) -> str:
    """Return the key of an approval's claim."""
    return f"{version.project}/approvals/{version.number}-{version.approval}.json"


def _deployment(version: Version) -> ci.Run:
    return ci.Run(
        os.environ.get("WORKFLOW", "deploy.yml"),
        # The commit is for workflows of 0.1.0, which require it; later ones compare it.
        {"model-package-arn": version.arn, "commit": version.commit},
        {"MODEL_PACKAGE_ARN": version.arn, "COMMIT": version.commit},
    )


def _retrain(ask: Callable[[], retraining.Retraining], deadline: float) -> dict[str, Any]:
    about = {"retrain": ""}

    def work() -> str:
        asked = ask()
        about.update(retrain=asked.project, stage=asked.stage, reason=asked.reason)
        repository = registry.champions_repository(asked.project)
        about.update(repository=repository.path)
        run = ci.Run("build.yml", {"reason": asked.reason}, {"MLOPS_REASON": asked.reason})
        return str(asked.claim.once(lambda: ci.start(repository, run, deadline)))

    return _answer(about, work)


def _answer(about: dict[str, str], work: Callable[[], str]) -> dict[str, Any]:
    """Do the work; log and return what came of it."""
    try:
        run = work()
    except Ignored as why:
        return _report(False, **about, why=str(why))
    except TriggerError as error:
        _report(False, **about, why=str(error))
        raise
    return _report(True, **about, run=run)


def _report(started: bool, **more: str) -> dict[str, Any]:
    line = {"started": started, **more}
    print(json.dumps(line))
    return line


def _check_origin(arn: str, context: Any) -> None:
    """Raise Ignored if this is no version of this registry: accounts can forward events."""
    named = _ARN.fullmatch(arn)
    if not named:
        raise Ignored("not a version of a model package group")
    partition, region, account, _ = named.groups()
    if region != os.environ["AWS_REGION"]:
        raise Ignored("a version of another region")
    if context:
        own = context.invoked_function_arn.split(":")
        if (partition, account) != (":".join(own[:2]), own[4]):
            raise Ignored("a version of another account")


def _check_change(fields: Any) -> None:
    """Raise Ignored if the event names the changed fields, and none is about an approval."""
    if isinstance(fields, list) and fields and {*map(str, fields)} <= _NO_APPROVAL:
        raise Ignored(f"no approval, only a change of {', '.join(sorted(fields))}")
