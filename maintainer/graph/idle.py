"""Idle runs: what the last run saw if it had nothing to do, and when something falls due."""

from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import BindParameter, Connection, bindparam, func, select, update

from maintainer.graph.memory import GONE_FOR
from maintainer.graph.tables import BLOB, CACHE_INDEX, MEMORY, TARGET
from maintainer.model.idle import Idle

_A_DAY = timedelta(days=1)


def load_idle(connection: Connection, target_id: int) -> Idle | None:
    """Return what the last run saw, if it had nothing to do."""
    row = connection.execute(_IDLE, {"target": target_id}).one()
    if row.idle_run is None:
        return None
    return Idle(row.idle_run, row.idle_fingerprint, row.idle_since, row.idle_until)


def save_idle(connection: Connection, target_id: int, idle: Idle | None) -> None:
    """Remember that a run had nothing to do; with None, that the next has to do everything."""
    values = {
        "run": idle and idle.run,
        "fingerprint": idle and idle.fingerprint,
        "since": idle and idle.since,
        "until": idle and idle.until,
    }
    connection.execute(_SAVE_IDLE, {"target": target_id, **values})


def note_look(connection: Connection, target_id: int, now: datetime, *, listed: bool) -> None:
    """Record that a look was taken, and whether it could list entries."""
    connection.execute(_NOTE_LIST if listed else _NOTE_LOOK, {"target": target_id, "now": now})


def next_forgetting(
    connection: Connection, target_id: int, now: datetime, remember_exports: timedelta
) -> datetime | None:
    """Return when the graph next forgets a result that may matter, as far as it knows."""
    gone = connection.scalar(_FIRST_GONE, {"target": target_id, "before": now - GONE_FOR})
    day = connection.scalar(_FIRST_REPLACED, {"target": target_id})
    moments = []
    if gone is not None:
        moments.append(gone + GONE_FOR)
    if day is not None:
        replaced_on = datetime.combine(date.fromisoformat(day), time(), UTC)
        moments.append(replaced_on + _A_DAY + remember_exports)
    return min(moments, default=None)


_target: BindParameter[int] = bindparam("target")
_here = TARGET.c.id == _target
_IDLE = select(
    TARGET.c.idle_run, TARGET.c.idle_fingerprint, TARGET.c.idle_since, TARGET.c.idle_until
).where(_here)
_SAVE_IDLE = (
    update(TARGET)
    .where(_here)
    .values(
        idle_run=bindparam("run"),
        idle_fingerprint=bindparam("fingerprint"),
        idle_since=bindparam("since"),
        idle_until=bindparam("until"),
    )
)
_NOTE_LOOK = update(TARGET).where(_here).values(probed_at=bindparam("now"))
_NOTE_LIST = _NOTE_LOOK.values(listed_at=bindparam("now"))
_since = func.coalesce(BLOB.c.missing_since, BLOB.c.last_seen_at, BLOB.c.first_seen_at)
_FIRST_GONE = select(func.min(_since)).where(
    BLOB.c.target_id == _target,
    BLOB.c.is_found.is_(False) | BLOB.c.missing_since.is_not(None),
    _since > bindparam("before"),
)
_FIRST_REPLACED = (
    select(func.min(MEMORY.c.day))
    .join(CACHE_INDEX, CACHE_INDEX.c.id == MEMORY.c.index_id)
    .where(CACHE_INDEX.c.target_id == _target, MEMORY.c.day != "")
)
