"""What changed between two runs: from the database alone."""

from datetime import datetime

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, select

from maintainer.errors import MaintainerError, NoReportError
from maintainer.graph.reports import load_report
from maintainer.graph.tables import ACTION, ENTRY, RUN, TARGET
from maintainer.graph.written import written_by_runs
from maintainer.model.outcome import CARRIED_OUT_CODES, AlreadyGone, Done
from maintainer.model.reason import code_of
from maintainer.report.model import IndexReport, Report
from maintainer.report.space import KINDS, kind_of


class KindChange(msgspec.Struct, frozen=True):
    """Entries of one kind, before and after."""

    kind: str
    entries_before: int
    entries_after: int
    bytes_before: int
    bytes_after: int


class IndexChange(msgspec.Struct, frozen=True):
    """An index that has changed; numbers are None where there was none."""

    scope: str
    ref: str
    signed: bool
    generations_before: int | None
    generations_after: int | None
    usable_before: int | None
    usable_after: int | None
    bytes_before: int | None
    bytes_after: int | None


class Tally(msgspec.Struct, frozen=True):
    """Something that happened to entries in between."""

    what: str
    entries: int
    size: int
    """Bytes."""


class RunDiff(msgspec.Struct, frozen=True):
    """What changed between two runs of one cache."""

    target: str
    before: int
    after: int
    before_at: datetime
    after_at: datetime
    usable_before: int | None
    """None where the run could read no index."""
    usable_after: int | None
    kinds: tuple[KindChange, ...]
    indexes: tuple[IndexChange, ...]
    """Only those that changed; none where one of the runs could read none."""
    happened: tuple[Tally, ...]
    """What came, what went without a run, and what the runs since the earlier one did."""


def find_last_two(connection: Connection, target: str | None = None) -> tuple[int, int]:
    """Return the last two runs that have a report, on a cache, by default that of the last one.

    Raises NoReportError if there are none.
    """
    last = load_report(connection, target=target)
    place = {"target": last.target, "run": last.run}
    earlier = connection.execute(_EARLIER, place).scalar()
    if earlier is None:
        raise NoReportError(f"there is no run before run {last.run} on {last.target}")
    return earlier, last.run


def compare(connection: Connection, one: int, other: int) -> RunDiff:
    """Compare two runs, the earlier with the later one, in whatever order they are given.

    Raises MaintainerError if one has no report or saw nothing, or if they are of different
    caches.
    """
    before, after = (load_report(connection, run) for run in sorted((one, other)))
    if before.target != after.target:
        raise MaintainerError(f"run {before.run} and run {after.run} looked at different caches")
    for report in (before, after):
        if report.saw_nothing:
            ended = "ended" if report.status == "done" else report.status
            raise MaintainerError(
                f"run {report.run} {ended} before it knew what is stored: there is nothing "
                "to compare"
            )
    return RunDiff(
        target=after.target,
        before=before.run,
        after=after.run,
        before_at=before.started_at,
        after_at=after.started_at,
        usable_before=before.results_usable if before.readable else None,
        usable_after=after.results_usable if after.readable else None,
        kinds=_kinds(before, after),
        indexes=_indexes(before, after) if before.readable and after.readable else (),
        happened=tuple(_happened(connection, before, after)),
    )


def _kinds(before: Report, after: Report) -> tuple[KindChange, ...]:
    changes = []
    for kind in KINDS:
        entries_before, bytes_before = _of_kind(before, kind)
        entries_after, bytes_after = _of_kind(after, kind)
        if entries_before or entries_after:
            changes.append(
                KindChange(kind, entries_before, entries_after, bytes_before, bytes_after)
            )
    return tuple(changes)


def _of_kind(report: Report, kind: str) -> tuple[int, int]:
    totals = [total for total in report.entries if kind_of(total.state) == kind]
    return sum(total.entries for total in totals), sum(total.size for total in totals)


def _indexes(before: Report, after: Report) -> tuple[IndexChange, ...]:
    old = {(one.scope, one.ref, one.signed): one for one in before.indexes}
    new = {(one.scope, one.ref, one.signed): one for one in after.indexes}
    changes = []
    for scope, ref, signed in sorted(old.keys() | new.keys()):
        was = _numbers(before, old.get((scope, ref, signed)))
        is_now = _numbers(after, new.get((scope, ref, signed)))
        if was != is_now:
            pairs = (value for pair in zip(was, is_now, strict=True) for value in pair)
            changes.append(IndexChange(scope, ref, signed, *pairs))
    return tuple(changes)


def _numbers(report: Report, index: IndexReport | None) -> tuple[int | None, ...]:
    """Return generations, usable results and bytes, as the run left them.

    An index that a dry run has only planned does not exist, nor does one that was not written.
    """
    if index is None:
        return _NONE
    generations, usable = index.generations_after, index.usable_after
    if report.dry_run:
        generations, usable = index.generations, index.usable_before
    return (generations, usable, index.bytes_usable) if generations else _NONE


def _happened(connection: Connection, before: Report, after: Report) -> list[Tally]:
    target = select(TARGET.c.id).where(TARGET.c.name == after.target).scalar_subquery()
    here = ENTRY.c.target_id == target
    # The earlier one's too: what a run writes is seen by the next.
    came = and_(
        here,
        ENTRY.c.key.not_in(written_by_runs(target)),
        ENTRY.c.first_seen_at > before.started_at,
        ENTRY.c.first_seen_at <= after.started_at,
    )
    gone = and_(
        here,
        ENTRY.c.missing_since > before.started_at,
        ENTRY.c.missing_since <= after.finished_at,
    )
    how = f"evicted by {by}" if (by := after.store.evicted_by) else "deleted by others"
    not_by_us = and_(gone, ENTRY.c.state.in_(("evicted", "removed")))
    return [
        _count("new", connection, came),
        _count(how, connection, not_by_us),
        *_actions(connection, before, after),
    ]


def _done(before: Report, after: Report) -> ColumnElement[bool]:
    """Select what the runs after the earlier one did, up to the later one."""
    runs = (
        select(RUN.c.id)
        .join(TARGET, TARGET.c.id == RUN.c.target_id)
        .where(TARGET.c.name == after.target, RUN.c.id > before.run, RUN.c.id <= after.run)
    )
    return and_(ACTION.c.run_id.in_(runs), ACTION.c.outcome.in_(CARRIED_OUT_CODES))


def _count(what: str, connection: Connection, where: ColumnElement[bool]) -> Tally:
    counted = select(func.count(), func.coalesce(func.sum(ENTRY.c.size), 0)).where(where)
    entries, size = connection.execute(counted).one()
    return Tally(what, entries, size)


def _actions(connection: Connection, before: Report, after: Report) -> list[Tally]:
    """Count what the runs after the earlier one wrote and deleted, up to the later one."""
    done = ACTION.c.kind, ACTION.c.outcome
    rows = connection.execute(
        select(*done, func.count(), func.coalesce(func.sum(ACTION.c.size), 0))
        .where(_done(before, after))
        .group_by(*done)
    )
    counts: dict[tuple[str, str], tuple[int, int]] = {
        (row[0], row[1]): (row[2], row[3] or 0) for row in rows
    }
    written, deleted = (counts.get((kind, _DONE), (0, 0)) for kind in ("write", "delete"))
    gone = counts.get(("delete", _ALREADY_GONE))
    return [
        Tally("indexes written by runs", *written),
        Tally("deleted by runs", *deleted),
        *([Tally("already gone when runs came to them", *gone)] if gone else []),
    ]


_DONE, _ALREADY_GONE = code_of(Done()), code_of(AlreadyGone())
_NONE = (None, None, None)
_EARLIER = (
    select(func.max(RUN.c.id))
    .join(TARGET, TARGET.c.id == RUN.c.target_id)
    .where(
        TARGET.c.name == bindparam("target"),
        RUN.c.id < bindparam("run"),
        RUN.c.report.is_not(None),
    )
)
