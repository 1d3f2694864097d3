"""The repository on GitHub: it exists, it is private, and you may set it up.

Must not know AWS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sm_mlops import github
from sm_mlops import settings as mlops_settings
from sm_mlops.bootstrap.plan import Item, Part, Tell, Todo
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub, GitHubError

WHAT = "GitHub repository"


def _owner(hub: GitHub, login: str) -> dict[str, Any]:
    """Return the user or organization of this name. Raise MlopsError if there is none."""
    with hub.doing(f"show {login}"):
        found = hub.find(f"/users/{login}")
    if found is None:
        raise MlopsError(
            f"GitHub has no user or organization {login}: correct github in pyproject.toml"
        )
    return dict(found)


def names(hub: GitHub, settings: mlops_settings.Settings) -> tuple[str, str]:
    """Return owner and repository as GitHub writes them, or will once it is created.

    Policies are case-sensitive, GitHub is not. Raise MlopsError.
    """
    found = hub.repository(settings.project.github)
    if found is not None:
        return found.owner.login, found.name
    login, _, name = settings.project.github.partition("/")
    return str(_owner(hub, login)["login"]), name


@dataclass
class Repository(Part):
    settings: mlops_settings.Settings
    hub: GitHub

    def look(self) -> list[Item]:
        self.hub.require(*github.SCOPES)
        wanted = self.settings.project.github
        found = self.hub.repository(wanted)
        if found is None:
            self._require_own(_owner(self.hub, wanted.partition("/")[0]))
            return [Item(WHAT, Todo.CREATE, "private")]
        self._require_usable(found)
        place, kind = found.full_name, "private" if found.private else "public"
        items = [Item(WHAT, Todo.NOTHING, kind)]
        if place.lower() != wanted.lower():
            how = f'set github = "{place}" in pyproject.toml'
            items.append(Item("repository name", Todo.PERSON, f"was {wanted} before", how))
        return items

    def act(self, tell: Tell) -> None:
        wanted = self.settings.project.github
        if self.hub.repository(wanted) is None:
            made = self._make(wanted)
            tell(f"{'created':<12} private repository {made.html_url}")

    def look_back(self) -> list[Item]:
        """Return that it stays: only a person deletes what people have written."""
        found = self.hub.repository(self.settings.project.github)
        if found is None:
            return []
        how = f"to delete it, open {found.html_url}/settings"
        return [Item(WHAT, Todo.PERSON, "stays, with all commits", how)]

    def _make(self, wanted: str) -> Any:
        login, _, name = wanted.partition("/")
        owner = _owner(self.hub, login)
        self._require_own(owner)
        path = f"/orgs/{owner['login']}/repos" if _is_organization(owner) else "/user/repos"
        about = {"name": name, "private": True, "has_wiki": False, "has_projects": False}
        refused: GitHubError | None = None
        try:
            with self.hub.doing(f"create {wanted}"):
                self.hub.ask("POST", path, about)
        except GitHubError as error:
            # The answer to a first attempt was lost, or someone else was faster.
            if error.status != 422 or "already exists" not in error.said:
                raise
            refused = error
        made = self.hub.repository(wanted)
        if made is None:
            raise MlopsError(
                f"{wanted} exists, but the token from {self.hub.origin} cannot see it: give a "
                "fine-grained one access to it or to all repositories of the owner"
            ) from refused
        return made

    def _require_own(self, owner: dict[str, Any]) -> None:
        person, login = self.hub.person.login, owner["login"]
        if not _is_organization(owner) and person.lower() != login.lower():
            raise MlopsError(
                f"{login} is a user, and you are signed in to GitHub as {person or 'an App'}, who "
                f"cannot create repositories there: ask {login} for the repository, or set another "
                "owner as github in pyproject.toml"
            )

    def _require_usable(self, found: Any) -> None:
        if found.archived:
            raise MlopsError(
                f"{found.full_name} is archived and cannot be changed: unarchive it at "
                f"{found.html_url}/settings"
            )
        # An App has permissions, not a role.
        if self.hub.person.login and not found.permissions.admin:
            raise MlopsError(
                f"{self.hub.person.login} is not an administrator of {found.full_name}: ask one to "
                "run this command or to give you that role"
            )


def _is_organization(owner: dict[str, Any]) -> bool:
    return bool(owner["type"] == "Organization")
