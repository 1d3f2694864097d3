"""Accounts of the sandbox: what `mlops run` needs there before bootstrap, temporary ones, and those
of a person and the repo's owner on its GitHub.

The platform and the project replace the provisional artifact bucket and pipeline role. Must not
read a real token.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sm_mlops.aws import Aws, exists
from sm_mlops.bootstrap import provisional
from sm_mlops.errors import MlopsError
from sm_mlops.settings import Settings

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
# On the sandbox's GitHub.
PERSON = "you"
# For an account on this machine that has nothing else.
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


def prepare(aws: Aws) -> None:
    """Create what is missing; nothing if the platform and the project exist."""
    from sm_mlops.bootstrap import adoption

    prepare_image(aws.settings)
    if not adoption.exists(aws, aws.bucket):
        region = aws.settings.project.region
        # us-east-1 is S3's default and must not be named.
        place = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        aws.s3.create_bucket(Bucket=aws.bucket, **({} if region == "us-east-1" else place))
    iam, name = aws.client("iam"), provisional.role_name(aws)
    if not exists(iam.get_role, RoleName=name):
        trust, tags = json.dumps(TRUST), [provisional.MARK]
        arn = aws.settings.role_arn(aws.account)
        path = arn.partition(":role")[2].removesuffix(name)
        iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=trust, Tags=tags)
        iam.put_role_policy(
            RoleName=name, PolicyName=provisional.POLICY, PolicyDocument=json.dumps(EVERYTHING)
        )


def prepare_image(settings: Settings) -> None:
    """Make the environment of the repo's image; the default one is made with the sandbox."""
    from sm_mlops.sandbox import images

    container, lock = settings.container, images.HERE / f"{settings.image}.lock"
    if container.sdk is None:
        lock = settings.root / str(settings.image_environment)
    if lock != images.DEFAULT:
        try:
            images.make(lock, name=None if container.sdk else images.name_of(settings.image))
        except images.ImageError as error:
            raise MlopsError(str(error)) from error


def apply(environment: dict[str, str]) -> None:
    """Set these variables for this process; an empty value removes one."""
    for name, value in environment.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


@contextmanager
def temporary(work: Path, region: str) -> Iterator[Callable[[Settings], Aws]]:
    """Run a sandbox in the folder `work`; yield a function that returns its account for a repo.

    Restores the environment of this process afterwards.
    """
    from sm_mlops import sandbox

    def account(settings: Settings) -> Aws:
        aws = Aws(settings, sandbox=True)
        prepare(aws)
        return aws

    before = dict(os.environ)
    try:
        with sandbox.connect(work, region) as environment:
            apply(environment)
            yield account
    finally:
        sandbox.stop(work)
        os.environ.clear()
        os.environ.update(before)


def prepare_github(settings: Settings) -> dict[str, str]:
    """Create what is missing in the running sandbox; return the variables that sign in there."""
    from sm_mlops import sandbox

    file = settings.root / sandbox.FOLDER / "github-token"
    token = file.read_text(encoding="utf-8") if file.is_file() else ""
    if not token:
        owner = settings.project.github.partition("/")[0]
        add = partial(sandbox.control, settings.root, "github.accounts.add")
        add(PERSON)
        if owner.lower() != PERSON:
            add(owner, "Organization", **{PERSON: "admin"})
        scopes = ("repo", "workflow", "read:org")
        token = str(sandbox.control(settings.root, "github.accounts.token", PERSON, *scopes))
        file.touch(mode=0o600)
        file.write_text(token, encoding="utf-8")
    return {"GITHUB_TOKEN": token, "GH_TOKEN": ""}


def token_source(aws: Aws) -> Callable[[], str] | None:
    """Return a function that creates a token for starting workflows; None outside the sandbox."""
    if not aws.sandbox:
        return None
    from sm_mlops import sandbox

    root, owner = aws.settings.root, aws.settings.project.github.partition("/")[0]

    def create() -> str:
        arguments = ("github.accounts.fine_grained", PERSON, owner, None)
        return str(sandbox.control(root, *arguments, actions="write"))

    return create
