"""One comment on the pull request of this job: created by the first review, updated by later ones.

Knows GitHub, not what the comment says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sm_mlops import actions, github
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub

LONGEST = 65_000  # bytes; GitHub's limit is 65,536 characters


@dataclass(frozen=True)
class Place:
    """The pull request to comment on. `fork`: the repository that it comes from, if another one."""

    repository: str
    number: int
    fork: str = ""


def place(environment: Mapping[str, str]) -> Place:
    """Return the pull request of this job. Raise MlopsError for other jobs.

    Source: https://docs.github.com/en/webhooks/webhook-events-and-payloads#pull_request
    """
    repository, file = environment.get("GITHUB_REPOSITORY"), environment.get("GITHUB_EVENT_PATH")
    if not repository or not file:
        raise MlopsError(
            "comment works in GitHub Actions, which sets GITHUB_REPOSITORY and GITHUB_EVENT_PATH"
        )
    try:
        event: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MlopsError(f"GITHUB_EVENT_PATH: cannot read {file}: {error}") from error
    pull = event.get("pull_request")
    if not pull:
        raise MlopsError("this job does not run for a pull request: there is nothing to comment on")
    # `repo` of a deleted fork is null.
    head = (pull["head"]["repo"] or {}).get("full_name", "a deleted repository")
    fork = "" if head.lower() == repository.lower() else head
    return Place(repository, int(pull["number"]), fork)


def post(text: str, at: Place, project: str, environment: Mapping[str, str] = os.environ) -> str:
    """Create this project's comment with `text`, or replace its text, and return its address.

    Raise MlopsError if there is no token or GitHub refuses.
    """
    token = environment.get("GITHUB_TOKEN")
    if not token:
        raise MlopsError("GITHUB_TOKEN is not set: set it for the step that runs mlops comment")
    # Invisible, and a comment that quotes this one does not begin with it.
    marker = f"<!-- mlops review of {project} -->"
    body = f"{marker}\n{actions.cut(text, LONGEST)}"
    hub = GitHub(token, "GITHUB_TOKEN", github.place(environment))
    what = f"comment on #{at.number} of {at.repository}"
    with hub.doing(f"{what} (the job needs the permission pull-requests: write)"):
        # Lazily: the job may not read what only issues have.
        issue = hub.api.withLazy(True).get_repo(at.repository).get_issue(at.number)
        for comment in issue.get_comments():
            # A person who has written it could change it later.
            by_bot = comment.user is not None and comment.user.type == "Bot"
            if by_bot and comment.body and comment.body.startswith(marker):
                comment.edit(body)
                return str(comment.html_url)
        return str(issue.create_comment(body).html_url)
