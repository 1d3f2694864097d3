"""What a change does to the model: the base and the working tree, each trained by its own code on
the same rows, in a sandbox that is thrown away afterwards.

Knows git and the sandbox; never sees an AWS account or GitHub.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from sm_mlops import commit, executions, objects, registry
from sm_mlops.aws import Aws, split_s3
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError
from sm_mlops.executions import Execution
from sm_mlops.redaction import without_tokens
from sm_mlops.settings import Settings
from sm_mlops.training import artifacts, run

LOG_LINES = 15
# Prepares the account by the base's own code, then is the base's own `mlops`.
BASE = """
from pathlib import Path
from sm_mlops.aws import Aws
from sm_mlops.cli.main import main
from sm_mlops.cli.sandbox_account import prepare
from sm_mlops.settings import load
prepare(Aws(load(Path.cwd()), sandbox=True))
main()
"""


@dataclass(frozen=True)
class Trained:
    """What became of one side.

    `definition` is the pipeline's, as JSON text, `gate` the content of gate.json, `test_rows` maps
    the files with the test rows to the hashes of their contents; each is empty when it did not get
    that far. `failure`: why no version was registered, in lines.
    """

    definition: str = ""
    gate: dict[str, Any] | None = None
    test_rows: dict[str, str] | None = None
    model_package: str = ""
    failure: tuple[str, ...] = ()


@dataclass(frozen=True)
class Review:
    """Both sides. `base_commit`: 40 hexadecimal digits; `commit`: those, perhaps with `-dirty`.

    `behind`: how many commits the base has that the change was not made on.
    """

    settings: Settings
    base_commit: str
    commit: str
    data: artifacts.Dataset
    base: Trained
    change: Trained
    behind: int = 0

    @property
    def passed(self) -> bool:
        return bool(self.change.model_package)


def review(settings: Settings, base: str, console: Console) -> Review:
    """Trains the base, approves it as the champion, and trains the working tree beside it.

    Ctrl-C and SIGTERM leave nothing behind. Sets AWS's variables of this process.
    Raises MlopsError when there is no such commit, or no data in reach of the sandbox.
    """

    def say(line: str) -> None:
        tell(console, line)

    base_commit = resolved(settings.root, base)
    with _ended_as_by_ctrl_c(), _workshop() as work:
        from sm_mlops import sandbox
        from sm_mlops.cli.console import apply
        from sm_mlops.cli.sandbox_account import prepare

        with sandbox.connect(work, settings.project.region) as environment:
            apply(environment)
            aws = Aws(settings, sandbox=True)
            prepare(aws)
            data = _rows(aws)
            with _worktree(settings.root, work / "base", base_commit) as tree:
                say(f"base       {base_commit}")
                trained = _train_base(aws, tree, data, say)
            for line in trained.failure:
                say(f"           {line}")
            say("change     the working tree")
            change = _train_change(aws, data, console, say)
    return Review(
        settings,
        base_commit,
        of_change(settings.root, base_commit),
        data,
        trained,
        change,
        behind(settings.root, base_commit),
    )


def _rows(aws: Aws) -> artifacts.Dataset:
    try:
        return artifacts.upload_data(aws)
    except MlopsError as error:
        if aws.settings.data.sample:
            raise
        # A clone lacks what git ignores, as everything below data/.
        hint = "" if "data.sample" in str(error) else "; name rows that git keeps as data.sample"
        raise MlopsError(f"{error}{hint}") from error


def resolved(root: Path, name: str) -> str:
    """The commit of this name, 40 hexadecimal digits. Raises MlopsError when there is none."""
    try:
        found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^0")
    except FileNotFoundError as error:
        raise MlopsError("review needs git, which is not installed") from error
    if found.returncode == 0:
        return found.stdout.strip()
    why = _last_line(found.stderr) or (
        f"no such commit in this clone; fetch it (git fetch origin {name}), "
        "or in CI check out the whole history (fetch-depth: 0)"
    )
    raise MlopsError(f"cannot compare with {name}: {why}")


def of_change(root: Path, base_commit: str) -> str:
    """The commit of the working tree, as `commit.current` has it.

    For a pull request CI checks out a merge into the base, which no clone ever sees: then it is
    what was merged.
    """
    at = commit.current(root)
    head, *parents = _git(root, "rev-list", "--parents", "--max-count=1", "HEAD").stdout.split()
    merged = len(parents) == 2 and parents[0] == base_commit
    return at.replace(head, parents[1]) if merged else at


def behind(root: Path, base_commit: str) -> int:
    """How many commits of the base are not in the change."""
    return int(_git(root, "rev-list", "--count", f"HEAD..{base_commit}").stdout or 0)


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, by which CI systems end a job, runs every `finally`, too."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _workshop() -> Iterator[Path]:
    """A temporary folder for a sandbox; afterwards neither is left."""
    work = Path(tempfile.mkdtemp(prefix="mlops-review-")).resolve()
    try:
        yield work
    finally:
        from sm_mlops import sandbox

        sandbox.stop(work)
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _worktree(root: Path, folder: Path, at: str) -> Iterator[Path]:
    """The repo of `root` as it was at the commit `at`, in `folder`; git forgets it again."""
    try:
        added = _git(root, "worktree", "add", "--detach", "--quiet", str(folder), at)
        if added.returncode != 0:
            raise MlopsError(f"cannot check out {at}: {_last_line(added.stderr)}")
        # The repo may be a folder of a larger one.
        yield folder / _git(root, "rev-parse", "--show-prefix").stdout.strip()
    finally:
        # Twice forced: one that is only half there is locked.
        _git(root, "worktree", "remove", "--force", "--force", str(folder))


def _train_base(
    aws: Aws, root: Path, data: artifacts.Dataset, say: Callable[[str], None]
) -> Trained:
    """Trains what is in `root` by its own code, and makes it the champion."""
    if not (root / "mlops.yaml").is_file():
        return Trained(failure=("it has no mlops.yaml yet",))
    # Neither options of the outer command, nor the outputs of its CI step, are meant for this one.
    environment = {
        name: value
        for name, value in without_tokens(os.environ).items()
        if not name.startswith(("MLOPS_", "GITHUB_", "GIT_"))
    }
    command = [sys.executable, "-c", BASE, "run", "--set", f"InputData={data.uri}"]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command,
            cwd=root,
            env=environment | {"PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                say(f"           {line.rstrip()}")
        except BaseException:
            process.kill()
            raise
        code = process.wait()
        errors.seek(0)
        said = errors.read()
    if code in (130, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    began = _newest_execution(aws)
    trained = _trained(aws, began) if began else Trained()
    group = aws.settings.model_package_group
    if code != 0 or not trained.model_package:
        if trained.failure:
            return trained
        return Trained(trained.definition, failure=(_last_line(said) or f"exit code {code}",))
    name, _, version = trained.model_package.rpartition("/")
    if not name.endswith(f"/{group.lower()}"):
        return Trained(trained.definition, failure=(f"it is another project: {name}",))
    champion = registry.version(aws, int(version))
    registry.set_approval(aws, champion, "Approved", "what the change is compared with")
    return trained


def _train_change(
    aws: Aws, data: artifacts.Dataset, console: Console, say: Callable[[str], None]
) -> Trained:
    try:
        started = run.start(aws, {"InputData": data.uri}, say)
    except MlopsError as error:
        return Trained(failure=(str(error),))
    return _trained(aws, executions.follow(aws, started.arn, console))


def _newest_execution(aws: Aws) -> Execution | None:
    """Of whatever pipeline: the base may have given it another name."""
    arns = [
        (item["StartTime"], item["PipelineExecutionArn"])
        for pipeline in aws.pages("list_pipelines", "PipelineSummaries")
        for item in aws.pages(
            "list_pipeline_executions",
            "PipelineExecutionSummaries",
            PipelineName=pipeline["PipelineName"],
        )
    ]
    return executions.describe(aws, max(arns)[1]) if arns else None


def _trained(aws: Aws, execution: Execution) -> Trained:
    answer = aws.sagemaker.describe_pipeline_definition_for_execution(
        PipelineExecutionArn=execution.arn
    )
    outputs: dict[str, str] = {}
    for step in execution.steps:
        if step.kind == "ProcessingJob" and step.status == "Succeeded" and step.job:
            job = aws.sagemaker.describe_processing_job(ProcessingJobName=step.job)
            for output in job["ProcessingOutputConfig"]["Outputs"]:
                outputs[output["OutputName"]] = output["S3Output"]["S3Uri"]
    return Trained(
        definition=answer["PipelineDefinition"],
        gate=_gate(aws, outputs.get("evaluation")),
        test_rows=_contents(aws, outputs.get("test")),
        model_package=execution.model_package if execution.status == "Succeeded" else "",
        failure=() if execution.status == "Succeeded" else _failure(aws, execution),
    )


def _failure(aws: Aws, execution: Execution) -> tuple[str, ...]:
    """Why, and the end of the log, which goes with the sandbox."""
    first, *_ = executions.failure(aws, execution)
    failed = [step for step in execution.steps if step.status == "Failed" and step.job]
    return first, *(
        line
        for step in failed
        for line in executions.log_lines(aws, step)[-LOG_LINES:]
        # What the first line says already, and what the sandbox adds to it.
        if line.removeprefix("error: ") not in first and not line.startswith("[sandbox] ")
    )


def _gate(aws: Aws, folder: str | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    content: dict[str, Any] = json.loads(objects.read(aws, f"{folder.rstrip('/')}/gate.json"))
    return content


def _contents(aws: Aws, folder: str | None) -> dict[str, str] | None:
    if folder is None:
        return None
    bucket, key = split_s3(f"{folder.rstrip('/')}/")
    found = objects.listed(aws, bucket, key)
    return {item["Key"].removeprefix(key): item["ETag"] for item in found}


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs git in `root`: not in the repository that an outer git names, and without hooks."""
    return subprocess.run(
        ["git", "-C", str(root), "-c", f"core.hooksPath={os.devnull}", *arguments],
        env={k: v for k, v in without_tokens(os.environ).items() if not k.startswith("GIT_")},
        capture_output=True,
        text=True,
        check=False,
    )


def _last_line(text: str) -> str:
    """The last line that says something: of a traceback, the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("mlops: ") if lines else ""
