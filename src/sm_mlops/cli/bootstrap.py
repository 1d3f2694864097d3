"""The panel "Connect": this repo with its AWS account and with GitHub, in one command."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sm_mlops.console import confirm, connected, err, out, tell
from sm_mlops.errors import MlopsError

if TYPE_CHECKING:
    from sm_mlops.aws import Aws
    from sm_mlops.bootstrap.plan import Item, Part, Tell
    from sm_mlops.bootstrap.platform import Options, Platform

app = typer.Typer(rich_markup_mode="markdown")
PANEL = "Connect"
PROVIDERS = ("service-catalog", "s3")
NOTHING = "Nothing is left to do."


@app.command(rich_help_panel=PANEL)
def bootstrap(
    context: typer.Context,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Show what there is and what would be done; do nothing.")
    ] = False,
    destroy: Annotated[
        bool,
        typer.Option("--destroy", help="Take this repo's part away, and at the end the platform."),
    ] = False,
    template_provider: Annotated[
        str,
        typer.Option(
            metavar="|".join(PROVIDERS),
            help="Where SageMaker takes the project's template from.",
        ),
    ] = PROVIDERS[0],
    platform: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A parameter of infra/platform.yml; it counts for all repos of the account.",
        ),
    ] = None,
    continue_rollback: Annotated[
        bool,
        typer.Option(
            "--continue-rollback",
            help="First bring the platform out of UPDATE_ROLLBACK_FAILED.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts: the result as JSON, progress on stderr.")
    ] = False,
) -> None:
    """Connect this repo with AWS and GitHub: first the plan, then, when you agree, all of it.

    Makes what the repos of an account share (bucket, approval trigger, connection, Service Catalog
    product), this repo's SageMaker project with its roles, the GitHub repository, its variables and
    environments, and pushes. What is there already stays. Interrupted, it goes on the next time.

    **Examples**

    - `mlops bootstrap --plan`
    - `mlops bootstrap --platform AlarmTopicArn=arn:aws:sns:...`
    - `mlops bootstrap --destroy`
    """
    from sm_mlops.bootstrap.platform import Options

    if template_provider not in PROVIDERS:
        raise MlopsError(f"--template-provider must be {' or '.join(PROVIDERS)}")
    options = Options(template_provider, _parameters(platform or []), continue_rollback)
    console = err if as_json else out
    with connected(context, empty=True) as aws:
        shared, parts = _parts(aws, options, yes)
        if destroy:
            result = _take_back(aws, shared, parts, console, only_plan, yes)
        else:
            result = _connect(aws, parts, console, only_plan, yes)
    if as_json:
        out.print_json(data=result.as_json())
    if result.unfinished and not only_plan:
        raise typer.Exit(1)


@dataclass
class Result:
    """`plan` is what was found at first, `left` what is to be done after all."""

    plan: list[Item]
    done: list[str]
    left: list[Item]

    @property
    def unfinished(self) -> bool:
        from sm_mlops.bootstrap.plan import is_work

        return any(is_work(item) for item in self.left)

    def as_json(self) -> dict[str, Any]:
        return {
            "plan": [asdict(item) for item in self.plan],
            "done": self.done,
            "left": [asdict(item) for item in self.left],
        }


def _parameters(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            # Not shown: it may be what nobody should see.
            raise MlopsError(
                "--platform must be Key=Value, as in AlarmTopicArn=arn:aws:sns:...; the keys are "
                "the parameters of infra/platform.yml"
            )
        found[name] = value
    return found


def _parts(aws: Aws, options: Options, yes: bool) -> tuple[Platform, list[Part]]:
    """The platform, and all parts in their order, the platform among them."""
    from sm_mlops import github
    from sm_mlops.bootstrap.connection import Connection
    from sm_mlops.bootstrap.credential import Credential, at_terminal
    from sm_mlops.bootstrap.platform import Again, Platform
    from sm_mlops.bootstrap.project import Project
    from sm_mlops.bootstrap.push import Push
    from sm_mlops.bootstrap.repository import Repository
    from sm_mlops.bootstrap.settings import Settings
    from sm_mlops.bootstrap.studio import Studio
    from sm_mlops.bootstrap.tool import Tool

    hub = github.sign_in(os.environ, aws.settings.project.git_host)
    shared = Platform(aws, options)
    return shared, [
        shared,
        Connection(aws),
        Repository(aws.settings, hub),
        Credential(aws, hub, ask=None if yes else at_terminal()),
        Again(shared),
        Project(aws, hub, options),
        Studio(aws, options),
        Settings(aws, hub),
        Tool(aws.settings, hub),
        # Last: it starts the first workflow.
        Push(aws.settings, hub, aws.sandbox),
    ]


def _connect(
    aws: Aws, parts: Sequence[Part], console: Console, only_plan: bool, yes: bool
) -> Result:
    from sm_mlops.bootstrap import plan

    found = plan.look(parts)
    console.print(plan.table(found))
    result = Result(found, [], found)
    if only_plan or not any(plan.is_work(item) for item in found):
        _tell_rest(console, found, only_plan)
        return result
    confirm("Do this?", yes)
    with _going_on(aws, console, "bootstrap"):
        result.left = plan.carry_out(parts, _noting(console, result.done))
    _tell_rest(console, result.left, False)
    return result


def _take_back(
    aws: Aws,
    shared: Platform,
    parts: Sequence[Part],
    console: Console,
    only_plan: bool,
    yes: bool,
) -> Result:
    from sm_mlops.bootstrap import plan

    own = [part for part in parts if part is not shared]
    found = plan.look_back(own)
    if found:
        console.print(plan.table(found))
    result = Result(found, [], found)
    work = any(plan.is_work(item) for item in found)
    if work and not only_plan:
        confirm("Take this away for good?", yes)
        with _going_on(aws, console, "bootstrap --destroy"):
            result.left = plan.take_back(own, _noting(console, result.done))
    _take_platform_back(aws, shared, console, only_plan, yes, result)
    _tell_rest(console, result.left, only_plan, "Nothing is left to take away.")
    return result


def _take_platform_back(
    aws: Aws, shared: Platform, console: Console, only_plan: bool, yes: bool, result: Result
) -> None:
    """A question of its own: it was never this repo's alone."""
    from sm_mlops.bootstrap import plan

    items = shared.look_back()
    if not items:
        return
    others = shared.others()
    if others:
        tell(console, f"The platform stays: used by {', '.join(others)}.")
        return
    console.print(plan.table(items))
    result.plan = [*result.plan, *items]
    if only_plan:
        return
    try:
        confirm("No project uses the platform any more. Take it away, too?", yes)
    except MlopsError as refused:
        tell(console, f"The platform stays ({refused}).")
        return
    with _going_on(aws, console, "bootstrap --destroy"):
        shared.undo(_noting(console, result.done))
    result.left = [*result.left, *shared.look_back()]


def _noting(console: Console, done: list[str]) -> Tell:
    def note(line: str) -> None:
        done.append(line)
        tell(console, line)

    return note


@contextmanager
def _going_on(aws: Aws, console: Console, command: str) -> Iterator[None]:
    """Tells, when something fails, that what is done stays and what to do next."""
    try:
        yield
    except BaseException:
        tell(console, f"What is done stays. To go on: {aws.command} {command}")
        raise


def _tell_rest(
    console: Console, items: Sequence[Item], only_plan: bool, nothing: str = NOTHING
) -> None:
    from sm_mlops.bootstrap.plan import Todo, is_work

    asked = [item for item in items if item.todo is Todo.PERSON and item.remedy]
    for item in asked:
        tell(console, f"for you: {item.what}: {item.remedy}")
    work = [item for item in items if is_work(item)]
    if work and not only_plan:
        names = ", ".join(item.what for item in work)
        tell(err, f"mlops: still to be done: {names}", "red")
    elif not work and not asked:
        tell(console, nothing, "green")
