"""The credential with which an approval starts a deployment: where it comes from, tried at GitHub,
kept in Secrets Manager.

Written here and never read: only the trigger may read it. Its kind is told by a tag.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sm_mlops.aws import Aws, error_code
from sm_mlops.bootstrap.plan import Item, Tell, Todo
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub
from sm_mlops.redaction import quiet

# As infra/platform.yml names it.
SECRET = "sm-mlops/github"
WHAT = "credential of the trigger"
TAG = "kind"
TOKEN = "MLOPS_TRIGGER_TOKEN"
APP = ("MLOPS_GITHUB_APP_ID", "MLOPS_GITHUB_APP_INSTALLATION_ID", "MLOPS_GITHUB_APP_KEY_FILE")
JENKINS = ("MLOPS_JENKINS_USER", "MLOPS_JENKINS_TOKEN")
# What is asked of GitHub to see whether workflows may be started. None is called so.
_NO_WORKFLOW = "sm-mlops-may-it-start-workflows.yml"

Ask = Callable[[str], str]
"""Shows a line, returns what is typed, which nobody sees."""


@dataclass(frozen=True)
class Value:
    """A new credential; `kinds` are token or app, and jenkins. `origin` says where it is from."""

    content: dict[str, str] = field(repr=False)
    kinds: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class Kept:
    """What Secrets Manager has: `kinds` is empty while there is no value."""

    arn: str
    kinds: tuple[str, ...]


def kept(aws: Aws) -> Kept | None:
    """None where there is no platform. Reads no value."""
    from botocore.exceptions import ClientError

    try:
        found = aws.client("secretsmanager").describe_secret(SecretId=SECRET)
    except ClientError as error:
        if error_code(error) != "ResourceNotFoundException":
            raise
        return None
    stages = (found.get("VersionIdsToStages") or {}).values()
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags") or ()}
    has_value = any("AWSCURRENT" in names for names in stages)
    # Without a tag it was put there by hand; the trigger takes a token without further ado.
    kinds = tuple(tags.get(TAG, "token").split()) if has_value else ()
    return Kept(str(found["ARN"]), kinds)


def kind(aws: Aws) -> str:
    """token, app (which needs the trigger's layer), jenkins, or none. Reads no value."""
    found = kept(aws)
    return found.kinds[0] if found and found.kinds else "none"


def at_terminal() -> Ask | None:
    """How to ask the person at the terminal; None where nobody is there."""
    import sys

    import typer

    if sys.stdin is None or not sys.stdin.isatty():
        return None
    return lambda line: str(
        typer.prompt(line, default="", show_default=False, hide_input=True, err=True)
    ).strip()


@dataclass
class Credential:
    """A part of the plan. After the repository's, because a token is tried on it. Goes with the
    platform: all repos of the account share it."""

    aws: Aws
    hub: GitHub
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    ask: Ask | None = None
    sandbox_token: Callable[[], str] | None = None

    def look(self) -> list[Item]:
        place = f"{self.aws.account} {self.aws.settings.project.region}"
        found = kept(self.aws)
        if found is not None and found.kinds:
            shown = " and ".join(found.kinds)
            items = [Item(place, WHAT, Todo.NOTHING, shown)]
            if lacking := self._lacking(found.kinds):
                items.append(
                    Item(
                        place, f"{lacking} in it", Todo.PERSON, f"it has {shown} only", self._how()
                    )
                )
            return items
        source = self._source()
        if source:
            return [Item(place, WHAT, Todo.CREATE, source)]
        return [Item(place, WHAT, Todo.PERSON, "approvals start nothing without it", self._how())]

    def act(self, tell: Tell) -> None:
        found = kept(self.aws)
        if found is None:
            raise MlopsError(f"there is no secret {SECRET}: the platform has it, which comes first")
        if found.kinds or not self._source():
            return
        value = self.new(tell)
        self.store(found, value)
        tell(f"{'stored':<12} {WHAT}: {value.origin}")

    def new(self, tell: Tell) -> Value:
        """A credential from the first source there is, tried. Raises MlopsError."""
        value = self._from_environment()
        if value is not None:
            return self._tried(value)
        if self.sandbox_token is not None:
            token = self.sandbox_token()
            return self._tried(Value({"token": token}, ("token",), "a token of the sandbox"))
        if self.ask is None:
            raise MlopsError(f"there is no new {WHAT}: {self._variables()}")
        return self._asked(self.ask, tell)

    def store(self, found: Kept, value: Value) -> None:
        """Writes it. At any moment the tag names at least what the value needs of the trigger."""
        client = self.aws.client("secretsmanager")
        wider = "app" in value.kinds or "app" not in found.kinds

        def tag() -> None:
            client.tag_resource(
                SecretId=found.arn, Tags=[{"Key": TAG, "Value": " ".join(value.kinds)}]
            )

        if wider:
            tag()
        with quiet():
            client.put_secret_value(
                SecretId=found.arn,
                ClientRequestToken=secrets.token_hex(16),
                SecretString=json.dumps(value.content),
            )
        if not wider:
            tag()

    def _lacking(self, kinds: tuple[str, ...]) -> str:
        if self.aws.settings.project.ci == "jenkins":
            return "" if "jenkins" in kinds else "user and token of Jenkins"
        return "" if {"token", "app"} & set(kinds) else "a token of GitHub"

    def _how(self) -> str:
        return f"{self.aws.command} secret rotate at a terminal; without one, {self._variables()}"

    def _variables(self) -> str:
        if self.aws.settings.project.ci == "jenkins":
            return f"set {' and '.join(JENKINS)}"
        return f"set {TOKEN}, or {', '.join(APP)}"

    def _source(self) -> str:
        """Where a value would come from, in words; empty if from nowhere."""
        if value := self._from_environment():
            return value.origin
        if self.aws.sandbox:
            return "a token of the sandbox"
        if self.ask is not None:
            return "you are asked for it, hidden"
        return ""

    def _from_environment(self) -> Value | None:
        """Raises MlopsError for half a credential."""
        given = {name: self.environment.get(name, "").strip() for name in (TOKEN, *APP, *JENKINS)}
        for group in (APP, JENKINS):
            some = [name for name in group if given[name]]
            if some and len(some) < len(group):
                missing = next(name for name in group if not given[name])
                raise MlopsError(f"{some[0]} is set, but not {missing}: they go together")
        content: dict[str, str] = {}
        kinds: list[str] = []
        origins: list[str] = []
        if given[APP[0]]:
            key = _read_key(given[APP[2]])
            content |= {"app_id": given[APP[0]], "installation_id": given[APP[1]]}
            content["private_key"] = key
            kinds.append("app")
            origins.append(f"the GitHub App {given[APP[0]]} of {APP[0]}")
        elif given[TOKEN]:
            content["token"] = given[TOKEN]
            kinds.append("token")
            origins.append(f"the token of {TOKEN}")
        if given[JENKINS[0]]:
            content |= {"jenkins_user": given[JENKINS[0]], "jenkins_token": given[JENKINS[1]]}
            kinds.append("jenkins")
            origins.append(f"the Jenkins user {given[JENKINS[0]]}")
        if not kinds or self._lacking(tuple(kinds)):
            return None
        return Value(content, tuple(kinds), " and ".join(origins))

    def _asked(self, ask: Ask, tell: Tell) -> Value:
        if self.aws.settings.project.ci == "jenkins":
            user = ask("User of Jenkins that starts jobs")
            token = ask(f"API token of {user}")
            if not user or not token:
                raise MlopsError(f"no {WHAT} was given: {self._how()}")
            content = {"jenkins_user": user, "jenkins_token": token}
            return Value(content, ("jenkins",), f"the Jenkins user {user}")
        place = f"{self.hub.at.server}/settings/personal-access-tokens/new"
        tell(
            f"An approval starts a deployment with a token that may start workflows: make one at "
            f"{place} for {self.aws.settings.project.github} with the permission Actions: read "
            f"and write. Enter alone takes the token you are signed in with ({self.hub.origin}), "
            "with all its rights."
        )
        attempts = 3
        while True:
            typed = ask("Token")
            origin = "the token you gave" if typed else f"the token of {self.hub.origin}"
            value = Value({"token": typed or self.hub.token}, ("token",), origin)
            try:
                return self._tried(value)
            except MlopsError as error:
                attempts -= 1
                if not attempts or not typed:
                    raise
                tell(f"{error}")

    # Trying it.

    def _tried(self, value: Value) -> Value:
        """Raises MlopsError where GitHub would not let it start a deployment of this repo."""
        content = value.content
        if "private_key" in content:
            self._try(self._app(content), value.origin)
        elif "token" in content:
            self._try(GitHub(content["token"], value.origin, self.hub.at), value.origin)
        return value

    def _app(self, content: Mapping[str, str]) -> GitHub:
        """GitHub as the App's installation, with a token that may start workflows only."""
        from github import Auth

        name = f"GitHub App {content['app_id']}"
        try:
            app = Auth.AppAuth(content["app_id"], content["private_key"])
            # Signed here, sent below.
            token = app.token
        except Exception:
            # Whatever the library for keys says may quote the key.
            raise MlopsError(f"{APP[2]}: the file holds no private key of a GitHub App") from None
        hub = GitHub(token, f"the {name}", self.hub.at)
        installation = content["installation_id"]
        place = f"/app/installations/{installation}/access_tokens"
        with hub.doing(f"sign in {name} with installation {installation} for Actions: write"):
            made = hub.ask("POST", place, {"permissions": {"actions": "write"}})
        return GitHub(made["token"], f"the {name}", self.hub.at)

    def _try(self, hub: GitHub, origin: str) -> None:
        from github import GithubException

        name = self.aws.settings.project.github
        found = hub.repository(name)
        if found is None:
            raise MlopsError(
                f"{origin} cannot see {name}: give it this repository with the permission Actions: "
                "read and write (fine-grained, or of the App), or the scope repo (classic)"
            )
        hub.require("repo")
        if hub.person.login and not found.permissions.push:
            raise MlopsError(
                f"{origin} is {hub.person.login}'s, who may only read {name}: starting workflows "
                "takes the role write"
            )
        # GitHub looks for the right before it looks for the workflow.
        place = f"{found.url}/actions/workflows/{_NO_WORKFLOW}/dispatches"
        with hub.doing(f"let {origin} start workflows of {name}"):
            try:
                hub.ask("POST", place, {"ref": "main"})
            except GithubException as error:
                if error.status not in (404, 422):
                    raise


def _read_key(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise MlopsError(f"{APP[2]}: cannot read {file}: {reason}") from error
