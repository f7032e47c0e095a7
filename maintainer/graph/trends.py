"""How a cache has changed, over the runs in the database."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    BindParameter,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
)

from maintainer.graph.arrivals import HAS_LOOKED, OURS, load_arrivals
from maintainer.graph.dialect import day_of
from maintainer.graph.rows import execute_each
from maintainer.graph.tables import ENTRY, REF, RUN, RUN_STATE, TARGET
from maintainer.policy.headroom import INTERVALS, forecast
from maintainer.report.model import (
    Changes,
    EvictionDay,
    GoneEntry,
    Headroom,
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
    """Return what others did to a cache between the previous run and this one, begun at `at`.

    What a run in between noticed counts, too, if it ended before it had a plan.
    """
    here = {"target": target_id}
    before = connection.execute(_PREVIOUS, here | {"run": run}).first()
    if before is None:
        return Changes()
    between = connection.scalar(_NEXT_START, here | {"after": before.id, "run": run})
    since = here | {"since": between or at}
    new_entries, new_bytes = connection.execute(_COUNT_NEW, since).one()
    gone_entries, gone_bytes = connection.execute(_COUNT_GONE, since).one()
    largest = connection.execute(_LARGEST_GONE, since)
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
    connection.execute(_FORGET_STATES, {"run": report.run})
    rows = [
        {"run_id": report.run, "state": one.state, "entries": one.entries, "size": one.size}
        for one in report.entries
    ]
    execute_each(connection, _ADD_STATE, rows)


def with_trend(connection: Connection, report: Report) -> Report:
    """Return a report with what the database knows of its run and earlier ones."""
    rows = connection.execute(
        _CHOSEN, {"name": report.target, "run": report.run, "points": _POINTS}
    ).all()
    trend = Trend(
        points=_points_of(rows),
        runs=rows[0].runs if rows else 0,
        evictions=tuple(_eviction_days(connection, report)),
        headroom=_headroom(connection, report),
    )
    return msgspec.structs.replace(report, trend=trend)


def _points_of(rows: Iterable[Row[*tuple[Any, ...]]]) -> tuple[TrendPoint, ...]:
    points: dict[int, TrendPoint] = {}
    for row in rows:
        point = TrendPoint(row.id, row.started_at, {}, row.results_usable)
        known = points.setdefault(row.id, point)
        if row.state is not None:
            known.bytes[row.state] = row.size
    return tuple(points.values())


def _headroom(connection: Connection, report: Report) -> Headroom | None:
    """Return what is expected until the next run; None if that is not known."""
    if report.store.evicted_by is None or report.space is None:
        return None
    target_id = connection.execute(_TARGET, {"name": report.target}).scalar_one()
    arrived = load_arrivals(connection, target_id, report.run, report.finished_at)
    expected = forecast(arrived)
    if expected is None:
        return None
    return Headroom(expected, min(len(arrived), INTERVALS), forecast(arrived[:-1]), arrived[-1])


def _eviction_days(connection: Connection, report: Report) -> Iterable[EvictionDay]:
    rows = connection.execute(
        _EVICTIONS,
        {
            "name": report.target,
            "until": report.started_at,
            "since": report.started_at - _DAYS,
        },
    )
    for text, entries, size in rows:
        yield EvictionDay(date.fromisoformat(text), entries, size)


_target: BindParameter[int] = bindparam("target")
_run: BindParameter[int] = bindparam("run")
_since: BindParameter[datetime] = bindparam("since")
_TARGET = select(TARGET.c.id).where(TARGET.c.name == bindparam("name"))
_PREVIOUS = (
    select(RUN.c.id, RUN.c.started_at)
    .where(RUN.c.target_id == _target, RUN.c.id < _run, HAS_LOOKED)
    .order_by(RUN.c.id.desc())
    .limit(1)
)
_NEXT_START = (
    select(RUN.c.started_at)
    .where(RUN.c.target_id == _target, RUN.c.id > bindparam("after"), RUN.c.id < _run)
    .order_by(RUN.c.id)
    .limit(1)
)
_counted = select(func.count(), func.coalesce(func.sum(ENTRY.c.size), 0)).where(
    ENTRY.c.target_id == _target
)
_is_gone = and_(ENTRY.c.missing_since >= _since, ENTRY.c.state.in_(("evicted", "removed")))
_COUNT_NEW = _counted.where(ENTRY.c.first_seen_at >= _since, ENTRY.c.key.not_in(OURS))
_COUNT_GONE = _counted.where(_is_gone)
_LARGEST_GONE = (
    select(ENTRY.c.key, REF.c.name, ENTRY.c.size)
    .join(REF, REF.c.id == ENTRY.c.ref_id)
    .where(ENTRY.c.target_id == _target, _is_gone)
    .order_by(ENTRY.c.size.desc(), ENTRY.c.key)
    .limit(_NAMED)
)
_FORGET_STATES = delete(RUN_STATE).where(RUN_STATE.c.run_id == _run)
_ADD_STATE = insert(RUN_STATE)

_numbered = (
    select(
        RUN.c.id,
        RUN.c.started_at,
        RUN.c.results_usable,
        func.row_number().over(order_by=RUN.c.id.desc()).label("number"),
        func.count().over().label("runs"),
    )
    .join(TARGET, TARGET.c.id == RUN.c.target_id)
    .where(TARGET.c.name == bindparam("name"), RUN.c.id <= _run, HAS_LOOKED)
    .subquery()
)
_most: BindParameter[int] = bindparam("points")
_step = (_numbered.c.runs + _most - 1) // _most
# At most this many runs, always the newest, with a row for each of their states.
_CHOSEN = (
    select(
        _numbered.c.id,
        _numbered.c.started_at,
        _numbered.c.results_usable,
        _numbered.c.runs,
        RUN_STATE.c.state,
        RUN_STATE.c.size,
    )
    .select_from(_numbered)
    .outerjoin(RUN_STATE, RUN_STATE.c.run_id == _numbered.c.id)
    .where((_numbered.c.number - 1) % _step == 0)
    .order_by(_numbered.c.id, RUN_STATE.c.state)
)
_day = day_of(ENTRY.c.missing_since)
_EVICTIONS = (
    select(_day.label("day"), func.count().label("entries"), func.sum(ENTRY.c.size))
    .join(TARGET, TARGET.c.id == ENTRY.c.target_id)
    .where(
        TARGET.c.name == bindparam("name"),
        ENTRY.c.state == "evicted",
        ENTRY.c.missing_since <= bindparam("until"),
        ENTRY.c.missing_since > _since,
    )
    .group_by(_day)
    .order_by(_day)
)
