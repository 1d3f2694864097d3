"""A team whose repo follows the template with cruft, for real."""

import json
import subprocess
from pathlib import Path

from rendering import Rendered, Run, run


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


class Team:
    """A team outside the temp folder that follows a clone of the template."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        for name in ("home", "tmp", "work"):
            (folder / name).mkdir()
        self.template = folder / "template"
        subprocess.run(["cp", "-R", template, self.template], check=True)
        git(self.template, "init", "--quiet", "--initial-branch=main")
        commit(self.template, "First version")
        self.repo = Rendered(folder / "work" / "my-model")

    def cruft(self, *arguments: str, cwd: Path | None = None) -> Run:
        environment = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
        return run("python", "-m", "cruft", *arguments, cwd=cwd or self.repo.path, **environment)

    def create(self, **answers: str) -> None:
        context = json.dumps(answers)
        done = self.cruft(
            *("create", "--no-input", "--extra-context", context, str(self.template)),
            cwd=self.folder / "work",
        )
        assert done.code == 0, done.out + done.err

    def change_template(self, name: str, old: str, new: str) -> None:
        """Replace text in a file of the template and commit it there as the next version."""
        file = self.template / name
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")
        commit(self.template, "Next version")
