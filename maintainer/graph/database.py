"""The SQLite file: opened, migrated, and held by one run at a time."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import DatabaseError as SqlError

from maintainer.errors import DatabaseError
from maintainer.graph.revision import NEWEST, read_revision
from maintainer.graph.tables import RUN

_PATIENCE = 10.0
"""Seconds to wait for another writer."""
_READS = {"reads": True}


class Database:
    """One SQLite file. Every method raises DatabaseError, in one line, if it is unusable."""

    def __init__(self, url: str) -> None:
        self.path = Path(make_url(url).database or "")
        self._engine = create_engine(url, connect_args={"timeout": _PATIENCE})
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._readers = self._engine.execution_options(**_READS)

    @property
    def file(self) -> Path:
        """The file itself, with links resolved; locks are named after it."""
        return self.path.resolve()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def upgrade(self) -> None:
        """Upgrade the schema to this version; creates the file if it does not exist."""
        with self._translate_errors():
            self._migrate()
            self._let_others_read()

    def _migrate(self) -> None:
        with self._readers.begin() as connection:
            if read_revision(connection) == NEWEST:
                return
        from maintainer.graph.migrate import migrate  # noqa: PLC0415 - it imports Alembic

        with self._engine.begin() as connection:
            revision = read_revision(connection)
            if revision is None and inspect(connection).get_table_names():
                raise DatabaseError(f"the database {self.path} belongs to another program")
            if not migrate(connection):
                raise DatabaseError(
                    f"the database {self.path} was made by a newer version: upgrade maintainer"
                )

    def _let_others_read(self) -> None:
        """Switch to a write-ahead log, which the file remembers; only a file of ours is changed."""
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()

    def exists(self) -> bool:
        """Whether there is a file."""
        try:
            return self.path.exists()
        except OSError as error:
            raise DatabaseError(
                f"the database {self.path} cannot be used: {error.strerror or error}"
            ) from None

    def revision(self) -> str | None:
        """Return the revision of the schema; None if the file has none yet."""
        if not self.exists():
            return None
        with self._translate_errors(), self._readers.connect() as connection:
            return read_revision(connection)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction that may write, committed at the end, rolled back on an error.

        It waits for other writers. A transaction that reads first and writes later cannot wait: if
        somebody has written in between, SQLite reports at once that the database is locked.
        """
        with self._translate_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a read-only transaction: it never waits, even for concurrent writers."""
        with self._translate_errors(), self._readers.begin() as connection:
            yield connection

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs off this file. Raises DatabaseError, which says who holds it."""
        from filelock import FileLock, Timeout  # noqa: PLC0415 - readers take no lock

        lock = FileLock(f"{self.file}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise DatabaseError(
                f"another run holds the database {self.path}{self._holder()}: wait until it ends"
            ) from None
        except OSError as error:
            raise DatabaseError(
                f"the database {self.path} cannot be used: {error.strerror or error}"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _holder(self) -> str:
        """Return who is running, as far as the file shows."""
        try:
            with self._translate_errors(), self._readers.connect() as connection:
                row = connection.execute(
                    select(RUN.c.process, RUN.c.started_at)
                    .where(RUN.c.status == "running")
                    .order_by(RUN.c.id.desc())
                ).first()
        except DatabaseError:
            return ""
        return f" ({row.process}, since {row.started_at:%Y-%m-%d %H:%M:%S} UTC)" if row else ""

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Format an SQLite error in one line."""
        try:
            yield
        except SqlError as error:
            raise DatabaseError(
                f"the database {self.path} cannot be used: {error.orig or error}"
            ) from None


def this_process() -> str:
    """Return the process and host of this run, for others to read."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _configure(connection: Any, _record: object) -> None:  # noqa: ANN401
    # Python's sqlite3 begins no transaction for DDL, so a migration could be half done.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin(connection: Connection) -> None:
    reads = connection.get_execution_options().get("reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
