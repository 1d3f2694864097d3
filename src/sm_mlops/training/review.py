"""What a change does to the model: the base and the working tree, each with its own definition,
model/ and mlops.yaml, trained by this tool on the same rows.

Knows git. Both sides work in an account that the caller provides and throws away.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from sm_mlops import commit, executions, objects, registry
from sm_mlops import settings as mlops_settings
from sm_mlops.aws import Aws, split_s3
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError
from sm_mlops.executions import Execution
from sm_mlops.redaction import without_tokens
from sm_mlops.settings import Settings, SettingsError
from sm_mlops.training import artifacts, run

LOG_LINES = 15
Account = Callable[[Settings], Aws]
"""The account of a review, prepared for a repo with these settings."""


@dataclass(frozen=True)
class Trained:
    """The result of one side.

    `definition` is the pipeline's, as JSON text, `gate` the content of gate.json, `test_rows` maps
    the files with the test rows to the hashes of their contents; each is empty if the side did not
    get that far. `failure`: why no version was registered, in lines.
    """

    definition: str = ""
    gate: dict[str, Any] | None = None
    test_rows: dict[str, str] | None = None
    model_package: str = ""
    failure: tuple[str, ...] = ()


@dataclass(frozen=True)
class Review:
    """Both sides. `base_commit`: 40 hexadecimal digits; `commit`: those, perhaps with `-dirty`.

    `behind`: the number of commits on the base that the change is not based on.
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


def review(
    settings: Settings,
    base: str,
    console: Console,
    sandbox: Callable[[Path], AbstractContextManager[Account]],
) -> Review:
    """Train the base, approve it as the champion, and train the working tree beside it.

    Args:
        settings: Of the working tree.
        base: A branch or commit.
        console: Shows how far it is.
        sandbox: Runs an account with its state in a folder, and leaves nothing of it.

    Raises:
        MlopsError: There is no such commit, or no data in reach of the sandbox.
    """

    def say(line: str) -> None:
        tell(console, line)

    base_commit = resolved(settings.root, base)
    with _stopped_like_ctrl_c(), _temporary_folder() as work, sandbox(work) as account:
        aws = account(settings)
        data = _rows(aws)
        with _worktree(settings.root, work / "base", base_commit) as tree:
            say(f"base       {base_commit}")
            trained = _train_base(aws, account, tree, data, console)
        for line in trained.failure:
            say(f"           {line}")
        say("change     the working tree")
        change = _train(aws, data, console)
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
    """Return the commit of this name, 40 hexadecimal digits. Raises MlopsError if there is none."""
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
    """Return the commit of the working tree, as `commit.current` does.

    For a pull request CI checks out a merge into the base, which no clone ever sees: return what
    was merged instead.
    """
    at = commit.current(root)
    head, *parents = _git(root, "rev-list", "--parents", "--max-count=1", "HEAD").stdout.split()
    merged = len(parents) == 2 and parents[0] == base_commit
    return at.replace(head, parents[1]) if merged else at


def behind(root: Path, base_commit: str) -> int:
    """Return how many commits of the base are not in the change."""
    return int(_git(root, "rev-list", "--count", f"HEAD..{base_commit}").stdout or 0)


@contextmanager
def _stopped_like_ctrl_c() -> Iterator[None]:
    """Make SIGTERM, by which CI systems end a job, run every `finally`, too."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix="mlops-review-")).resolve()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _worktree(root: Path, folder: Path, at: str) -> Iterator[Path]:
    """Check the repo of `root` out into `folder`, at the commit `at`, and remove it again."""
    try:
        added = _git(root, "worktree", "add", "--detach", "--quiet", str(folder), at)
        if added.returncode != 0:
            raise MlopsError(f"cannot check out {at}: {_last_line(added.stderr)}")
        # The repo may be a folder of a larger one.
        yield folder / _git(root, "rev-parse", "--show-prefix").stdout.strip()
    finally:
        # Forced twice: an incomplete one is locked.
        _git(root, "worktree", "remove", "--force", "--force", str(folder))


def _train_base(
    aws: Aws, account: Account, root: Path, data: artifacts.Dataset, console: Console
) -> Trained:
    """Train what is in `root`, and make it the champion of the change."""
    if not (root / "mlops.yaml").is_file():
        return Trained(failure=("it has no mlops.yaml yet",))
    try:
        settings = mlops_settings.load(root)
    except SettingsError as error:
        return Trained(failure=(str(error),))
    trained = _train(account(settings), data, console)
    if trained.model_package and settings.model_package_group != aws.settings.model_package_group:
        another = f"it is another project: {settings.model_package_group}"
        return Trained(trained.definition, failure=(another,))
    if trained.model_package:
        champion = registry.version(aws, int(trained.model_package.rpartition("/")[2]))
        registry.set_approval(aws, champion, "Approved", "what the change is compared with")
    return trained


def _train(aws: Aws, data: artifacts.Dataset, console: Console) -> Trained:
    try:
        started = run.start(aws, {"InputData": data.uri}, lambda line: tell(console, line))
    except MlopsError as error:
        return Trained(failure=(str(error),))
    return outcome(aws, executions.follow(aws, started.arn, console))


def outcome(aws: Aws, execution: Execution) -> Trained:
    """Return what an execution that has ended leaves behind."""
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
    """Return why it failed, and the end of the log, which is deleted with the sandbox."""
    first, *_ = executions.failure(aws, execution)
    failed = [step for step in execution.steps if step.status == "Failed" and step.job]
    return first, *(
        line
        for step in failed
        for line in executions.log_lines(aws, step)[-LOG_LINES:]
        # Not what the first line already says, nor what the sandbox adds to it.
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
    """Run git in `root`: not in the repository that an outer git names, and without hooks."""
    return subprocess.run(
        ["git", "-C", str(root), "-c", f"core.hooksPath={os.devnull}", *arguments],
        env={k: v for k, v in without_tokens(os.environ).items() if not k.startswith("GIT_")},
        capture_output=True,
        text=True,
        check=False,
    )


def _last_line(text: str) -> str:
    """Return the last line that is not blank: of a traceback, the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("mlops: ") if lines else ""
