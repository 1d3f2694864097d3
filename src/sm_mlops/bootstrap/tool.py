"""Whether workflows can get the tool from where tool.txt says. Only a person can act on it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sm_mlops.bootstrap.plan import Item, Part, Todo
from sm_mlops.github import GitHub
from sm_mlops.settings import Settings
from sm_mlops.upgrade import pin as pins

REMEDY = "mlops vendor, then commit vendor/ and tool.txt"


@dataclass
class Tool(Part):
    """A part of the plan, empty unless the workflows of this repo need a wheel in `vendor/`."""

    settings: Settings
    hub: GitHub

    def look(self) -> list[Item]:
        problem = self._problem()
        what = "workflow access to the tool"
        return [Item(what, Todo.PERSON, problem, REMEDY)] if problem else []

    def _problem(self) -> str:
        """Return why workflows cannot get the tool; "" if they can, or if that is unknown.

        The token of a workflow reads the workflow's own repository and public ones.
        """
        project = self.settings.project
        if not (self.settings.root / pins.FILE).exists():
            return ""
        address = pins.read(self.settings.root).address
        found = re.fullmatch(r"(\w+)://(?:\w+@)?([^/:]+)(?::\d+)?/(.+?)(?:\.git)?", address)
        if not found:
            return ""
        scheme, host, name = found.groups()
        if scheme == "ssh":
            return f"{host} is reached over SSH, and workflows have no SSH key"
        if host != project.git_host or name == project.github:
            return ""
        there = self.hub.repository(name)
        if there is not None and there.private:
            return f"{name} is private, and a workflow's token cannot clone it"
        return ""
