"""An SQLite file: opened, locked by one run at a time, and its errors."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError as SqlError

from maintainer.database_url import SQLITE
from maintainer.errors import DatabaseError
from maintainer.graph.backend import HeldError, Keep, Refresh
from maintainer.paths import resolve

_PATIENCE = 10.0
"""Seconds to wait for another writer."""
_WORTHWHILE = 2**20
"""Bytes; to give back fewer is not worth writing the file anew."""
_READS = {"reads": True}
_ADVICE = {
    "attempt to write a readonly database": ": SQLite writes beside a file even to read it, so be "
    "its owner, or copy it to a folder of your own",
    "unable to open database file": ": check who may write to the file and to its folder",
    "file is not a database": ": name another one (`database`), or move this file away",
}
"""What to do, by what SQLite says."""


class SqliteFile:
    """Where the graph is, if it is an SQLite file: only one run at a time works on it."""

    def __init__(self, url: str) -> None:
        # As it is: a percent sign in a path, as in folders of Jenkins, is one.
        place = url.removeprefix(SQLITE)
        self._path = Path(place)
        self.name = str(self._path)
        self.engine = create_engine(
            URL.create("sqlite", database=place), connect_args={"timeout": _PATIENCE}
        )
        event.listen(self.engine, "connect", _configure)
        event.listen(self.engine, "begin", _begin)
        self.readers: Engine = self.engine.execution_options(**_READS)

    def exists(self) -> bool:
        """Whether there is a file. From Python 3.14 on, `Path.exists` hides what is in the way."""
        try:
            self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _unusable(f"the database {self.name}", error) from None
        return True

    def begin_migration(self, connection: Connection) -> None:
        """Wait for other migrations: the transaction has done that already."""

    def finish_migration(self) -> None:
        """Switch to a write-ahead log, which the file remembers; only a file of ours is changed."""
        with self._outside_of_transactions() as cursor:
            cursor.execute("PRAGMA journal_mode=WAL")

    def compact(self) -> None:
        """Write the file anew if more than half of it is free: by itself it never shrinks.

        A workflow saves it after each run, in the cache that it maintains. If the disk has no room
        for another one, or somebody else writes, it stays as it is: the run is done.
        """
        with suppress(sqlite3.Error), self._outside_of_transactions() as cursor:
            free, pages, size = (
                cursor.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("freelist_count", "page_count", "page_size")
            )
            if free * 2 > pages and free * size >= _WORTHWHILE:
                cursor.execute("VACUUM")
                _empty_log(cursor)

    @contextmanager
    def _outside_of_transactions(self) -> Iterator[Any]:
        connection = self.engine.raw_connection()
        try:
            yield connection.cursor()
        finally:
            connection.close()

    @contextmanager
    def lock(self, name: str) -> Iterator[Refresh]:
        """Lock the file, whatever the target. Raises HeldError if another process has."""
        del name
        with self._locked(f"{self._file}.lock", f"the database {self.name}"):
            yield _refresh

    @contextmanager
    def lock_all(self) -> Iterator[None]:
        """Lock the file."""
        with self.lock(""):
            yield

    @contextmanager
    def lock_out(self) -> Iterator[Refresh]:
        """Do nothing more: each lock is one of the whole file."""
        yield _refresh

    @contextmanager
    def lock_service(self) -> Iterator[Keep]:
        """Be the only service on the file. Raises HeldError if there is another one."""
        path = f"{self._file}.serve.lock"
        with self._locked(path, path):
            yield _refresh

    @contextmanager
    def _locked(self, path: str, what: str) -> Iterator[None]:
        from filelock import FileLock, Timeout  # noqa: PLC0415 - readers take no lock

        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise HeldError from None
        except OSError as error:
            raise _unusable(what, error) from None
        try:
            yield
        finally:
            lock.release()

    @property
    def _file(self) -> Path:
        """The file itself, with links resolved; locks are named after it."""
        return Path(os.path.realpath(self._path))

    def explain(self, error: SqlError) -> str:
        """Return why the database cannot be used, in one line."""
        why = self._misplaced() or str(error.orig or error)
        return f"the database {self.name} cannot be used: {why}{_ADVICE.get(why, '')}"

    def _misplaced(self) -> str:
        """Return why no file can be there; empty if one can."""
        try:
            resolve(self._path).parent.stat()
            return "it is a folder" if self._path.is_dir() else ""
        except FileNotFoundError:
            return "its folder does not exist"
        except OSError as error:
            return error.strerror or ""


def _refresh() -> None:
    """Do nothing: the lock of a file stays until its process ends."""


def _unusable(what: str, error: OSError) -> DatabaseError:
    return DatabaseError(f"{what} cannot be used: {error.strerror or error}")


def _empty_log(cursor: Any) -> None:  # noqa: ANN401
    """Move the log into the file, unless somebody reads: to wait for readers keeps writers out."""
    cursor.execute("PRAGMA busy_timeout=0")
    try:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        cursor.execute(f"PRAGMA busy_timeout={_PATIENCE * 1_000:.0f}")


def _configure(connection: Any, _record: object) -> None:  # noqa: ANN401
    # Python's sqlite3 begins no transaction for DDL, so a migration could be half done.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin(connection: Connection) -> None:
    reads = connection.get_execution_options().get("reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
