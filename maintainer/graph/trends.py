"""How a cache has changed, over the runs in the database."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
)

from maintainer.graph.models import ActionRow, EntryRow, RefRow, RunRow, RunStateRow, Target
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
        select(RunRow.id, RunRow.started_at)
        .where(RunRow.target_id == target_id, RunRow.id < run, _has_looked())
        .order_by(RunRow.id.desc())
    ).first()
    if before is None:
        return Changes()
    here = EntryRow.target_id == target_id
    ours = (
        select(ActionRow.subject)
        .join(RunRow, RunRow.id == ActionRow.run_id)
        .where(RunRow.target_id == target_id, ActionRow.kind == "write")
    )
    new = and_(here, EntryRow.first_seen_at >= at, EntryRow.key.not_in(ours))
    gone = and_(here, EntryRow.missing_since >= at, EntryRow.state.in_(("evicted", "removed")))
    counted = select(func.count(), func.coalesce(func.sum(EntryRow.size), 0))
    new_entries, new_bytes = connection.execute(counted.where(new)).one()
    gone_entries, gone_bytes = connection.execute(counted.where(gone)).one()
    largest = connection.execute(
        select(EntryRow.key, RefRow.name, EntryRow.size)
        .join(RefRow, RefRow.id == EntryRow.ref_id)
        .where(gone)
        .order_by(EntryRow.size.desc(), EntryRow.key)
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
    connection.execute(delete(RunStateRow).where(RunStateRow.run_id == report.run))
    rows = [
        {"run_id": report.run, "state": one.state, "entries": one.entries, "size": one.size}
        for one in report.entries
    ]
    if rows:
        connection.execute(insert(RunStateRow), rows)


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
            RunRow.id,
            RunRow.started_at,
            RunRow.results_usable,
            func.row_number().over(order_by=RunRow.id.desc()).label("number"),
            func.count().over().label("runs"),
        )
        .join(Target, Target.id == RunRow.target_id)
        .where(
            Target.name == report.target,
            RunRow.id <= report.run,
            _has_looked(),
        )
        .subquery()
    )
    step = (numbered.c.runs + _POINTS - 1) / _POINTS
    return (
        select(
            numbered.c.id,
            numbered.c.started_at,
            numbered.c.results_usable,
            numbered.c.runs,
            RunStateRow.state,
            RunStateRow.size,
        )
        .outerjoin(RunStateRow, RunStateRow.run_id == numbered.c.id)
        .where((numbered.c.number - 1) % func.cast(step, type_=RunRow.id.type) == 0)
        .order_by(numbered.c.id, RunStateRow.state)
    )


def _has_looked() -> ColumnElement[bool]:
    """Select the runs that saw what is stored; an empty cache has no states."""
    return or_(RunRow.status == "done", RunRow.id.in_(select(RunStateRow.run_id)))


def _points(rows: Iterable[Row[*tuple[Any, ...]]]) -> tuple[TrendPoint, ...]:
    points: dict[int, TrendPoint] = {}
    for row in rows:
        point = TrendPoint(row.id, row.started_at, {}, row.results_usable)
        known = points.setdefault(row.id, point)
        if row.state is not None:
            known.bytes[row.state] = row.size
    return tuple(points.values())


def _eviction_days(connection: Connection, report: Report) -> Iterable[EvictionDay]:
    day = func.date(EntryRow.missing_since)
    rows = connection.execute(
        select(day.label("day"), func.count().label("entries"), func.sum(EntryRow.size))
        .join(Target, Target.id == EntryRow.target_id)
        .where(
            Target.name == report.target,
            EntryRow.state == "evicted",
            EntryRow.missing_since <= report.started_at,
            EntryRow.missing_since > report.started_at - _DAYS,
        )
        .group_by(day)
        .order_by(day)
    )
    for text, entries, size in rows:
        yield EvictionDay(date.fromisoformat(text), entries, size)
