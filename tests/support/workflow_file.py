"""What a workflow file says, checked: any key, trigger or kind of value that is not known here is
refused, before anything of it runs.

Knows the format, as far as the rendered workflows use it; executes nothing.
Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from workflow_expressions import Unsupported

ACCESS = ("read", "write", "none")
PERMISSIONS = ("contents", "id-token", "pull-requests")
MACHINE = "ubuntu-24.04"
LONGEST_JOB = 360.0
"""Minutes after which GitHub ends a job that says nothing."""


@dataclass(frozen=True)
class Input:
    required: bool
    default: str


@dataclass(frozen=True)
class Push:
    """Which pushes start it: patterns of branches, at least one."""

    branches: tuple[str, ...]


@dataclass(frozen=True)
class Concurrency:
    group: str
    cancel_in_progress: bool


@dataclass(frozen=True)
class Step:
    """`uses` or `run` is empty."""

    name: str
    id: str
    condition: str
    uses: str
    given: Mapping[str, str]
    run: str
    env: Mapping[str, str]
    folder: str
    minutes: float | None


@dataclass(frozen=True)
class Job:
    """`matrix`: one mapping per run of the job; a single empty one without a matrix."""

    id: str
    name: str
    needs: tuple[str, ...]
    condition: str
    environment: str
    concurrency: Concurrency | None
    permissions: Mapping[str, str]
    env: Mapping[str, str]
    outputs: Mapping[str, str]
    minutes: float
    matrix: tuple[Mapping[str, Any], ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Workflow:
    """`inputs` is None without the trigger workflow_dispatch, `push` without push."""

    name: str
    run_name: str
    push: Push | None
    pull_request: bool
    inputs: Mapping[str, Input] | None
    env: Mapping[str, str]
    concurrency: Concurrency | None
    jobs: Mapping[str, Job] = field(default_factory=dict)


class _Loader(yaml.BaseLoader):
    """Everything is text, as `on` is for GitHub; the same key twice is refused."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    pairs = [(loader.construct_object(k), loader.construct_object(v, True)) for k, v in node.value]
    if len({key for key, _ in pairs}) != len(pairs):
        raise Unsupported(f"line {node.start_mark.line + 1}: a key stands there twice")
    return dict(pairs)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str) -> Workflow:
    """Parse a workflow. Raises Unsupported."""
    raw = _Keys("the workflow", yaml.load(text, _Loader))
    on = _Keys("on", raw.take("on", {}))
    push, pull, queue, dispatch = (
        on.take(name, None) for name in ("push", "pull_request", "merge_group", "workflow_dispatch")
    )
    on.end()
    if not _empty(pull) or not _empty(queue):
        raise Unsupported("on.pull_request, on.merge_group: their filters are not known here")
    env = _texts("env", raw.take("env", {}))
    default = _permissions("permissions", raw.take("permissions", None))
    jobs = raw.take("jobs")
    found = Workflow(
        name=raw.take("name"),
        run_name=raw.take("run-name", ""),
        push=None if push is None else _push(push),
        pull_request=pull is not None,
        inputs=None if dispatch is None else _inputs(dispatch),
        env=env,
        concurrency=_concurrency("concurrency", raw.take("concurrency", None)),
        jobs={name: _job(name, body, default) for name, body in jobs.items()},
    )
    raw.end()
    _check_order(found.jobs)
    return found


class _Keys:
    """A mapping of which every key must be asked for."""

    def __init__(self, where: str, content: Any) -> None:
        if not isinstance(content, dict):
            raise Unsupported(f"{where}: {content!r} is not understood")
        self.where, self.left = where, dict(content)

    def take(self, name: str, default: Any = ...) -> Any:
        if name not in self.left and default is ...:
            raise Unsupported(f"{self.where}: {name} is missing")
        return self.left.pop(name, default)

    def end(self) -> None:
        if self.left:
            raise Unsupported(f"{self.where}: {', '.join(self.left)} is not known here")


def _empty(value: Any) -> bool:
    return value is None or value == ""


def _push(content: Any) -> Push:
    keys = _Keys("on.push", content)
    found = Push(tuple(keys.take("branches")))
    keys.end()
    for pattern in found.branches:
        if re.search(r"[!?+\[\]]", pattern):
            raise Unsupported(f"on.push: the pattern {pattern} is not known here")
    return found


def matches(pattern: str, branch: str) -> bool:
    """Return whether a pattern of branches fits; only `**` crosses folders."""
    parts = re.split(r"(\*\*|\*)", pattern)
    stars = {"**": ".*", "*": "[^/]*"}
    return bool(re.fullmatch("".join(stars.get(part, re.escape(part)) for part in parts), branch))


def _inputs(content: Any) -> dict[str, Input]:
    if _empty(content):
        return {}
    dispatch = _Keys("on.workflow_dispatch", content)
    found = {}
    for name, body in dispatch.take("inputs").items():
        keys = _Keys(f"input {name}", body)
        keys.take("description", "")
        kind = keys.take("type", "string")
        if kind != "string":
            raise Unsupported(f"input {name}: the type {kind} is not known here")
        found[name] = Input(_flag(keys.take("required", "false")), keys.take("default", ""))
        keys.end()
    dispatch.end()
    return found


def _job(identifier: str, content: Any, default: Mapping[str, str] | None) -> Job:
    where = f"job {identifier}"
    keys = _Keys(where, content)
    machine = keys.take("runs-on")
    if machine != MACHINE:
        raise Unsupported(f"{where}: runs-on {machine} is not known here")
    needs = keys.take("needs", [])
    given = _permissions(where, keys.take("permissions", None))
    permissions = default if given is None else given
    if permissions is None:
        raise Unsupported(f"{where}: permissions that nobody has named are not known here")
    steps = tuple(_step(f"{where}, step {n}", s) for n, s in enumerate(keys.take("steps"), 1))
    found = Job(
        id=identifier,
        name=keys.take("name", identifier),
        needs=(needs,) if isinstance(needs, str) else tuple(needs),
        condition=keys.take("if", "success()"),
        environment=_text(f"{where}: environment", keys.take("environment", "")),
        concurrency=_concurrency(where, keys.take("concurrency", None)),
        permissions=permissions,
        env=_texts(where, keys.take("env", {})),
        outputs=_texts(where, keys.take("outputs", {})),
        minutes=float(keys.take("timeout-minutes", LONGEST_JOB)),
        matrix=_matrix(where, keys.take("strategy", None)),
        steps=steps,
    )
    keys.end()
    identifiers = [step.id for step in steps if step.id]
    if len(set(identifiers)) != len(identifiers):
        raise Unsupported(f"{where}: two steps have the same id")
    return found


def _step(where: str, content: Any) -> Step:
    keys = _Keys(where, content)
    uses, run, minutes = (
        keys.take("uses", ""),
        keys.take("run", ""),
        keys.take("timeout-minutes", 0),
    )
    if bool(uses) == bool(run):
        raise Unsupported(f"{where}: either uses or run")
    if uses and not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", uses):
        raise Unsupported(f"{where}: {uses} is not pinned by a commit")
    found = Step(
        name=keys.take("name", uses or run),
        id=keys.take("id", ""),
        condition=keys.take("if", "success()"),
        uses=uses,
        given=_texts(where, keys.take("with", {}) if uses else {}),
        run=run,
        env=_texts(where, keys.take("env", {})),
        folder=keys.take("working-directory", "") if run else "",
        minutes=float(minutes) if minutes else None,
    )
    keys.end()
    return found


def _matrix(where: str, content: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the values of a matrix: one list alone, one value after the other."""
    if content is None:
        return ({},)
    keys = _Keys(f"{where}: strategy", content)
    if keys.take("max-parallel") != "1":
        raise Unsupported(f"{where}: only one job at a time is known here")
    matrix = keys.take("matrix")
    keys.end()
    if len(matrix) != 1 or {"include", "exclude"} & set(matrix):
        raise Unsupported(f"{where}: only a matrix of one list is known here")
    [(name, values)] = matrix.items()
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Unsupported(f"{where}: only a list that stands there is known here")
    return tuple({name: int(value) if value.isdecimal() else value} for value in values)


def _concurrency(where: str, content: Any) -> Concurrency | None:
    if content is None:
        return None
    keys = _Keys(f"{where}: concurrency", content)
    found = Concurrency(keys.take("group"), _flag(keys.take("cancel-in-progress", "false")))
    keys.end()
    return found


def _permissions(where: str, content: Any) -> dict[str, str] | None:
    if content is None:
        return None
    for name, access in _texts(where, content).items():
        if name not in PERMISSIONS or access not in ACCESS:
            raise Unsupported(f"{where}: the permission {name}: {access} is not known here")
    return dict(content)


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Unsupported(f"{where}: {value!r} is not known here")
    return value


def _texts(where: str, content: Any) -> dict[str, str]:
    if not isinstance(content, dict):
        raise Unsupported(f"{where}: {content!r} is not understood")
    return {name: _text(f"{where}: {name}", value) for name, value in content.items()}


def _flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise Unsupported(f"{value!r} is neither true nor false")
    return value == "true"


def _check_order(jobs: Mapping[str, Job]) -> None:
    """Raise Unsupported where a job needs one that is missing, or waits for itself."""
    done: set[str] = set()
    while len(done) < len(jobs):
        ready = {name for name, job in jobs.items() if set(job.needs) <= done}
        if ready == done:
            names = ", ".join(name for name in jobs if name not in done)
            raise Unsupported(f"these jobs need what is not there or waits for them: {names}")
        done = ready
