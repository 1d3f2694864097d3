"""GitHub as an OpenID Connect provider: the tokens with which a workflow's jobs sign in to AWS.

Source: https://docs.github.com/en/actions/reference/security/oidc
"""

from __future__ import annotations

import threading
import time
from typing import Any

from sm_mlops.sandbox.storage import Record, Store

HOST = "token.actions.githubusercontent.com"
KEY = "GitHubOidcKey"
ALGORITHM = "RS256"
SECONDS = 300


class Tokens:
    """Makes and verifies tokens; the key is created when first needed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()

    def _key(self) -> Any:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        with self._lock:
            known = self.store.get(KEY, HOST)
            if known is None:
                made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
                text = made.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ).decode()
                known = {"pem": text}
                self.store.put(KEY, HOST, known)
        return serialization.load_pem_private_key(known["pem"].encode(), None)

    def mint(
        self,
        repository: Record,
        prefix: str,
        environment: str = "",
        ref: str = "refs/heads/main",
        audience: str = "sts.amazonaws.com",
        seconds: float = SECONDS,
        workflow: str = "build.yml",
        **more: str,
    ) -> str:
        """Return a token as a job of a repository gets it; `prefix` begins its subject, `more` are
        further claims."""
        import jwt

        now = int(time.time())
        name = repository["full_name"]
        context = f"environment:{environment}" if environment else f"ref:{ref}"
        claims = {
            "iss": f"https://{HOST}",
            "aud": audience,
            "sub": f"{prefix}:{context}",
            "iat": now,
            "exp": int(now + seconds),
            "ref": ref,
            "repository": name,
            "repository_id": str(repository["id"]),
            "repository_owner": repository["_owner"],
            "workflow": workflow.rpartition("/")[2].partition(".")[0],
            "job_workflow_ref": f"{name}/.github/workflows/{workflow}@{ref}",
            **more,
        }
        if environment:
            claims["environment"] = environment
        return jwt.encode(claims, self._key(), algorithm=ALGORITHM, headers={"kid": HOST})

    def verify(self, token: str) -> dict[str, Any]:
        """Return a token's claims. Raises ValueError, or TimeoutError for an expired one."""
        import jwt

        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key().public_key(),
                algorithms=[ALGORITHM],
                issuer=f"https://{HOST}",
                options={"verify_aud": False, "require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise TimeoutError("Token must not be accepted after its expiration time") from error
        except jwt.InvalidTokenError as error:
            raise ValueError(
                f"The ID Token provided is not a valid JWT of https://{HOST}: {error}"
            ) from error
        return claims
