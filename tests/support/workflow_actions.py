"""Stand-ins for the actions that the rendered workflows use, as far as they use them.

They check out from a local repository, sign in to the sandbox's AWS, and find uv where it is. Each
exists once for our own reader of workflows and once for nektos/act.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from workflow_expressions import Unsupported
from workflow_reader import Action, ActionFailed, Work, git

CHECKOUT = {"fetch-depth", "persist-credentials", "ref"}
SETUP_UV = {"cache-dependency-glob", "cache-suffix", "save-cache", "version-file"}
SIGN_IN = {
    "aws-access-key-id",
    "aws-region",
    "aws-secret-access-key",
    "mask-aws-account-id",
    "role-session-name",
    "role-skip-session-tagging",
    "role-to-assume",
}
SESSION = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
SignIn = Callable[[Work, Mapping[str, str]], Mapping[str, str]]
"""Returns at least the variables of SESSION. Raises ActionFailed."""
# For act, in the words of a shell.
CHECKOUT_OF_ACT = """\
git init --quiet --initial-branch=main
test "$DEPTH" != 0 || DEPTH=2147483647
git fetch --quiet --no-tags --depth="$DEPTH" "$ORIGIN" "$WANTED"
git checkout --quiet --detach FETCH_HEAD
ln -s "$ENVIRONMENT" .venv
echo "HEAD is now at $(git rev-parse HEAD)"
"""
SIGN_IN_OF_ACT = """\
set -f
echo "$GITHUB_JOB" sign-in $GIVEN >>"$CALLS"
test "$FAILING" != sign-in
cat "$SESSION" >>"$GITHUB_ENV"
"""


def depth_of(given: Mapping[str, str]) -> str:
    """Return how many commits are fetched; git's word for all is its largest number."""
    depth = given.get("fetch-depth", "1")
    return "2147483647" if depth == "0" else depth


def checkout(environment: Path) -> Action:
    """Return actions/checkout, into the empty folder of a job; `environment` becomes its .venv.

    Source: https://github.com/actions/checkout
    """

    def action(work: Work, given: Mapping[str, str]) -> None:
        _check("checkout", given, CHECKOUT)
        if given.get("persist-credentials") != "false":
            raise Unsupported("checkout: credentials that persist are not known here")
        if work.permissions.get("contents") not in ("read", "write"):
            raise ActionFailed("Repository not found: the token may not read it")
        folder, origin = work.workspace, work.repository.origin
        wanted = given.get("ref", "")
        # An object's name, or else the name of a branch.
        is_commit = re.fullmatch("[0-9a-f]{40}", wanted)
        ref = wanted if is_commit else f"refs/heads/{wanted}" if wanted else work.event.ref
        depth = f"--depth={depth_of(given)}"
        git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
        git(folder, "init", "--quiet", "--initial-branch=main")
        git(folder, "remote", "add", "origin", origin.resolve().as_uri())
        # What the event names may have moved since: then its commit counts.
        fetched = ref if wanted else work.event.sha
        try:
            git(folder, "fetch", "--quiet", "--no-tags", depth, "origin", fetched)
        except AssertionError as error:
            raise ActionFailed(f"cannot fetch {ref}: {error}") from error
        git(folder, "checkout", "--quiet", "--detach", "FETCH_HEAD")
        (folder / ".venv").symlink_to(environment, target_is_directory=True)
        work.say(f"HEAD is now at {git(folder, 'rev-parse', 'HEAD')}")

    return action


def setup_uv(work: Work, given: Mapping[str, str]) -> None:
    """Check the inputs of astral-sh/setup-uv; VENV tells make that nothing is left to install.

    Source: https://github.com/astral-sh/setup-uv
    """
    _check("setup-uv", given, SETUP_UV)


def installed(folder: Path) -> Path:
    """Return an environment as `make setup` leaves it, with the packages that run these tests.

    Its `mlops` is the one of the repo that it is called in.
    """
    program = folder / "bin" / "mlops"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sm_mlops "$@"\n')
    program.chmod(0o755)
    return folder


def configure_aws_credentials(sign_in: SignIn) -> Action:
    """Return aws-actions/configure-aws-credentials: inputs checked, the session made by `sign_in`.

    Source: https://github.com/aws-actions/configure-aws-credentials
    """

    def action(work: Work, given: Mapping[str, str]) -> None:
        _check("configure-aws-credentials", given, SIGN_IN)
        region, role = given.get("aws-region", ""), given.get("role-to-assume", "")
        name = given.get("role-session-name", "")
        if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
            raise ActionFailed(f"Region is not valid: {region}")
        if not re.fullmatch(r"arn:[\w-]+:iam::\d{12}:role/.+", role):
            raise ActionFailed(f"Could not assume the role {role!r}")
        if not re.fullmatch(r"[\w+=,.@-]{2,64}", name):
            raise ActionFailed(f"Member must satisfy constraint: roleSessionName {name!r}")
        key = [given.get(f"aws-{part}", "") for part in ("access-key-id", "secret-access-key")]
        if not all(key):
            if any(key) or "aws-access-key-id" in given:
                raise ActionFailed("'aws-access-key-id' and its secret must be provided together")
            if work.permissions.get("id-token") != "write":
                raise ActionFailed(
                    "Credentials could not be loaded, please check your action inputs: "
                    "the permission id-token: write is missing"
                )
        variables = sign_in(work, given)
        if given.get("mask-aws-account-id") == "true":
            work.mask(role.split(":")[4])
        for variable in SESSION:
            work.mask(variables[variable])
            work.export(variable, variables[variable])
        for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            work.export(variable, region)
        work.say("Authenticated as assumedRoleId ***")

    return action


def for_act(folder: Path) -> tuple[Path, Path, Path]:
    """Write the same actions as nektos/act wants them, each into its own folder in `folder`.

    Return the folders of those that check out, sign in, and set up uv. They read the variables
    ORIGIN, a repository's URL; ENVIRONMENT, which is put there as .venv; SESSION, a file with what
    signing in sets; CALLS, a file to which the inputs of signing in are added; FAILING, which is
    sign-in where nobody is let in.
    """
    wanted = {
        "DEPTH": "${{ inputs.fetch-depth || '1' }}",
        "WANTED": "${{ inputs.ref || github.sha }}",
    }
    given = {"GIVEN": "${{ toJSON(inputs) }}"}
    actions: tuple[tuple[str, set[str], dict[str, str], str], ...] = (
        ("checkout", CHECKOUT, wanted, CHECKOUT_OF_ACT),
        ("sign-in", SIGN_IN, given, SIGN_IN_OF_ACT),
        ("setup-uv", SETUP_UV, {}, "true"),
    )
    for name, inputs, env, script in actions:
        runs = {"using": "composite", "steps": [{"shell": "bash", "env": env, "run": script}]}
        content = {"name": name, "inputs": {key: {} for key in sorted(inputs)}, "runs": runs}
        (folder / name).mkdir()
        # JSON is YAML, too.
        (folder / name / "action.yml").write_text(json.dumps(content), encoding="utf-8")
    return folder / "checkout", folder / "sign-in", folder / "setup-uv"


def _check(action: str, given: Mapping[str, str], known: set[str]) -> None:
    if set(given) - known:
        names = ", ".join(sorted(set(given) - known))
        raise Unsupported(f"{action}: {names} is not known here")
