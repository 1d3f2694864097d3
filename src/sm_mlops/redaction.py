"""Keep secrets out of logs, of arguments, and of the environment of other programs.

At level DEBUG botocore logs requests and answers in full.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# Variables with a token. Of the programs that commands start, only `gh` needs them.
TOKENS = (
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "GH_ENTERPRISE_TOKEN",
    "GITHUB_ENTERPRISE_TOKEN",
    "MLOPS_TRIGGER_TOKEN",
    "MLOPS_JENKINS_TOKEN",
)
# Tokens of GitHub and Jenkins, AWS access keys, private keys, URLs with a password.
# Source: https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github#githubs-token-formats
_SECRET = re.compile(
    r"\b(gh[opsur]_|github_pat_)\w{16}|\b11[0-9a-f]{32}\b|\bA[KS]IA[A-Z0-9]{16}\b|-----BEGIN "
    r"|://[^/\s:@]+:[^/\s@]+@"
)


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing inside the block, at any level."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def looks_secret(text: str) -> bool:
    """Return whether the text seems to contain a token or a key."""
    return _SECRET.search(text) is not None


def without_tokens(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a program that does not sign in."""
    return {name: value for name, value in environment.items() if name not in TOKENS}


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that does not sign in, in this folder; keep what it writes."""
    variables = without_tokens(os.environ)
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
