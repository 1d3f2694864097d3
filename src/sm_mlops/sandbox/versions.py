"""The creation times of a secret's versions; moto 5.2 returns the current time instead."""

from __future__ import annotations

import json
from typing import Any


def fix() -> None:
    """Make ListSecretVersionIds return only versions with a label, each with its creation time.

    Source: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecretVersionIds.html
    """
    from moto.secretsmanager.exceptions import SecretNotFoundException
    from moto.secretsmanager.models import SecretsManagerBackend

    def list_secret_version_ids(self: Any, secret_id: str) -> str:
        secret = self.secrets.get(secret_id)
        if secret is None:
            raise SecretNotFoundException()
        rows = [
            {
                "VersionId": name,
                "VersionStages": version["version_stages"],
                "CreatedDate": version["createdate"],
            }
            for name, version in secret.versions.items()
            if version.get("version_stages")
        ]
        return json.dumps({"ARN": secret.arn, "Name": secret.name, "Versions": rows})

    SecretsManagerBackend.list_secret_version_ids = list_secret_version_ids  # type: ignore[method-assign]
