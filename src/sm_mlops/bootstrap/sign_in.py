"""What a job of GitHub Actions signs in to AWS with, per role of the project: the variable with the
role, and the secrets with its user's key if there is one.

An environment has them, where only `main` may deploy: what the repository itself has, the workflow
of any branch may read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from sm_mlops.aws import Aws
from sm_mlops.bootstrap import keys
from sm_mlops.bootstrap.plan import Item, Tell, Todo
from sm_mlops.github import GitHub, allowing
from sm_mlops.projects import Access
from sm_mlops.redaction import quiet

ROLE = "AWS_ROLE_ARN"
KEY = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass
class Place:
    """Where GitHub keeps what one of the project's roles is used with. `found` is the repository,
    None if it does not exist yet; an access without an environment stands for all of it."""

    aws: Aws
    hub: GitHub
    found: Any
    access: Access

    @property
    def of(self) -> str:
        """Return a suffix that names the place; empty for the repository."""
        return f" of environment {self.access.environment}" if self.access.environment else ""

    @cached_property
    def holder(self) -> Any:
        """Return the repository or environment, None if it does not exist."""
        name = self.access.environment
        if self.found is None or not name:
            return self.found
        with self.hub.doing(f"show the environment {name}"), allowing(404):
            return self.found.get_environment(name)
        return None

    @property
    def _url(self) -> str:
        whole = self.access.environment == ""
        return f"{self.found.url}/actions" if whole else str(self.holder.url)

    def variables(self) -> dict[str, str]:
        """Return the variables by name."""
        if self.holder is None:
            return {}
        with self.hub.doing(f"list the variables{self.of}"):
            return {each.name: each.value for each in self.holder.get_variables()}

    def secrets(self) -> dict[str, datetime]:
        """Return when each secret was set."""
        if self.holder is None:
            return {}
        with self.hub.doing(f"list the secrets{self.of}"):
            return {each.name: each.updated_at for each in self.holder.get_secrets()}

    def look(self, outputs: dict[str, str] | None) -> Iterator[Item]:
        """Yield the variable, and the secrets if there is a key."""
        had, wanted = self.variables().get(ROLE), self.access.role(outputs or {})
        todo = Todo.NOTHING if had and had == wanted else Todo.CHANGE if had else Todo.CREATE
        detail = wanted or f"the project's role {self.access.name_in(self._project)}"
        yield Item(f"variable {ROLE}{self.of}", todo, detail)
        if not self.aws.settings.project.uses_key:
            return
        what = f"secrets {', '.join(KEY)}{self.of}"
        if not set(KEY) <= set(self.secrets()):
            detail = f"the key of the project's user {self.access.name_in(self._project)}"
            yield Item(what, Todo.CREATE, detail)
        elif outputs is None or not self.has_key(outputs):
            yield Item(what, Todo.CHANGE, "the key has been replaced")
        else:
            yield Item(what, Todo.NOTHING)

    def act(self, outputs: dict[str, str], tell: Tell) -> None:
        """Set what differs."""
        role = self.access.role(outputs)
        if self.variables().get(ROLE) != role:
            self.set_variable(ROLE, role)
            tell(f"{'set':<12} variable {ROLE}{self.of} to {role}")
        if self.aws.settings.project.uses_key and not self.has_key(outputs):
            self.set_key(outputs)
            tell(f"{'set':<12} secrets {', '.join(KEY)}{self.of}")

    def set_variable(self, name: str, value: str) -> None:
        """Create or change a variable."""
        body = {"name": name, "value": value}
        with self.hub.doing(f"set the variable {name}{self.of}"):
            # It exists, perhaps because the answer to a first attempt was lost.
            with allowing(409):
                self.hub.ask("POST", f"{self._url}/variables", body)
                return
            self.hub.ask("PATCH", f"{self._url}/variables/{name}", body)

    def has_key(self, outputs: dict[str, str]) -> bool:
        """Return whether GitHub has the key that is in Secrets Manager; neither shows a value."""
        stored = keys.stored(self.aws, self.access.secret(outputs))
        had = self.secrets()
        # GitHub's times have no fractions of a second.
        return all(name in had and had[name] >= stored.replace(microsecond=0) for name in KEY)

    def set_key(self, outputs: dict[str, str]) -> None:
        """Copy the access key from Secrets Manager to GitHub, encrypted."""
        client = self.aws.client("secretsmanager")
        with quiet():
            found_value = client.get_secret_value(SecretId=self.access.secret(outputs))
        content = json.loads(found_value["SecretString"])
        with self.hub.doing(f"set the secrets {' and '.join(KEY)}{self.of}"):
            key = self.holder.get_public_key()
            # Encrypt both first: then they differ in age for a shorter time.
            # The secret that project.yml creates has their names in lower case.
            values = {name: key.encrypt(content[name.lower()]) for name in KEY}
            for name, value in values.items():
                body = {"key_id": key.key_id, "encrypted_value": value}
                self.hub.ask("PUT", f"{self._url}/secrets/{name}", body)

    @property
    def _project(self) -> str:
        return self.aws.settings.project.project
