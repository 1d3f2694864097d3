"""The repo's commits on GitHub: the remote and the first push of `main`, which starts the first
training.

git gets the token through a variable of its process, never in arguments or `.git/config`.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import urlsplit

from sm_mlops.bootstrap.by_hand import Tool
from sm_mlops.bootstrap.plan import Item, Part, Tell, Todo
from sm_mlops.commit import git
from sm_mlops.errors import MlopsError, one_line
from sm_mlops.github import GitHub, allowing
from sm_mlops.settings import Settings

BRANCH = "main"
REMOTE = "origin"
WHAT = f"branch {BRANCH}"
# git itself waits forever. A working server sends something every 5 seconds.
# Source: receive.keepAlive at https://git-scm.com/docs/git-config
SILENCE_SECONDS = 60
_TOKEN = "MLOPS_GIT_TOKEN"
# git asks "Username for ..." and "Password for ...".
_ASKPASS = f"""#!/bin/sh
case "$1" in
    Username*) echo x-access-token ;;
    *) printf '%s\\n' "${_TOKEN}" ;;
esac
"""


@dataclass
class Push(Part):
    """A part of the plan. With `sandbox` the repo's own git configuration is not changed."""

    settings: Settings
    hub: GitHub
    sandbox: bool = False

    def look(self) -> list[Item]:
        found = self.hub.repository(self.settings.project.github)
        if found and self._is_there(found):
            items = [Item(WHAT, Todo.NOTHING)]
            if found.default_branch != BRANCH:
                detail = f"is {found.default_branch}; GitHub starts deploy.yml of this one alone"
                how = f"make {BRANCH} the default branch at {found.html_url}/settings"
                items.append(Item("default branch", Todo.PERSON, detail, how))
            return items
        if problem := self._problem():
            return [Item(WHAT, Todo.PERSON, *problem)]
        self._require_origin(found)
        return [Item(WHAT, Todo.CREATE, "pushed from here, which starts the first training")]

    def act(self, tell: Tell) -> None:
        found = self.hub.repository(self.settings.project.github)
        if found is None:
            raise MlopsError(f"there is no GitHub repository {self.settings.project.github}")
        if self._is_there(found) or self._problem():
            return
        self._require_origin(found)
        address = f"{self.hub.at.server}/{found.full_name}.git"
        if not self.sandbox:
            if not self._origin():
                self._run("remote", "add", REMOTE, address)
                tell(f"{'added':<12} remote {REMOTE} {address}")
            # Before the push: its answer may be lost, and then nothing is left to do. This lets
            # `git pull` and `git push` use the remote, as `push -u` would.
            if self._git("config", f"branch.{BRANCH}.remote").returncode:
                self._run("config", f"branch.{BRANCH}.remote", REMOTE)
                self._run("config", f"branch.{BRANCH}.merge", f"refs/heads/{BRANCH}")
        self._push(address)
        if not self.sandbox:
            self._run("update-ref", f"refs/remotes/{REMOTE}/{BRANCH}", f"refs/heads/{BRANCH}")
        tell(f"{'pushed':<12} {BRANCH} to {found.html_url}")

    def bring_head(self) -> None:
        """Make HEAD the branch main of the sandbox's GitHub. Raise MlopsError."""
        self._push(f"{self.hub.at.server}/{self.settings.project.github}.git", "+HEAD")

    def _problem(self) -> tuple[str, str] | None:
        """Return what prevents a push, and the remedy, or "" where another part names it."""
        if not self.sandbox and (why := Tool(self.settings, self.hub).problem()):
            return f"not pushed, because it would start a workflow that fails: {why}", ""
        again = f", then mlops {'--sandbox ' if self.sandbox else ''}bootstrap"
        commands = f"git add . && git commit -m 'Begin' && git branch -M {BRANCH}{again}"
        if not shutil.which("git"):
            return "git is not installed", f"install git, then {commands}"
        top = self._git("rev-parse", "--show-toplevel")
        if top.returncode:
            return "this folder is not a git repository", f"git init && {commands}"
        outer = top.stdout.strip()
        if Path(outer).resolve() != self.settings.root.resolve():
            detail = f"this folder is part of another repository, {outer}"
            return detail, f"move it out of there, then git init && {commands}"
        if not self._git("rev-parse", "--verify", "--quiet", f"refs/heads/{BRANCH}").returncode:
            return None
        if not self._git("rev-parse", "--verify", "--quiet", "HEAD").returncode:
            # With everything committed, `git commit` would fail and end the commands there.
            commands = f"git branch -M {BRANCH}{again}"
        return f"there is no commit on {BRANCH}", commands

    def _is_there(self, found: Any) -> bool:
        what = f"show the branch {BRANCH} of {found.full_name}"
        # GitHub answers 409 for a repository without a commit.
        with self.hub.doing(what), allowing(404, 409):
            found.get_branch(BRANCH)
            return True
        return False

    def _origin(self) -> str:
        return self._git("remote", "get-url", REMOTE).stdout.strip()

    def _require_origin(self, found: Any) -> None:
        """Raise MlopsError if `origin` is another repository."""
        project = self.settings.project
        wanted = {project.github.lower()} | ({found.full_name.lower()} if found else set())
        origin = "" if self.sandbox else self._origin()
        if not origin:
            return
        hosts = {
            (urlsplit(address).hostname or "").lower() for address in (origin, self.hub.at.server)
        }
        # Hosts of SSH may be names in ~/.ssh/config.
        same_host = not origin.startswith("http") or len(hosts) == 1
        if same_host and _path(origin) in wanted:
            return
        raise MlopsError(
            f"the remote {REMOTE} of this repo is {_without_secret(origin)}, not "
            f"{project.repository}: run git remote set-url {REMOTE} {project.repository}.git, or "
            "correct github in pyproject.toml"
        )

    def _push(self, address: str, source: str = f"refs/heads/{BRANCH}") -> None:
        """Push by address: through HTTPS even if `origin` uses SSH, whose key may be locked.

        Raise MlopsError.
        """
        self.hub.require("workflow")
        with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
            script = Path(folder) / "askpass"
            script.write_text(_ASKPASS, encoding="utf-8")
            script.chmod(0o700)
            done = self._git(
                # No credential helper may store the token.
                "-c", "credential.helper=",
                "-c", "http.lowSpeedLimit=1", "-c", f"http.lowSpeedTime={SILENCE_SECONDS}",
                "push", "--quiet", "--porcelain", address, f"{source}:refs/heads/{BRANCH}",
                GIT_ASKPASS=str(script),
                **{_TOKEN: self.hub.token},
            )  # fmt: skip
        if done.returncode:
            raise MlopsError(self._refusal(f"{done.stdout}\n{done.stderr}"))

    def _refusal(self, said: str) -> str:
        said = _without_secret(said.replace(self.hub.token, "***"))
        line = f"cannot push {BRANCH} to {self.settings.project.github}"
        if "workflow" in said and "without" in said:
            return (
                f"{line}: the token from {self.hub.origin} cannot change workflows; it needs "
                "the scope workflow (classic) or the permission Workflows: write (fine-grained)"
            )
        if re.search(r"non-fast-forward|fetch first|stale info", said):
            return f"{line}: someone else has pushed other commits there first"
        if re.search(r"\b40[13]\b|denied|not granted|Authentication failed", said):
            return (
                f"{line}: the token from {self.hub.origin} is not allowed to; it needs the scope "
                "repo (classic) or the permission Contents: write (fine-grained)"
            )
        rows = [one_line(row) for row in said.splitlines() if row.strip()]
        errors = [row for row in rows if row.startswith(("fatal:", "error:", "remote:", "!"))]
        return f"{line}: git says {(errors or rows or ['nothing'])[0]}"

    def _run(self, *arguments: str) -> None:
        done = self._git(*arguments)
        if done.returncode:
            raise MlopsError(f"git {arguments[0]}: {one_line(done.stderr)}")

    def _git(self, *arguments: str, **variables: str) -> CompletedProcess[str]:
        return git(self.settings.root, *arguments, **variables)


def _path(address: str) -> str:
    """Return the last two parts in lower case: owner/repository."""
    path = address.rstrip("/").removesuffix(".git").replace(":", "/")
    return "/".join(path.split("/")[-2:]).lower()


def _without_secret(text: str) -> str:
    """Return the text without users and passwords in addresses."""
    return re.sub(r"://[^/@\s]+@", "://", text)
