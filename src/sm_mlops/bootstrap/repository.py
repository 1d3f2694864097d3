"""The repository on GitHub: there, private, and with the right to set it up.

Must not know AWS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sm_mlops import github
from sm_mlops import settings as mlops_settings
from sm_mlops.bootstrap.plan import Item, Tell, Todo
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub, GitHubError

WHAT = "GitHub repository"


@dataclass(frozen=True)
class Owner:
    """A user or an organisation, as GitHub writes it."""

    login: str
    organization: bool


def owner(hub: GitHub, login: str) -> Owner:
    """Raises MlopsError where there is none."""
    from github import UnknownObjectException

    with hub.doing(f"show {login}"):
        try:
            found = hub.ask("GET", f"/users/{login}")
        except UnknownObjectException as error:
            raise MlopsError(
                f"GitHub knows no user or organisation {login}: correct github in pyproject.toml"
            ) from error
    return Owner(str(found["login"]), found["type"] == "Organization")


def names(hub: GitHub, settings: mlops_settings.Settings) -> tuple[str, str]:
    """Owner and repository as GitHub writes them; as they will be where it is yet to be made.

    Policies compare letter by letter, GitHub does not. Raises MlopsError.
    """
    found = hub.repository(settings.project.github)
    if found is not None:
        return found.owner.login, found.name
    login, _, name = settings.project.github.partition("/")
    return owner(hub, login).login, name


@dataclass
class Repository:
    """A part of the plan."""

    settings: mlops_settings.Settings
    hub: GitHub

    def look(self) -> list[Item]:
        self.hub.require(*github.SCOPES)
        wanted = self.settings.project.github
        found = self.hub.repository(wanted)
        if found is None:
            self._require_own(owner(self.hub, wanted.partition("/")[0]))
            return [Item(wanted, WHAT, Todo.CREATE, "private")]
        self._require_usable(found)
        items = [Item(found.full_name, WHAT, Todo.NOTHING, _kind(found))]
        if found.full_name.lower() != wanted.lower():
            items.append(
                Item(
                    found.full_name,
                    "its name",
                    Todo.PERSON,
                    f"was {wanted} before",
                    f'write github = "{found.full_name}" in pyproject.toml',
                )
            )
        return items

    def act(self, tell: Tell) -> None:
        wanted = self.settings.project.github
        if self.hub.repository(wanted) is None:
            made = self._make(wanted)
            tell(f"{'created':<12} private repository {made.html_url}")

    def look_back(self) -> list[Item]:
        """What becomes of it when the repo is disconnected: nothing, that is for a person."""
        found = self.hub.repository(self.settings.project.github)
        if found is None:
            return []
        how = f"to delete it: {found.html_url}/settings, at the bottom"
        return [Item(found.full_name, WHAT, Todo.PERSON, "stays, with all commits", how)]

    def undo(self, tell: Tell) -> None:
        """Does nothing: what people have written is not taken away."""

    def _make(self, wanted: str) -> Any:
        login, _, name = wanted.partition("/")
        holder = owner(self.hub, login)
        self._require_own(holder)
        place = f"/orgs/{holder.login}/repos" if holder.organization else "/user/repos"
        try:
            with self.hub.doing(f"make {wanted}"):
                self.hub.ask(
                    "POST",
                    place,
                    {"name": name, "private": True, "has_wiki": False, "has_projects": False},
                )
        except GitHubError as error:
            # The answer to a first attempt was lost, or somebody else was quicker.
            if error.status != 422 or "already exists" not in error.said:
                raise
            if self.hub.repository(wanted) is None:
                raise MlopsError(
                    f"{wanted} exists, but the token of {self.hub.origin} cannot see it: let it, "
                    "or take another name in pyproject.toml"
                ) from error
        made = self.hub.repository(wanted)
        if made is None:
            raise MlopsError(
                f"{wanted} was made, but the token of {self.hub.origin} cannot see it: a "
                "fine-grained one must be for all repositories of the owner, or be given this one"
            )
        return made

    def _require_own(self, holder: Owner) -> None:
        person = self.hub.person.login
        if not holder.organization and person.lower() != holder.login.lower():
            raise MlopsError(
                f"{holder.login} is a user, whose repositories only {holder.login} can make, and "
                f"you are signed in to GitHub as {person or 'an App'}: ask for the repository, or "
                "name another owner as github in pyproject.toml"
            )

    def _require_usable(self, found: Any) -> None:
        if found.archived:
            raise MlopsError(
                f"{found.full_name} is archived, so that nothing can be changed there: take that "
                f"back at {found.html_url}/settings"
            )
        # An App has permissions, not a role.
        if self.hub.person.login and not found.permissions.admin:
            raise MlopsError(
                f"{found.full_name} can be set up by its administrators only, and "
                f"{self.hub.person.login} is none: ask one to run this command, or for the role"
            )


def _kind(found: Any) -> str:
    return "private" if found.private else "public"
