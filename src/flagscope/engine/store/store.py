"""Stores results of tasks on disk as they finish, so that a killed scan can resume.

One SQLite database in a folder, in write-ahead mode: transactions are atomic even if the process
dies, and several scans may write at once.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter, ValidationError

from flagscope.engine.run.outcome import TaskResult
from flagscope.engine.store.local_disk import check_local
from flagscope.errors import StoreError

FILE = "results.sqlite3"
LAYOUT = 1
# Marks the database as ours in its header: "flag" in ASCII.
_APPLICATION = 0x666C6167
# Seconds to wait for another scan that is writing.
_PATIENCE = 60.0
_TABLE = """
    CREATE TABLE result (
        key BLOB PRIMARY KEY, task TEXT NOT NULL, payload BLOB NOT NULL, digest BLOB NOT NULL
    )
"""
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_RESULT = TypeAdapter(TaskResult)


class Store:
    """Results by key, in a folder on a local disk; also a context manager.

    Parameters
    ----------
    folder
        Created if it does not exist.

    Raises
    ------
    StoreError
        If it is on a network file system, cannot be written, is damaged, or was written by another
        release in another layout.

    Notes
    -----
    Once `append` has returned, its results survive a crash of the process and, as far as the disk
    flushes as it promises, of the machine. Within a process, only one thread may use a store;
    several processes may share it.

    References
    ----------
    SQLite, "Write-Ahead Logging", sqlite.org/wal.html.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with Store(folder) as store:
    ...     store.append([(b"key", "layer.0", TaskResult([], [], [], 7))])
    >>> with Store(folder) as store:
    ...     store.get(b"key").edge_tests, store.get(b"other"), store.count()
    (7, None, 1)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser()
        check_local(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the store {self.folder} cannot be made: {error.strerror}",
                hint="give a folder, or the name of one that may be made",
            ) from error
        with self._explained():
            self._database = sqlite3.connect(
                self.folder / FILE, timeout=_PATIENCE, isolation_level=None
            )
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def get(self, key: bytes) -> TaskResult | None:
        """The result under a key, None if there is none.

        Raises
        ------
        StoreError
            If it is damaged.
        """
        with self._explained():
            row = self._database.execute(
                "SELECT task, payload, digest FROM result WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            return None
        task, payload, digest = row
        if digest != _digest(key, task, payload):
            raise self._damaged(f"the checksum of {task!r} does not match")
        try:
            return _RESULT.validate_json(zlib.decompress(payload))
        except (zlib.error, ValidationError) as error:
            raise self._damaged(f"{task!r} is not a result") from error

    def append(self, results: Sequence[tuple[bytes, str, TaskResult]]) -> None:
        """Store results, given as (key, name of the task, result), in one transaction.

        A result that another scan stored first stays.

        Raises
        ------
        StoreError
            If the disk is full, for instance; earlier results remain.
        """
        rows = []
        for key, task, result in results:
            payload = zlib.compress(_RESULT.dump_json(result, by_alias=True))
            rows.append((key, task, payload, _digest(key, task, payload)))
        with self._explained(), self._transaction():
            self._database.executemany(
                "INSERT INTO result VALUES (?, ?, ?, ?) ON CONFLICT (key) DO NOTHING", rows
            )

    def count(self) -> int:
        """Number of results stored."""
        with self._explained():
            return self._database.execute("SELECT count(*) FROM result").fetchone()[0]

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self) -> None:
        self._database.execute("PRAGMA synchronous = FULL")
        # Before anything is changed: the file may belong to another program.
        self._check_layout()
        self._write_ahead()
        with self._transaction():
            if self._check_layout():
                self._database.execute(_TABLE)
                self._database.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._database.execute(f"PRAGMA user_version = {LAYOUT}")
        (verdict,) = self._database.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise self._damaged(verdict.splitlines()[-1])

    def _check_layout(self) -> bool:
        """Whether the database is new."""
        queries = (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_master",
        )
        application, layout, tables = (
            self._database.execute(query).fetchone()[0] for query in queries
        )
        if application == layout == tables == 0:
            return True
        if application != _APPLICATION:
            raise StoreError(
                f"{self.folder / FILE} is a database of something else",
                hint="give another folder",
            )
        if layout != LAYOUT:
            raise StoreError(
                f"the store {self.folder} has layout {layout}; this release reads and writes "
                f"layout {LAYOUT}, and converts none",
                hint="give another folder, or use the release that wrote it",
            )
        return False

    def _write_ahead(self) -> None:
        """Turn on write-ahead mode; here SQLite does not wait for other processes by itself."""
        limit = time.monotonic() + _PATIENCE
        while True:
            try:
                (mode,) = self._database.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _HELD or time.monotonic() > limit:
                    raise
                time.sleep(0.02)
        if mode != "wal":
            raise StoreError(
                f"the file system of {self.folder} does not allow a write-ahead log",
                hint="give a folder on a local disk",
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # SQLite ends it itself when the disk is full
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Re-raise errors of SQLite as errors that say what to do."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED:
                raise self._damaged(str(error)) from error
            if code in _FULL:
                problem = f"cannot be written or read ({error})"
                hint = "is its disk full? make room and run again: what is stored is kept"
            elif code in _HELD:
                problem = f"has been held by another process for {_PATIENCE:.0f} seconds"
                hint = "run again when that one is done, or give another folder"
            else:
                problem = f"cannot be used ({error})"
                hint = "give a folder on a local disk that may be written to"
            raise StoreError(f"the store {self.folder} {problem}", hint=hint) from error

    def _damaged(self, damage: str) -> StoreError:
        return StoreError(
            f"the store {self.folder} is damaged: {damage}",
            hint="move the folder away and scan again, or give another one",
        )


def _digest(key: bytes, task: str, payload: bytes) -> bytes:
    digest = hashlib.blake2b(key, digest_size=16)
    digest.update(f"{len(task)} {task}".encode("utf-8", "surrogatepass"))
    digest.update(payload)
    return digest.digest()
