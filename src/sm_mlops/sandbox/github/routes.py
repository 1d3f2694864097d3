"""GitHub's REST API: finds the route of a request, checks its sender, and answers.

The routes themselves are in people, repositories, environments, settings and workflows. Every other
route is refused by name with status 501.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

from sm_mlops.sandbox.github.access import REPOSITORY as REPOSITORY
from sm_mlops.sandbox.github.access import identified
from sm_mlops.sandbox.github.answers import Answer, not_implemented
from sm_mlops.sandbox.github.environments import Environments
from sm_mlops.sandbox.github.people import People
from sm_mlops.sandbox.github.repositories import Repositories
from sm_mlops.sandbox.github.routing import ROUTES, Request
from sm_mlops.sandbox.github.settings import Settings
from sm_mlops.sandbox.github.workflows import Workflows


class Routes(People, Repositories, Environments, Settings, Workflows):
    """The answers to all routes."""

    def answer(self, request: Request, headers: dict[str, str]) -> Answer:
        by_number = re.match(r"/repositories/(\d+)(?=/|$)", request.path)
        if by_number:
            name = self.named(int(by_number[1]))
            request = replace(request, path=f"/repos/{name}{request.path[by_number.end() :]}")
        elif moved := self.moved(request):
            return moved
        for method, pattern, name, needs in ROUTES:
            found = pattern.fullmatch(request.path)
            if not found or method != request.method:
                continue
            parts = found.groupdict()
            function = getattr(self, name)
            if "owner" in parts and "repo" in parts:
                parts["record"] = self.allowed(request.actor, parts, needs, headers)
            else:
                identified(request.actor, needs)
            names = inspect.signature(function).parameters
            result = function(request, **{k: v for k, v in parts.items() if k in names})
            return result if isinstance(result, Answer) else Answer(result)
        raise not_implemented(f"{request.method} {request.path}")
