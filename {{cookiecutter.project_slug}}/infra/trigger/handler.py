"""The approval trigger: an approved model version starts its repository's deployment.

One function serves every model repo of an account. EventBridge's event is a hint; what is deployed,
from which repository and commit, is what the registry says about the version. The credential comes
from Secrets Manager and goes nowhere but to its own server.

Runs on what Lambda's Python brings; only signing in as a GitHub App (app.py) needs the layer.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

import botocore.session
from botocore.exceptions import ClientError

# Longer than Lambda lets this function run: nobody takes over from an invocation that still works.
CLAIM_SECONDS = 60
# Of the 30 seconds: a slow answer and a second attempt must fit.
HTTP_SECONDS = 9
LONGEST_WAIT = 8
_ARN = re.compile(
    r"arn:aws[a-z-]*:sagemaker:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):model-package/"
    r"(?P<group>[a-zA-Z0-9-]{1,63})/(?P<version>\d+)"
)
_COMMIT = re.compile("[0-9a-f]{40}")


class TriggerError(Exception):
    """The version ought to be deployed and is not. Lambda retries; after that the dead-letter
    queue and its alarm tell a person."""


class Ignored(Exception):
    """Nothing is to be done, and that is right."""


@dataclass(frozen=True)
class Version:
    """An approved version and its return address.

    `approval` tells this approval from an earlier one of the same version; `ci` is github-actions
    or jenkins.
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
    """Starts the deployment of the version an event names, once per approval.

    With `{"detail": {"ModelPackageArn": ..., "Replay": true}}` also where that has happened before.
    Returns `{"started": bool, ...}`. Raises TriggerError, or the error of an AWS service, for what
    a retry may mend or a person must know.
    """
    detail = event.get("detail") or {}
    arn = str(detail.get("ModelPackageArn", ""))
    try:
        found = approved(arn)
    except Ignored as why:
        return _tell(False, arn, why=str(why))
    claim = Claim(found)
    if detail.get("Replay"):
        claim.forget()
    if not claim.take():
        return _tell(False, arn, why="started before, for this same approval")
    try:
        run = start(found)
    except BaseException:
        claim.forget()
        raise
    claim.keep(run)
    return _tell(
        True,
        found.arn,
        project=found.project,
        version=found.number,
        repository=f"{found.owner}/{found.repository}",
        commit=found.commit,
        run=run,
    )


def _tell(started: bool, arn: str, **more: str) -> dict[str, Any]:
    line = {"started": started, "modelPackageArn": arn, **more}
    print(json.dumps(line))
    return line


def approved(arn: str) -> Version:
    """The version as the registry has it now.

    Raises Ignored where it is none of ours or not approved any more, TriggerError where it is ours
    and cannot be deployed.
    """
    named = _ARN.fullmatch(arn)
    if not named:
        raise Ignored("not a version of a model package group")
    if named["region"] != os.environ["AWS_REGION"]:
        raise Ignored("a version of another region")
    try:
        package = client("sagemaker").describe_model_package(ModelPackageName=arn)
    except ClientError as error:
        if "does not exist" not in str(error):
            raise
        raise Ignored("deleted by now") from error
    status = package.get("ModelApprovalStatus")
    if status != "Approved":
        raise Ignored(f"{status} by now")
    metadata = package.get("MetadataProperties", {})
    address = urllib.parse.urlsplit(metadata.get("Repository", ""))
    path = address.path.strip("/").removesuffix(".git").split("/")
    if address.scheme != "https" or not address.hostname or len(path) != 2 or not all(path):
        raise Ignored("it names no repository: registered by something else than a model repo")
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
            "nobody can check out: commit the changes, train again, approve that version"
        )
    return Version(
        arn=package["ModelPackageArn"],
        project=package["ModelPackageGroupName"],
        number=str(package["ModelPackageVersion"]),
        host=host,
        owner=owner,
        repository=repository,
        commit=commit,
        ci=package.get("CustomerMetadataProperties", {}).get("CI", "github-actions"),
        approval=str(int(package["LastModifiedTime"].timestamp() * 1000)),
    )


class Claim:
    """Who announces an approval: an object in the artifact bucket that only one can create.

    SageMaker may send several events for one change, and EventBridge and Lambda deliver each at
    least once. Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    """

    def __init__(self, version: Version) -> None:
        key = f"{version.project}/approvals/{version.number}-{version.approval}.json"
        self._place = {"Bucket": os.environ["CLAIMS_BUCKET"], "Key": key}

    def take(self) -> bool:
        """False if it was started before. Raises TriggerError while another one is about to."""
        if self._write("claimed", IfNoneMatch="*"):
            return True
        try:
            found = client("s3").get_object(**self._place)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
            raise TriggerError("another invocation has just given up on this approval") from error
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
            if error.response["Error"]["Code"] not in (
                "PreconditionFailed",
                "ConditionalRequestConflict",
            ):
                raise
            return False
        return True


def start(version: Version) -> str:
    """Starts the deployment and returns the address of its run, "" where none is told.

    Raises TriggerError.
    """
    if version.ci == "jenkins":
        return _start_jenkins(version)
    api = os.environ.get("GITHUB_API", "https://api.github.com").rstrip("/")
    workflow = os.environ.get("WORKFLOW", "deploy.yml")
    body = {
        "ref": os.environ.get("REF", "main"),
        "inputs": {"model-package-arn": version.arn, "commit": version.commit},
        # GitHub Enterprise Server before 3.21 refuses what it does not know.
        **({"return_run_details": True} if version.host == "github.com" else {}),
    }
    answer = _post(
        f"{api}/repos/{version.owner}/{version.repository}/actions/workflows/{workflow}/dispatches",
        json.dumps(body).encode(),
        {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {_github_token(api)}",
            "Content-Type": "application/json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    return str(json.loads(answer.body).get("html_url", "")) if answer.body else ""


def _github_token(api: str) -> str:
    secret = credential()
    if "token" in secret:
        return str(secret["token"])
    if "private_key" in secret:
        from app import installation_token

        return installation_token(secret, api, _post)
    raise TriggerError("the credential has neither a token nor a private_key")


def _start_jenkins(version: Version) -> str:
    """Source: https://www.jenkins.io/doc/book/using/remote-access-api/. Folders as the plugin
    GitHub Branch Source makes them: owner, repository, branch."""
    server = os.environ.get("JENKINS_URL", "").rstrip("/")
    if not server:
        raise TriggerError("this version deploys with Jenkins, but the platform has no JenkinsUrl")
    secret = credential()
    if "jenkins_user" not in secret or "jenkins_token" not in secret:
        raise TriggerError("the credential has no jenkins_user and jenkins_token")
    words = f"{secret['jenkins_user']}:{secret['jenkins_token']}".encode()
    branch = urllib.parse.quote(os.environ.get("REF", "main"), safe="")
    answer = _post(
        f"{server}/job/{version.owner}/job/{version.repository}/job/{branch}/buildWithParameters",
        urllib.parse.urlencode(
            {"MODEL_PACKAGE_ARN": version.arn, "COMMIT": version.commit}
        ).encode(),
        {"Authorization": f"Basic {base64.b64encode(words).decode()}"},
    )
    return answer.location


def credential() -> dict[str, Any]:
    """The secret's JSON object: `token`; or `app_id`, `installation_id`, `private_key`; and
    `jenkins_user`, `jenkins_token`. Read anew each time: it may have been rotated."""
    name = os.environ["CREDENTIAL_SECRET"]
    text = client("secretsmanager").get_secret_value(SecretId=name).get("SecretString", "")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    # Neither the text nor the error of the parser, which quotes it, may get into a log.
    if not isinstance(found, dict):
        raise TriggerError(f"secret {name} does not hold a JSON object")
    return found


@functools.cache
def client(service: str) -> Any:
    return botocore.session.get_session().create_client(service)


@dataclass(frozen=True)
class Answer:
    body: bytes
    location: str


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would send the credential along, to wherever it is sent."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(address: str, body: bytes, headers: dict[str, str], again: bool = True) -> Answer:
    """Sends a request. A short Retry-After and a move within the same server are followed once.

    Raises TriggerError naming server, path and status; never the headers.
    """
    where = urllib.parse.urlsplit(address)
    place = f"{where.hostname}{where.path}"
    request = urllib.request.Request(
        address, body, {**headers, "User-Agent": "sm-mlops-trigger"}, method="POST"
    )
    try:
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(request, timeout=HTTP_SECONDS) as answer:
            return Answer(answer.read(), answer.headers.get("Location", ""))
    except urllib.error.HTTPError as error:
        wait = error.headers.get("Retry-After", "")
        target = urllib.parse.urljoin(address, error.headers.get("Location", ""))
        said = _said(error)
        status = error.code
    except (OSError, ValueError) as error:
        # Of urllib, http.client and ssl; their texts name hosts and ports only.
        reason = getattr(error, "reason", error)
        raise TriggerError(f"{place}: no answer: {reason}") from None
    moved = urllib.parse.urlsplit(target)
    if (
        again
        and status in (307, 308)
        and (moved.scheme, moved.netloc)
        == (
            where.scheme,
            where.netloc,
        )
    ):
        return _post(target, body, headers, again=False)
    if again and wait.isdigit() and int(wait) <= LONGEST_WAIT:
        time.sleep(int(wait))
        return _post(address, body, headers, again=False)
    later = f"; try again in {wait} s" if wait else ""
    hint = _HINTS.get(status, "")
    raise TriggerError(f"{place}: {status} {said}{later}{hint}")


_HINTS = {
    401: "; the credential is wrong or has expired",
    403: "; the credential may not start workflows (Actions: write), or the rate limit is reached",
    404: "; the repository or its workflow does not exist, or the credential cannot see it",
}


def _said(error: urllib.error.HTTPError) -> str:
    """The server's own short message."""
    try:
        message = json.loads(error.read(4096)).get("message", "")
    except (OSError, ValueError, AttributeError):
        message = error.reason
    return str(message)[:200]
