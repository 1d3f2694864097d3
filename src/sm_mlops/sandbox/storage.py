"""The sandbox's state: one SQLite file for records, plain files for S3 objects.

Does not know what the records mean. Every write is one transaction, so a `kill -9` at any moment
leaves either the old state or the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STATE_VERSION = "2"
DATABASE = "state.db"

Record = dict[str, Any]


class DamagedState(Exception):
    """The state on disk cannot be read; the message is one line for the user."""


class Store:
    """Records by kind and key, kept in memory and written through to SQLite.

    Records are JSON objects (times as seconds since 1970). To change one, hold `lock` and
    call `put`, which also makes the change durable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.records: dict[str, dict[str, Record]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._db = self._open(folder / DATABASE)
        except (sqlite3.DatabaseError, ValueError) as error:
            raise DamagedState(
                f"{folder / DATABASE} is damaged or from another version ({error}); "
                "clear it with: mlops sandbox reset"
            ) from error

    def _open(self, path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # Exclusive locking needs no shared memory file, so it also works on network drives. The
        # server's own file lock makes sure that there is one process only.
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        found = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        with transaction(db):
            if not found:
                db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT)")
                db.execute("INSERT INTO meta VALUES ('version', ?)", (STATE_VERSION,))
                db.execute(
                    "CREATE TABLE record (kind TEXT, key TEXT, body TEXT, PRIMARY KEY (kind, key))"
                )
                db.execute(
                    "CREATE TABLE blob (kind TEXT, key TEXT, body BLOB, PRIMARY KEY (kind, key))"
                )
        version = db.execute("SELECT value FROM meta WHERE name='version'").fetchone()
        if version is None or version[0] != STATE_VERSION:
            raise ValueError(f"version {version and version[0]}, expected {STATE_VERSION}")
        for kind, key, body in db.execute("SELECT kind, key, body FROM record ORDER BY rowid"):
            self.records.setdefault(kind, {})[key] = json.loads(body)
        return db

    def all(self, kind: str) -> dict[str, Record]:
        """Return the live records of a kind, by key, oldest first."""
        return self.records.setdefault(kind, {})

    def get(self, kind: str, key: str) -> Record | None:
        """Return one live record, or None."""
        return self.all(kind).get(key)

    def find(self, kind: str, key: str, error: Exception) -> Record:
        """Return one live record. Raises `error` if there is none."""
        record = self.get(kind, key)
        if record is None:
            raise error
        return record

    def put(self, kind: str, key: str, record: Record) -> None:
        """Keep a new or changed record."""
        with self.lock:
            self.all(kind)[key] = record
            # An upsert keeps the rowid, and with it the order of creation.
            self._db.execute(
                "INSERT INTO record VALUES (?, ?, ?) "
                "ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
                (kind, key, json.dumps(record, separators=(",", ":"))),
            )

    def delete(self, kind: str, key: str) -> None:
        with self.lock:
            self.all(kind).pop(key, None)
            self._db.execute("DELETE FROM record WHERE kind = ? AND key = ?", (kind, key))

    def blobs(self, kind: str) -> list[tuple[str, bytes]]:
        """Return (key, bytes) of a kind in the order they were first written."""
        with self.lock:
            return list(
                self._db.execute(
                    "SELECT key, body FROM blob WHERE kind = ? ORDER BY rowid", (kind,)
                )
            )

    def put_blobs(self, kind: str, changes: dict[str, bytes | None]) -> None:
        """Write or, for None, delete several blobs at once."""
        with self.lock, transaction(self._db):
            for key, body in changes.items():
                if body is None:
                    self._db.execute("DELETE FROM blob WHERE kind = ? AND key = ?", (kind, key))
                else:
                    self._db.execute(
                        "INSERT INTO blob VALUES (?, ?, ?) "
                        "ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
                        (kind, key, body),
                    )

    def close(self) -> None:
        with self.lock:
            self._db.close()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Run the body as one transaction."""
    db.execute("BEGIN")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


class Files:
    """Folder of S3 object contents, each in a file with a name of its own.

    A file is never changed once a record names it: new content gets a new file, so that a crash
    cannot leave an object half new and half old. What no record names after a crash is removed by
    `sweep`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def temporary(self) -> Path:
        return self.folder / secrets.token_hex(16)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def sweep(self, known: set[str]) -> None:
        """Remove every file that is not in `known`: leftovers of a killed server."""
        for folder, _, names in os.walk(self.folder):
            for path in (Path(folder, name) for name in names):
                if path.relative_to(self.folder).as_posix() not in known:
                    path.unlink()
