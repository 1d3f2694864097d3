"""The sandbox's GitHub: this repo's owner, a person who works there, and that person's tokens.

Never reads anyone's real token.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sm_mlops.settings import Settings

if TYPE_CHECKING:
    from sm_mlops.aws import Aws

PERSON = "you"
FILE = "github.json"


def prepare(settings: Settings) -> dict[str, str]:
    """Create what is missing in the running sandbox; return the variables that sign in there."""
    from sm_mlops import sandbox

    file = settings.root / sandbox.FOLDER / FILE
    token = _kept(file)
    if not token:
        _add_accounts(settings)
        token = sandbox.control(
            settings.root, "github.accounts.token", PERSON, "repo", "workflow", "read:org"
        )
        file.touch(mode=0o600)
        file.write_text(json.dumps({"token": token}), encoding="utf-8")
    return {"GITHUB_TOKEN": str(token), "GH_TOKEN": ""}


def token_source(aws: Aws) -> Callable[[], str] | None:
    """Return what creates a token that can only start workflows; None outside of the sandbox."""
    if not aws.sandbox:
        return None
    from sm_mlops import sandbox

    root, owner = aws.settings.root, aws.settings.project.github.partition("/")[0]

    def create() -> str:
        arguments = ("github.accounts.fine_grained", PERSON, owner, None)
        return str(sandbox.control(root, *arguments, actions="write"))

    return create


def _add_accounts(settings: Settings) -> None:
    from sm_mlops import sandbox

    owner = settings.project.github.partition("/")[0]
    sandbox.control(settings.root, "github.accounts.add", PERSON)
    if owner.lower() != PERSON:
        sandbox.control(
            settings.root, "github.accounts.add", owner, "Organization", **{PERSON: "admin"}
        )


def _kept(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["token"])
    except (FileNotFoundError, ValueError, KeyError):
        return ""
