"""The sandbox's GitHub: the owner of this repo, a person there, and that person's tokens.

Must not read a real token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sm_mlops.aws import Aws
from sm_mlops.settings import Settings

PERSON = "you"
FILE = "github-token"


def prepare(settings: Settings) -> dict[str, str]:
    """Create what is missing in the running sandbox; return the variables that sign in there."""
    from sm_mlops import sandbox

    file = settings.root / sandbox.FOLDER / FILE
    token = file.read_text(encoding="utf-8") if file.is_file() else ""
    if not token:
        owner = settings.project.github.partition("/")[0]
        add = partial(sandbox.control, settings.root, "github.accounts.add")
        add(PERSON)
        if owner.lower() != PERSON:
            add(owner, "Organization", **{PERSON: "admin"})
        scopes = ("repo", "workflow", "read:org")
        token = str(sandbox.control(settings.root, "github.accounts.token", PERSON, *scopes))
        file.touch(mode=0o600)
        file.write_text(token, encoding="utf-8")
    return {"GITHUB_TOKEN": token, "GH_TOKEN": ""}


def token_source(aws: Aws) -> Callable[[], str] | None:
    """Return a function that creates a token for starting workflows; None outside the sandbox."""
    if not aws.sandbox:
        return None
    from sm_mlops import sandbox

    root, owner = aws.settings.root, aws.settings.project.github.partition("/")[0]

    def create() -> str:
        arguments = ("github.accounts.fine_grained", PERSON, owner, None)
        return str(sandbox.control(root, *arguments, actions="write"))

    return create
