"""S3 objects as files: moto answers the S3 API; the content is kept here and survives a kill.

The only module that reaches into moto's S3 models (written against moto 5.2); each patch says why.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import pickle
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moto.s3.models as s3_models
from moto.iam.access_control import PermissionResult
from moto.s3.exceptions import EntityTooSmall, InvalidPart, MalformedXML
from moto.s3.responses import S3Response
from moto.s3.utils import _VersionedKeyStore

from sm_mlops.sandbox.storage import Files, Store

BLOCK = 4 * 1024 * 1024


class NoSuchObject(Exception):
    """There is no such bucket or object; the message is one line."""


@dataclass(frozen=True)
class Content:
    """Content of a new object, in a file of the store."""

    path: Path
    size: int

    def __len__(self) -> int:
        return self.size


class FileBody:
    """Content of an object that is sent block by block; a Range cuts it unread."""

    def __init__(self, path: Path, begin: int, end: int) -> None:
        self._file, self.begin, self.end = path.open("rb"), begin, end

    def __len__(self) -> int:
        return self.end - self.begin

    def __getitem__(self, part: slice) -> FileBody:
        begin, end, _ = part.indices(len(self))
        self.begin, self.end = self.begin + begin, self.begin + end
        return self

    def __iter__(self) -> Iterator[bytes]:
        with self._file:
            self._file.seek(self.begin)
            left = len(self)
            while left and (block := self._file.read(min(BLOCK, left))):
                left -= len(block)
                yield block


_sending = threading.local()


class FileKey(s3_models.FakeKey):
    """moto's object whose value is a file of the store instead of a buffer in memory."""

    file: str
    files: Files
    garbage: list[str]
    """Names of files that no object needs any more; removed once the records say so too."""

    def __new__(cls, *args: Any, **kwargs: Any) -> FileKey:
        # moto's own __new__ keeps every model ever made in a list for its reset, which would hold
        # on to every overwritten object for ever.
        return object.__new__(cls)

    @property
    def path(self) -> Path:
        """Return where the content is."""
        return self.files.folder / self.file

    @property
    def value(self) -> Any:
        """Return the content as bytes; as a FileBody when moto is about to send a large one."""
        if getattr(_sending, "on", False) and self.contentsize > BLOCK:
            return FileBody(self.path, 0, self.contentsize)
        return self.path.read_bytes()

    @value.setter
    def value(self, new: bytes | Content) -> None:
        if isinstance(new, Content):
            source, self.contentsize = new.path, new.size
        else:
            source = self.files.temporary()
            source.write_bytes(new)
            self.contentsize = len(new)
        self.file = source.name

    # moto's constructor makes a buffer for the value; here there is none to hold it.
    @property
    def _value_buffer(self) -> Any:
        return None

    @_value_buffer.setter
    def _value_buffer(self, buffer: Any) -> None:
        buffer.close()

    @property
    def etag(self) -> str:
        """Return the quoted MD5 of the content, computed when first asked for."""
        if self._etag is None:
            with self.path.open("rb") as file:
                self._etag = hashlib.file_digest(
                    file, lambda: hashlib.md5(usedforsecurity=False)
                ).hexdigest()
        return f'"{self._etag}"'

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.lock = threading.Lock()

    def dispose(self, garbage: bool = False) -> None:
        if not self.disposed:
            self.disposed = True
            self.garbage.append(self.file)

    def __del__(self) -> None:
        """Do nothing: an object that Python forgets (at exit) is still an object."""


_MOTOS_GET_OBJECT = S3Response.get_object
_MOTOS_PUT_OBJECT = S3Response.put_object


def _send_object(response: Any) -> Any:
    """Answer GetObject without reading a large object into memory."""
    _sending.on = True
    try:
        return _MOTOS_GET_OBJECT(response)
    finally:
        _sending.on = False


_writing = threading.Lock()


def _put_object(response: Any) -> Any:
    """Answer PutObject under a lock: moto checks a condition and writes later, so that two requests
    at the same time would both succeed."""
    with _writing:
        return _MOTOS_PUT_OBJECT(response)


def _complete(
    upload: s3_models.FakeMultipart, body: Iterator[tuple[int, str]]
) -> tuple[Content, str, tuple[str, str, int] | None]:
    """Join the parts of an upload on disk; moto joins them in memory, twice."""
    target = FileKey.files.temporary()
    digests, sums, last, count = bytearray(), bytearray(), None, 0
    with target.open("wb") as out:
        for number, etag in body:
            part: Any = upload.parts.get(number)
            if part is None or part.etag.strip('"') != etag.strip('"'):
                raise InvalidPart()
            if last is not None and last.contentsize < s3_models.S3_UPLOAD_PART_MIN_SIZE:
                raise EntityTooSmall()
            digests.extend(bytes.fromhex(part.etag.strip('"')))
            summed = hashlib.sha256()
            with part.path.open("rb") as file:
                while block := file.read(BLOCK):
                    out.write(block)
                    summed.update(block)
            sums.extend(summed.digest())
            last, count = part, count + 1
    if count == 0:
        raise MalformedXML()
    whole = hashlib.md5(bytes(digests), usedforsecurity=False).hexdigest()
    checksum = None
    if upload.metadata.get("x-amz-checksum-algorithm") == "SHA256":
        value = base64.b64encode(hashlib.sha256(bytes(sums)).digest()).decode()
        # With its number of parts, which moto adds to GetObject's answer only, and there by type.
        checksum = ("", f"{value}-{count}", count)
    return Content(target, target.stat().st_size), f"{whole}-{count}", checksum


def _permission(bucket: s3_models.FakeBucket, action: str, resource: str) -> Any:
    """Permit everything: moto ignores principals and conditions, and sandbox/iam has decided."""
    return PermissionResult.PERMITTED


# What is replaced in moto: owner, name, ours, moto's own.
_PATCHES: list[tuple[Any, str, Any, Any]] = [
    (owner, name, ours, getattr(owner, name))
    for owner, name, ours in (
        (s3_models, "FakeKey", FileKey),
        (s3_models.FakeMultipart, "complete", _complete),
        (s3_models.FakeBucket, "get_permission", _permission),
        (S3Response, "get_object", _send_object),
        (S3Response, "put_object", _put_object),
    )
]


class Objects:
    """The buckets of the sandbox: what jobs and the executor use, and what keeps them on disk."""

    def __init__(self, store: Store, files: Files) -> None:
        self.store, self.files = store, files
        self._saved: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()
        FileKey.files, FileKey.garbage = files, []
        for owner, name, ours, _ in _PATCHES:
            setattr(owner, name, ours)
        self._restore()

    @staticmethod
    def close() -> None:
        """Restore moto, for other users of moto in this process."""
        for owner, name, _, theirs in _PATCHES:
            setattr(owner, name, theirs)

    def _restore(self) -> None:
        buckets: dict[str, Any] = {}
        for name, body in self.store.blobs("s3-bucket"):
            bucket = buckets[name] = pickle.loads(body)  # nosec B301 # see moto_state
            s3_models.s3_backends[bucket.account_id][bucket.partition].buckets[name] = bucket
            s3_models.s3_backends.bucket_accounts[name] = (bucket.partition, bucket.account_id)
        for name, body in self.store.blobs("s3-tags"):
            account, part = name.split("/")
            tagger = pickle.loads(body)  # nosec B301 # see moto_state
            s3_models.s3_backends[account][part].tagger = tagger
        known: set[str] = set()
        for name, body in self.store.blobs("s3-object"):
            bucket_name, _, key = name.partition("/")
            # A kill between the removal of an overwritten file and the record of the new one.
            versions = [
                version
                for version in pickle.loads(body)  # nosec B301 # see moto_state
                if not isinstance(version, FileKey) or version.path.is_file()
            ]
            if versions and bucket_name in buckets:
                dict.__setitem__(buckets[bucket_name].keys, key, versions)
                self._saved[name] = _identity(versions)
                known.update(v.file for v in versions if isinstance(v, FileKey))
        self.files.sweep(known)

    def buckets(self) -> dict[str, Any]:
        """Return moto's buckets of all accounts by name."""
        return {
            name: bucket
            for accounts in list(s3_models.s3_backends.values())
            for backend in list(accounts.values())
            for name, bucket in list(backend.buckets.items())
        }

    def bucket(self, name: str) -> Any:
        """Return moto's bucket. Raises NoSuchObject."""
        found = self.buckets().get(name)
        if found is None:
            raise NoSuchObject(f"The specified bucket does not exist: {name}")
        return found

    def path(self, bucket: str, key: str) -> Path:
        """Return the file with an object's content; do not change it."""
        value = self.bucket(bucket).keys.get(key)
        if not isinstance(value, FileKey):
            raise NoSuchObject(f"There is no object s3://{bucket}/{key}")
        return value.path

    def find(self, bucket: str, prefix: str) -> list[str]:
        """Return the keys that start with a prefix, sorted."""
        return sorted(
            key
            for key, value in self.bucket(bucket).keys.items()
            if key.startswith(prefix) and isinstance(value, FileKey)
        )

    def put(self, bucket: str, key: str, source: Path, move: bool = False) -> None:
        """Store a file as an object; with `move` the file itself becomes the object."""
        found = self.bucket(bucket)
        content = self.files.temporary()
        if move:
            try:
                source.replace(content)
            except OSError:  # Another file system.
                shutil.copyfile(source, content)
        else:
            shutil.copyfile(source, content)
        backend = s3_models.s3_backends[found.account_id][found.partition]
        value: Any = Content(content, content.stat().st_size)
        backend.put_object(bucket, key, value)
        self.save(bucket, key)

    def save(self, bucket: str, key: str = "") -> None:
        """Write to disk what a request changed: one object, or without a key the bucket and all
        of it."""
        with self._lock:
            found = self.buckets().get(bucket)
            changes: dict[str, bytes | None] = {}
            if found is None:
                names = {name for name in self._saved if name.startswith(f"{bucket}/")}
                self.store.put_blobs("s3-bucket", {bucket: None})
            elif key:
                names = {f"{bucket}/{key}"}
            else:
                self.store.put_blobs("s3-bucket", {bucket: _bucket_state(found)})
                names = self._changed(bucket, found)
            obsolete: set[str] = set()
            for name in names:
                versions = found.keys.getlist(name.partition("/")[2]) if found else None
                before = self._saved.pop(name, ())
                changes[name] = None
                if versions:
                    changes[name] = pickle.dumps(versions)
                    self._saved[name] = _identity(versions)
                obsolete.update(set(before) - set(self._saved.get(name, ())))
            if changes:
                self.store.put_blobs("s3-object", changes)
            obsolete.update(FileKey.garbage)
            FileKey.garbage.clear()
        for name in obsolete:
            self.files.remove(name)

    def save_tags(self, bucket: str) -> None:
        """Write the tags of an account's objects and buckets to disk."""
        found = self.buckets().get(bucket)
        if found is not None:
            backend = s3_models.s3_backends[found.account_id][found.partition]
            name = f"{found.account_id}/{found.partition}"
            self.store.put_blobs("s3-tags", {name: pickle.dumps(backend.tagger)})

    def _changed(self, bucket: str, found: Any) -> set[str]:
        """Return the names of the objects whose versions are not what was saved last."""
        now = {f"{bucket}/{key}": _identity(versions) for key, versions in found.keys.iterlists()}
        gone = {name for name in self._saved if name.startswith(f"{bucket}/") and name not in now}
        return gone | {name for name, identity in now.items() if self._saved.get(name) != identity}


def _identity(versions: list[Any]) -> tuple[str, ...]:
    return tuple(
        version.file if isinstance(version, FileKey) else f"marker/{version.version_id}"
        for version in versions
    )


def _bucket_state(bucket: Any) -> bytes:
    settings = copy.copy(bucket)
    settings.keys = _VersionedKeyStore()
    settings.multiparts = s3_models.MultipartDict()
    return pickle.dumps(settings)
