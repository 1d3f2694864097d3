"""The panel "Connect": connect this repo with AWS and GitHub, check that, pass on an approval by
hand, and replace secrets. The value of one is never an argument, and never shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sm_mlops import registry
from sm_mlops.bootstrap import plan
from sm_mlops.bootstrap.plan import Item, Part, Todo, is_work
from sm_mlops.cli.console import (
    AsJson,
    ContinueRollback,
    Yes,
    at_terminal,
    confirm,
    connected,
    fail,
    out,
    pairs,
    print_json,
    progress,
    say,
)
from sm_mlops.deployment.deploy import approved
from sm_mlops.deployment.trigger import replay
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError

if TYPE_CHECKING:
    from sm_mlops.aws import Aws
    from sm_mlops.bootstrap.platform import Options, Platform

app = typer.Typer(rich_markup_mode="markdown")
secret = typer.Typer(
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Replace the secrets that connect AWS and GitHub.",
)
PANEL = "Connect"
PROVIDERS = ("service-catalog", "s3")
SECRETS = ("all", "trigger", "key")


@app.command(rich_help_panel=PANEL)
def bootstrap(
    context: typer.Context,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Show what exists and what would be done, and exit.")
    ] = False,
    destroy: Annotated[
        bool,
        typer.Option("--destroy", help="Delete what belongs to this repo, then the platform."),
    ] = False,
    template_provider: Annotated[
        str,
        typer.Option(
            metavar="|".join(PROVIDERS), help="Where SageMaker gets the project template from."
        ),
    ] = PROVIDERS[0],
    platform: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A parameter of the platform stack; it applies to all repos of the account.",
        ),
    ] = None,
    subscriber: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Who gets the messages of all repos of the account: an e-mail or https address, "
            "or the ARN of a Lambda function or SQS queue.",
        ),
    ] = None,
    continue_rollback: ContinueRollback = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Connect this repo to AWS and GitHub: show the plan, ask, then carry it out.

    Creates what the repos of an account share (bucket, approval trigger, connection, Service
    Catalog product), this repo's SageMaker project with its roles, the GitHub repository, its
    variables and environments, and pushes. Run it again after an interruption to continue.

    **Examples**

    - `mlops bootstrap --plan`
    - `mlops bootstrap --platform AlarmTopicArn=arn:aws:sns:...`
    - `mlops bootstrap --subscriber ada@example.com`
    - `mlops bootstrap --destroy`
    """
    from sm_mlops.bootstrap.platform import Options

    if template_provider not in PROVIDERS:
        raise MlopsError(f"--template-provider must be {' or '.join(PROVIDERS)}")
    given = pairs("--platform", "AlarmTopicArn=arn:aws:sns:...", platform)
    options = Options(template_provider, given, continue_rollback, tuple(subscriber or ()))
    with connected(context, empty=True) as aws:
        shared, own = _parts(aws, options, yes)
        run = Run(aws, as_json, only_plan, yes)
        if destroy:
            run.destroy(shared, own)
        else:
            run.connect([shared, *own])


def _parts(aws: Aws, options: Options, yes: bool) -> tuple[Platform, list[Part]]:
    """Return the platform, which comes first, and the repo's own parts in their order."""
    from sm_mlops import github
    from sm_mlops.bootstrap.by_hand import Connection, Tool
    from sm_mlops.bootstrap.credential import Credential
    from sm_mlops.bootstrap.platform import Platform, Retry
    from sm_mlops.bootstrap.project import Project
    from sm_mlops.bootstrap.push import Push
    from sm_mlops.bootstrap.repository import Repository
    from sm_mlops.bootstrap.settings import Settings
    from sm_mlops.bootstrap.studio import Studio
    from sm_mlops.bootstrap.subscribers import Subscribers
    from sm_mlops.cli.sandbox_account import token_source

    hub = github.sign_in(os.environ, aws.settings.project.git_host)
    shared = Platform(aws, options)
    ask = None if yes else at_terminal()
    return shared, [
        Subscribers(aws, options.subscribers),
        Connection(aws),
        Repository(aws.settings, hub),
        Credential(aws, hub, ask=ask, sandbox_token=token_source(aws)),
        Retry(shared),
        Project(aws, hub, options),
        Studio(aws, options),
        Settings(aws, hub),
        Tool(aws.settings, hub),
        # Last: it starts the first workflow.
        Push(aws.settings, hub, aws.sandbox),
    ]


@dataclass
class Run:
    """One run of the command. `plan` is what was found first, `left` what remains to be done."""

    aws: Aws
    as_json: bool
    only_plan: bool
    yes: bool
    plan: list[Item] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    left: list[Item] = field(default_factory=list)

    @property
    def console(self) -> Console:
        return progress(self.as_json)

    @property
    def where(self) -> str:
        project = self.aws.settings.project
        return f"account {self.aws.account} in {project.region}, repository {project.github}"

    @property
    def work_left(self) -> list[Item]:
        return [item for item in self.left if is_work(item)]

    def connect(self, parts: Sequence[Part]) -> None:
        self._show(plan.look(parts))
        if self.work_left and not self.only_plan:
            confirm("Do this?", self.yes)
            with self._resumable("bootstrap"):
                self.left = plan.carry_out(parts, self._note)
        self._tell_rest("Nothing is left to do.")

    def destroy(self, shared: Platform, own: Sequence[Part]) -> None:
        found = plan.look_back(own)
        if found:
            self._show(found)
        if self.work_left and not self.only_plan:
            confirm("Delete this permanently?", self.yes)
            with self._resumable("bootstrap --destroy"):
                self.left = plan.take_back(own, self._note)
        self._destroy_platform(shared)
        self._tell_rest("Nothing is left to delete.")

    def _destroy_platform(self, shared: Platform) -> None:
        """Delete the platform if no repo uses it, after a separate question."""
        from sm_mlops.bootstrap.platform import others

        items = shared.look_back()
        if not items:
            return
        if users := others(self.aws):
            tell(self.console, f"The platform stays: it is used by {', '.join(users)}.")
            return
        self.console.print(plan.table(items))
        self.plan = [*self.plan, *items]
        if self.only_plan:
            return
        try:
            confirm("No project uses the platform anymore. Delete it too?", self.yes)
        except MlopsError as refused:
            tell(self.console, f"The platform stays ({refused}).")
            return
        with self._resumable("bootstrap --destroy"):
            shared.undo(self._note)
        self.left = [*self.left, *shared.look_back()]

    def _show(self, items: list[Item]) -> None:
        self.plan = self.left = items
        tell(self.console, f"Plan for {self.where}:")
        self.console.print(plan.table(items))

    def _note(self, line: str) -> None:
        self.done.append(line)
        tell(self.console, line)

    @contextmanager
    def _resumable(self, command: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            tell(self.console, f"Completed steps stay. To continue: {self.aws.command} {command}")
            raise

    def _tell_rest(self, nothing: str) -> None:
        asked = [item for item in self.left if item.todo is Todo.PERSON and item.remedy]
        if asked:
            tell(self.console, "You still need to do this by hand:")
        for item in asked:
            tell(self.console, f"  {item.what}: {item.remedy}")
        if not self.work_left and not asked:
            tell(self.console, nothing, "green")
        if self.as_json:
            found = {"plan": self.plan, "done": self.done, "left": self.left}
            print_json({"where": self.where, **found})
        if self.work_left and not self.only_plan:
            raise fail(f"not done yet: {', '.join(item.what for item in self.work_left)}")


@app.command(rich_help_panel=PANEL)
def trigger(
    context: typer.Context,
    version: Annotated[int, typer.Argument(help="A number listed by mlops models.")],
    as_json: AsJson = False,
) -> None:
    """Start the deployment of an approved version, if its approval did not start it.

    Approving a version starts its deployment in GitHub Actions (or Jenkins), so this is rarely
    needed: for example after GitHub was down for hours, or after its token had expired. It can also
    deploy the same version once more.

    **Example**

    - `mlops trigger 3`
    """
    with connected(context) as aws:
        started = replay(aws, approved(aws, registry.version(aws, version).arn))
    if as_json:
        print_json(started)
        return
    say(f"Started the deployment of version {started.version}, commit {started.commit[:7]}")
    if aws.sandbox:
        say("The sandbox only records it: deploy by hand, as mlops approve says")
    else:
        say(f"follow it   {started.run or f'the runs of {started.repository}'}")
    if started.cleared:
        noun = "failed approval" if started.cleared == 1 else "failed approvals"
        say(f"Deleted {started.cleared} {noun} of this version from the queue")


@app.command(rich_help_panel=PANEL)
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check sign-ins, permissions, platform, project, GitHub and quotas, each with a remedy.

    Changes nothing. The exit code is 1 if a check fails, but not for a warning, such as a missing
    permission to read something.
    """
    from sm_mlops.doctor import examine
    from sm_mlops.doctor.scene import State, table

    with connected(context) as aws:
        found = examine(aws, os.environ)
    count = {state: sum(item.state is state for item in found) for state in State}
    if as_json:
        print_json(found)
    else:
        out.print(table(found))
        say(", ".join(f"{number} {state}" for state, number in count.items() if number))
    if count[State.FAILED]:
        raise typer.Exit(1)


@secret.command()
def rotate(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(metavar="|".join(SECRETS), help="Which one; all by default.")
    ] = SECRETS[0],
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete the keys that Jenkins had, without asking.")
    ] = False,
) -> None:
    """Replace the trigger's credential, and the access key if GitHub signs in to AWS with one.

    Prompts for the trigger's credential, or reads it from MLOPS_TRIGGER_TOKEN; for a GitHub App
    from MLOPS_GITHUB_APP_ID, MLOPS_GITHUB_APP_INSTALLATION_ID and MLOPS_GITHUB_APP_KEY_FILE; for
    Jenkins from MLOPS_JENKINS_USER and MLOPS_JENKINS_TOKEN. Tries it before storing it.

    **Examples**

    - `mlops secret rotate`
    - `mlops secret rotate key`
    """
    from sm_mlops import github
    from sm_mlops.bootstrap import rotation
    from sm_mlops.bootstrap.credential import Credential
    from sm_mlops.cli.sandbox_account import token_source

    if what not in SECRETS:
        # The text is not shown: it may be the new secret itself.
        raise MlopsError(
            f"what to rotate must be {', '.join(SECRETS[:-1])} or {SECRETS[-1]}; the new value is "
            "not an argument, you are prompted for it"
        )
    with connected(context) as aws:
        hub = github.sign_in(os.environ, aws.settings.project.git_host)
        if what != "key":
            part = Credential(aws, hub, ask=at_terminal(), sandbox_token=token_source(aws))
            rotation.rotate_credential(part, say)
        if what == "key" or (what == "all" and aws.settings.project.uses_key):
            rotation.rotate_key(aws, hub, say, lambda question: confirm(question, yes))
