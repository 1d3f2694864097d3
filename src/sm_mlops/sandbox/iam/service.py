"""IAM in front of the sandbox's services: the check of each request, signing in to roles, and the
few operations of IAM that moto does not have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from sm_mlops.sandbox import calls, identities
from sm_mlops.sandbox.github.oidc import HOST, Tokens
from sm_mlops.sandbox.iam import requests, simulation
from sm_mlops.sandbox.iam.enforcement import Guard
from sm_mlops.sandbox.iam.sign_in import check_assume_role, check_web_identity
from sm_mlops.sandbox.replies import Start, error_reply, reply
from sm_mlops.sandbox.storage import Store
from sm_mlops.sandbox.wire import ApiError, Caller, Params

KEY = re.compile(rb"<AccessKeyId>(\w+)<")
ByMoto = Callable[[], Iterable[bytes]]


class Iam:
    """Checks requests and answers some of IAM's. `keep` saves changes of IAM."""

    def __init__(self, store: Store, keep: Callable[..., None]) -> None:
        self.guard = Guard(store)
        self.tokens = Tokens(store)
        self.keep = keep

    def error(
        self, service: str, environ: dict[str, Any], start: Start, error: ApiError
    ) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "HEAD":
            return reply(start, error.status)
        return error_reply(start, error, calls.xml(service, environ))

    def answer(
        self,
        service: str,
        environ: dict[str, Any],
        caller: Caller,
        start: Start,
        by_moto: ByMoto,
    ) -> Iterable[bytes] | None:
        """Answer a request to IAM or STS; return None for one that moto answers."""
        if service not in ("iam", "sts"):
            return None
        operation, params = requests.read(service, environ)
        try:
            if operation in ("AssumeRole", "AssumeRoleWithWebIdentity"):
                return self._sign_in(operation, params, caller, by_moto)
            if operation == "SimulatePrincipalPolicy":
                body = simulation.answer(params, caller)
                return reply(start, 200, {"Content-Type": "text/xml"}, body)
            if operation == "CreateUser" and params.get("PermissionsBoundary"):
                return self._create_user(params, caller, by_moto)
        except ApiError as error:
            return self.error(service, environ, start, error)
        return None

    def _sign_in(
        self, operation: str, params: Params, caller: Caller, by_moto: ByMoto
    ) -> Iterable[bytes]:
        if operation == "AssumeRole":
            own = check_assume_role(params, caller)
        else:
            own = check_web_identity(params, caller.region, HOST, self.tokens.verify)
        answer = b"".join(by_moto())
        made = KEY.search(answer)
        if made:
            account = str(params["RoleArn"]).split(":")[4]
            identities.session_of(account, caller.region, made[1].decode()).sandbox = own
        # moto keeps the key of a session with IAM.
        self.keep("iam", "sts")
        return [answer]

    # moto's users have no boundaries.
    def _create_user(self, params: Params, caller: Caller, by_moto: ByMoto) -> Iterable[bytes]:
        owner = identities.backend(caller.account, caller.region)
        known = str(params["UserName"]) in owner.users
        answer = by_moto()
        user = owner.users.get(str(params["UserName"]))
        if user is not None and not known:
            user.permissions_boundary_arn = str(params["PermissionsBoundary"])
            self.keep("iam")
        return answer
