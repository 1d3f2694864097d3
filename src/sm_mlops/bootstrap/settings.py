"""What the workflows find on GitHub: the role they assume, the key they sign in with if there is
one, and an environment per stage with its reviewers.

What Jenkins needs is only named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from github import GithubException, UnknownObjectException

from sm_mlops import projects
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import keys, needs
from sm_mlops.bootstrap.plan import Item, Part, Tell, Todo, is_work
from sm_mlops.deployment import stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub, GitHubError
from sm_mlops.redaction import quiet

ROLE = "AWS_ROLE_ARN"
KEY = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# A variable that names the stages whose rules GitHub refused, so that they are not tried again.
REFUSED = "MLOPS_UNPROTECTED"
BRANCH = "main"
_CUSTOM = {"protected_branches": False, "custom_branch_policies": True}


@dataclass(frozen=True)
class Reviewer:
    """`kind` is User or Team. The number identifies it; its name may change."""

    kind: str
    number: int
    name: str


@dataclass(frozen=True)
class Environment:
    """An environment of GitHub. `branches` are the patterns of those that may deploy, None for all
    branches and tags. `forbids_own`: whoever starts a deployment may not approve it; `skippable`:
    an administrator may deploy without approval."""

    reviewers: tuple[Reviewer, ...] = ()
    wait_minutes: int = 0
    forbids_own: bool = False
    skippable: bool = True
    branches: frozenset[str] | None = None


@dataclass
class Settings(Part):
    """A part of the plan."""

    aws: Aws
    hub: GitHub
    outputs: Callable[[Aws], dict[str, str] | None] = projects.outputs

    def look(self) -> list[Item]:
        if self._project.ci == "jenkins":
            return [self._jenkins()]
        found = self._repository()
        outputs = self.outputs(self.aws)
        return [
            self._look_at_role(found, outputs),
            *self._look_at_key(found, outputs),
            *self._look_at_environments(found),
        ]

    def act(self, tell: Tell) -> None:
        if self._project.ci == "jenkins":
            return
        found = self._repository()
        if found is None:
            raise MlopsError(f"there is no GitHub repository {self._project.github} to set up")
        outputs = self.outputs(self.aws)
        if outputs is None:
            name = self._project.project
            raise MlopsError(
                f"there is no SageMaker project {name} yet; the workflows need its role"
            )
        role = outputs["GitHubRoleArn"]
        if _variables(self.hub, found).get(ROLE) != role:
            _set_variable(self.hub, found, ROLE, role)
            tell(f"{'set':<12} variable {ROLE} to {role}")
        if self._project.uses_key and not self.has_key(found, outputs):
            self.set_key(found, outputs)
            tell(f"{'set':<12} secrets {', '.join(KEY)}")
        self._make_environments(found, tell)

    def look_back(self) -> list[Item]:
        """Return what is deleted when the repo is disconnected."""
        found = self._repository()
        if found is None:
            return []
        variables, secrets = _variables(self.hub, found), _secrets(self.hub, found)
        known = stages.names(self.aws.settings)
        names = [
            *(f"variable {name}" for name in (ROLE, REFUSED) if name in variables),
            *(f"secret {name}" for name in KEY if name in secrets),
            *(f"environment {stage}" for stage in known if self._environment(found, stage)),
        ]
        return [*(Item(name, Todo.DELETE) for name in names), *self._unknown(found)]

    def undo(self, tell: Tell) -> None:
        if self._project.uses_key:
            # Keys left by an interrupted rotation would prevent the user's deletion.
            keys.delete_former(self.aws, tell)
        found = self._repository()
        for item in filter(is_work, self.look_back()):
            noun, _, name = item.what.partition(" ")
            folder = "environments" if noun == "environment" else f"actions/{noun}s"
            with self.hub.doing(f"delete {item.what}"), suppress(UnknownObjectException):
                # Already deleted if the answer to a first attempt was lost.
                self.hub.ask("DELETE", f"{found.url}/{folder}/{name}")
            tell(f"{'deleted':<12} {item.what}")

    def _look_at_role(self, found: Any, outputs: dict[str, str] | None) -> Item:
        had = _variables(self.hub, found).get(ROLE) if found else None
        wanted = outputs["GitHubRoleArn"] if outputs else None
        todo = Todo.NOTHING if had and had == wanted else Todo.CHANGE if had else Todo.CREATE
        return Item(f"variable {ROLE}", todo, wanted or "the project's role")

    def _look_at_key(self, found: Any, outputs: dict[str, str] | None) -> Iterator[Item]:
        if not self._project.uses_key:
            return
        what = f"secrets {', '.join(KEY)}"
        if found is None or not set(KEY) <= set(_secrets(self.hub, found)):
            yield Item(what, Todo.CREATE, "the key of the project's user")
        elif outputs is None or not self.has_key(found, outputs):
            yield Item(what, Todo.CHANGE, "the key has been replaced")
        else:
            yield Item(what, Todo.NOTHING)

    def has_key(self, found: Any, outputs: dict[str, str]) -> bool:
        """Return whether GitHub has the key that is in Secrets Manager; neither shows a value."""
        stored = keys.stored(self.aws, outputs)
        had = _secrets(self.hub, found)
        # GitHub's times have no fractions of a second.
        return all(name in had and had[name] >= stored.replace(microsecond=0) for name in KEY)

    def set_key(self, found: Any, outputs: dict[str, str]) -> None:
        """Copy the access key from Secrets Manager to GitHub, encrypted."""
        client = self.aws.client("secretsmanager")
        with quiet():
            found_value = client.get_secret_value(SecretId=outputs["GitHubUserSecretArn"])
        content = json.loads(found_value["SecretString"])
        with self.hub.doing(f"set the secrets {' and '.join(KEY)}"):
            key = found.get_public_key()
            # Encrypt both first: then they differ in age for a shorter time.
            # The secret that project.yml creates has their names in lower case.
            values = {name: key.encrypt(content[name.lower()]) for name in KEY}
            for name, value in values.items():
                body = {"key_id": key.key_id, "encrypted_value": value}
                self.hub.ask("PUT", f"{found.url}/actions/secrets/{name}", body)

    def _jenkins(self) -> Item:
        project = self._project.project
        return Item(
            f"Jenkins credentials {project}-aws-access-key-id and {project}-aws-secret-access-key",
            Todo.PERSON,
            "the key of the project's user, as secret texts",
            f"copy them from the secret sm-mlops/{project}/github-user in Secrets Manager",
        )

    def _look_at_environments(self, found: Any) -> Iterator[Item]:
        refused = self._refused(found)
        for stage in self._stages():
            had = self._environment(found, stage.name) if found else None
            wanted = self._reviewers(stage, had)
            what = f"environment {stage.name}"
            if stage.reviewers is None and not wanted:
                detail = f"the token from {self.hub.origin} belongs to no person who could review"
                how = f"set Reviewers in {stages.FOLDER}/{stage.name}.json"
                yield Item(f"reviewers of {stage.name}", Todo.PERSON, detail, how)
            if had is None:
                yield Item(what, Todo.CREATE, _asks(stage, wanted))
                continue
            lacking = ", ".join(_lacking(had, stage, wanted))
            if not lacking:
                yield Item(what, Todo.NOTHING, _asks(stage, had.reviewers))
            elif stage.name in refused:
                yield Item(
                    what,
                    Todo.PERSON,
                    f"NOT PROTECTED: the GitHub plan of {found.owner.login} lacks these rules for "
                    f"private repositories: {lacking}",
                    "change to GitHub Enterprise or make the repository public, delete the "
                    f"variable {REFUSED} at {found.html_url}/settings/variables/actions, then run "
                    f"{self.aws.command} bootstrap",
                )
            else:
                yield Item(what, Todo.CHANGE, lacking)
        yield from self._unknown(found)

    def _unknown(self, found: Any) -> Iterator[Item]:
        """Yield the environments of no stage, such as one whose file was deleted. They stay: people
        may have created them, and their contents could not be restored."""
        if found is None:
            return
        with self.hub.doing("list the environments"):
            rows = self.hub.ask("GET", f"{found.url}/environments?per_page=100")["environments"]
        known = {name.lower() for name in stages.names(self.aws.settings)}
        for row in rows:
            if row["name"].lower() not in known:
                yield Item(
                    f"environment {row['name']}", Todo.NOTHING, "kept: belongs to no stage here"
                )

    def _make_environments(self, found: Any, tell: Tell) -> None:
        refused_before = needs.items(_variables(self.hub, found).get(REFUSED, ""))
        refused: list[str] = []
        for stage in self._stages():
            had = self._environment(found, stage.name)
            wanted = self._reviewers(stage, had)
            if had is not None and not _lacking(had, stage, wanted):
                continue
            now = self._put(found, stage, wanted, had)
            lacking = _lacking(now, stage, wanted) if now else ["the environment itself"]
            if lacking:
                refused.append(stage.name)
            if had is None and now is not None:
                tell(f"{'created':<12} environment {stage.name}: {_asks(stage, now.reviewers)}")
            elif not lacking:
                tell(f"{'changed':<12} environment {stage.name}: {_asks(stage, wanted)}")
            if lacking and stage.name not in refused_before:
                tell(
                    f"environment {stage.name} is NOT PROTECTED: the GitHub plan of "
                    f"{found.owner.login} does not allow {', '.join(lacking)}"
                )
        if sorted(refused) != sorted(refused_before):
            self._keep_refused(found, refused)

    def _put(
        self, found: Any, stage: Stage, wanted: tuple[Reviewer, ...], had: Environment | None
    ) -> Environment | None:
        """Create or change an environment, with as many rules as GitHub's plan allows. Return it,
        or None if the plan allows no environments."""
        before = had or Environment()
        policy = {"deployment_branch_policy": _CUSTOM}
        full = policy | {
            "reviewers": [{"type": each.kind, "id": each.number} for each in wanted],
            "wait_timer": before.wait_minutes,
            "prevent_self_review": before.forbids_own,
            "can_admins_bypass": before.skippable and not wanted,
        }
        for body in (full, policy, {}):
            try:
                with self.hub.doing(f"create the environment {stage.name}"):
                    self.hub.ask("PUT", f"{found.url}/environments/{stage.name}", body)
                break
            except GitHubError as error:
                if not found.private or not _is_about_plan(error):
                    raise _without_access(error, stage, wanted) from error
        else:
            return None
        if body:
            self._allow_branch(found, stage.name)
        return self._environment(found, stage.name)

    def _allow_branch(self, found: Any, name: str) -> None:
        """Let `main` deploy there and no other branch or tag."""
        place = f"{found.url}/environments/{name}/deployment-branch-policies"
        with self.hub.doing(f"set which branch may deploy to {name}"):
            rows = self.hub.ask("GET", f"{place}?per_page=100")["branch_policies"]
            if not any(_pattern(row) == BRANCH for row in rows):
                self.hub.ask("POST", place, {"name": BRANCH, "type": "branch"})
            for row in rows:
                if _pattern(row) != BRANCH:
                    self.hub.ask("DELETE", f"{place}/{row['id']}")

    def _environment(self, found: Any, name: str) -> Environment | None:
        place = f"{found.url}/environments/{name}"
        with self.hub.doing(f"show the environment {name}"):
            shown = self.hub.find(place)
            if shown is None:
                return None
            rules = {rule["type"]: rule for rule in shown.get("protection_rules") or ()}
            asked = rules.get("required_reviewers", {})
            branches = None
            if (shown.get("deployment_branch_policy") or {}).get("custom_branch_policies"):
                rows = self.hub.ask("GET", f"{place}/deployment-branch-policies?per_page=100")
                branches = frozenset(_pattern(row) for row in rows["branch_policies"])
        return Environment(
            tuple(_reviewer(each) for each in asked.get("reviewers") or ()),
            int(rules.get("wait_timer", {}).get("wait_timer") or 0),
            bool(asked.get("prevent_self_review")),
            bool(shown.get("can_admins_bypass", True)),
            branches,
        )

    def _stages(self) -> list[Stage]:
        settings = self.aws.settings
        return [stages.load(settings, name) for name in stages.names(settings)]

    def _reviewers(self, stage: Stage, had: Environment | None) -> tuple[Reviewer, ...]:
        """Return who has to approve. A stage that names no one keeps its reviewers, or has you."""
        if stage.reviewers is None:
            if had and had.reviewers:
                return had.reviewers
            person = self.hub.person
            return (Reviewer("User", person.number, person.login),) if person.login else ()
        return tuple(self._named(stage, name) for name in stage.reviewers)

    def _named(self, stage: Stage, name: str) -> Reviewer:
        organization, _, team = name.rpartition("/")
        kind, path = "User", f"/users/{name}"
        if organization:
            self.hub.require("read:org")
            kind, path = "Team", f"/orgs/{organization}/teams/{team}"
        with self.hub.doing(f"show {name}"):
            shown = self.hub.find(path)
        if shown is None:
            raise MlopsError(
                f"{stages.FOLDER}/{stage.name}.json: Reviewers: this token cannot see a GitHub "
                f"{kind.lower()} {name}"
            )
        return Reviewer(kind, int(shown["id"]), name)

    def _refused(self, found: Any) -> tuple[str, ...]:
        """Return the stages whose rules GitHub's plan has not allowed."""
        if found is None or not found.private:
            return ()
        return needs.items(_variables(self.hub, found).get(REFUSED, ""))

    def _keep_refused(self, found: Any, names: list[str]) -> None:
        if names:
            _set_variable(self.hub, found, REFUSED, ",".join(names))
            return
        with self.hub.doing(f"delete the variable {REFUSED}"):
            self.hub.ask("DELETE", f"{found.url}/actions/variables/{REFUSED}")

    @property
    def _project(self) -> Any:
        return self.aws.settings.project

    def _repository(self) -> Any:
        return self.hub.repository(self._project.github)


def _variables(hub: GitHub, found: Any) -> dict[str, str]:
    with hub.doing("list the variables"):
        return {each.name: each.value for each in found.get_variables()}


def _set_variable(hub: GitHub, found: Any, name: str, value: str) -> None:
    body = {"name": name, "value": value}
    with hub.doing(f"set the variable {name}"):
        try:
            hub.ask("POST", f"{found.url}/actions/variables", body)
        except GithubException as error:
            # It exists, perhaps because the answer to a first attempt was lost.
            if error.status != 409:
                raise
            hub.ask("PATCH", f"{found.url}/actions/variables/{name}", body)


def _secrets(hub: GitHub, found: Any) -> dict[str, datetime]:
    """Return when each was set."""
    with hub.doing("list the secrets"):
        return {each.name: each.updated_at for each in found.get_secrets()}


def _pattern(row: dict[str, Any]) -> str:
    """Return a branch's name alone, "tag v*" for others."""
    kind = row.get("type", "branch")
    return str(row["name"]) if kind == "branch" else f"{kind} {row['name']}"


def _reviewer(shown: dict[str, Any]) -> Reviewer:
    who = shown["reviewer"]
    return Reviewer(shown["type"], int(who["id"]), str(who.get("login") or who.get("slug")))


def _lacking(had: Environment, stage: Stage, wanted: tuple[Reviewer, ...]) -> list[str]:
    """Return what an environment lacks, in words."""
    lacking = []
    if {(r.kind, r.number) for r in had.reviewers} != {(r.kind, r.number) for r in wanted}:
        lacking.append(_asks(stage, wanted))
    if wanted and had.skippable:
        lacking.append("no bypass for administrators")
    if had.branches != {BRANCH}:
        lacking.append(f"{BRANCH} only")
    return lacking


def _asks(stage: Stage, reviewers: Iterable[Reviewer]) -> str:
    names = ", ".join(each.name for each in reviewers)
    none = "NO" if stage.name == "production" else "no"
    return f"needs approval by {names}" if names else f"needs {none} approval"


def _is_about_plan(error: GitHubError) -> bool:
    """Source: https://docs.github.com/en/actions/reference/workflows-and-actions/deployments-and-environments"""
    return error.status == 404 or (error.status == 422 and "plan" in error.said.lower())


def _without_access(error: GitHubError, stage: Stage, wanted: tuple[Reviewer, ...]) -> MlopsError:
    if error.status != 422 or not wanted:
        return error
    file = f"{stages.FOLDER}/{stage.name}.json"
    return MlopsError(f"{error}; all Reviewers in {file} need read access to the repository")
