"""Whether a version's commit is on main: what was never merged is not deployed.

The commit is neither checked out nor executed: main's code deploys every version.
"""

from __future__ import annotations

import os
from functools import partial

from sm_mlops import commit, github
from sm_mlops.aws import Aws
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHubError
from sm_mlops.registry import Version

BRANCH = "main"
# How GitHub's comparison describes main, seen from one of its own commits.
_ON_MAIN = ("ahead", "identical")


def require(aws: Aws, package: Version) -> str:
    """Return why the version may be deployed. Raise MlopsError if its commit was never merged.

    Whether a stage has run it does not count: the tags of stacks say so, and whoever may change one
    stage by hand writes those of that stage.
    """
    commit.require(package.commit)
    by_git = aws.settings.project.ci == "jenkins"
    said = _ask_git(aws, package.commit) if by_git else _ask_github(aws, package.commit)
    if said not in _ON_MAIN:
        raise MlopsError(
            f"version {package.version} was trained from commit {package.commit}, which is not on "
            f"{BRANCH} ({said}): merge it, then train {BRANCH} and approve that version"
        )
    return f"its commit is on {BRANCH}"


def _ask_github(aws: Aws, sha: str) -> str:
    """Return how main compares with the commit: ahead, behind, identical, diverged or unknown.

    A job's clone is shallow, so git cannot tell there.
    Source: https://docs.github.com/en/rest/commits/commits#compare-two-commits
    """
    project = aws.settings.project
    hub = github.sign_in(os.environ, project.git_host)
    repository = hub.repository(project.github)
    if repository is None:
        raise MlopsError(f"the token of {hub.origin} sees no GitHub repository {project.github}")
    with hub.doing(f"show the branch {BRANCH}"):
        # By its commit: a tag may have the same name, and takes no review to push.
        tip = repository.get_branch(BRANCH).commit.sha
    try:
        with hub.doing(f"compare {sha[:7]} with {BRANCH}"):
            found = hub.ask("GET", f"{repository.url}/compare/{sha}...{tip}?per_page=1")
    except GitHubError as error:
        if error.status != 404:
            raise
        # It answers the same to an unknown commit and to one of another history.
        return "GitHub knows no such commit in its history"
    return str(found["status"])


def _ask_git(aws: Aws, sha: str) -> str:
    """Return the same from this clone, whose HEAD is main's in a job of Jenkins."""
    git = partial(commit.git, aws.settings.root)
    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        raise MlopsError(
            "this is no full clone, so git cannot tell what is merged: fetch all of it"
        )
    found = git("merge-base", "--is-ancestor", sha, "HEAD").returncode
    return "ahead" if found == 0 else "git finds it in no history of HEAD"
