"""A database of a PostgreSQL server: opened, locked target by target, and its errors.

Only this module needs psycopg, which is an optional dependency.
"""

import json
import re
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from psycopg import AsyncConnection, errors
from psycopg import Connection as DriverConnection
from psycopg.adapt import Loader
from sqlalchemy import (
    Connection,
    Engine,
    Select,
    create_engine,
    event,
    func,
    make_url,
    select,
    true,
)
from sqlalchemy.exc import DatabaseError as SqlError

from maintainer.database_url import public_url
from maintainer.errors import DatabaseError
from maintainer.graph.backend import HeldError, Keep, Refresh
from maintainer.graph.revision import read_revision
from maintainer.graph.tables import METADATA
from maintainer.sanitize import printable

_CONNECT_TIMEOUT = 10
"""Seconds."""
_KEPT_CONNECTIONS = 12
_ISOLATION = "READ COMMITTED"
"""Whatever the server, the database or the user has: those who wait for each other go on."""
_IDLE_TIMEOUT = 120_000
"""Milliseconds."""
_LOCK_TIMEOUT = 30_000
"""Milliseconds."""
_QUERY_MEMORY = "64MB"
"""What a part of a query may hold, when it needs that: a million numbers or so."""
_SILENCE = 30
"""Seconds without a word from the server until it is asked whether it is there."""
_LOCKS = zlib.crc32(b"buildkit-maintainer") & 0x7FFF_FFFF
"""The first number of all our advisory locks."""
_ALL, _SERVICE, _MIGRATION, QUEUE, DISPATCH = 1, 2, 3, 4, 5
_SECOND = re.compile(r"^(?:.*?(?:FATAL|ERROR): +)?(?P<problem>[^\n]*)", re.DOTALL)
_UTF8 = ("UTF8", "UNICODE")
_CONNECTING = ("08", "28", "3D", "53", "57")
"""The classes of errors that concern a connection."""

# What only some rows have is indexed for these rows. The tables say so for SQLite: to say it for
# PostgreSQL would import all of its dialect.
for _table in METADATA.tables.values():
    for _index in _table.indexes:
        _index.dialect_options["postgresql"]["where"] = _index.dialect_options["sqlite"]["where"]


_CONNECT_ARGUMENTS = {
    "application_name": "maintainer",
    "client_encoding": "utf8",
    "connect_timeout": _CONNECT_TIMEOUT,
    # Who waits for an answer when the network is lost would wait for two hours.
    "keepalives_idle": _SILENCE,
    "keepalives_interval": _SILENCE,
    "tcp_user_timeout": _IDLE_TIMEOUT,
}
_SETTINGS = {
    "default_transaction_isolation": _ISOLATION,
    # What a paused process had begun ends, so that another one may take over.
    "idle_in_transaction_session_timeout": str(_IDLE_TIMEOUT),
    # Our own transactions are short: what is locked for longer, another program holds.
    "lock_timeout": str(_LOCK_TIMEOUT),
    # What the network has cut off ends on the server, too, and with it our locks.
    "tcp_keepalives_idle": str(_SILENCE),
    "tcp_keepalives_interval": str(_SILENCE),
    "tcp_keepalives_count": "3",
    # A set that does not fit in would be gone through again for each row that is looked up in it.
    "work_mem": _QUERY_MEMORY,
}
"""What each connection sets once it is there: a pooler refuses, or drops, what comes before."""
_SET = "SELECT set_config(key, value, false) FROM json_each_text(%s::json)"


def driver_arguments(url: str) -> dict[str, Any]:
    """Return what psycopg connects with."""
    place = make_url(url)
    _, arguments = place.get_dialect()().create_connect_args(place)
    return {**arguments, **_CONNECT_ARGUMENTS}


def configuring(schema: str) -> Callable[[AsyncConnection[Any]], Awaitable[None]]:
    """Return what prepares a connection of psycopg to find the tables of a schema of ours."""

    async def configure(connection: AsyncConnection[Any]) -> None:
        await connection.execute(_SET, [json.dumps({**_SETTINGS, "search_path": schema})])
        await connection.commit()

    return configure


def lock_until_the_end(connection: Connection, number: int) -> None:
    """Take a lock until the transaction ends; wait for it, as a migration may take long."""
    connection.execute(select(func.set_config("lock_timeout", "0", true())))
    connection.execute(select(func.pg_advisory_xact_lock(_LOCKS, number)))
    connection.execute(select(func.set_config("lock_timeout", _SETTINGS["lock_timeout"], true())))


def try_lock_until_the_end(connection: Connection, number: int) -> bool:
    """Take a lock until the transaction ends; return whether it was free."""
    return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(_LOCKS, number))))


class PostgresqlDatabase:
    """Where the graph is, if it is on a server: runs on different targets work side by side."""

    def __init__(self, url: str) -> None:
        self.name = public_url(url)
        self.engine = create_engine(
            url,
            connect_args=_CONNECT_ARGUMENTS,
            # A worker needs up to four for each run, and a new one takes as long as a quiet run.
            pool_size=_KEPT_CONNECTIONS,
            max_overflow=-1,
            # A connection that a restart of the server has ended is replaced.
            pool_pre_ping=True,
            hide_parameters=True,
            isolation_level=_ISOLATION,
        )
        event.listen(self.engine, "connect", _configure)
        self.readers: Engine = self.engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._locks: Engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    def exists(self) -> bool:
        """Whether the database has our tables."""
        try:
            with self.readers.connect() as connection:
                return read_revision(connection) is not None
        except SqlError as error:
            raise DatabaseError(self.explain(error)) from None

    def begin_migration(self, connection: Connection) -> None:
        """Wait for the migrations of other processes; refuse a database that cannot hold names."""
        lock_until_the_end(connection, _MIGRATION)
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding not in _UTF8:
            raise DatabaseError(
                f"the database {self.name} has the encoding {encoding}: create one with UTF8"
            )

    def finish_migration(self) -> None:
        """Do nothing more."""

    def compact(self) -> None:
        """Do nothing: the server's autovacuum does."""

    @contextmanager
    def lock(self, name: str) -> Iterator[Refresh]:
        """Lock a target. Raises HeldError if another process has."""
        with self._locked(zlib.crc32(name.encode()) - 2**31) as lock:
            yield lock.refresh

    @contextmanager
    def lock_all(self) -> Iterator[None]:
        """Keep out whoever wants to lock a target. Raises HeldError if somebody has."""
        with self._locked(_ALL):
            yield

    @contextmanager
    def lock_out(self) -> Iterator[Refresh]:
        """Keep out whoever wants to lock all targets. Raises HeldError if somebody has."""
        with self._locked(_ALL, how="_shared") as lock:
            yield lock.refresh

    @contextmanager
    def lock_service(self) -> Iterator[Keep]:
        """Be the only service on the database. Raises HeldError if there is another one."""
        with self._locked(_SERVICE) as lock:
            yield lock.keep

    @contextmanager
    def _locked(self, number: int, how: str = "") -> Iterator["_Lock"]:
        """Hold an advisory lock."""
        take = select(func.pg_try_advisory_lock(_LOCKS, number))
        if how:
            take = select(func.pg_try_advisory_lock_shared(_LOCKS, number))
        lock = _Lock(self._locks, take)
        try:
            is_taken = lock.take()
        except SqlError as error:
            raise DatabaseError(self.explain(error)) from None
        try:
            if not is_taken:
                raise HeldError
            yield lock
        finally:
            lock.end()

    def explain(self, error: SqlError) -> str:
        """Return what an error means, in one line."""
        return f"the database {self.name} cannot be used: {explain(error.orig)}"


class _Lock:
    """An advisory lock, which ends with its connection at the latest."""

    def __init__(self, engine: Engine, take: Select[tuple[bool]]) -> None:
        """Use the connections of an engine, and this statement."""
        self._engine = engine
        self._pool = engine.pool
        self._take = take
        self._connection: Connection | None = None
        self._is_held = False

    def take(self) -> bool:
        """Take it, if nobody else has it; return whether that is so."""
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            self._is_held = bool(self._connection.scalar(self._take))
        except SqlError:
            self._disconnect()
            raise
        return self._is_held

    def refresh(self) -> None:
        """Use its connection, so that nobody ends it as an idle one.

        If it has ended, take the lock again on a new one, unless somebody else has taken it.
        """
        with suppress(SqlError):  # The database may be away for a while.
            if not self._is_alive():
                self.take()

    def keep(self) -> None:
        """Refresh it. Raises HeldError if somebody else has taken it."""
        self.refresh()
        if self._connection and not self._is_held:
            raise HeldError

    def _is_alive(self) -> bool:
        if not (self._connection and self._is_held):
            return False
        try:
            self._connection.scalar(select(1))
        except SqlError:
            self._disconnect()
            return False
        return True

    def end(self) -> None:
        """Release it."""
        if self._connection is None:
            return
        try:
            self._connection.execute(select(func.pg_advisory_unlock_all()))
            is_kept = self._engine.pool is self._pool
        except SqlError:
            is_kept = False  # It has ended, and with it the lock.
        if is_kept:
            self._connection.close()
        else:  # Nobody would end it any more, if the database was closed.
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._is_held = False
        if connection:
            connection.invalidate()
            connection.close()


def explain(cause: object) -> str:
    """Return what an error of the driver, or of the network, means, in one line."""
    if isinstance(cause, errors.InsufficientPrivilege):
        return f"{_shorten(cause)}: grant it to this user"
    text = str(cause)
    for kind, sign, explanation in _KINDS:
        if isinstance(cause, kind) and sign in text:
            return explanation
    state = getattr(cause, "sqlstate", None) or "08"
    # Otherwise the connection is fine: what does not exist is not the database.
    for sign, explanation in _EXPLANATIONS.items():
        if sign in text and state[:2] in _CONNECTING:
            return explanation
    return _shorten(cause)


_POOLED = "a pooler gives each transaction another connection: use session pooling"
_KINDS = (
    (
        errors.LockNotAvailable,
        "",
        "another program, such as VACUUM FULL, holds a lock on a table: try again later",
    ),
    (errors.DataError, "NUL", "a name contains NUL, which PostgreSQL cannot store"),
    (
        errors.ProgramLimitExceeded,
        "index row",
        "a name, such as a tag, is too long for PostgreSQL: delete it, or use an SQLite file",
    ),
    # A statement that another client has prepared, or that another connection has.
    (errors.DuplicatePreparedStatement, "", _POOLED),
    (errors.InvalidSqlStatementName, "", _POOLED),
)
"""Kinds of errors, a part of their message, and what they mean."""
_EXPLANATIONS = {
    "authentication failed": "the server refused the user or the password",
    "no password supplied": "the server asked for a password: put it into the URL or PGPASSWORD",
    "no pg_hba.conf entry": "the server does not allow this user to connect from here",
    "does not exist": "there is no such database or user on the server: create it",
    "permission denied for database": "this user may not connect to it: grant CONNECT",
    "too many clients": "the server has no connection left",
    "the database system is": "the server is starting or shutting down",
    "failed to resolve host": "the name of its host does not resolve",
    "could not translate host name": "the name of its host does not resolve",
    "timeout expired": "the server does not answer",
    "Connection refused": "no server answers there",
    "No such file or directory": "no server answers there",
    "server closed the connection": "the server closed the connection",
    "connection is lost": "the server closed the connection",
    "terminating connection": "the server closed the connection",
}
"""What psycopg and libpq say, in any language for what the server adds; the first match counts."""


def _shorten(cause: object) -> str:
    """Return the first line of a message, without what names the place again."""
    match = _SECOND.match(str(cause))
    return printable(match["problem"] if match else str(cause))


class _Sum(Loader):
    """Reads a number without an upper limit: a sum of sizes is always whole."""

    def load(self, data: Any) -> int:  # noqa: ANN401 - some buffer
        """Return the number."""
        return int(bytes(data).partition(b".")[0])


def _configure(connection: DriverConnection[Any], _record: object) -> None:
    connection.adapters.register_loader("numeric", _Sum)
    connection.execute(_SET, [json.dumps(_SETTINGS)])
    connection.commit()
