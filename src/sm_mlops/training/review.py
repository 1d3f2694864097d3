"""Train the base and the working tree on the same rows, each with its own definition, model/ and
mlops.yaml.

Knows git. Both train in an account that the caller provides and throws away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from sm_mlops import commit, executions, objects, registry
from sm_mlops import settings as mlops_settings
from sm_mlops.aws import Aws, split_s3
from sm_mlops.commit import git
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError
from sm_mlops.executions import Execution
from sm_mlops.interruption import terminable
from sm_mlops.settings import Settings, SettingsError
from sm_mlops.training import artifacts, run

LOG_LINES = 15
Account = Callable[[Settings], Aws]
"""Returns the account of a review for a repo with these settings."""


@dataclass(frozen=True)
class Trained:
    """The result of one side.

    `definition`: of the pipeline, as JSON text. `gate`: the content of gate.json. `test_rows`: the
    files with the test rows and their hashes. All are empty if the side did not get that far.
    `failure`: why no version was registered, in lines.
    """

    definition: str = ""
    gate: dict[str, Any] | None = None
    test_rows: dict[str, str] | None = None
    model_package: str = ""
    failure: tuple[str, ...] = ()


@dataclass(frozen=True)
class Review:
    """Both sides.

    `base_commit`: 40 hexadecimal digits. `commit`: the same of the change, perhaps with `-dirty`.
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
        console: Shows progress.
        sandbox: Runs an account with its state in a folder, and cleans up after it.

    Raises:
        MlopsError: The commit does not exist, or the sandbox cannot reach the data.
    """
    base_commit = resolved(settings.root, base)
    temporary = TemporaryDirectory(prefix="mlops-review-", ignore_cleanup_errors=True)
    with terminable(), temporary as folder:
        work = Path(folder).resolve()
        with sandbox(work) as account:
            aws = account(settings)
            data = _rows(aws)
            with _worktree(settings.root, work / "base", base_commit) as tree:
                tell(console, f"base       {base_commit}")
                trained = _train_base(aws, account, tree, data, console)
            for line in trained.failure:
                tell(console, f"           {line}")
            tell(console, "change     the working tree")
            change = _train(aws, data, console, waive_champion=True)
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
        # A clone lacks what git ignores, such as data/.
        hint = "" if "data.sample" in str(error) else "; set data.sample to rows that are in git"
        raise MlopsError(f"{error}{hint}") from error


def resolved(root: Path, name: str) -> str:
    """Return the commit of this name, 40 hexadecimal digits. Raise MlopsError if there is none."""
    try:
        found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^0")
    except FileNotFoundError as error:
        raise MlopsError("review needs git, which is not installed") from error
    if found.returncode == 0:
        return found.stdout.strip()
    branch = name.removeprefix("origin/")
    why = _last_line(found.stderr) or (
        f"no such commit in this clone; fetch it (git fetch origin {branch}), "
        "or in CI check out the whole history (fetch-depth: 0)"
    )
    raise MlopsError(f"cannot compare with {name}: {why}")


def of_change(root: Path, base_commit: str) -> str:
    """Return the commit of the working tree, as `commit.current` does.

    For a pull request CI checks out a merge into the base, which is in no clone: return the commit
    that was merged.
    """
    at = commit.current(root)
    head, *parents = git(root, "rev-list", "--parents", "--max-count=1", "HEAD").stdout.split()
    merged = len(parents) == 2 and parents[0] == base_commit
    return at.replace(head, parents[1]) if merged else at


def behind(root: Path, base_commit: str) -> int:
    """Return the number of commits of the base that the change lacks."""
    return int(git(root, "rev-list", "--count", f"HEAD..{base_commit}").stdout or 0)


@contextmanager
def _worktree(root: Path, folder: Path, at: str) -> Iterator[Path]:
    """Check out the commit `at` of the repo at `root` into `folder`; remove it at the end."""
    hooks = f"core.hooksPath={os.devnull}"
    try:
        added = git(root, "-c", hooks, "worktree", "add", "--detach", "--quiet", str(folder), at)
        if added.returncode != 0:
            raise MlopsError(f"cannot check out {at}: {_last_line(added.stderr)}")
        # The repo may be a folder of a larger one.
        yield folder / git(root, "rev-parse", "--show-prefix").stdout.strip()
    finally:
        # Forced twice: an incomplete one is locked.
        git(root, "worktree", "remove", "--force", "--force", str(folder))


def _train_base(
    aws: Aws, account: Account, root: Path, data: artifacts.Dataset, console: Console
) -> Trained:
    """Train the repo at `root`, and make it the champion that the change is compared with."""
    if not (root / "mlops.yaml").is_file():
        return Trained(failure=("it has no mlops.yaml yet",))
    try:
        settings = mlops_settings.load(root)
    except SettingsError as error:
        return Trained(failure=(str(error),))
    trained = _train(account(settings), data, console)
    if trained.model_package and settings.model_package_group != aws.settings.model_package_group:
        other = f"it is another project: {settings.model_package_group}"
        return Trained(trained.definition, failure=(other,))
    if trained.model_package:
        champion = registry.version(aws, int(trained.model_package.rpartition("/")[2]))
        registry.set_approval(aws, champion, "Approved", "what the change is compared with")
    return trained


def _train(
    aws: Aws, data: artifacts.Dataset, console: Console, *, waive_champion: bool = False
) -> Trained:
    given = {"InputData": data.uri}
    try:
        arn = run.start(aws, given, lambda line: tell(console, line), waive_champion=waive_champion)
    except MlopsError as error:
        return Trained(failure=(str(error),))
    return outcome(aws, executions.follow(aws, arn, console))


def outcome(aws: Aws, execution: Execution) -> Trained:
    """Return what an execution that has ended leaves behind."""
    answer = aws.sagemaker.describe_pipeline_definition_for_execution(
        PipelineExecutionArn=execution.arn
    )
    folders: dict[str, str] = {}
    for step in execution.steps:
        if step.kind == "ProcessingJob" and step.status == "Succeeded" and step.job:
            job = aws.sagemaker.describe_processing_job(ProcessingJobName=step.job)
            for output in job["ProcessingOutputConfig"]["Outputs"]:
                folders[output["OutputName"]] = output["S3Output"]["S3Uri"].rstrip("/")
    gate, test_rows = None, None
    if "evaluation" in folders:
        gate = json.loads(objects.read(aws, f"{folders['evaluation']}/gate.json"))
    if "test" in folders:
        bucket, key = split_s3(f"{folders['test']}/")
        found = objects.listed(aws, bucket, key)
        test_rows = {item["Key"].removeprefix(key): item["ETag"] for item in found}
    succeeded = execution.status == "Succeeded"
    return Trained(
        definition=answer["PipelineDefinition"],
        gate=gate,
        test_rows=test_rows,
        model_package=execution.model_package if succeeded else "",
        failure=() if succeeded else _failure(aws, execution),
    )


def _failure(aws: Aws, execution: Execution) -> tuple[str, ...]:
    """Return the reason and the end of the log, which is deleted with the sandbox."""
    first, *_ = executions.failure(aws, execution)
    failed = [step for step in execution.steps if step.status == "Failed" and step.job]
    return first, *(
        line
        for step in failed
        for line in executions.log_lines(aws, step)[-LOG_LINES:]
        # Neither what the first line says already, nor the sandbox's own lines.
        if line.removeprefix("error: ") not in first and not line.startswith("[sandbox] ")
    )


def _last_line(text: str) -> str:
    """Return the last line that is not blank; in a traceback that is the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("mlops: ") if lines else ""
