"""Predict whole files with the version that a stage runs: a SageMaker batch transform job.

What is in S3 is named after the content of the files and the version, so that the same command
continues what was interrupted. Source:
https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform.html
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from sm_mlops import display, objects, tags
from sm_mlops.aws import DENIED, Aws, ignoring, split_s3
from sm_mlops.deployment import access, batch_rows, endpoints, transform
from sm_mlops.deployment.batch_rows import Part, Writer
from sm_mlops.deployment.endpoints import Endpoint
from sm_mlops.deployment.stages import Stage
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError, one_line

LOG_GROUP = "/aws/sagemaker/TransformJobs"
RUNNING = ("InProgress", "Stopping")
# What an interrupted command left is deleted by a later one.
LEFT = timedelta(days=7)


class Interrupted(Exception):
    """The command was interrupted while the job, whose name this has, goes on."""


@dataclass(frozen=True)
class Place:
    """Where the objects of one prediction are, in the account of the stage."""

    aws: Aws
    stage: Stage
    endpoint: Endpoint
    bucket: str
    folder: str
    id: str

    @property
    def input(self) -> str:
        return f"{self.folder}/input/{self.id}/"

    @property
    def output(self) -> str:
        return f"{self.folder}/output/{self.id}/"

    @property
    def name(self) -> str:
        """Return how the names of its jobs begin."""
        return f"{self.aws.settings.project.project}-batch-{self.id}-"

    def jobs(self) -> list[dict[str, Any]]:
        """Return its jobs, the newest first."""
        items = self.aws.pages(
            "list_transform_jobs",
            "TransformJobSummaries",
            NameContains=self.name,
            SortBy="CreationTime",
            SortOrder="Descending",
        )
        return [item for item in items if item["TransformJobName"].startswith(self.name)]

    def keys(self, prefix: str) -> dict[str, str]:
        """Return the keys below a prefix by the names of their parts."""
        found = objects.listed(self.aws, self.bucket, prefix)
        return {item["Key"].rpartition("/")[2].removesuffix(".out"): item["Key"] for item in found}


@dataclass(frozen=True)
class Result:
    """`errors_file` is empty if every row was predicted."""

    stage: str
    version: int | None
    job: str
    rows: int
    errors: int
    output: str
    errors_file: str


def predict(
    aws: Aws,
    stage: Stage,
    source: str,
    target: str,
    console: Console,
    *,
    instance: str = "",
    again: bool = False,
) -> Result:
    """Predict the rows of `source`, a path or an address in S3, and write them to `target`.

    Raises MlopsError, or Interrupted once a job runs.
    """
    with _local(aws, source) as root:
        found = batch_rows.files(root)
        _check_target(target, source, root, found)
        place = _place(aws, stage, root, found)
        _delete_old(place)
        name, total = _started(aws, place, found, console, instance, again)
        try:
            _follow(place, name, total, console)
        except KeyboardInterrupt:
            raise Interrupted(name) from None
        result = _join(aws, place, name, root, found, target)
        _delete(place, console)
        return result


def stop(aws: Aws, stage: Stage, source: str) -> str:
    """Stop the job that predicts these rows, and delete what is in S3; return the job's name."""
    with _local(aws, source) as root:
        place = _place(aws, stage, root, batch_rows.files(root))
    running = [job for job in place.jobs() if job["TransformJobStatus"] in RUNNING]
    if not running:
        raise MlopsError(f"no job predicts {source} with version {place.endpoint.version} now")
    name = str(running[0]["TransformJobName"])
    if running[0]["TransformJobStatus"] == "InProgress":
        place.aws.sagemaker.stop_transform_job(TransformJobName=name)
    _ended(place, name)
    _delete(place, None)
    return name


@contextmanager
def _local(aws: Aws, source: str) -> Iterator[Path]:
    """Yield the path of the files, downloaded if they are in S3."""
    if not source.startswith("s3://"):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = _downloaded(aws, source, Path(folder))
        try:
            yield root
        except MlopsError as error:
            if str(root) not in str(error):
                raise
            raise MlopsError(str(error).replace(str(root), source.rstrip("/"))) from error


def _downloaded(aws: Aws, source: str, folder: Path) -> Path:
    """Return the path of what is at an address in S3, an object or all below it."""
    bucket, key = split_s3(source)
    keys = [item["Key"] for item in objects.listed(aws, bucket, key)]
    if key in keys and not key.endswith("/"):
        file = folder / key.rpartition("/")[2]
        aws.s3.download_file(bucket, key, str(file))
        return file
    root = folder / "rows"
    prefix = f"{key.rstrip('/')}/" if key else ""
    for each in keys:
        file = root / each.removeprefix(prefix)
        if each.startswith(prefix) and not each.endswith("/"):
            if not file.resolve().is_relative_to(root.resolve()):
                raise MlopsError(f"{source}: the key {each!r} leads out of the folder")
            file.parent.mkdir(parents=True, exist_ok=True)
            aws.s3.download_file(bucket, each, str(file))
    if not root.exists():
        raise MlopsError(f"{source}: no such object or folder in S3")
    return root


def _check_target(target: str, source: str, root: Path, found: list[Path]) -> None:
    """Raise MlopsError for an output that cannot be written, or that would replace another file."""
    nowhere = not (split_s3(target)[0] if target.startswith("s3://") else target)
    if nowhere or (not is_folder(target) and not batch_rows.format_of(Path(target))):
        raise MlopsError(
            f"{target or 'OUTPUT'}: write a .csv, .jsonl or .parquet file, or a folder with / at "
            "its end"
        )
    if target.lower().endswith(".gz"):
        raise MlopsError(f"{target}: the output is not compressed: leave out .gz")
    remote = target.startswith("s3://")
    local = Path(target.removeprefix("s3://"))
    paths, reasons = _paths(local, root, found, is_folder(target))
    if twice := [path for path, count in Counter([*paths, reasons]).items() if count > 1]:
        raise MlopsError(f"{target}: two outputs would be named {twice[0].name}: rename an input")
    inputs = set(found)
    if source.startswith("s3://"):
        there = Path(source.removeprefix("s3://"))
        inputs = {there / file.relative_to(root) if root.is_dir() else there for file in found}
    try:
        if source.startswith("s3://") == remote:
            known = inputs if remote else {file.resolve() for file in inputs}
            for path in (*paths, reasons):
                if (path if remote else path.resolve()) in known:
                    raise MlopsError(f"{target}: the output would replace the input {path.name}")
        if not remote:
            folder = (local if is_folder(target) else local.parent).absolute()
            # A link to nowhere is there, too: nothing can be made in its place.
            places = (folder, *folder.parents)
            there = next(each for each in places if each.is_symlink() or each.exists())
            tempfile.TemporaryFile(dir=there).close()
            for path in (*paths, reasons):
                (there / _unfinished(path).name).exists()  # OSError for a name that is too long.
                if path.is_dir():
                    raise MlopsError(f"{target}: {path.name} is a folder: rename it")
    except (OSError, RuntimeError, ValueError) as error:
        # RuntimeError: a loop of symbolic links. ValueError: a null character in the name.
        why = getattr(error, "strerror", None) or one_line(str(error))
        raise MlopsError(f"{target}: cannot write here: {why}") from error


def _unfinished(file: Path) -> Path:
    return file.with_name(f".{file.name}.part")


def _paths(local: Path, root: Path, found: list[Path], several: bool) -> tuple[list[Path], Path]:
    """Return the outputs, one per file or one for all, and the file of rows with reasons."""
    if several:
        return [_named(local, root, file) for file in found], local / "errors.jsonl"
    return [local], local.with_suffix(".errors.jsonl")


def is_folder(target: str) -> bool:
    """Return whether an output is a folder of files instead of one file."""
    # Unlike Path.is_dir, this is False for a name that is too long.
    return target.endswith("/") or (not target.startswith("s3://") and os.path.isdir(target))  # noqa: PTH112


def _place(aws: Aws, stage: Stage, root: Path, found: list[Path]) -> Place:
    there = access.enter(aws, stage)
    endpoint = endpoints.serving(there, stage.stack, stage.name, batch=True)
    if not endpoint.package:
        raise MlopsError(f"{stage.stack} runs no version of the registry")
    bucket = stage.bucket(aws.bucket)
    if there.account != aws.account and bucket == aws.bucket:
        raise MlopsError(
            f"infra/{stage.name}.json: Parameters.OutputBucket must name a bucket of account "
            f"{there.account}: its jobs cannot write to {aws.bucket}"
        )
    digest = hashlib.sha256(f"{endpoint.package}\n{stage.name}\n".encode())
    for file in found:
        name = file.relative_to(root).as_posix() if root.is_dir() else file.suffix
        with file.open("rb") as content:
            digest.update(f"{hashlib.file_digest(content, 'sha256').hexdigest()} {name}\n".encode())
    folder = f"{aws.settings.prefix}/batch/{stage.name}"
    return Place(there, stage, endpoint, bucket, folder, digest.hexdigest()[:16])


# The job.


def _started(
    aws: Aws, place: Place, found: list[Path], console: Console, instance: str, again: bool
) -> tuple[str, int]:
    """Return the job that predicts these rows, started if there is none, and its parts."""
    jobs = place.jobs()
    newest = jobs[0] if jobs else {"TransformJobName": "", "TransformJobStatus": ""}
    name, status = newest["TransformJobName"], newest["TransformJobStatus"]
    if status == "Stopping":
        status = _ended(place, name)["TransformJobStatus"]
    if status == "InProgress" and again:
        raise MlopsError(f"{name} still predicts these rows: end it with --stop first")
    total = len(place.keys(place.input)) if status in ("InProgress", "Completed") else 0
    complete = status == "Completed" and total == len(place.keys(f"{place.output}{name}/"))
    if total and not again and (status == "InProgress" or complete):
        tell(console, f"Continuing with {name}")
        return name, total
    total = _upload(place, found, console)
    name = f"{place.name}{len(jobs) + 1}"
    place.aws.sagemaker.create_transform_job(**_request(aws, place, name, instance))
    tell(console, f"Started {name}")
    return name, total


def _upload(place: Place, found: list[Path], console: Console) -> int:
    """Upload the parts that are not there, and return how many there are."""
    there, total, new = place.keys(place.input), 0, 0
    encryption = objects.encryption(place.stage.parameters.get("KmsKeyArn"))
    for total, part in enumerate(batch_rows.parts(found), 1):
        if (name := _part(total)) in there:
            continue
        try:
            lines = batch_rows.to_lines(part.rows)
        except pa.ArrowException as error:
            raise MlopsError(f"{part.file}: {one_line(error)}") from error
        content = gzip.compress(lines, 1, mtime=0)
        objects.put(place.aws, place.bucket, place.input + name, content, **encryption)
        new += 1
        tell(console, f"Uploaded part {total}: {part.file.name}, {part.rows.num_rows:,} rows")
    if not total:
        raise MlopsError(f"{found[0]}: no rows")
    if new < total:
        tell(console, f"{total - new} of {total} parts were there")
    return total


def _part(number: int) -> str:
    return f"part-{number:06}.jsonl.gz"


def _request(aws: Aws, place: Place, name: str, instance: str) -> dict[str, Any]:
    """Return the request for a job of the model that the endpoint runs."""
    machine = transform.machine(aws, place.stage, place.endpoint.package, instance)
    start = f"s3://{place.bucket}/"
    where = (f"{start}{place.input}", f"{start}{place.output}{name}/")
    own = place.stage.tags | {"model-version": str(place.endpoint.version)}
    return {
        "TransformJobName": name,
        "Tags": tags.rows(own),
        **transform.request(machine, place.endpoint.model, *where),
    }


def _follow(place: Place, name: str, total: int, console: Console) -> None:
    """Show progress until the job has ended. Raises MlopsError unless it is completed."""
    shown = -1

    def show() -> None:
        nonlocal shown
        done = len(place.keys(f"{place.output}{name}/"))
        if done != shown:
            tell(console, f"Predicted {done} of {total} parts")
            shown = done

    found = _ended(place, name, show)
    if found["TransformJobStatus"] != "Completed":
        raise MlopsError(_failure(place, name, found))
    show()


def _ended(place: Place, name: str, show: Callable[[], None] = lambda: None) -> dict[str, Any]:
    began = time.monotonic()
    while True:
        found = place.aws.sagemaker.describe_transform_job(TransformJobName=name)
        if found["TransformJobStatus"] not in RUNNING:
            return dict(found)
        show()
        time.sleep(display.pause(began, longest=10.0))


def _failure(place: Place, name: str, found: dict[str, Any]) -> str:
    """Return why a job failed and what to do, in one line."""
    why = one_line(found.get("FailureReason", found["TransformJobStatus"]))
    if found["TransformJobStatus"] == "Stopped":
        return f"{name} was stopped: the same command starts another"
    log: list[str] = []
    with ignoring(*DENIED):
        log = place.aws.log_lines(LOG_GROUP, logStreamNamePrefix=name)
    if any("ClientError: 400" in line for line in log):
        text = next((line for line in log if '{"error"' in line), "")
        reason = one_line(text[text.find('{"error"') :])[:200]
        return (
            f"{name} failed: version {place.endpoint.version} refuses a whole request for one bad "
            f"row {reason}: correct the row, or deploy a version that was trained with this tool"
        )
    if "not authorized" in why or any("not authorized" in line for line in log):
        return (
            f"{name} failed: the role of {place.stage.stack} may not use {place.folder}/: deploy "
            f"the stage again with the current infra/endpoint.yml ({why})"
        )
    last = f": {one_line(log[-1])[-300:]}" if log else ""
    return f"{name} failed: {why}{last}; see the log group {LOG_GROUP}"


# The result.


def _join(aws: Aws, place: Place, name: str, root: Path, found: list[Path], target: str) -> Result:
    """Write the rows with their predictions, and the reasons of the others."""
    with tempfile.TemporaryDirectory() as folder:
        remote = target.startswith("s3://")
        local = Path(folder, Path(target).name or "rows") if remote else Path(target)
        several = is_folder(target)
        outputs, reasons = _paths(local, root, found, several)
        paths = dict(zip(found, outputs if several else outputs * len(found), strict=True))
        rows, errors = _write(place, name, found, paths, reasons)
        if remote:
            _upload_result(aws, local, reasons, target, several)
    written = target if not several or remote else f"{target.rstrip('/')}/"
    beside = f"{written.rstrip('/')}/{reasons.name}" if several else _beside(target, reasons.name)
    return Result(
        stage=place.stage.name,
        version=place.endpoint.version,
        job=name,
        rows=rows,
        errors=errors,
        output=written,
        errors_file=beside if errors else "",
    )


def _beside(target: str, name: str) -> str:
    folder, slash, _ = target.rpartition("/")
    return f"{folder}{slash}{name}"


def _named(local: Path, root: Path, file: Path) -> Path:
    """Return the output of a file: the same name in another folder, without compression."""
    inside = file.relative_to(root) if root.is_dir() else Path(file.name)
    stem = inside.name.removesuffix(".gz")
    return local / inside.with_name(Path(stem).stem + batch_rows.format_of(file))


def _write(
    place: Place, name: str, found: list[Path], paths: dict[Path, Path], reasons: Path
) -> tuple[int, int]:
    """Write all parts; return the number of rows and of those with a reason instead."""
    keys = place.keys(f"{place.output}{name}/")
    writers = {path: Writer(path) for path in paths.values()}
    rows = errors = 0
    reasons.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(reasons)
    try:
        with unfinished.open("w", encoding="utf-8") as lines:
            for number, part in enumerate(batch_rows.parts(found), 1):
                made = _answers(place, name, keys.pop(_part(number), ""))
                if len(made.errors) != part.rows.num_rows:
                    raise MlopsError(
                        f"{name} answered {len(made.errors)} lines for {part.rows.num_rows} rows "
                        f"of {part.file}: does model/inference.py answer each row with a line?"
                    )
                rows += part.rows.num_rows
                errors += _write_part(part, made, writers[paths[part.file]], lines.write)
        if keys:
            raise MlopsError(f"{name} answered more rows than there are: add --again")
        for writer in writers.values():
            writer.close()
        unfinished.replace(reasons)
        if not errors:
            reasons.unlink()
    except BaseException:
        unfinished.unlink(missing_ok=True)
        for writer in writers.values():
            writer.discard()
        raise
    return rows, errors


def _answers(place: Place, name: str, key: str) -> batch_rows.Answers:
    body = objects.find(place.aws, f"s3://{place.bucket}/{key}") if key else None
    if body is None:
        raise MlopsError(f"outputs of {name} are gone, perhaps deleted by another: add --again")
    return batch_rows.answers(body)


def _write_part(
    part: Part, made: batch_rows.Answers, writer: Writer, note: Callable[[str], Any]
) -> int:
    bad = [index for index, reason in enumerate(made.errors) if reason]
    rows = part.rows
    for column in made.columns.column_names:
        rows = rows.append_column(column, made.columns[column])
    if bad:
        rows = rows.filter(pa.array([reason is None for reason in made.errors]))
    if rows.num_rows:
        writer.write(rows)
    for index in bad:
        note(batch_rows.error_line(part, index, made.errors[index] or {}))
    return len(bad)


def _upload_result(aws: Aws, local: Path, reasons: Path, target: str, several: bool) -> None:
    bucket, key = split_s3(target)
    if several:
        for file in sorted(p for p in local.rglob("*") if p.is_file()):
            name = file.relative_to(local).as_posix()
            objects.upload(aws, bucket, f"{key.rstrip('/')}/{name}".lstrip("/"), file)
        return
    for file, to in ((local, key), (reasons, _beside(key, reasons.name))):
        if file.exists():
            objects.upload(aws, bucket, to, file)


# What is left in S3.


def _delete(place: Place, console: Console | None) -> None:
    """Delete the parts, and their outputs. Who may not is told."""
    for prefix in (place.input, place.output):
        _delete_below(place, prefix, console)


def _delete_old(place: Place) -> None:
    """Delete what interrupted commands left a week ago, nothing of the stage's own schedule."""
    newest: dict[str, datetime] = {}
    for item in objects.listed(place.aws, place.bucket, f"{place.folder}/"):
        prefix = "/".join(item["Key"].split("/")[: place.folder.count("/") + 3]) + "/"
        if not re.fullmatch(r"(input|output)/[0-9a-f]{16}/", prefix[len(place.folder) + 1 :]):
            continue
        newest[prefix] = max(newest.get(prefix, item["LastModified"]), item["LastModified"])
    for prefix, moment in newest.items():
        if datetime.now(UTC) - moment > LEFT:
            _delete_below(place, prefix, None)


def _delete_below(place: Place, prefix: str, console: Console | None) -> None:
    with ignoring(*DENIED):
        objects.delete_versions(place.aws, place.bucket, prefix)
        return
    if console is not None:
        tell(console, f"s3://{place.bucket}/{prefix} is left: you may not delete it", "yellow")
