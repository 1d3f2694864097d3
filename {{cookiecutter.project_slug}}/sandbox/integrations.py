"""What stands between SageMaker's registry and GitHub: events, functions, and the services that
bootstrap sets up.

The server asks here first and goes on as before with what is not answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sandbox import functions
from sandbox.events import Events
from sandbox.replies import Start, error_reply
from sandbox.wire import ApiError, Caller, Params, public

if TYPE_CHECKING:
    from sandbox.server import Server

OTHER_PORT = re.compile(r"^http://127\.0\.0\.1:\d+(?=/_github\b)")


class Integrations:
    """The services of this module in one server, with their requests and their life."""

    def __init__(self, server: Server) -> None:
        self.server = server
        folder = server.folder
        self.functions = functions.Functions(
            server.store, folder / "functions", lambda: server.url, server.pace
        )
        self.functions.keep = server.moto.keep
        self.functions.alarms.on_change = lambda: server.moto.keep("cloudwatch", "sns", "sqs")
        self.functions.rewrite = self._rewrite
        self.functions.on_idle = server.end_if_idle
        self.events = Events(self.functions)
        self.events.keep = server.moto.keep
        server.registry.on_change = lambda package: self.events.model_package(public(package))

    def _rewrite(self, value: str) -> str:
        """Return the value of a function's variable with the addresses of this server."""
        return OTHER_PORT.sub(self.server.url, value)

    def owners(self) -> tuple[Any, ...]:
        """Return the objects with further operations of SageMaker."""
        return ()

    def answer(
        self,
        environ: dict[str, Any],
        start: Start,
        service: str,
        caller: Caller,
        by_moto: Callable[[], Iterable[bytes]],
    ) -> Iterable[bytes] | None:
        """Answer a request signed for a service, or return None."""
        try:
            if service == "lambda":
                return self.functions.answer(environ, start, caller, by_moto)
            target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
            if service == "events":
                return self.events.answer(target, environ, start, caller)
            if service == "monitoring":
                self.functions.alarms.look(caller)
        except ApiError as error:
            return error_reply(start, error)
        return None

    def recover(self) -> None:
        """Go on with what was under way before a restart."""
        self.functions.recover()

    def busy(self) -> bool:
        """Tell whether something runs."""
        return self.functions.busy()

    def close(self) -> None:
        """End what runs."""
        self.functions.close()


__all__ = ["Integrations", "Params"]
