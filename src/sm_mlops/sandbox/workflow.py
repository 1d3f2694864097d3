"""A job of GitHub Actions after its first step: signed in to AWS as the repository's role, with the
variables that GitHub sets.

What the action configure-aws-credentials does, with the repository's own variables and secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore import UNSIGNED
from botocore.config import Config

from sm_mlops.sandbox.github.oidc import Tokens
from sm_mlops.sandbox.github.routes import REPOSITORY
from sm_mlops.sandbox.github.service import GitHub
from sm_mlops.sandbox.wire import ApiError

RUN_ID = "1"


class Workflows:
    """Signs jobs in, over HTTP like any other client; `sandbox` is the server."""

    def __init__(self, github: GitHub, tokens: Tokens, sandbox: Any) -> None:
        self.github, self.tokens, self.sandbox = github, tokens, sandbox

    def environment(
        self,
        repository: str,
        environment: str = "",
        workflow: str = "build.yml",
        ref: str = "refs/heads/main",
        role_arn: str = "",
    ) -> dict[str, str]:
        """Return the variables of a job. Raises ApiError when AWS refuses the sign-in.

        `role_arn` is the variable AWS_ROLE_ARN of environment or repository unless given. With the
        secret AWS_ACCESS_KEY_ID in one of them the job signs in with that key, else by OpenID
        Connect. `workflow` is the name of the file.
        """
        github = self.github
        unknown = ApiError("NotFound", f"GitHub has no repository {repository}", 404)
        record = github.routes.store.find(REPOSITORY, repository.lower(), unknown)
        own = record["_environments"].get(environment.lower(), {})
        variables = record["_variables"] | own.get("_variables", {})
        role = role_arn or variables.get("AWS_ROLE_ARN", {}).get("value", "")
        if not role:
            raise ApiError("NotFound", f"{repository} has no variable AWS_ROLE_ARN", 404)
        name = f"{record['name']}-job-{RUN_ID}"[:64]
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        there = environment if set(keys) <= set(own.get("_secrets", {})) else ""
        if there or set(keys) <= set(record["_secrets"]):
            key, secret = (github.routes.secret(record["full_name"], each, there) for each in keys)
            sts = self._client(aws_access_key_id=key, aws_secret_access_key=secret)
            answer = _asked(lambda: sts.assume_role(RoleArn=role, RoleSessionName=name))
        else:
            shown = github.routes.subject(None, record)
            prefix = shown.get("sub_claim_prefix") or f"repo:{record['full_name']}"
            owner = str(github.accounts.account(record["_owner"])["id"])
            run = {"repository_owner_id": owner, "actor": record["_owner"], "run_id": RUN_ID}
            token = self.tokens.mint(record, prefix, environment, ref, workflow=workflow, **run)
            sts = self._client(config=Config(signature_version=UNSIGNED, proxies={}))
            answer = _asked(
                lambda: sts.assume_role_with_web_identity(
                    RoleArn=role, RoleSessionName=name, WebIdentityToken=token
                )
            )
        found = answer["Credentials"]
        return self.sandbox.environment() | {
            "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
            "AWS_SESSION_TOKEN": found["SessionToken"],
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": record["full_name"],
            "GITHUB_REF": ref,
            "GITHUB_RUN_ID": RUN_ID,
        }

    def _client(self, **more: Any) -> Any:
        more.setdefault("config", Config(proxies={}))
        return self.sandbox.clients.core.create_client(
            "sts", region_name=self.sandbox.region, endpoint_url=self.sandbox.url, **more
        )


def _asked(call: Callable[[], Any]) -> Any:
    from botocore.exceptions import ClientError

    try:
        return call()
    except ClientError as error:
        answer = error.response["Error"]
        raise ApiError(answer["Code"], answer["Message"], 403) from error
