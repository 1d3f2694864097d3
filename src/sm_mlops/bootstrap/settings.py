"""What the workflows find on GitHub: the roles they assume, the keys they sign in with if there are
any, in an environment for training, and one per stage with its reviewers.

What Jenkins needs is only named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sm_mlops import projects
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import keys, needs
from sm_mlops.bootstrap.plan import Item, Part, Tell, Todo, is_work
from sm_mlops.bootstrap.sign_in import KEY, ROLE, Place
from sm_mlops.deployment import stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub, GitHubError, allowing
from sm_mlops.projects import Access

# A variable that names the stages whose rules GitHub refused, so that they are not tried again.
REFUSED = "MLOPS_UNPROTECTED"
BRANCH = "main"
# Training deploys nothing, and asks nobody.
_TRAINING = Stage(projects.TRAIN.environment, stack="", kind="")
# GitHub's description of its API does not know it, and GitHub Enterprise Server refuses it.
_BYPASS = "can_admins_bypass"
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
            return list(self._jenkins())
        found = self._repository()
        outputs = self.outputs(self.aws)
        items = list(self._look_at_environments(found))
        items += [item for place in self.places(found) for item in place.look(outputs)]
        return [*items, *self._exposed(found)]

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
                f"there is no SageMaker project {name} yet; the workflows need its roles"
            )
        # Environments first: they hold what their jobs sign in with.
        self._make_environments(found, tell)
        for place in self.places(found):
            if place.holder is not None:
                place.act(outputs, tell)
        self._delete(found, self._exposed(found), tell)

    def places(self, found: Any) -> list[Place]:
        """Return the environments where the workflows find what they sign in with.

        Not that of a stage that wants reviewers and has none: nobody would be asked. Nor one that
        GitHub's plan does not have.
        """
        places = []
        refused = self._refused(found)
        by_name = {stage.name: stage for stage in self._stages()}
        for access in projects.ACCESSES:
            stage = by_name.get(access.environment)
            had = self._environment(found, access.environment) if found and stage else None
            if stage and (_is_gated(stage, had) if had else stage.name not in refused):
                places.append(Place(self.aws, self.hub, found, access))
        return places

    def _repository_place(self, found: Any) -> Place:
        return Place(self.aws, self.hub, found, Access("", ""))

    def _exposed(self, found: Any) -> list[Item]:
        """Return what the repository itself still has, as it had for training in an older version,
        once the environment is there instead."""
        if found is None or not self._environment(found, _TRAINING.name):
            return []
        here = self._repository_place(found)
        names = [f"variable {ROLE}"] if ROLE in here.variables() else []
        if self._project.uses_key:
            names += [f"secret {name}" for name in KEY if name in here.secrets()]
        place = f"moved to the environment {_TRAINING.name}, for {BRANCH} only"
        return [Item(name, Todo.DELETE, place) for name in names]

    def look_back(self) -> list[Item]:
        """Return what is deleted when the repo is disconnected."""
        found = self._repository()
        if found is None:
            return []
        here = self._repository_place(found)
        variables, secrets = here.variables(), here.secrets()
        known = self._names()
        names = [
            *(f"variable {name}" for name in (ROLE, REFUSED) if name in variables),
            *(f"secret {name}" for name in KEY if name in secrets),
            *(f"environment {name}" for name in known if self._environment(found, name)),
        ]
        return [*(Item(name, Todo.DELETE) for name in names), *self._unknown(found)]

    def undo(self, tell: Tell) -> None:
        if self._project.uses_key:
            # Keys left by an interrupted rotation would prevent the user's deletion.
            keys.delete_former(self.aws, tell)
        self._delete(self._repository(), self.look_back(), tell)

    def _delete(self, found: Any, items: Iterable[Item], tell: Tell) -> None:
        for item in filter(is_work, items):
            noun, _, name = item.what.partition(" ")
            folder = "environments" if noun == "environment" else f"actions/{noun}s"
            with self.hub.doing(f"delete {item.what}"), allowing(404):
                # Already deleted if the answer to a first attempt was lost.
                self.hub.ask("DELETE", f"{found.url}/{folder}/{name}")
            tell(f"{'deleted':<12} {item.what}")

    def _jenkins(self) -> Iterator[Item]:
        project = self._project.project
        for access in projects.ACCESSES:
            credential = f"{project}-{access.name}-key"
            place = "the folder of the multibranch pipeline"
            if access.environment == "production":
                place = f"the folder {project}-production alone"
            yield Item(
                f"Jenkins credentials {credential}-id and {credential}-secret in {place}",
                Todo.PERSON,
                f"the key of the project's user {access.name_in(project)}, as secret texts",
                f"copy them from the secret {access.secret_in(project)} in Secrets Manager",
            )
        yield Item(
            f"Jenkins job {project}-production/deploy",
            Todo.PERSON,
            "deploys to production; loads Jenkinsfile.production from main",
            f"create the folder, the job, and the group {project}-production of those who approve",
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
                item = Item(what, Todo.CREATE, _asks(stage, wanted))
                if stage.name in refused:
                    why = f"GitHub's plan of {found.owner.login} has none for private repositories"
                    # Reviewers need more than environments do.
                    how = self._other_plan(found, *(() if wanted else ("Pro, Team",)))
                    item = Item(what, Todo.PERSON, why, how)
                yield item
                continue
            lacking = ", ".join(_lacking(had, stage, wanted))
            if not lacking:
                yield Item(what, Todo.NOTHING, _asks(stage, had.reviewers))
            elif stage.name in refused:
                yield self._unprotected(found, stage, had, lacking)
            else:
                yield Item(what, Todo.CHANGE, lacking)
        yield from self._unknown(found)

    def _unprotected(self, found: Any, stage: Stage, had: Environment, lacking: str) -> Item:
        """Return the item of an environment whose rules GitHub's plan does not allow."""
        what = f"environment {stage.name}"
        how = self._other_plan(found)
        why = f"GitHub's plan of {found.owner.login} lacks these rules for private repositories"
        if not _is_gated(stage, had):
            file = f"{stages.FOLDER}/{stage.name}.json"
            how += f'; or set "Reviewers": [] in {file} if the registry\'s approval is to be the '
            return Item(what, Todo.PERSON, f"NOT SET UP: {why}: {lacking}", f"{how}only gate")
        if self._project.uses_key:
            return Item(what, Todo.PERSON, f"NOT PROTECTED: {why}: {lacking}", how)
        asks = _asks(stage, had.reviewers)
        return Item(what, Todo.NOTHING, f"{asks}; {BRANCH} only, by the trust of its role")

    def _other_plan(self, found: Any, *plans: str) -> str:
        plan = " or ".join((*plans, "Enterprise"))
        return (
            f"change to GitHub {plan} or make the repository public, "
            f"delete the variable {REFUSED} at {found.html_url}/settings/variables/actions, then "
            f"run {self.aws.command} bootstrap"
        )

    def _unknown(self, found: Any) -> Iterator[Item]:
        """Yield the environments of no stage, such as one whose file was deleted. They stay: people
        may have created them, and their contents could not be restored."""
        if found is None:
            return
        with self.hub.doing("list the environments"):
            rows = self.hub.ask("GET", f"{found.url}/environments?per_page=100")["environments"]
        known = {name.lower() for name in self._names()}
        for row in rows:
            if row["name"].lower() not in known:
                yield Item(
                    f"environment {row['name']}", Todo.NOTHING, "kept: belongs to no stage here"
                )

    def _make_environments(self, found: Any, tell: Tell) -> None:
        refused_before = needs.items(self._repository_place(found).variables().get(REFUSED, ""))
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
                state = "NOT PROTECTED" if now and _is_gated(stage, now) else "NOT SET UP"
                tell(
                    f"environment {stage.name} is {state}: the GitHub plan of "
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
            # GitHub refuses it without reviewers.
            "prevent_self_review": before.forbids_own and bool(wanted),
            _BYPASS: before.skippable and not wanted,
        }
        described = {name: value for name, value in full.items() if name != _BYPASS}
        for body in (full, described, policy, {}):
            try:
                with self.hub.doing(f"create the environment {stage.name}"):
                    self.hub.ask("PUT", f"{found.url}/environments/{stage.name}", body)
                break
            except GitHubError as error:
                unknown = body is full and error.status == 422 and _BYPASS in error.said
                if not unknown and not (found.private and _is_about_plan(error)):
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
            bool(shown.get(_BYPASS)),
            branches,
        )

    def _stages(self) -> list[Stage]:
        settings = self.aws.settings
        return [_TRAINING, *(stages.load(settings, name) for name in stages.names(settings))]

    def _names(self) -> list[str]:
        return [_TRAINING.name, *stages.names(self.aws.settings)]

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
        return needs.items(self._repository_place(found).variables().get(REFUSED, ""))

    def _keep_refused(self, found: Any, names: list[str]) -> None:
        if names:
            self._repository_place(found).set_variable(REFUSED, ",".join(names))
            return
        with self.hub.doing(f"delete the variable {REFUSED}"):
            self.hub.ask("DELETE", f"{found.url}/actions/variables/{REFUSED}")

    @property
    def _project(self) -> Any:
        return self.aws.settings.project

    def _repository(self) -> Any:
        return self.hub.repository(self._project.github)


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


def _is_gated(stage: Stage, had: Environment) -> bool:
    """Return whether a person is asked, or somebody has said that none is to be."""
    return stage.reviewers == () or bool(had.reviewers)


def _asks(stage: Stage, reviewers: Iterable[Reviewer]) -> str:
    names = ", ".join(each.name for each in reviewers)
    none = "needs no approval"
    if stage.name == "production":
        none = "needs NO approval: the registry's is the only gate"
    return f"needs approval by {names}" if names else none


def _is_about_plan(error: GitHubError) -> bool:
    """Source: https://docs.github.com/en/actions/reference/workflows-and-actions/deployments-and-environments"""
    return error.status == 404 or (error.status == 422 and "plan" in error.said.lower())


def _without_access(error: GitHubError, stage: Stage, wanted: tuple[Reviewer, ...]) -> MlopsError:
    if error.status != 422 or not wanted:
        return error
    file = f"{stages.FOLDER}/{stage.name}.json"
    return MlopsError(f"{error}; all Reviewers in {file} need read access to the repository")
