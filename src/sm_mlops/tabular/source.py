"""The DataHash: what identifies the data of an execution, and whether a job got that data.

`mlops run` computes it and Preprocess compares it. Data of several days lies in several folders, of
which a job's input can be only one: that holds a file which names them, and Preprocess downloads
them. Must not know how the data is read.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sm_mlops.tabular.failure import DataError

HALF = 32
# Names the folders of a window of days, in a folder called after the data's hash.
WINDOW = "window.json"
_DOWNLOADS = 8  # at once; a client has ten connections
Entry = tuple[str, int, str]
"""Name below the location, size in bytes, and what changes with the content."""


def digest(entries: Iterable[Entry]) -> str:
    """Return 32 hexadecimal digits of everything, then 32 of names and sizes alone, which a job
    without a network can compare."""
    whole, outline = hashlib.sha256(), hashlib.sha256()
    for name, size, mark in sorted(entries):
        whole.update(f"{name}\0{size}\0{mark}\0".encode())
        outline.update(f"{name}\0{size}\0".encode())
    return whole.hexdigest()[:HALF] + outline.hexdigest()[:HALF]


def of_file(name: str, file: Path) -> Entry:
    """Return the entry of an uploaded file, which its content marks."""
    with file.open("rb") as stream:
        return name, file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()


def listed(client: Any, uri: str) -> list[Entry]:
    """Return the entries of the objects in a folder of S3, or of the one object at `uri`.

    Never of `lake/2026-rejected` for `lake/2026`: the name of a folder may lack its slash. Marked
    by ETag and time: ListObjectsV2 gives both to who may read the data (s3:ListBucket).
    Version identifiers would take s3:ListBucketVersions, and change when the time does.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    folder = f"{key}/" if key and not key.endswith("/") else key
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
    # What consoles make for an empty folder is no file.
    items = [i for page in pages for i in page.get("Contents", ()) if not i["Key"].endswith("/")]
    exact = [item for item in items if item["Key"] == key]
    start = f"{key.rpartition('/')[0]}/".lstrip("/") if exact else folder
    return [
        (
            item["Key"].removeprefix(start),
            item["Size"],
            f"{item['ETag']} {item['LastModified'].isoformat()}",
        )
        for item in exact or items
        if exact or item["Key"].startswith(folder)
    ]


def window(client: Any, addresses: Sequence[str]) -> dict[str, list[Entry]]:
    """Return the entries of each folder of a window, named below what all addresses share.

    Raises DataError for a name that a download would write outside of its folder.
    """
    start = len(_shared(addresses))
    found = {}
    for address in addresses:
        # Either a folder, whose name may lack its slash, or one object.
        entries, (above, _, own) = listed(client, address), address.rpartition("/")
        place = above if own and [name for name, *_ in entries] == [own] else address.rstrip("/")
        for name, *_ in entries:
            if name.startswith("/") or ".." in name.split("/"):
                raise DataError(
                    f"{place}/{name} would be written outside of its folder: rename the object"
                )
        found[address] = [(f"{place}/{name}"[start:], size, mark) for name, size, mark in entries]
    return found


def _shared(addresses: Sequence[str]) -> str:
    first, last = min(addresses), max(addresses)
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    return first[: first.rindex("/", 0, same) + 1]


def _download(client: Any, folder: Path, wanted: str) -> bool:
    """Replace the file that names a window by the files of its days; return whether they are what
    the execution was started with."""
    addresses = json.loads((folder / WINDOW).read_text(encoding="utf-8"))["addresses"]
    entries = [entry for day in window(client, addresses).values() for entry in day]
    if digest(entries) != wanted:
        return False
    (folder / WINDOW).unlink()
    bucket, _, start = _shared(addresses).removeprefix("s3://").partition("/")

    def fetch(entry: Entry) -> None:
        name, _, mark = entry
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not what has been written there since it was listed.
        answer = client.get_object(Bucket=bucket, Key=start + name, IfMatch=mark.split(" ")[0])
        with target.open("wb") as stream:
            shutil.copyfileobj(answer["Body"], stream, 1 << 20)

    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        list(pool.map(fetch, entries))
    return True


def verify(folder: Path, wanted: str, *, isolated: bool = False) -> None:
    """Raise DataError unless this job's input `data`, downloaded to `folder`, has this DataHash.

    Of a window of days, download the data first.
    A job without a network (`isolated`) compares objects in S3 by names and sizes only.
    """
    if not re.fullmatch(rf"[0-9a-f]{{{2 * HALF}}}", wanted):
        raise DataError(
            f"DataHash is '{wanted}': start the execution with mlops run, which computes it"
        )
    uri = _location()
    if uri.rstrip("/").endswith(f"/data/window-{wanted[:HALF]}"):
        if not _from_s3(uri, lambda client: _download(client, folder, wanted)):
            raise DataError(_changed(uri, wanted))
        return
    names = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    outline = digest((name, file.stat().st_size, "") for name, file in names.items())
    same = outline[HALF:] == wanted[HALF:]
    if same and uri.rstrip("/").endswith(f"/data/{wanted[:HALF]}"):
        same = digest(of_file(*item) for item in names.items()) == wanted
    elif same and isolated:
        print("no network: the data is compared by file names and sizes only")
    elif same:
        same = _from_s3(uri, lambda client: digest(listed(client, uri)) == wanted)
    if not same:
        raise DataError(_changed(uri, wanted))


def _changed(uri: str, wanted: str) -> str:
    return (
        f"{uri} is no longer what this execution was started with (DataHash {wanted[:12]}...): "
        "start another with mlops run, and write new data to a new folder"
    )


def _location() -> str:
    """Return the address of the input `data`.

    Source: SageMaker developer guide, "How Amazon SageMaker AI Configures Input and Output For Your
    Processing Container".
    """
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")
    config = json.loads((base / "config/processingjobconfig.json").read_text(encoding="utf-8"))
    inputs = {item["InputName"]: item for item in config["ProcessingInputs"]}
    return str(inputs["data"]["S3Input"]["S3Uri"])


def _from_s3(uri: str, ask: Callable[[Any], bool]) -> bool:
    """Return what a function of a client of S3 returns."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask(boto3.client("s3", region_name=os.environ.get("AWS_REGION")))
    except (BotoCoreError, ClientError) as error:
        raise DataError(
            f"cannot read {uri} to compare it with DataHash: {error}; allow s3:ListBucket and "
            "s3:GetObject there, and S3 in the jobs' network"
        ) from error
