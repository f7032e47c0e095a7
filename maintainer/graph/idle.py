"""Idle runs: what the last run saw if it had nothing to do, and when something falls due."""

from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import Connection, func, select, update

from maintainer.graph.memory import GONE_FOR
from maintainer.graph.models import BlobRow, IndexRow, MemoryRow, Target
from maintainer.model.idle import Idle

_A_DAY = timedelta(days=1)


def load_idle(connection: Connection, target_id: int) -> Idle | None:
    """Return what the last run saw, if it had nothing to do."""
    row = connection.execute(
        select(
            Target.idle_run, Target.idle_fingerprint, Target.idle_since, Target.idle_until
        ).where(Target.id == target_id)
    ).one()
    if row.idle_run is None:
        return None
    return Idle(row.idle_run, row.idle_fingerprint, row.idle_since, row.idle_until)


def save_idle(connection: Connection, target_id: int, idle: Idle | None) -> None:
    """Remember that a run had nothing to do; with None, that the next has to do everything."""
    connection.execute(
        update(Target)
        .where(Target.id == target_id)
        .values(
            idle_run=idle and idle.run,
            idle_fingerprint=idle and idle.fingerprint,
            idle_since=idle and idle.since,
            idle_until=idle and idle.until,
        )
    )


def note_look(connection: Connection, target_id: int, now: datetime, *, listed: bool) -> None:
    """Record that a look was taken, and whether it could list entries."""
    values = {"probed_at": now, **({"listed_at": now} if listed else {})}
    connection.execute(update(Target).where(Target.id == target_id).values(values))


def next_forgetting(
    connection: Connection, target_id: int, now: datetime, remember_exports: timedelta
) -> datetime | None:
    """Return when the graph next forgets a result that may matter, as far as it knows."""
    since = func.coalesce(BlobRow.missing_since, BlobRow.last_seen_at, BlobRow.first_seen_at)
    gone = connection.execute(
        select(func.min(since)).where(
            BlobRow.target_id == target_id,
            BlobRow.is_found.is_(False) | BlobRow.missing_since.is_not(None),
            since > now - GONE_FOR,
        )
    ).scalar()
    day = connection.execute(
        select(func.min(MemoryRow.day))
        .join(IndexRow, IndexRow.id == MemoryRow.index_id)
        .where(IndexRow.target_id == target_id, MemoryRow.day != "")
    ).scalar()
    moments = []
    if gone is not None:
        moments.append(gone + GONE_FOR)
    if day is not None:
        replaced_on = datetime.combine(date.fromisoformat(day), time(), UTC)
        moments.append(replaced_on + _A_DAY + remember_exports)
    return min(moments, default=None)
