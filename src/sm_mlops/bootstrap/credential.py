"""The credential with which an approval starts a deployment: taken from its source, tried at
GitHub, kept in Secrets Manager.

Written here and never read: only the trigger may read its value. A tag names its kind.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from github import Auth

from sm_mlops.aws import Aws, described
from sm_mlops.bootstrap.plan import Item, Part, Tell, Todo
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub, allowing
from sm_mlops.redaction import quiet

# The name in platform.yml.
SECRET = "sm-mlops/github"
WHAT = "trigger credential"
TAG = "kind"
TOKEN = "MLOPS_TRIGGER_TOKEN"
APP = ("MLOPS_GITHUB_APP_ID", "MLOPS_GITHUB_APP_INSTALLATION_ID", "MLOPS_GITHUB_APP_KEY_FILE")
JENKINS = ("MLOPS_JENKINS_USER", "MLOPS_JENKINS_TOKEN")
# GitHub is asked to start it, to see whether that is allowed; no workflow has this name.
_NO_WORKFLOW = "sm-mlops-may-it-start-workflows.yml"

Ask = Callable[[str], str]
"""Show a prompt and return what is typed, which is not echoed."""


@dataclass(frozen=True)
class Value:
    """A new credential; `kinds` are token or app, and jenkins. `origin` names its source."""

    content: dict[str, str] = field(repr=False)
    kinds: tuple[str, ...]
    origin: str


def kept(aws: Aws) -> tuple[str, ...] | None:
    """Return the kinds of what is stored, none while there is no value; None without a platform."""
    found = described(aws.client("secretsmanager").describe_secret, SecretId=SECRET)
    if not found:
        return None
    labels = (found.get("VersionIdsToStages") or {}).values()
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags") or ()}
    has_value = any("AWSCURRENT" in names for names in labels)
    # Without a tag somebody stored it by hand; the trigger takes it for a token.
    return tuple(tags.get(TAG, "token").split()) if has_value else ()


def kind(aws: Aws) -> str:
    """Return token, app (which needs the trigger's layer), jenkins, or none."""
    return (kept(aws) or ("none",))[0]


@dataclass
class Credential(Part):
    """A part of the plan, after the repository's, because a token is tried on it. The credential
    stays until the platform is deleted: all repos of the account share it.

    `ask` is None without a terminal; `sandbox_token` creates a token, None outside the sandbox.
    """

    aws: Aws
    hub: GitHub
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    ask: Ask | None = None
    sandbox_token: Callable[[], str] | None = None

    def look(self) -> list[Item]:
        found = kept(self.aws)
        if not found:
            if source := self._source():
                return [Item(WHAT, Todo.CREATE, source)]
            return [
                Item(
                    WHAT, Todo.PERSON, "approvals cannot start deployments without it", self._how()
                )
            ]
        shown = " and ".join(found)
        reach = f"; all repos of the account share it: it has to reach {self._repository}"
        items = [Item(WHAT, Todo.NOTHING, shown + ("" if self._by_jenkins else reach))]
        if lacking := self._lacking(found):
            detail = f"it has only {shown}"
            items.append(Item(f"{lacking} in it", Todo.PERSON, detail, self._how()))
        return items

    def act(self, tell: Tell) -> None:
        found = kept(self.aws)
        if found is None:
            raise MlopsError(f"there is no secret {SECRET}; create the platform first")
        if found or not self._source():
            return
        self.store(self.new(tell), tell)

    def new(self, tell: Tell) -> Value:
        """Return a credential from the first available source, tried. Raise MlopsError."""
        if value := self._from_environment():
            return self._tried(value)
        if self.sandbox_token is not None:
            token = {"token": self.sandbox_token()}
            return self._tried(Value(token, ("token",), "a sandbox token"))
        if self.ask is None:
            raise MlopsError(f"there is no new {WHAT}: {self._variables()}")
        return self._asked(self.ask, tell)

    def store(self, value: Value, tell: Tell) -> None:
        """Write it. At every moment the tag names at least what the value needs of the trigger."""
        client = self.aws.client("secretsmanager")
        wider = "app" in value.kinds or kind(self.aws) != "app"
        tags = [{"Key": TAG, "Value": " ".join(value.kinds)}]
        if wider:
            client.tag_resource(SecretId=SECRET, Tags=tags)
        with quiet():
            client.put_secret_value(
                SecretId=SECRET,
                ClientRequestToken=secrets.token_hex(16),
                SecretString=json.dumps(value.content),
            )
        if not wider:
            client.tag_resource(SecretId=SECRET, Tags=tags)
        tell(f"{'stored':<12} {WHAT}: {value.origin}")

    @property
    def _repository(self) -> str:
        return self.aws.settings.project.github

    @property
    def _by_jenkins(self) -> bool:
        return self.aws.settings.project.ci == "jenkins"

    def _lacking(self, kinds: tuple[str, ...]) -> str:
        if self._by_jenkins:
            return "" if "jenkins" in kinds else "Jenkins user and token"
        return "" if {"token", "app"} & set(kinds) else "GitHub token"

    def _how(self) -> str:
        return f"run {self.aws.command} secret rotate at a terminal, or first {self._variables()}"

    def _variables(self) -> str:
        names = " and ".join(JENKINS) if self._by_jenkins else f"{TOKEN}, or {', '.join(APP)}"
        return f"set {names}"

    def _source(self) -> str:
        """Return the source of a new value, in words; empty if there is none."""
        if value := self._from_environment():
            return value.origin
        if self.sandbox_token is not None:
            return "a sandbox token"
        return "you will be prompted for it" if self.ask is not None else ""

    def _from_environment(self) -> Value | None:
        """Return the value of the variables, None if they lack one. Raise MlopsError for half."""
        given = {name: self.environment.get(name, "").strip() for name in (TOKEN, *APP, *JENKINS)}
        for group in (APP, JENKINS):
            is_set = [name for name in group if given[name]]
            missing = [name for name in group if not given[name]]
            if is_set and missing:
                raise MlopsError(f"{is_set[0]} is set, but {missing[0]} is not; set both")
        content: dict[str, str] = {}
        parts: dict[str, str] = {}
        if given[APP[0]]:
            content |= {"app_id": given[APP[0]], "installation_id": given[APP[1]]}
            content["private_key"] = _read_key(given[APP[2]])
            parts["app"] = f"the GitHub App {given[APP[0]]} from {APP[0]}"
        elif given[TOKEN]:
            content["token"] = given[TOKEN]
            parts["token"] = f"the token from {TOKEN}"
        if given[JENKINS[0]]:
            content |= {"jenkins_user": given[JENKINS[0]], "jenkins_token": given[JENKINS[1]]}
            parts["jenkins"] = f"the Jenkins user {given[JENKINS[0]]}"
        if not parts or self._lacking(tuple(parts)):
            return None
        return Value(content, tuple(parts), " and ".join(parts.values()))

    def _asked(self, ask: Ask, tell: Tell) -> Value:
        if self._by_jenkins:
            user = ask("Jenkins user that starts jobs")
            token = ask(f"API token of {user}")
            if not user or not token:
                raise MlopsError(f"no {WHAT} was entered: {self._how()}")
            content = {"jenkins_user": user, "jenkins_token": token}
            return Value(content, ("jenkins",), f"the Jenkins user {user}")
        tell(
            "An approval starts a deployment with a token that may start workflows. Create one at "
            f"{self.hub.at.server}/settings/personal-access-tokens/new for {self._repository} and "
            "all others that use this AWS account, with the permission Actions: read and write. "
            f"Press Enter to use the token you are signed in with ({self.hub.origin}), with all "
            "its permissions."
        )
        while typed := ask("Token"):
            try:
                return self._tried(Value({"token": typed}, ("token",), "the token you entered"))
            except MlopsError as error:
                tell(f"{error}")
        origin = f"the token from {self.hub.origin}"
        return self._tried(Value({"token": self.hub.token}, ("token",), origin))

    def _tried(self, value: Value) -> Value:
        """Return it. Raise MlopsError if it may not start a deployment of this repo at GitHub."""
        content = value.content
        if "private_key" in content:
            self._try(self._app(content), value.origin)
        elif "token" in content:
            self._try(GitHub(content["token"], value.origin, self.hub.at), value.origin)
        return value

    def _app(self, content: Mapping[str, str]) -> GitHub:
        """Return GitHub as the App's installation, with a token that may only start workflows."""
        name = f"GitHub App {content['app_id']}"
        try:
            token = Auth.AppAuth(content["app_id"], content["private_key"]).token
        except Exception:
            # The library's message may quote the key.
            raise MlopsError(f"{APP[2]}: the file holds no private key of a GitHub App") from None
        hub = GitHub(token, f"the {name}", self.hub.at)
        installation = content["installation_id"]
        place = f"/app/installations/{installation}/access_tokens"
        with hub.doing(f"sign in {name} with installation {installation} for Actions: write"):
            made = hub.ask("POST", place, {"permissions": {"actions": "write"}})
        return GitHub(made["token"], f"the {name}", self.hub.at)

    def _try(self, hub: GitHub, origin: str) -> None:
        name = self._repository
        found = hub.repository(name)
        if found is None:
            raise MlopsError(
                f"{origin} cannot see {name}: give it this repository with the permission Actions: "
                "read and write (fine-grained, or of the App), or the scope repo (classic)"
            )
        hub.require("repo")
        if hub.person.login and not found.permissions.push:
            raise MlopsError(
                f"{origin} belongs to {hub.person.login}, who may only read {name}: starting "
                "workflows takes the role write"
            )
        # GitHub checks the permission before it looks for the workflow.
        place = f"{found.url}/actions/workflows/{_NO_WORKFLOW}/dispatches"
        with hub.doing(f"let {origin} start workflows of {name}"), allowing(404, 422):
            hub.ask("POST", place, {"ref": "main"})


def _read_key(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise MlopsError(f"{APP[2]}: cannot read {file}: {reason}") from error
