"""The approval trigger: an approved model version starts its repository's deployment.

One function serves every model repo of an account. EventBridge's event is a hint; the registry says
what is deployed, from which repository and commit. The credential comes from Secrets Manager and is
sent only to its own server.

Needs only Lambda's Python; signing in as a GitHub App (app.py) needs the layer.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import json
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# The function's timeout in platform.yml, and how much of it is reserved for the claim.
SECONDS, SPARE = 30, 5
# Longer than the timeout: no one takes over from an invocation that still works.
CLAIM_SECONDS = 60
# A request begins only if it can wait that long for its answer: one that is cut off may have
# started a deployment unnoticed.
HTTP_SECONDS = 8
# How much of an answer is read: addresses and tokens are short.
LONGEST_ANSWER = 65_536
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
_COMMIT = re.compile("[0-9a-f]{40}")
# A name of an owner or a repository, but never "." or "..".
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")


class TriggerError(Exception):
    """The version should be deployed and is not. Lambda retries; after that the dead-letter queue
    and its alarm notify a person."""


class Ignored(Exception):
    """There is nothing to do."""


@dataclass(frozen=True)
class Version:
    """An approved version and its return address.

    `approval` distinguishes approvals of the same version by when the version was last changed,
    which is all that the registry knows. `ci` is github-actions or jenkins.
    """

    arn: str
    project: str
    number: str
    host: str
    owner: str
    repository: str
    commit: str
    ci: str
    approval: str


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Start the deployment of the version an event names, once per approval.

    With `{"detail": {"ModelPackageArn": ..., "Replay": true}}` start it again. Return
    `{"started": bool, ...}`. Raise TriggerError, or the error of an AWS service, for what a retry
    may fix or a person must know.
    """
    left = context.get_remaining_time_in_millis() / 1000 if context else SECONDS
    # By then GitHub must have answered.
    deadline = time.monotonic() + left - SPARE
    detail = event.get("detail") if isinstance(event, dict) else None
    detail = detail if isinstance(detail, dict) else {}
    given = detail.get("ModelPackageArn")
    arn = given[:300] if isinstance(given, str) else ""
    about: dict[str, str] = {}
    try:
        _check_origin(arn, context)
        _check_change(detail.get("UpdatedModelPackageFields"))
        found = approved(arn)
        about = {
            "project": found.project,
            "version": found.number,
            "repository": f"{found.owner}/{found.repository}",
            "commit": found.commit,
        }
        run = _start_once(found, deadline, again=detail.get("Replay") is True)
    except Ignored as why:
        return _report(False, arn, **about, why=str(why))
    except TriggerError as error:
        _report(False, arn, **about, why=str(error))
        raise
    return _report(True, arn, **about, run=run)


def _start_once(version: Version, deadline: float, again: bool) -> str:
    """Start the deployment and return its address. Raise Ignored if it was started before."""
    claim = Claim(version)
    if again:
        claim.forget()
    if not claim.take():
        raise Ignored("started before, for this same approval")
    try:
        with _until(deadline):
            run = start(version, deadline)
    except BaseException:
        claim.forget()
        raise
    try:
        claim.keep(run)
    except (BotoCoreError, ClientError) as error:
        # Without raising: a retry would start it again.
        print(f"{version.arn} is started, but that could not be recorded: {error}")
    return run


class _OutOfTime(BaseException):
    """Not an Exception, so that no handler on the way catches it."""


@contextlib.contextmanager
def _until(deadline: float) -> Iterator[None]:
    """Raise TriggerError at the deadline, whatever the block waits for.

    The timeout of a socket restarts with each byte, so a slow server could outlast the function.
    """
    # Only there does Python handle signals, and there Lambda calls the handler.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # Then again each second: an exception raised in a finalizer is lost.
        signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 0.001), 1)
        yield
    except _OutOfTime:
        raise TriggerError("the answer was not complete in time") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _report(started: bool, arn: str, **more: str) -> dict[str, Any]:
    line = {"started": started, "modelPackageArn": arn, **more}
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


def approved(arn: str) -> Version:
    """Return the version as the registry has it now.

    Raise Ignored if it is no model repo's or no longer approved, TriggerError if it cannot be
    deployed.
    """
    try:
        package = client("sagemaker").describe_model_package(ModelPackageName=arn)
    except ClientError as error:
        if "does not exist" not in str(error):
            raise
        raise Ignored("deleted in the meantime") from error
    status = package.get("ModelApprovalStatus")
    if status != "Approved":
        raise Ignored(f"no longer Approved but {status}")
    metadata = package.get("MetadataProperties", {})
    try:
        address = urllib.parse.urlsplit(metadata.get("Repository", ""))
    except ValueError:
        address = urllib.parse.urlsplit("")
    path = address.path.strip("/").removesuffix(".git").split("/")
    is_named = len(path) == 2 and all(_NAME.fullmatch(name) for name in path)
    if address.scheme != "https" or not address.hostname or not is_named:
        raise Ignored("it names no repository, so no model repo has registered it")
    host = os.environ.get("GIT_HOST", "github.com")
    if address.hostname != host:
        raise Ignored(f"its repository is on {address.hostname}, not on {host}")
    owner, repository = path
    if owner.lower() not in os.environ["ALLOWED_OWNERS"].lower().split(","):
        raise Ignored(f"repositories of {owner} are not allowed")
    commit = metadata.get("CommitId", "")
    if not _COMMIT.fullmatch(commit):
        raise TriggerError(
            f"{arn} was approved, but it was trained from {commit or 'an unknown commit'}, which "
            "nobody can review: commit the changes, train again, approve that version"
        )
    # A version that was registered as Approved was never modified.
    moment = package.get("LastModifiedTime") or package["CreationTime"]
    return Version(
        arn=package["ModelPackageArn"],
        project=package["ModelPackageGroupName"],
        number=str(package["ModelPackageVersion"]),
        host=host,
        owner=owner,
        repository=repository,
        commit=commit,
        ci=package.get("CustomerMetadataProperties", {}).get("CI", "github-actions"),
        approval=str(int(moment.timestamp() * 1000)),
    )


# How S3 refuses a conditional write.
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")


class Claim:
    """The right to announce an approval: an object that only one invocation can create in S3.

    SageMaker may send several events for one change, and each is delivered at least once.
    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    """

    def __init__(self, version: Version) -> None:
        key = f"{version.project}/approvals/{version.number}-{version.approval}.json"
        self._place = {"Bucket": os.environ["CLAIMS_BUCKET"], "Key": key}

    def take(self) -> bool:
        """Return False if it was started before. Raise TriggerError if one is about to start it."""
        if self._write("claimed", IfNoneMatch="*"):
            return True
        try:
            found = client("s3").get_object(**self._place)
        except ClientError as error:
            # The role may list these keys only, so S3 may report a missing one as forbidden.
            if error.response["Error"]["Code"] not in ("NoSuchKey", "AccessDenied"):
                raise
            raise TriggerError("another invocation has just failed to start it") from error
        content = json.loads(found["Body"].read())
        if content["state"] == "started":
            return False
        if time.time() - content["at"] < CLAIM_SECONDS:
            raise TriggerError("another invocation is about to start this deployment")
        if not self._write("claimed", IfMatch=found["ETag"]):
            raise TriggerError("another invocation has taken this approval over")
        return True

    def keep(self, run: str) -> None:
        self._write("started", run=run)

    def forget(self) -> None:
        client("s3").delete_object(**self._place)

    def _write(self, state: str, run: str = "", **condition: str) -> bool:
        body = json.dumps({"state": state, "at": time.time(), "run": run}).encode()
        try:
            client("s3").put_object(**self._place, Body=body, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _TAKEN:
                raise
            return False
        return True


def start(version: Version, deadline: float) -> str:
    """Start the deployment and return the address of its run, "" if unknown. Raise TriggerError."""
    post = functools.partial(_post, deadline=deadline)
    if version.ci == "jenkins":
        return _start_jenkins(version, post)
    api = os.environ.get("GITHUB_API", "https://api.github.com").rstrip("/")
    workflow = os.environ.get("WORKFLOW", "deploy.yml")
    post_json = functools.partial(_post_json, post)
    body = {
        "ref": os.environ.get("REF", "main"),
        # The commit is for workflows of 0.1.0, which require it; later ones compare it.
        "inputs": {"model-package-arn": version.arn, "commit": version.commit},
        # GitHub Enterprise Server before 3.21 refuses what it does not know.
        **({"return_run_details": True} if version.host == "github.com" else {}),
    }
    own = f"/{version.owner}/{version.repository}/actions"
    token = _github_token(api, post_json, version.repository)
    answer = post_json(f"{api}/repos{own}/workflows/{workflow}/dispatches", body, token)
    # The deployment is started, whatever the answer contains.
    run = str((_object(answer.body) or {}).get("html_url", ""))
    is_own = re.fullmatch(rf"https?://[!-~]{{1,253}}{re.escape(own)}/runs/[0-9]+", run, re.I)
    return run if is_own and token not in run else ""


def _post_json(post: Callable[..., Answer], address: str, body: Any, token: str) -> Answer:
    """Send a request of GitHub's API."""
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    return post(address, json.dumps(body).encode(), headers)


def _github_token(api: str, post: Callable[..., Answer], repository: str) -> str:
    secret = credential()
    if "token" in secret:
        token = str(secret["token"]).strip()
    elif "private_key" in secret:
        from app import installation_token  # type: ignore[import-not-found]

        try:
            token = installation_token(secret, api, post, repository)
        except ValueError as error:
            raise TriggerError(str(error)) from None
    else:
        raise TriggerError("the credential has neither a token nor a private_key")
    # The error of http.client would show it.
    if not re.fullmatch(r"[!-~]+", token):
        raise TriggerError("the credential's token has characters that no token has")
    return token


def _start_jenkins(version: Version, post: Callable[..., Answer]) -> str:
    """Start the job, in the folders of the plugin GitHub Branch Source: owner, repository, branch.

    Source: https://www.jenkins.io/doc/book/using/remote-access-api/
    """
    server = os.environ.get("JENKINS_URL", "").rstrip("/")
    if not server:
        raise TriggerError("this version deploys with Jenkins, but the platform has no JenkinsUrl")
    secret = credential()
    if "jenkins_user" not in secret or "jenkins_token" not in secret:
        raise TriggerError("the credential has no jenkins_user and jenkins_token")
    words = f"{secret['jenkins_user']}:{secret['jenkins_token']}".encode()
    branch = urllib.parse.quote(os.environ.get("REF", "main"), safe="")
    parameters = {"MODEL_PACKAGE_ARN": version.arn, "COMMIT": version.commit}
    answer = post(
        f"{server}/job/{version.owner}/job/{version.repository}/job/{branch}/buildWithParameters",
        urllib.parse.urlencode(parameters).encode(),
        {"Authorization": f"Basic {base64.b64encode(words).decode()}"},
    )
    return answer.location if re.fullmatch(r"https?://[!-~]{1,300}", answer.location) else ""


def credential() -> dict[str, Any]:
    """Return the secret's JSON object: `token`; or `app_id`, `installation_id`, `private_key`; and
    `jenkins_user`, `jenkins_token`. It is read each time: it may have been rotated."""
    name = os.environ["CREDENTIAL_SECRET"]
    text = client("secretsmanager").get_secret_value(SecretId=name).get("SecretString", "")
    # Neither the text nor the parser's error, which quotes it, may reach a log.
    found = _object(text)
    if found is None:
        raise TriggerError(f"secret {name} does not hold a JSON object")
    return found


def _object(text: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object in a text; None if it holds none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


@functools.cache
def client(service: str) -> Any:
    # The defaults would wait for minutes.
    config = Config(connect_timeout=2, read_timeout=4, retries={"total_max_attempts": 3})
    return botocore.session.get_session().create_client(service, config=config)


@dataclass(frozen=True)
class Answer:
    """The answer to a request that succeeded. `location` has no credential in it."""

    body: bytes
    location: str


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuse redirects: urllib would send the credential wherever they lead."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(
    address: str, body: bytes, headers: dict[str, str], deadline: float, again: bool = True
) -> Answer:
    """Send a request. Follow a short Retry-After and a redirect within the same server once.

    Raise TriggerError naming server, path and status; never the headers, nor what quotes them.
    """
    where = urllib.parse.urlsplit(address)
    hidden = functools.partial(_hidden, authorization=headers["Authorization"])
    place = hidden(f"{where.hostname}{where.path}")
    if where.scheme != "https" and where.hostname != "127.0.0.1":
        raise TriggerError(f"{place}: is not https, so others could read the credential")
    if deadline - time.monotonic() < HTTP_SECONDS:
        raise TriggerError(f"{place}: no time was left to ask it")
    try:
        request = urllib.request.Request(
            address, body, {**headers, "User-Agent": "sm-mlops-trigger"}, method="POST"
        )
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(request, timeout=HTTP_SECONDS) as answer:
            location = hidden(answer.headers.get("Location", ""))
            return Answer(_body(answer), location)
    except urllib.error.HTTPError as error:
        wait = error.headers.get("Retry-After", "")
        location = error.headers.get("Location", "")
        message = (_object(_body(error)) or {}).get("message") or error.reason
        said = hidden(str(message))[:200]
        status = error.code
    except (OSError, ValueError, http.client.HTTPException) as error:
        # The messages of urllib and ssl name only hosts and ports; others may quote a header.
        reason = getattr(error, "reason", error if isinstance(error, OSError) else None)
        raise TriggerError(f"{place}: no answer: {reason or type(error).__name__}") from None
    if again and status in (307, 308) and (target := _same_server(address, location)):
        return _post(target, body, headers, deadline, again=False)
    seconds = int(wait) if re.fullmatch("[0-9]{1,9}", wait) else None
    if again and seconds is not None and seconds + HTTP_SECONDS <= deadline - time.monotonic():
        time.sleep(seconds)
        return _post(address, body, headers, deadline, again=False)
    later = f"; try again in {seconds} s" if seconds is not None else ""
    raise TriggerError(f"{place}: {status} {said}{later}{_HINTS.get(status, '')}")


def _body(answer: Any) -> bytes:
    """Return as much of an answer as arrives. Its first line has confirmed the request, which must
    not be repeated because of the rest."""
    try:
        return answer.read(LONGEST_ANSWER)
    except (OSError, http.client.HTTPException, _OutOfTime):
        return b""


def _hidden(text: str, authorization: str) -> str:
    """Return a server's text on one line, without the credential sent to it."""
    scheme, _, word = authorization.partition(" ")
    words = [word]
    if scheme == "Basic":
        pair = base64.b64decode(word).decode()
        words += [pair, pair.partition(":")[2]]
    for word in filter(None, words):
        text = text.replace(word, "***")
    return " ".join(text.split())


def _same_server(address: str, location: str) -> str:
    """Return the target of a redirect, "" if it is another server."""
    try:
        target = urllib.parse.urljoin(address, location)
        here, there = urllib.parse.urlsplit(address), urllib.parse.urlsplit(target)
    except ValueError:
        return ""
    return target if (here.scheme, here.netloc) == (there.scheme, there.netloc) else ""


_HINTS = {
    401: "; the credential is wrong or has expired",
    403: "; the credential may not start workflows (Actions: write), or the rate limit is reached",
    404: "; the repository or its workflow does not exist, or the credential cannot see it",
}
