"""Signs in as a GitHub App: a token for one hour, made from the app's private key.

Needs PyJWT with cryptography, which come as a Lambda layer; imported only when the credential is an
app's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import jwt


def installation_token(secret: dict[str, Any], api: str, post: Callable[..., Any]) -> str:
    """A token of the app's installation that may start workflows and do nothing else.

    `secret` has `app_id`, `installation_id` and `private_key` (PEM). Raises what `post` raises.
    Source: https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
    """
    now = int(time.time())
    # A minute back for clocks that differ; GitHub takes ten minutes at most.
    claims = {"iat": now - 60, "exp": now + 300, "iss": str(secret["app_id"])}
    try:
        signed = jwt.encode(claims, secret["private_key"], algorithm="RS256")
    except (jwt.PyJWTError, TypeError, ValueError):
        # Without its cause, which may show what it could not read.
        raise ValueError("the credential's private_key is no RSA key in PEM") from None
    answer = post(
        f"{api}/app/installations/{secret['installation_id']}/access_tokens",
        json.dumps({"permissions": {"actions": "write"}}).encode(),
        {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {signed}",
            "Content-Type": "application/json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    return str(json.loads(answer.body)["token"])
