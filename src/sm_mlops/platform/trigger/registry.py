"""What the Model Registry knows: which version is approved, and which repository registered it.

An event is only a hint; this is what is deployed, and from where it is trained again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

COMMIT = re.compile("[0-9a-f]{40}")
# A name of an owner or a repository, but never "." or "..".
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")


class TriggerError(Exception):
    """Something should be started and is not. Lambda retries; after that the dead-letter queue and
    its alarm notify a person."""


class Ignored(Exception):
    """There is nothing to do."""


@dataclass(frozen=True)
class Repository:
    """The repository of a model. `ci` is github-actions or jenkins."""

    host: str
    owner: str
    name: str
    ci: str

    @property
    def path(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True)
class Version:
    """An approved version and its return address.

    `approval` distinguishes approvals of the same version by when the version was last changed,
    which is all that the registry knows.
    """

    arn: str
    project: str
    number: str
    repository: Repository
    commit: str
    approval: str


@functools.cache
def client(service: str) -> Any:
    # The defaults would wait for minutes.
    config = Config(connect_timeout=2, read_timeout=4, retries={"total_max_attempts": 3})
    return botocore.session.get_session().create_client(service, config=config)


@contextlib.contextmanager
def ignoring_absence(why: str) -> Iterator[None]:
    """Raise Ignored, because of what is said, if what AWS is asked for does not exist."""
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if not code.startswith("ResourceNotFound") and "does not exist" not in str(error):
            raise
        raise Ignored(why) from error


def approved(arn: str) -> Version:
    """Return the version as the registry has it now.

    Raise Ignored if it is no model repo's or no longer approved, TriggerError if it cannot be
    deployed.
    """
    package = describe(arn)
    status = package.get("ModelApprovalStatus")
    if status != "Approved":
        raise Ignored(f"no longer Approved but {status}")
    repository = origin(package)
    commit = package.get("MetadataProperties", {}).get("CommitId", "")
    if not COMMIT.fullmatch(commit):
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
        repository=repository,
        commit=commit,
        approval=str(int(moment.timestamp() * 1000)),
    )


def champions_repository(project: str) -> Repository:
    """Return the repository of the project's newest approved version. Raise Ignored without one."""
    with ignoring_absence(f"{project} has no model package group"):
        found = client("sagemaker").list_model_packages(
            ModelPackageGroupName=project,
            ModelApprovalStatus="Approved",
            SortBy="CreationTime",
            SortOrder="Descending",
            MaxResults=1,
        )["ModelPackageSummaryList"]
    if not found:
        raise Ignored(f"{project} has no approved version, which would name its repository")
    return origin(describe(found[0]["ModelPackageArn"]))


def describe(arn: str) -> dict[str, Any]:
    """Return what the registry has of a version. Raise Ignored if it is gone."""
    with ignoring_absence("deleted in the meantime"):
        return dict(client("sagemaker").describe_model_package(ModelPackageName=arn))


def origin(package: dict[str, Any]) -> Repository:
    """Return the repository that registered a version. Raise Ignored if it may not be used."""
    try:
        address = urllib.parse.urlsplit(package.get("MetadataProperties", {}).get("Repository", ""))
    except ValueError:
        address = urllib.parse.urlsplit("")
    path = address.path.strip("/").removesuffix(".git").split("/")
    is_named = len(path) == 2 and all(_NAME.fullmatch(name) for name in path)
    if address.scheme != "https" or not address.hostname or not is_named:
        raise Ignored("it names no repository, so no model repo has registered it")
    host = os.environ.get("GIT_HOST", "github.com")
    if address.hostname != host:
        raise Ignored(f"its repository is on {address.hostname}, not on {host}")
    owner, name = path
    if owner.lower() not in os.environ["ALLOWED_OWNERS"].lower().split(","):
        raise Ignored(f"repositories of {owner} are not allowed")
    ci = package.get("CustomerMetadataProperties", {}).get("CI", "github-actions")
    return Repository(host, owner, name, ci)
