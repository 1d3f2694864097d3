"""Clients of the sandbox's own APIs, for its services that call each other over HTTP."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from botocore.config import Config
from botocore.session import get_session

from sm_mlops.sandbox import grants
from sm_mlops.sandbox.identities import OWNER


class Clients:
    """Makes clients that try every call once; `url` returns the address of the server. Instead of
    a key's secret they send its `token`."""

    def __init__(self, url: Callable[[], str], token: str) -> None:
        self._url, self._token = url, token
        self._lock = threading.Lock()
        self._make = functools.cache(self._new)

    def get(self, region: str, service: str = "sagemaker", access_key: str = "") -> Any:
        """Return a client with the rights of a key, by default those of the account's owner."""
        with self._lock:  # Threads may share clients, but must not make them at the same time.
            return self._make(region, service, access_key)

    def of_role(self, region: str, role: str) -> Any:
        return self.get(
            region, access_key=grants.session(role, "SageMaker", region)["AWS_ACCESS_KEY_ID"]
        )

    def _new(self, region: str, service: str, access_key: str) -> Any:
        made = self.core.create_client(
            service,
            region_name=region,
            endpoint_url=self._url(),
            aws_access_key_id=access_key or OWNER,
            aws_secret_access_key="-",
            config=Config(retries={"total_max_attempts": 1}, proxies={}, max_pool_connections=64),
        )
        made.meta.events.register("before-sign", self._mark)
        return made

    def _mark(self, request: Any, **_: Any) -> None:
        request.headers["X-Sandbox-Token"] = self._token

    @functools.cached_property
    def core(self) -> Any:
        """Return the botocore session that makes all clients, so that each model is read once."""
        core = get_session()
        core.set_config_variable("profile", None)
        return core
