"""How a cache has changed, over the runs in the database."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    type_coerce,
)

from maintainer.graph.tables import ACTION, ENTRY, REF, RUN, RUN_STATE, TARGET
from maintainer.report.model import (
    Changes,
    EvictionDay,
    GoneEntry,
    Report,
    Trend,
    TrendPoint,
)

_POINTS = 200
"""A trend has at most this many runs; of more, evenly chosen ones."""
_DAYS = timedelta(days=90)
"""The graph forgets entries that have been gone for longer."""
_NAMED = 10
"""Up to this many gone entries are named."""


def compare_with_previous(
    connection: Connection, target_id: int, run: int, at: datetime
) -> Changes:
    """Return what others did to a cache between the previous run and this one, begun at `at`."""
    before = connection.execute(
        select(RUN.c.id, RUN.c.started_at)
        .where(RUN.c.target_id == target_id, RUN.c.id < run, _has_looked())
        .order_by(RUN.c.id.desc())
    ).first()
    if before is None:
        return Changes()
    here = ENTRY.c.target_id == target_id
    ours = (
        select(ACTION.c.subject)
        .join(RUN, RUN.c.id == ACTION.c.run_id)
        .where(RUN.c.target_id == target_id, ACTION.c.kind == "write")
    )
    new = and_(here, ENTRY.c.first_seen_at >= at, ENTRY.c.key.not_in(ours))
    gone = and_(here, ENTRY.c.missing_since >= at, ENTRY.c.state.in_(("evicted", "removed")))
    counted = select(func.count(), func.coalesce(func.sum(ENTRY.c.size), 0))
    new_entries, new_bytes = connection.execute(counted.where(new)).one()
    gone_entries, gone_bytes = connection.execute(counted.where(gone)).one()
    largest = connection.execute(
        select(ENTRY.c.key, REF.c.name, ENTRY.c.size)
        .join(REF, REF.c.id == ENTRY.c.ref_id)
        .where(gone)
        .order_by(ENTRY.c.size.desc(), ENTRY.c.key)
        .limit(_NAMED)
    )
    return Changes(
        previous_run=before.id,
        previous_at=before.started_at,
        new_entries=new_entries,
        new_bytes=new_bytes,
        gone_entries=gone_entries,
        gone_bytes=gone_bytes,
        gone_largest=tuple(GoneEntry(key, ref, size) for key, ref, size in largest),
    )


def save_states(connection: Connection, report: Report) -> None:
    """Record what was stored when a run ended; replaces the earlier record of that run."""
    connection.execute(delete(RUN_STATE).where(RUN_STATE.c.run_id == report.run))
    rows = [
        {"run_id": report.run, "state": one.state, "entries": one.entries, "size": one.size}
        for one in report.entries
    ]
    if rows:
        connection.execute(insert(RUN_STATE), rows)


def with_trend(connection: Connection, report: Report) -> Report:
    """Return a report with what the database knows of its run and earlier ones."""
    rows = connection.execute(_chosen_runs(report)).all()
    trend = Trend(
        points=_points(rows),
        runs=rows[0].runs if rows else 0,
        evictions=tuple(_eviction_days(connection, report)),
    )
    return msgspec.structs.replace(report, trend=trend)


def _chosen_runs(report: Report) -> Select[*tuple[Any, ...]]:
    """Select at most this many runs, always the newest, with a row for each of their states."""
    numbered = (
        select(
            RUN.c.id,
            RUN.c.started_at,
            RUN.c.results_usable,
            func.row_number().over(order_by=RUN.c.id.desc()).label("number"),
            func.count().over().label("runs"),
        )
        .join(TARGET, TARGET.c.id == RUN.c.target_id)
        .where(
            TARGET.c.name == report.target,
            RUN.c.id <= report.run,
            _has_looked(),
        )
        .subquery()
    )
    step = (numbered.c.runs + _POINTS - 1) // _POINTS
    return (
        select(
            numbered.c.id,
            numbered.c.started_at,
            numbered.c.results_usable,
            numbered.c.runs,
            RUN_STATE.c.state,
            RUN_STATE.c.size,
        )
        .outerjoin(RUN_STATE, RUN_STATE.c.run_id == numbered.c.id)
        .where((numbered.c.number - 1) % step == 0)
        .order_by(numbered.c.id, RUN_STATE.c.state)
    )


def _has_looked() -> ColumnElement[bool]:
    """Select the runs that saw what is stored; an empty cache has no states."""
    return or_(RUN.c.status == "done", RUN.c.id.in_(select(RUN_STATE.c.run_id)))


def _points(rows: Iterable[Row[*tuple[Any, ...]]]) -> tuple[TrendPoint, ...]:
    points: dict[int, TrendPoint] = {}
    for row in rows:
        point = TrendPoint(row.id, row.started_at, {}, row.results_usable)
        known = points.setdefault(row.id, point)
        if row.state is not None:
            known.bytes[row.state] = row.size
    return tuple(points.values())


def _eviction_days(connection: Connection, report: Report) -> Iterable[EvictionDay]:
    seconds = type_coerce(ENTRY.c.missing_since, Integer) // 1_000_000
    day = func.date(seconds, "unixepoch")
    rows = connection.execute(
        select(day.label("day"), func.count().label("entries"), func.sum(ENTRY.c.size))
        .join(TARGET, TARGET.c.id == ENTRY.c.target_id)
        .where(
            TARGET.c.name == report.target,
            ENTRY.c.state == "evicted",
            ENTRY.c.missing_since <= report.started_at,
            ENTRY.c.missing_since > report.started_at - _DAYS,
        )
        .group_by(day)
        .order_by(day)
    )
    for text, entries, size in rows:
        yield EvictionDay(date.fromisoformat(text), entries, size)
