"""What an execution needs in S3 before it starts: the data, the code, the champion.

The name of every object is derived from its content or version. What lies at such a name is
compared by content and replaced if it differs. Only the champion's copy is not: like its source it
is below the project's prefix, and who may write the one may write the other.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sm_mlops import dates, executions, objects, registry
from sm_mlops.aws import ABSENT, DENIED, Aws, ignoring, split_s3
from sm_mlops.errors import MlopsError
from sm_mlops.settings import Settings
from sm_mlops.tabular import sample_data, source
from sm_mlops.tabular.failure import DataError

SAMPLE = "breast-cancer.csv"


@dataclass(frozen=True)
class Dataset:
    """`uri`: the S3 folder or object; of several days, a folder with the addresses `days`.
    `digest`: the DataHash, see `tabular.source`. `missing`: days without an object."""

    uri: str
    digest: str
    files: int
    size: int
    days: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Champion:
    """The newest approved version, or "none". `uri`: the prefix that Evaluate reads."""

    version: str
    uri: str


def upload_data(aws: Aws) -> Dataset:
    """Upload the files of `data.path`, in the sandbox of `data.sample`, that S3 does not have yet.

    Raises:
        MlopsError: Nothing is at that path, or the sandbox does not reach it.
    """
    from botocore.exceptions import ClientError

    setting = chosen(aws)
    path = getattr(aws.settings.data, setting)
    if path.startswith("s3://"):
        try:
            days = dates.addresses(path, aws.now().date())
            return _window(aws, days) if dates.is_window(path) else data_in_s3(aws, days[0])
        except ClientError as error:
            if not aws.sandbox:
                raise
            raise MlopsError(
                f"data.path in mlops.yaml: the sandbox does not reach {path}; "
                "set data.sample to rows in this repo that can stand in for it"
            ) from error
    files = _files_below(local_data(aws.settings, setting), setting)
    entries = [source.of_file(name, file) for name, file in files]
    digest, size = source.digest(entries), sum(entry[1] for entry in entries)
    prefix = f"{aws.settings.prefix}/data/{digest[: source.HALF]}"
    present = _keys(aws, f"{prefix}/")
    for name, file in files:
        key = f"{prefix}/{name}"
        with file.open("rb") as content:
            if key not in present or not objects.has(aws, aws.bucket, key, content):
                objects.upload(aws, aws.bucket, key, file, **_encryption(aws))
    return Dataset(f"s3://{aws.bucket}/{prefix}/", digest, len(files), size)


def _window(aws: Aws, addresses: Sequence[str]) -> Dataset:
    """Return the data of several days; write the file that names them. Raise MlopsError if no day
    has any."""
    try:
        by_day = source.window(aws.s3, addresses)
    except DataError as error:
        raise MlopsError(f"data.path in mlops.yaml: {error}") from error
    days = tuple(address for address, entries in by_day.items() if entries)
    if not days:
        raise MlopsError(
            f"data.path in mlops.yaml: there is no object at any day from {addresses[0]} "
            f"to {addresses[-1]}"
        )
    # Again: without days that are missing the others may share more.
    entries = [entry for day in source.window(aws.s3, days).values() for entry in day]
    digest = source.digest(entries)
    key = f"{aws.settings.prefix}/data/window-{digest[: source.HALF]}/"
    content = json.dumps({"addresses": days}, indent=1).encode()
    objects.put(aws, aws.bucket, key + source.WINDOW, content, **_encryption(aws))
    missing = tuple(address for address in addresses if address not in days)
    size = sum(entry[1] for entry in entries)
    return Dataset(f"s3://{aws.bucket}/{key}", digest, len(entries), size, days, missing)


def chosen(aws: Aws) -> str:
    """Return the key of `data` that names the rows to train on: `path` or `sample`."""
    return "sample" if aws.sandbox and aws.settings.data.sample else "path"


def local_data(settings: Settings, setting: str = "path") -> Path:
    """Return the local file or folder of `data.path` or `data.sample`.

    Write the default data set on first use.
    """
    path = getattr(settings.data, setting)
    local = settings.root / path
    if Path(os.path.normpath(local)).is_relative_to(settings.root):
        _check_inside(local, settings.root, setting)
    if not local.exists() and local.name == SAMPLE:
        sample_data.write(local)
    if not local.exists():
        raise MlopsError(
            f"data.{setting} in mlops.yaml: {path} does not exist below {settings.root}"
        )
    return local


def _files_below(local: Path, setting: str) -> list[tuple[str, Path]]:
    """Return the name below `local` and the path of each file, sorted, without hidden files."""
    if local.is_file():
        return [(local.name, local)]
    found = []
    for file in local.rglob("*"):
        if not any(part.startswith(".") for part in file.relative_to(local).parts):
            _check_inside(file, local, setting)
            if file.is_file():
                found.append((file.relative_to(local).as_posix(), file))
    if not found:
        raise MlopsError(f"data.{setting} in mlops.yaml: the folder {local} has no files")
    return sorted(found)


def _check_inside(file: Path, folder: Path, setting: str) -> None:
    """Raise MlopsError if a symbolic link leads from `folder` to somewhere else."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise MlopsError(
            f"data.{setting} in mlops.yaml: {file} is a link to a place outside {folder}; put "
            "the data itself there, or set its real path"
        )


def data_in_s3(aws: Aws, uri: str) -> Dataset:
    """Return the data set that is already in S3: a folder, or exactly one object.

    Raise MlopsError if there is neither, or if SageMaker would read more than that object.
    """
    bucket, key = split_s3(uri)
    if not key:
        uri = f"s3://{bucket}/"
    elif not key.endswith("/"):
        names = objects.first(aws, uri, 2)
        if key not in names:
            # SageMaker's prefix is text: without a slash it takes lake/2026-rejected, too.
            uri = f"{uri}/"
        elif len(names) > 1:
            raise MlopsError(
                f"InputData: SageMaker would read {names[1]}, too, because its name begins with "
                f"{key}: move one of them, or name a folder (s3://bucket/prefix/)"
            )
    entries = source.listed(aws.s3, uri)
    if not entries:
        raise MlopsError(f"InputData: there is no object and no folder {uri}")
    size = sum(entry[1] for entry in entries)
    return Dataset(uri, source.digest(entries), len(entries), size)


def trained_on(aws: Aws, execution: str) -> str:
    """Return where the data of an execution was in S3; empty if it was uploaded from a repo, or if
    that is no longer known."""
    uri = ""
    with ignoring(*ABSENT, *DENIED):
        given = executions.parameters(aws, execution) if execution else {}
        uri = given.get("InputData", "")
    own = f"s3://{aws.bucket}/{aws.settings.prefix}/data/"
    if not uri.startswith(f"{own}window-"):
        return "" if uri.startswith(own) else uri
    content = objects.find(aws, uri + source.WINDOW)
    days = json.loads(content)["addresses"] if content else [uri]
    return f"{days[0]} to {days[-1]}, {len(days)} days" if len(days) > 1 else str(days[0])


def upload_code(aws: Aws, code: Mapping[str, bytes]) -> None:
    """Upload the code that a compiled definition names, by S3 key, unless it is there."""
    present = _keys(aws, f"{aws.settings.prefix}/code/")
    for key, content in code.items():
        if key not in present or not objects.has(aws, aws.bucket, key, io.BytesIO(content)):
            objects.put(aws, aws.bucket, key, content, **_encryption(aws))


def upload_champion(aws: Aws, *, waived: bool = False) -> Champion:
    """Copy the newest approved version's artifact below `champion/`; write a marker without one.

    `champion.json` is written last, so that an interrupted copy is repeated. Raise MlopsError if
    the artifact is gone, unless the comparison is `waived`: then only `champion.json` is there.
    """
    newest = next(registry.summaries(aws, ModelApprovalStatus="Approved"), None)
    version = str(newest["ModelPackageVersion"]) if newest else "none"
    prefix = f"{aws.settings.prefix}/champion/{version}"
    if newest:
        # A registry that was deleted and created again counts from 1, while the bucket stays.
        prefix = f"{prefix}-{newest['CreationTime'].timestamp():.0f}"
    marker = f"{prefix}/{'champion' if newest else 'none'}.json"
    if marker not in _keys(aws, marker):
        if newest:
            arn = newest["ModelPackageArn"]
            package = aws.sagemaker.describe_model_package(ModelPackageName=arn)
            model = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
            bucket, key = split_s3(model)
            copy = {"Bucket": bucket, "Key": key}
            target = f"{prefix}/model.tar.gz"
            if objects.exists(aws, model):
                aws.s3.copy(copy, aws.bucket, target, ExtraArgs=_encryption(aws))
            elif waived:
                prefix = f"{prefix}-gone"
                marker = f"{prefix}/champion.json"
            else:
                raise MlopsError(
                    f"the champion, version {version}, cannot be compared with: {model} does not "
                    f"exist; go on with {aws.command} reject {version}, or for this run with "
                    "--set WaiveChampion=yes"
                )
        about = json.dumps({"version": version})
        aws.s3.put_object(Bucket=aws.bucket, Key=marker, Body=about.encode(), **_encryption(aws))
    return Champion(version, f"s3://{aws.bucket}/{prefix}/")


def _keys(aws: Aws, prefix: str) -> set[str]:
    """Return the key of each object below `prefix`. Raise MlopsError without the bucket."""
    with ignoring("NoSuchBucket"):
        return {item["Key"] for item in objects.listed(aws, aws.bucket, prefix)}
    raise MlopsError(
        f"the artifact bucket {aws.bucket} does not exist: "
        "create it, or set aws.bucket in mlops.yaml to yours"
    )


def _encryption(aws: Aws) -> dict[str, str]:
    return objects.encryption(aws.settings.aws.kms_key)
