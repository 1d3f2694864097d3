"""A template that others can clone: a bare repository in place of one on GitHub.

git itself is told, by `url.<base>.insteadOf` in the home of the test, to go there for the address,
so cookiecutter, cruft, uv and the tool all see the real address and need no network.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ADDRESS = "https://github.com/acme/sm-mlops"


def git(folder: Path, *arguments: str) -> str:
    """Return what git says, as Ada."""
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


class Published:
    """A working copy of the template in `folder`, and the bare repository that it is pushed to."""

    def __init__(self, folder: Path, template: Path, home: Path, address: str = ADDRESS) -> None:
        self.work, self.bare, self.address = folder / "work-copy", folder / "sm-mlops.git", address
        shutil.copytree(template, self.work)
        git(self.work, "init", "--quiet", "--initial-branch=main")
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))
        git(self.work, "remote", "add", "origin", str(self.bare))
        self.publish("First version")
        self.answer(home, address)

    def answer(self, home: Path, address: str) -> None:
        """Let git find the bare repository at this address, for whoever has this home."""
        config = f'[url "{self.bare.as_uri()}"]\n    insteadOf = {address}\n'
        with (home / ".gitconfig").open("a") as file:
            file.write(config)

    def publish(self, message: str, tag: str = "") -> str:
        """Commit and push everything. Return the commit."""
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "--allow-empty", "--message", message)
        if tag:
            git(self.work, "tag", "--annotate", "--message", tag, tag)
        git(self.work, "push", "--quiet", "--follow-tags", "origin", "main")
        return git(self.work, "rev-parse", "HEAD")

    def release(self, version: str, to_do: str = "Nothing.") -> str:
        """Raise the version, say in the changelog what to do, and push both with a tag."""
        file = self.work / "cookiecutter.json"
        lines = file.read_text().splitlines(keepends=True)
        key = '  "_template_version": '
        lines = [f'{key}"{version}",\n' if line.startswith(key) else line for line in lines]
        file.write_text("".join(lines))
        changelog = self.work / "CHANGELOG.md"
        head, _, rest = changelog.read_text().partition("\n## ")
        section = f"## {version}\n\nNews.\n\n### To do in a repo\n\n{to_do}\n"
        changelog.write_text(f"{head}\n{section}\n## {rest}")
        return self.publish(f"Release {version}", f"v{version}")
