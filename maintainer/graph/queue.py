"""The queue of a fleet, as far as it is ours: where its tables are, what is due, and dead jobs.

The engine's tables are in a schema of their own, one for each revision of them: there is nothing in
the queue that the next dispatch would not put there again, so nothing has to be migrated.
"""

import zlib
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection, func, select, text, true, type_coerce

from maintainer.graph.dialect import WHOLE
from maintainer.graph.postgresql import (
    DISPATCH,
    QUEUE,
    lock_until_the_end,
    try_lock_until_the_end,
)
from maintainer.graph.tables import RUN, SCHEDULED

_STALLED_AFTER = timedelta(seconds=60)
"""A job that began so long ago has a lease, unless it is dead."""
_LONG = timedelta(minutes=1) // timedelta(microseconds=1)
"""A run that took longer is a long one."""


class Waiting(msgspec.Struct, frozen=True):
    """A target that is due, and since when."""

    name: str
    due_at: datetime
    is_long: bool = False
    """Whether its last run took long."""


def schema_of(definition: str) -> str:
    """Return the name of the schema for the engine's tables, which `definition` creates."""
    return f"maintainer_queue_{zlib.crc32(definition.encode()):08x}"


def create_queue(connection: Connection, definition: str) -> None:
    """Create the engine's tables, unless they exist."""
    lock_until_the_end(connection, QUEUE)
    schema = schema_of(definition)
    if connection.scalar(select(func.to_regclass(f"{schema}.procrastinate_jobs"))) is None:
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        connection.exec_driver_sql(f"SET LOCAL search_path = {schema}")
        connection.exec_driver_sql(definition.replace("%", "%%"))


def lock_dispatch(connection: Connection) -> bool:
    """Be the only one who dispatches until this transaction ends; return whether that is so."""
    return try_lock_until_the_end(connection, DISPATCH)


def load_queued(connection: Connection, schema: str) -> set[str]:
    """Return the targets that are waiting in the queue or being run."""
    jobs = text(f"SELECT lock FROM {schema}.procrastinate_jobs WHERE lock IS NOT NULL")  # noqa: S608
    return set(connection.scalars(jobs))


def load_due(connection: Connection, now: datetime, limit: int | None) -> list[Waiting]:
    """Return the targets that are due and not running, those that have been due longest first."""
    took = type_coerce(RUN.c.finished_at, WHOLE) - type_coerce(RUN.c.started_at, WHOLE)
    rows = connection.execute(
        select(SCHEDULED.c.name, SCHEDULED.c.next_run_at, (took > _LONG).label("is_long"))
        .join(RUN, RUN.c.id == SCHEDULED.c.run_id, isouter=True)
        .where(SCHEDULED.c.next_run_at <= now, SCHEDULED.c.running_since.is_(None))
        .order_by(SCHEDULED.c.next_run_at, SCHEDULED.c.position)
        .limit(limit)
    )
    return [Waiting(row.name, row.next_run_at, bool(row.is_long)) for row in rows]


def delete_dead_jobs(connection: Connection, schema: str) -> list[str]:
    """Delete jobs that nobody works on any more; return their targets.

    The engine does not: a job whose worker was killed, or could not record its end, stays there.
    """
    # The triggers of the engine's tables look for each other there.
    path = func.concat(schema, ", ", func.current_setting("search_path"))
    connection.execute(select(func.set_config("search_path", path, true())))
    dead = connection.execute(text(_DELETE_DEAD.format(schema=schema)), {"after": _STALLED_AFTER})
    return sorted(row.lock for row in dead if row.lock)


_DELETE_DEAD = """
DELETE FROM {schema}.procrastinate_jobs AS job
WHERE status = 'doing'
AND NOT EXISTS (
  SELECT FROM scheduled JOIN lease ON lease.name = scheduled.target
  WHERE scheduled.name = job.lock AND lease.expires_at > extract(epoch FROM clock_timestamp()) * 1e6
)
AND (
  SELECT max(at) FROM {schema}.procrastinate_events AS event
  WHERE event.job_id = job.id AND event.type = 'started'
) < now() - CAST(:after AS interval)
RETURNING lock
"""
