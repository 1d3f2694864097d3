"""Runs a repository's workflows on this machine as GitHub would: triggers, jobs, conditions, steps,
outputs, masks, reviewers. What it does not know it refuses, so that nothing is passed over.

A reader of our own, compared with nektos/act in test_workflows_act.py: that one asks no reviewer,
has no OpenID Connect, takes no notice of paths and permissions, passes outputs on that GitHub drops
because they hold something masked, and goes on with a matrix of which a part has failed.
Knows nothing about `mlops`; the caller says what third-party actions do.
Source: https://docs.github.com/en/actions/reference
"""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from workflow_expressions import Known, Unsupported, holds, interpolate
from workflow_file import Input, Job, Step, Workflow, matches, parse

WORKFLOWS = ".github/workflows"
SUCCESS, FAILURE, CANCELLED, SKIPPED = "success", "failure", "cancelled", "skipped"
# What each place may look at, of
# https://docs.github.com/en/actions/reference/workflows-and-actions/contexts#context-availability
RUN_LEVEL = ("github", "inputs", "vars")
WORKFLOW_ENV = (*RUN_LEVEL, "secrets")
JOB_IF = (*RUN_LEVEL, "needs")
JOB_LEVEL = (*JOB_IF, "matrix")
JOB_ENV = (*JOB_LEVEL, "secrets")
STEP_IF = (*JOB_LEVEL, "runner", "env", "steps")
STEP_LEVEL = (*STEP_IF, "secrets")
# In minutes, how long a stopped step has before the next, harder signal.
GRACE = ((signal.SIGINT, 7.5 / 60), (signal.SIGTERM, 2.5 / 60))
LONGEST_SUMMARY = 1024 * 1024
COMMAND = re.compile(r"^::([a-z-]+)(?: [^:]*)?::(.*)$")
TOLD = ("debug", "notice", "warning", "error", "group", "endgroup")


class ActionFailed(Exception):
    """What an action says when it fails."""


class Refused(Exception):
    """GitHub does not start a workflow that is asked for like this."""


@dataclass
class Environment:
    """`reviewer` is asked whether a job may run; None: nobody is. `branches`: those that may
    deploy to it; None: all."""

    reviewer: Callable[[], bool] | None = None
    branches: tuple[str, ...] | None = None
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """`inputs` of a dispatch; `fork`: a pull request from elsewhere, which sees no secret."""

    name: str
    ref: str
    sha: str
    payload: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    head: str = ""
    base: str = ""
    fork: bool = False


@dataclass(frozen=True)
class StepRun:
    """`outcome` is success, failure, cancelled or skipped; `log` and `summary` are as shown."""

    name: str
    outcome: str
    outputs: Mapping[str, str]
    log: str
    summary: str


@dataclass(frozen=True)
class JobRun:
    """`orphans`: processes that were left at its end, by their names."""

    id: str
    name: str
    result: str
    outputs: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[StepRun, ...] = ()
    notes: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()

    def step(self, name: str) -> StepRun:
        return next(step for step in self.steps if step.name == name)

    @property
    def log(self) -> str:
        told = [f"--- {step.name}: {step.outcome}\n{step.log}" for step in self.steps]
        return "\n".join([f"=== {self.name}: {self.result}", *self.notes, *told])

    @property
    def summary(self) -> str:
        return "".join(step.summary for step in self.steps)


@dataclass(frozen=True)
class Run:
    """A run that has ended; `jobs` in the order they ran in, also those that were skipped."""

    title: str
    workflow: str
    event: Event
    conclusion: str
    jobs: tuple[JobRun, ...]

    def job(self, identifier: str) -> JobRun:
        """Return the only job of this id."""
        [found] = [job for job in self.jobs if job.id == identifier]
        return found

    @property
    def results(self) -> dict[str, str]:
        return {job.name: job.result for job in self.jobs}

    @property
    def log(self) -> str:
        return "\n".join([f"{self.title}: {self.conclusion}", *(job.log for job in self.jobs)])


@dataclass
class Repository:
    """What GitHub knows of a repository, and the machine that its jobs run on.

    `origin` is bare. `machine` holds the variables that the machine has for each process, above
    PATH. `actions` maps `owner/name@commit` to what stands in for it. `tokens` are all that jobs
    were given, with their permissions, each made by `new_token`. What is pushed also goes to
    `mirror`. `minute`: seconds in a minute of all time limits.
    """

    origin: Path
    name: str
    folder: Path
    actions: Mapping[str, "Action"]
    machine: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    environments: dict[str, Environment] = field(default_factory=dict)
    tokens: dict[str, Mapping[str, str]] = field(default_factory=dict)
    api_url: str = "http://127.0.0.1:9"
    mirror: Path | None = None
    new_token: Callable[[], str] = lambda: f"ghs_{secrets.token_hex(18)}"
    minute: float = 60
    count: int = 0

    def push(self, clone: Path, branch: str = "main") -> list[Run]:
        """Push HEAD of a clone, and run what that triggers."""
        before = git(self.origin, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
        git(clone, "push", "--quiet", str(self.origin), f"HEAD:refs/heads/{branch}")
        if self.mirror and self.mirror != self.origin:
            git(clone, "push", "--quiet", "--force", str(self.mirror), f"HEAD:refs/heads/{branch}")
        after = git(self.origin, "rev-parse", branch)
        payload = {"ref": f"refs/heads/{branch}", "before": before, "after": after}
        event = Event("push", f"refs/heads/{branch}", after, payload)

        def started(workflow: Workflow) -> bool:
            on = workflow.push
            return on is not None and any(matches(pattern, branch) for pattern in on.branches)

        return self._started(event, started)

    def pull_request(
        self, clone: Path, number: int, base: str = "main", fork: str = ""
    ) -> list[Run]:
        """Open a pull request for HEAD of a clone, from the repository `fork` if there is one."""
        git(clone, "push", "--quiet", "--force", str(self.origin), f"HEAD:refs/pull/{number}/head")
        head = git(self.origin, "rev-parse", f"refs/pull/{number}/head")
        tree = git(self.origin, "merge-tree", "--write-tree", base, head).splitlines()[0]
        parents = ("-p", git(self.origin, "rev-parse", base), "-p", head)
        merge = git(self.origin, "commit-tree", tree, *parents, "-m", f"Merge #{number}")
        ref = f"refs/pull/{number}/merge"
        git(self.origin, "update-ref", ref, merge)
        branch = git(clone, "rev-parse", "--abbrev-ref", "HEAD")
        pull = {
            "number": number,
            "head": {"ref": branch, "sha": head, "repo": {"full_name": fork or self.name}},
            "base": {"ref": base, "sha": parents[1], "repo": {"full_name": self.name}},
        }
        payload = {"action": "synchronize", "number": number, "pull_request": pull}
        event = Event("pull_request", ref, merge, payload, head=branch, base=base, fork=bool(fork))
        return self._started(event, lambda workflow: workflow.pull_request)

    def dispatch(self, name: str, inputs: Mapping[str, str], branch: str = "main") -> Run:
        """Start one workflow of a branch. Raises Refused."""
        sha = git(self.origin, "rev-parse", f"refs/heads/{branch}")
        workflow = self._workflow(sha, f"{WORKFLOWS}/{name}.yml")
        if workflow.inputs is None:
            raise Refused(f"{name} does not have the trigger workflow_dispatch")
        given = _checked(workflow.inputs, inputs)
        ref = f"refs/heads/{branch}"
        event = Event("workflow_dispatch", ref, sha, {"inputs": given, "ref": ref}, given)
        return self._run(workflow, event)

    def _started(self, event: Event, wanted: Callable[[Workflow], bool]) -> list[Run]:
        """Run the workflows that a push or pull request holds itself."""
        files = git(self.origin, "ls-tree", "--name-only", event.sha, f"{WORKFLOWS}/").splitlines()
        found = [self._workflow(event.sha, path) for path in files]
        return [self._run(workflow, event) for workflow in found if wanted(workflow)]

    def _workflow(self, sha: str, path: str) -> Workflow:
        workflow = parse(git(self.origin, "show", f"{sha}:{path}"))
        used = {step.uses for job in workflow.jobs.values() for step in job.steps if step.uses}
        if used - set(self.actions):
            names = ", ".join(sorted(used - set(self.actions)))
            raise Unsupported(f"{path}: nothing stands in for {names}")
        return workflow

    def _run(self, workflow: Workflow, event: Event) -> Run:
        self.count += 1
        return _Running(self, workflow, event, self.count).to_its_end()


def git(folder: Path, *arguments: str) -> str:
    """Return what git says in a folder, without the last line's end."""
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    environment |= {f"GIT_{who}_NAME": "a" for who in ("AUTHOR", "COMMITTER")}
    environment |= {f"GIT_{who}_EMAIL": "a@example.com" for who in ("AUTHOR", "COMMITTER")}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()


def _checked(known: Mapping[str, Input], given: Mapping[str, str]) -> dict[str, str]:
    """Return all inputs. Raises Refused as GitHub does."""
    if set(given) - set(known):
        raise Refused(f"Unexpected inputs provided: {sorted(set(given) - set(known))}")
    for name, expected in known.items():
        if expected.required and not (given.get(name) or expected.default):
            raise Refused(f"Required input '{name}' not provided")
    return {name: given.get(name, expected.default) for name, expected in known.items()}


class _Running:
    """One run: its jobs one after the other, in the order that they need each other in."""

    def __init__(
        self, repository: Repository, workflow: Workflow, event: Event, number: int
    ) -> None:
        self.repository, self.workflow, self.event = repository, workflow, event
        self.number = number
        self.done: dict[str, list[JobRun]] = {}

    def to_its_end(self) -> Run:
        contexts = self.contexts(None, RUN_LEVEL)
        title = interpolate(self.workflow.run_name, contexts) or self.workflow.name
        if self.workflow.concurrency:
            interpolate(self.workflow.concurrency.group, contexts)
        waiting = dict(self.workflow.jobs)
        while waiting:
            name = next(n for n, job in waiting.items() if set(job.needs) <= set(self.done))
            self.done[name] = self._runs_of(waiting.pop(name))
        jobs = tuple(job for runs in self.done.values() for job in runs)
        results = {job.result for job in jobs}
        worst = (FAILURE, CANCELLED, SUCCESS, SKIPPED)
        conclusion = next(result for result in worst if result in results)
        return Run(title, self.workflow.name, self.event, conclusion, jobs)

    def _runs_of(self, job: Job) -> list[JobRun]:
        results = {self.result(name) for name in self._ancestors(job)}
        functions = {
            "always": lambda: True,
            "cancelled": lambda: False,
            "failure": lambda: FAILURE in results,
            "success": lambda: results <= {SUCCESS},
        }
        if not holds(job.condition, self.contexts(job, JOB_IF), functions):
            # Skipped before its matrix is looked at.
            return [JobRun(job.id, job.name, SKIPPED)]
        runs: list[JobRun] = []
        for matrix in job.matrix:
            if any(run.result != SUCCESS for run in runs):
                runs.append(JobRun(job.id, self._name(job, matrix), CANCELLED))
            else:
                runs.append(self._job(job, matrix))
        return runs

    def _name(self, job: Job, matrix: Mapping[str, Any]) -> str:
        return interpolate(job.name, self.contexts(job, JOB_LEVEL, matrix))

    def _job(self, job: Job, matrix: Mapping[str, Any]) -> JobRun:
        contexts = self.contexts(job, JOB_LEVEL, matrix)
        name = interpolate(job.name, contexts)
        if job.concurrency:
            interpolate(job.concurrency.group, contexts)
        environment = interpolate(job.environment, contexts)
        rules = self.repository.environments.get(environment, Environment())
        branch = self.event.ref.removeprefix("refs/heads/")
        if rules.branches is not None and not any(matches(b, branch) for b in rules.branches):
            note = f"{branch} is not allowed to deploy to {environment}"
            return JobRun(job.id, name, FAILURE, notes=(note,))
        if rules.reviewer is not None and not rules.reviewer():
            # Rejected, a job has failed, and none of its steps has run.
            note = f"the deployment to {environment} was rejected"
            return JobRun(job.id, name, FAILURE, notes=(note,))
        return Work(self, job, matrix, name, environment, rules).to_its_end()

    def _ancestors(self, job: Job) -> set[str]:
        found = set(job.needs)
        for name in job.needs:
            found |= self._ancestors(self.workflow.jobs[name])
        return found

    def result(self, name: str) -> str:
        results = {run.result for run in self.done[name]}
        return next(r for r in (FAILURE, CANCELLED, SUCCESS, SKIPPED) if r in results)

    def contexts(
        self, job: Job | None, names: tuple[str, ...], matrix: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return those of these names that do not depend on a machine."""
        repository, event = self.repository, self.event
        needs = {} if job is None else {name: self._need(name) for name in job.needs}
        inputs = event.inputs if event.name == "workflow_dispatch" else {}
        known = dict.fromkeys(self.workflow.inputs or {})
        found = {
            "github": self.github(job),
            "inputs": Known(known | dict(inputs)),
            "vars": dict(repository.variables),
            "secrets": {} if event.fork else dict(repository.secrets),
            "needs": Known(needs),
            "matrix": Known(matrix or {}),
        }
        return {name: value for name, value in found.items() if name in names}

    def _need(self, name: str) -> Known:
        outputs: dict[str, str | None] = dict.fromkeys(self.workflow.jobs[name].outputs)
        for run in self.done[name]:
            outputs.update(run.outputs)
        return Known(result=self.result(name), outputs=Known(outputs))

    def github(self, job: Job | None) -> Known:
        event, repository = self.event, self.repository
        branch = event.ref.removeprefix("refs/heads/").removeprefix("refs/pull/")
        return Known(
            actor="someone",
            api_url=repository.api_url,
            base_ref=event.base,
            event=dict(event.payload),
            event_name=event.name,
            head_ref=event.head,
            job=job.id if job else None,
            ref=event.ref,
            ref_name=branch,
            ref_type="branch",
            repository=repository.name,
            repository_owner=repository.name.partition("/")[0],
            run_attempt="1",
            run_id=str(7_000_000_000 + self.number),
            run_number=str(self.number),
            server_url="https://github.com",
            sha=event.sha,
            workflow=self.workflow.name,
        )


class Work:
    """A job at work: what its steps share. Actions may read all of it, and call `say`, `mask` and
    `export`."""

    def __init__(
        self,
        run: _Running,
        job: Job,
        matrix: Mapping[str, Any],
        name: str,
        environment: str,
        rules: Environment,
    ) -> None:
        self.run, self.job, self.matrix, self.name = run, job, matrix, name
        self.repository, self.event = run.repository, run.event
        self.environment = environment
        self.status = SUCCESS
        self.token = self.repository.new_token()
        self.permissions = _of_fork(job.permissions) if self.event.fork else job.permissions
        self.repository.tokens[self.token] = self.permissions
        own = {} if self.event.fork else run.repository.secrets | rules.secrets
        self.secrets = own | {"GITHUB_TOKEN": self.token}
        self.variables = run.repository.variables | rules.variables
        self.masks = {line for value in self.secrets.values() for line in value.splitlines()}
        self.masks.discard("")
        number = len(list(self.repository.folder.glob("*")))
        self.folder = self.repository.folder / f"{number:03}-{job.id}"
        repository = self.repository.name.rpartition("/")[2]
        self.workspace = self.folder / "work" / repository / repository
        self.temp = self.folder / "work" / "_temp"
        self.home = self.folder / "home"
        for folder in (self.workspace, self.temp, self.home):
            folder.mkdir(parents=True)
        self.event_file = self.temp / "event.json"
        about = {"repository": {"full_name": self.repository.name}}
        self.event_file.write_text(json.dumps({**self.event.payload, **about}), encoding="utf-8")
        self.tracking = f"github_{secrets.token_hex(16)}"
        self.path: list[str] = []
        self.steps: dict[str, Any] = {step.id: {} for step in job.steps if step.id}
        self.env: dict[str, str] = {}
        for texts, names in ((run.workflow.env, WORKFLOW_ENV), (job.env, JOB_ENV)):
            self.env |= self._interpolated(texts, names)
        self.ends = time.monotonic() + job.minutes * self.repository.minute
        self._said: list[str] = []

    def to_its_end(self) -> JobRun:
        runs = tuple(self._step(step) for step in self.job.steps)
        notes = []
        outputs = {}
        for name, text in self.job.outputs.items():
            value = interpolate(text, self.contexts(STEP_LEVEL))
            if any(mask in value for mask in self.masks):
                notes.append(f"Skip output '{name}' since it may contain secret.")
            else:
                outputs[name] = value
        orphans = tuple(self._end_orphans())
        return JobRun(self.job.id, self.name, self.status, outputs, runs, tuple(notes), orphans)

    # For actions.

    def say(self, line: str) -> None:
        """Add a line to the step's log."""
        self._said.append(line)

    def mask(self, value: str) -> None:
        """Show *** from now on, wherever this appears."""
        self.masks |= {line for line in value.splitlines() if line.strip()}

    def export(self, name: str, value: str) -> None:
        """Set a variable for all later steps."""
        self.env[name] = value

    # The steps.

    def _step(self, step: Step) -> StepRun:
        env = self.env | self._interpolated(step.env, STEP_LEVEL)
        functions = {
            "always": lambda: True,
            "cancelled": lambda: self.status == CANCELLED,
            "failure": lambda: self.status == FAILURE,
            "success": lambda: self.status == SUCCESS,
        }
        name = interpolate(step.name, self.contexts(STEP_LEVEL, env))
        if not holds(step.condition, self.contexts(STEP_IF, env), functions):
            done = StepRun(name, SKIPPED, {}, "", "")
        elif step.uses:
            done = self._action(step, name, env)
        else:
            done = self._script(step, name, env)
        if done.outcome in (FAILURE, CANCELLED) and self.status != CANCELLED:
            self.status = done.outcome
        if step.id:
            outcome = {"outcome": done.outcome, "conclusion": done.outcome}
            self.steps[step.id] = Known(outputs=dict(done.outputs), **outcome)
        return done

    def _action(self, step: Step, name: str, env: Mapping[str, str]) -> StepRun:
        contexts = self.contexts(STEP_LEVEL, env)
        given = {key: interpolate(text, contexts) for key, text in step.given.items()}
        self._said, outcome = [], SUCCESS
        try:
            self.repository.actions[step.uses](self, given)
        except ActionFailed as error:
            outcome = FAILURE
            self.say(f"Error: {error}")
        return StepRun(name, outcome, {}, self._shown("\n".join(self._said)), "")

    def _script(self, step: Step, name: str, env: Mapping[str, str]) -> StepRun:
        contexts = self.contexts(STEP_LEVEL, env)
        mark = secrets.token_hex(8)
        script = self.temp / f"{mark}.sh"
        script.write_text(interpolate(step.run, contexts) + "\n", encoding="utf-8")
        files = {kind: self.temp / f"{kind}_{mark}" for kind in ("output", "env", "path")}
        summary = self.temp / f"summary_{mark}"
        for file in (*files.values(), summary):
            file.touch()
        variables = {f"GITHUB_{kind.upper()}": str(file) for kind, file in files.items()}
        variables["GITHUB_STEP_SUMMARY"] = str(summary)
        folder = self.workspace / interpolate(step.folder, contexts)
        outcome, log = self._process(step, script, folder, {**env, **variables})
        log = self._obeyed(log)
        found: dict[str, dict[str, str]] = {"output": {}, "env": {}}
        for kind in found:
            try:
                found[kind] = pairs(files[kind].read_text(encoding="utf-8"))
            except ValueError as error:
                log += f"\nError: Unable to process file command '{kind}': {error}"
                outcome = FAILURE if outcome == SUCCESS else outcome
        for variable, value in found["env"].items():
            if variable.startswith(("GITHUB_", "RUNNER_")) or variable == "NODE_OPTIONS":
                raise Unsupported(f"{name}: {variable} cannot be set")
            self.export(variable, value)
        self.path = [*files["path"].read_text().split("\n")[:-1][::-1], *self.path]
        text = summary.read_text(encoding="utf-8")
        if len(text.encode()) > LONGEST_SUMMARY:
            log += "\nError: $GITHUB_STEP_SUMMARY upload aborted, supports up to 1024k"
            text = ""
        return StepRun(name, outcome, found["output"], self._shown(log), self._shown(text))

    def _process(
        self, step: Step, script: Path, folder: Path, env: Mapping[str, str]
    ) -> tuple[str, str]:
        """Run a script as a step without `shell` would. Return how it ends and what it says."""
        minute, now = self.repository.minute, time.monotonic()
        ends = self.ends if step.minutes is None else min(self.ends, now + step.minutes * minute)
        output = script.with_suffix(".log")
        with output.open("wb") as said:
            process = subprocess.Popen(
                ["bash", "-e", str(script)],
                cwd=folder,
                env=self._machine() | dict(env) | self._github(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            outcome, note = FAILURE, ""
            try:
                code = process.wait(max(0.0, ends - now))
                if code == 0:
                    outcome = SUCCESS
                else:
                    note = f"Error: Process completed with exit code {code}."
            except subprocess.TimeoutExpired:
                _stop(process, minute)
                whole = ends == self.ends
                outcome = CANCELLED if whole else FAILURE
                note = "Error: The job has exceeded the maximum execution time."
                note = note if whole else "Error: The action has timed out."
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
        return outcome, output.read_text(encoding="utf-8", errors="replace") + note

    def _obeyed(self, log: str) -> str:
        """Return the log without the commands in it, which are obeyed. Raises Unsupported."""
        kept = []
        for line in log.splitlines():
            command = COMMAND.match(line)
            if command and command[1] == "add-mask":
                self.mask(command[2])
                continue
            if command and command[1] not in TOLD:
                raise Unsupported(f"the command {line} is not known here")
            kept.append(line)
        return "\n".join(kept)

    def _shown(self, text: str) -> str:
        # The longest first: one may hold another.
        for mask in sorted(self.masks, key=len, reverse=True):
            text = text.replace(mask, "***")
        return text

    def _end_orphans(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RUNNER_TRACKING_ID") == self.tracking:
                    found.append(" ".join(process.cmdline()))
                    process.kill()
            except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                continue
        return found

    # What they see.

    def contexts(
        self, names: tuple[str, ...], env: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        found = self.run.contexts(self.job, names, self.matrix)
        found["github"] = Known(found["github"], token=self.token, workspace=str(self.workspace))
        own = {
            "env": dict(self.env if env is None else env),
            "runner": Known(os="Linux", arch="X64", temp=str(self.temp)),
            "secrets": self.secrets,
            "steps": Known(self.steps),
            "vars": self.variables,
        }
        return found | {name: value for name, value in own.items() if name in names}

    def _interpolated(self, texts: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
        contexts = self.contexts(names)
        return {name: interpolate(text, contexts) for name, text in texts.items()}

    def _machine(self) -> dict[str, str]:
        """Return the variables of a machine that was new a minute ago."""
        path = self.repository.machine.get("PATH", os.environ["PATH"])
        own = {"HOME": str(self.home), "LANG": "C.UTF-8"}
        return own | self.repository.machine | {"PATH": ":".join([*self.path, path])}

    def _github(self) -> dict[str, str]:
        """Return the variables that no one else can set."""
        context = self.contexts(("github",))["github"]
        names = set(context) - {"event", "token"}
        return {f"GITHUB_{name.upper()}": str(context[name]) for name in names} | {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_PATH": str(self.event_file),
            "RUNNER_ARCH": "X64",
            "RUNNER_OS": "Linux",
            "RUNNER_TEMP": str(self.temp),
            "RUNNER_TRACKING_ID": self.tracking,
        }


Action = Callable[[Work, Mapping[str, str]], None]
"""Gets the job and what stands under `with`. Raises ActionFailed."""


def pairs(text: str) -> dict[str, str]:
    """Parse what a step has written into GITHUB_OUTPUT or GITHUB_ENV. Raises ValueError."""
    found: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        if not line:
            continue
        split = re.match(r"([^=]*?)(=|<<)(.*)", line)
        if not split or not split[1]:
            raise ValueError(f"Invalid format '{line}'")
        name, sign, rest = split.groups()
        if sign == "<<":
            value = []
            for inner in lines:
                if inner == rest:
                    break
                value.append(inner)
            else:
                raise ValueError(f"Invalid value. Matching delimiter not found '{rest}'")
            rest = "\n".join(value)
        found[name] = rest
    return found


def _of_fork(permissions: Mapping[str, str]) -> dict[str, str]:
    """Return the permissions of a fork's pull request: to read, and no identity."""
    return {name: "read" for name in permissions if name != "id-token"}


def _stop(process: "subprocess.Popen[bytes]", minute: float) -> None:
    """Stop a step's shell, and end all that it has started."""
    for number, minutes in GRACE:
        process.send_signal(number)
        try:
            process.wait(minutes * minute)
            break
        except subprocess.TimeoutExpired:
            continue
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
