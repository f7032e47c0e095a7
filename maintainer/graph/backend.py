"""What a kind of database has to offer: how it is opened and locked, and what its errors mean."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError as SqlError

TOO_MANY_TRANSACTIONS = "this process has too many transactions at once: try again"
"""Why a transaction does not begin if all connections are in use."""

Refresh = Callable[[], None]
"""Uses a lock, so that it stays; takes it again if it was lost and nobody has it. Never raises."""
Keep = Callable[[], None]
"""The same, but raises HeldError if somebody else has the lock by now."""


class HeldError(Exception):
    """Another process holds the lock."""


class Backend(Protocol):
    """An SQLite file, or a database of a PostgreSQL server."""

    name: str
    """What messages call it; never with a password."""
    engine: Engine
    readers: Engine
    """The same, for transactions that only read: each of them sees one state of the database."""

    def exists(self) -> bool:
        """Whether there is something to read. Raises DatabaseError."""
        ...

    def begin_migration(self, connection: Connection) -> None:
        """Wait for the migrations of other processes, in a transaction that migrates."""
        ...

    def finish_migration(self) -> None:
        """Do what cannot be done in a transaction."""
        ...

    def compact(self) -> None:
        """Give back space that is free, after a run, if it is worth the effort. Never raises."""
        ...

    def lock(self, name: str) -> AbstractContextManager[Refresh]:
        """Lock a target until this process ends at the latest. Raises HeldError, DatabaseError."""
        ...

    def lock_all(self) -> AbstractContextManager[None]:
        """Keep out whoever wants to lock a target. Raises HeldError or DatabaseError."""
        ...

    def lock_out(self) -> AbstractContextManager[Refresh]:
        """Keep out whoever wants to lock all targets. Raises HeldError or DatabaseError."""
        ...

    def lock_service(self) -> AbstractContextManager[Keep]:
        """Be the only service. Raises HeldError or DatabaseError."""
        ...

    def explain(self, error: SqlError) -> str:
        """Return what an error means, in one line."""
        ...
