"""Keeps secrets where they belong: out of logs while they are sent or read (botocore logs requests
and answers in full when debugging is on), out of other programs' environment and out of arguments.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Variables with a token, which no program that the commands start needs; `gh` excepted.
TOKENS = (
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "GH_ENTERPRISE_TOKEN",
    "GITHUB_ENTERPRISE_TOKEN",
    "MLOPS_TRIGGER_TOKEN",
    "MLOPS_JENKINS_TOKEN",
)
# Tokens of GitHub and of Jenkins, keys of AWS, private keys, addresses with a password.
# Source: https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github#githubs-token-formats
_SECRET = re.compile(
    r"\b(gh[opsur]_|github_pat_)\w{16}|\b11[0-9a-f]{32}\b|\bA[KS]IA[A-Z0-9]{16}\b|-----BEGIN "
    r"|://[^/\s:@]+:[^/\s@]+@"
)


@contextmanager
def hushed() -> Iterator[None]:
    """Nobody logs anything meanwhile, whatever its own level is."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def looks_secret(text: str) -> bool:
    """Whether this can hardly be anything but a token or a key."""
    return _SECRET.search(text) is not None


def without_tokens(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for a program that signs in nowhere by itself."""
    return {name: value for name, value in environment.items() if name not in TOKENS}
