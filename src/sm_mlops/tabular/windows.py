"""The windows of a stage's monitoring, and where in S3 their traffic, labels and results are.

Lists and reads as streams, however many files there are. Must not know how they are compared.
"""

import json
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import IO, Any

HOUR = timedelta(hours=1)
AHEAD = 4  # files that are downloaded before they are read
NAME = "%Y-%m-%dT%HZ"
LATEST = 30  # results that a report shows


@dataclass(frozen=True)
class Window:
    """Full hours from `start` to `end`, UTC; a request belongs to the hour of its folder."""

    start: datetime
    end: datetime

    @classmethod
    def ending(cls, until: datetime, hours: int) -> "Window":
        """Return the window that ends at the full hour of `until`."""
        end = until.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return cls(end - hours * HOUR, end)

    @property
    def name(self) -> str:
        """Return the name of its folder of results."""
        return self.end.strftime(NAME)

    @property
    def hours(self) -> int:
        """Return its length."""
        return round((self.end - self.start) / HOUR)

    def before(self, steps: int) -> "Window":
        """Return the window so many lengths earlier."""
        length = self.end - self.start
        return Window(self.start - steps * length, self.end - steps * length)

    def folders(self) -> Iterator[str]:
        """Yield the folder of each hour in captured data."""
        for hour in range(self.hours):
            yield (self.start + hour * HOUR).strftime("%Y/%m/%d/%H")

    def holds(self, moment: datetime) -> bool:
        """Return whether a moment is in it."""
        return self.start <= moment < self.end


@dataclass(frozen=True)
class File:
    """An object in S3; `mark` changes with its content."""

    key: str
    mark: str
    modified: datetime
    version: str = ""
    """Of the model that answered; empty where the place does not tell."""


class Store:
    """What is in S3 about one stage of a project."""

    def __init__(self, s3: Any, bucket: str, project: str, stage: str) -> None:
        self.s3, self.bucket = s3, bucket
        self.project, self.stage = project, stage
        self._captured, self._asynchronous = list[tuple[str, File]](), list[File]()

    def look(self, first: Window, last: Window) -> None:
        """List what came from the first window to the last, once for all of them."""
        span = Window(first.start, last.end)
        self._captured = list(self._list_captured(span))
        self._asynchronous = list(self._list_asynchronous(span))

    def captured(self, window: Window) -> Iterator[File]:
        """Yield the captured files of a window, of those listed, version by version."""
        folders = set(window.folders())
        return (file for folder, file in self._captured if folder in folders)

    def asynchronous(self, window: Window) -> Iterator[File]:
        """Yield what an asynchronous endpoint got and answered in a window, of what is listed;
        inputs have no version, because their place does not tell it."""
        return (file for file in self._asynchronous if window.holds(file.modified))

    def _list_captured(self, span: Window) -> Iterator[tuple[str, File]]:
        """Yield the folder of the hour and the file."""
        hours = list(span.folders())
        start, end = hours[0], hours[-1]
        for version, folder in self._versions(f"{self.project}/capture/{self.stage}/"):
            for endpoint in self._folders(folder):
                for variant in self._folders(endpoint):
                    for file in self.listed(variant, f"{variant}{start}/"):
                        hour = file.key.removeprefix(variant)[: len(end)]
                        if hour > end:
                            break
                        yield hour, replace(file, version=version)

    def _list_asynchronous(self, span: Window) -> Iterator[File]:
        start = f"{self.project}/async/{self.stage}/"
        places = [("", f"{start}input/"), *self._versions(f"{start}output/")]
        for version, folder in places:
            for file in self.listed(folder):
                if span.holds(file.modified):
                    yield replace(file, version=version)

    def _versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield each version that has a folder below a prefix, and the folder."""
        for folder in self._folders(prefix):
            name = folder.rstrip("/").rpartition("/")[2]
            if name.startswith("version-"):
                yield name.removeprefix("version-"), folder

    def labels(self, since: datetime) -> list[File]:
        """Return the files of labels that were written since, oldest first."""
        found = self.listed(f"{self.project}/labels/{self.stage}/")
        return sorted((f for f in found if f.modified >= since), key=lambda f: (f.modified, f.key))

    def listed(self, prefix: str, after: str = "") -> Iterator[File]:
        """Yield the objects below a prefix and after a name, in the order of their names."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix, **({"StartAfter": after} if after else {})
        )
        for page in pages:
            for item in page.get("Contents", ()):
                if item["Size"]:
                    mark = f"{item['Size']} {item['ETag']}"
                    yield File(item["Key"], mark, item["LastModified"])

    def _folders(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix, Delimiter="/"
        )
        return [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", ())]

    def opened(self, files: Iterable[File]) -> Iterator[tuple[File, str, IO[bytes]]]:
        """Yield each file with its content type and its content, some downloaded ahead."""
        waiting: deque[tuple[File, Future[tuple[str, IO[bytes]]]]] = deque()
        with ThreadPoolExecutor(AHEAD) as pool:
            for file in files:
                waiting.append((file, pool.submit(self._download, file.key)))
                if len(waiting) > AHEAD:
                    yield from _next(waiting)
            while waiting:
                yield from _next(waiting)

    def _download(self, key: str) -> tuple[str, IO[bytes]]:
        answer = self.s3.get_object(Bucket=self.bucket, Key=key)
        content = tempfile.SpooledTemporaryFile(1 << 20)  # noqa: SIM115 # closed by its reader
        shutil.copyfileobj(answer["Body"], content)
        content.seek(0)
        return answer.get("ContentType", ""), content

    # Results

    def result(self, window: Window) -> dict[str, Any] | None:
        """Return the result of a window that was checked before."""
        known = window.name in self._names
        return self._json(f"{self._results}{window.name}/result.json") if known else None

    def earlier(self, window: Window) -> list[dict[str, Any]]:
        """Return the latest results of windows that end before this one, oldest first."""
        names = sorted(name for name in self._names if name < window.name)[1 - LATEST :]
        found = [self._json(f"{self._results}{name}/result.json") for name in names]
        return [each for each in found if each is not None]

    def later(self, window: Window, now: datetime) -> bool:
        """Return whether a window that ends after this one was checked; for a window of the past,
        none of the future counts: checked by mistake, it would keep the alarm silent until then."""
        last = Window.ending(now, 1).name
        names = [name for name in self._names if name <= last or window.name > last]
        return any(name > window.name for name in names)

    def keep(self, window: Window, name: str, content: str, kind: str) -> None:
        """Write a result."""
        self.s3.put_object(
            Bucket=self.bucket,
            Key=f"{self._results}{window.name}/{name}",
            Body=content.encode(),
            ContentType=kind,
        )

    @cached_property
    def _names(self) -> list[str]:
        """The names of the windows that were checked before."""
        return [folder.rstrip("/").rpartition("/")[2] for folder in self._folders(self._results)]

    @property
    def _results(self) -> str:
        return f"{self.project}/monitor/{self.stage}/"

    def _json(self, key: str) -> dict[str, Any] | None:
        content = read(self.s3, self.bucket, key)
        if content is None:
            return None
        try:
            return dict(json.loads(content))
        except (ValueError, TypeError) as error:
            print(f"{key} is not the result of a check ({error}), so it counts as none", flush=True)
            return None


def read(s3: Any, bucket: str, key: str) -> bytes | None:
    """Return the content of an object, None if there is none.

    It is listed first: for a missing object, S3 may answer AccessDenied to a role that may list
    only below a prefix.
    """
    found = s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", ())
    if not any(item["Key"] == key for item in found):
        return None
    content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def _next(waiting: "deque[Any]") -> Iterator[tuple[File, str, IO[bytes]]]:
    file, future = waiting.popleft()
    kind, content = future.result()
    with content:
        yield file, kind, content
