"""The content of repositories: bare, read with git, and pushed to through git's HTTP backend.

Runs git and nothing of the repositories' own; knows no tokens.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from sm_mlops.sandbox import replies

# What a push without the right to change workflows meets.
HOOK = """#!/bin/sh
while read old new ref; do
    test "$STANDIN_WORKFLOWS" = no || continue
    expr "$new" : '0*$' > /dev/null && continue
    if expr "$old" : '0*$' > /dev/null; then
        changed=$(git ls-tree -r --name-only "$new" -- .github/workflows | head -n 1)
    else
        changed=$(git diff --name-only "$old" "$new" -- .github/workflows | head -n 1)
    fi
    if test -n "$changed"; then
        what="create or update workflow \\`$changed\\`"
        echo "refusing to allow $STANDIN_NOUN to $what without $STANDIN_RIGHT" >&2
        exit 1
    fi
done
"""


class Bare:
    """The repositories below one folder, by full name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name.lower()}.git"

    def create(self, name: str, branch: str) -> None:
        """Make an empty repository unless it exists."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._git(None, "init", "--quiet", "--bare", f"--initial-branch={branch}", str(path))
        self._git(path, "config", "http.receivepack", "true")
        hook = path / "hooks" / "pre-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(HOOK, encoding="utf-8")
        hook.chmod(0o755)

    def rename(self, name: str, new: str) -> None:
        self.path(new).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).rename(self.path(new))

    def commit(self, name: str, ref: str) -> str | None:
        """Return the commit that a tag, branch or commit names, None if there is none.

        A tag hides a branch of its name, as it does from git; GitHub does not say what it does.
        """
        for each in (f"refs/tags/{ref}", f"refs/heads/{ref}", ref):
            # A name that looks like an option is no name.
            found = self._git(
                self.path(name), "rev-parse", "--quiet", "--verify", "--end-of-options",
                f"{each}^{{commit}}", fail=False,
            )  # fmt: skip
            if found:
                return found.decode().strip().splitlines()[-1]
        return None

    def ahead(self, name: str, base: str, head: str) -> tuple[int, int] | None:
        """Return how many commits `head` has that `base` lacks, and the reverse; None if their
        histories have nothing in common."""
        path, span = self.path(name), f"{base}...{head}"
        if not self._git(path, "merge-base", base, head, fail=False):
            return None
        behind, ahead = self._git(path, "rev-list", "--left-right", "--count", span).split()
        return int(ahead), int(behind)

    def branches(self, name: str) -> dict[str, str]:
        text = self._git(
            self.path(name),
            "for-each-ref",
            "--format=%(refname:lstrip=2) %(objectname)",
            "refs/heads",
        ).decode()
        return dict(line.split(" ") for line in text.splitlines())

    def files(self, name: str, commit: str, folder: str = "") -> list[str]:
        arguments = ["ls-tree", "-r", "-z", "--name-only", commit]
        if folder:
            arguments += ["--", f"{folder}/"]
        text = self._git(self.path(name), *arguments).decode()
        return [line for line in text.split("\0") if line]

    def read(self, name: str, commit: str, path: str) -> bytes | None:
        """Return a file's content, None if there is none."""
        found = self._git(self.path(name), "cat-file", "blob", f"{commit}:{path}", fail=False)
        return found if found or path in self.files(name, commit) else None

    def head(self, name: str, branch: str) -> None:
        self._git(self.path(name), "symbolic-ref", "HEAD", f"refs/heads/{branch}")

    def serve(
        self, name: str, action: str, environ: dict[str, Any], login: str, more: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Answer git's smart HTTP (info/refs, git-upload-pack, git-receive-pack)."""
        variables = {
            **_environment(),
            **more,
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": f"/{name.lower()}.git/{action}",
            "QUERY_STRING": environ.get("QUERY_STRING", ""),
            "REQUEST_METHOD": environ["REQUEST_METHOD"],
            "CONTENT_TYPE": environ.get("CONTENT_TYPE", ""),
            "REMOTE_USER": login,
            "REMOTE_ADDR": "127.0.0.1",
        }
        for header in ("HTTP_CONTENT_ENCODING", "HTTP_GIT_PROTOCOL"):
            if header in environ:
                variables[header] = environ[header]
        variables["GIT_PROTOCOL"] = environ.get("HTTP_GIT_PROTOCOL", "")
        body = replies.read(environ)
        variables["CONTENT_LENGTH"] = str(len(body))
        done = subprocess.run(
            ["git", "http-backend"], input=body, capture_output=True, env=variables, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        status, headers = 200, []
        for line in head.decode("latin-1").splitlines():
            key, _, value = line.partition(": ")
            if key.lower() == "status":
                status = int(value.split(" ")[0])
            else:
                headers.append((key, value))
        if done.returncode and not head:
            return 500, [("Content-Type", "text/plain")], done.stderr
        return status, [*headers, ("Content-Length", str(len(content)))], content

    def _git(self, folder: Path | None, *arguments: str, fail: bool = True) -> bytes:
        where = ["--git-dir", str(folder)] if folder else []
        done = subprocess.run(
            ["git", *where, *arguments], capture_output=True, env=_environment(), check=False
        )
        if done.returncode and fail:
            raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.decode()}")
        return b"" if done.returncode else done.stdout


def _environment() -> dict[str, str]:
    """Return an environment without any personal settings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "LC_ALL": "C.UTF-8",
    }
