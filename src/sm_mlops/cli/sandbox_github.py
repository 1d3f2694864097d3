"""Prepares the GitHub of the sandbox: this repo's owner, a person who works there, her tokens.

Nobody's real token is looked at.
"""

from __future__ import annotations

import json
from pathlib import Path

from sm_mlops.settings import Settings

PERSON = "you"
FILE = "github.json"


def prepare(settings: Settings) -> dict[str, str]:
    """Makes what is missing in the running sandbox. Returns the variables that sign in there."""
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


def trigger_token(settings: Settings) -> str:
    """A new token for the approval trigger, which can start workflows and do nothing else."""
    from sm_mlops import sandbox

    owner = settings.project.github.partition("/")[0]
    return str(
        sandbox.control(
            settings.root, "github.accounts.fine_grained", PERSON, owner, None, actions="write"
        )
    )


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
