"""Sign in as a GitHub App: a token for one hour, created with the app's private key.

Needs PyJWT with cryptography, which come as a Lambda layer; imported only when the credential is an
app's.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import jwt


def installation_token(
    secret: dict[str, Any], api: str, post: Callable[..., Any], repository: str
) -> str:
    """Return a token of the app's installation that may start workflows of this repository only.

    `secret` has `app_id`, `installation_id` and `private_key` (PEM); `post` takes an address, a
    JSON body and a token. Raise what it raises, and ValueError, which shows nothing of the secret.
    Source: https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
    """
    app, installation = (str(secret.get(name, "")) for name in ("app_id", "installation_id"))
    if not (re.fullmatch("[A-Za-z0-9.]{1,60}", app) and re.fullmatch("[0-9]{1,20}", installation)):
        raise ValueError("the credential's app_id or installation_id is missing or invalid")
    now = int(time.time())
    # A minute ago, for clocks that differ; GitHub allows ten minutes at most.
    claims = {"iat": now - 60, "exp": now + 300, "iss": app}
    try:
        signed = jwt.encode(claims, secret["private_key"], algorithm="RS256")
    except (jwt.PyJWTError, TypeError, ValueError):
        # Without its cause, which may show what it could not read.
        raise ValueError("the credential's private_key is not an RSA key in PEM") from None
    address = f"{api}/app/installations/{installation}/access_tokens"
    wanted = {"permissions": {"actions": "write"}, "repositories": [repository]}
    answer = post(address, wanted, signed)
    try:
        token = json.loads(answer.body)["token"]
    except (ValueError, KeyError, TypeError, RecursionError):
        token = None
    if not isinstance(token, str):
        raise ValueError(f"GitHub gave no token for installation {installation}")
    return token
