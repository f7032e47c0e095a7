"""The clock of the database, which all machines share, and whether ours agrees with it."""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from maintainer.errors import ClockError
from maintainer.graph.columns import from_number
from maintainer.graph.database import Database
from maintainer.graph.dialect import database_now

_SKEW = timedelta(minutes=1)
"""How much our clock and the database's may differ: much less than any grace period."""


def load_now(connection: Connection) -> datetime:
    """Return the time by the clock of the database, which all machines share."""
    return from_number(connection.scalar(select(database_now())) or 0)


def schedule_now(database: Database, clock: Callable[[], datetime]) -> datetime:
    """Return the time by which targets are due: the database's, if machines share it, or ours."""
    if not database.is_shared:
        return clock()
    with database.reading() as connection:
        return load_now(connection)


def check_clock(database: Database, clock: Callable[[], datetime]) -> None:
    """Check that our clock is about right, where several machines work on a database.

    What one machine records, another one compares with its own clock: if that is ahead, grace
    periods are too short. Raises ClockError.
    """
    if not database.is_shared:
        return
    with database.reading() as connection:
        connection.scalar(select(1))  # It may have to connect first.
        before = clock()
        now = load_now(connection)
        after = clock()
    ahead = max(before - now, timedelta(0)) - max(now - after, timedelta(0))
    if abs(ahead) > _SKEW:
        raise ClockError(ahead)
