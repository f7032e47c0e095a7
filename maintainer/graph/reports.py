"""Reports and runs, as they are read back."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import BindParameter, Connection, bindparam, func, literal, or_, select

from maintainer.decoding import decode_json
from maintainer.errors import NoReportError
from maintainer.graph.columns import OutcomeText
from maintainer.graph.tables import ACTION, KEEP, RUN, TARGET
from maintainer.graph.trends import with_trend
from maintainer.model.outcome import Kept
from maintainer.report.actions import make_action
from maintainer.report.model import ActionReport, ActionTotal, Report
from maintainer.sanitize import printable

LISTED = 5_000
"""Up to this many deletions, and this many kept entries, are listed one by one."""
REPORTS = 100
"""This many of the newest runs keep their report and decisions, whatever they did."""
_MAX_INTEGER = 2**63 - 1
"""The highest number that a database holds."""


class RunSummary(msgspec.Struct, frozen=True):
    """One line of the list of runs."""

    run: int
    target: str
    started_at: datetime
    finished_at: datetime | None
    status: str
    dry_run: bool
    indexes_written: int
    entries_deleted: int
    bytes_freed: int
    requests: int


def load_report(
    connection: Connection, run: int | None = None, *, target: str | None = None
) -> Report:
    """Return the report of a run, by default the last one that ended, with the trend up to it.

    With a target, of the last run on that. Raises NoReportError if there is none.
    """
    if target is not None:
        row = connection.execute(_LAST_OF, {"target": target}).first()
        if row is None:
            raise NoReportError(f"the database has no report of {printable(target)} yet")
    elif run is None:
        row = connection.execute(_LAST).first()
        if row is None:
            raise NoReportError("the database has no report yet: run `maintainer gc` first")
    else:
        known = abs(run) <= _MAX_INTEGER
        row = connection.execute(_THIS, {"run": run}).first() if known else None
        if row is None:
            raise NoReportError(f"the database has no run {run}: see `maintainer runs`")
    report = read_report(connection, row.id)
    if report is None:
        raise NoReportError(
            f"run {run} has no report: it was killed, is running, or changed nothing and is not "
            f"one of the last {REPORTS}"
        )
    return with_trend(connection, report)


def read_report(connection: Connection, run: int) -> Report | None:
    """Return the report of a run, without the trend, if it has one."""
    content = load_content(connection, run)
    if content is None:
        return None
    report = decode_json(content, Report)
    return msgspec.structs.replace(report, actions=load_actions(connection, run))


Fields = dict[str, msgspec.Raw]
"""The fields of a report, none of them decoded."""


def load_content(connection: Connection, run: int) -> bytes | None:
    """Return the report of a run as JSON, without its actions and the trend, if it has one."""
    return load_contents(connection, [run]).get(run)


def load_contents(connection: Connection, runs: Sequence[int]) -> dict[int, bytes]:
    """Return the same of several runs, by two statements at most; some may have none."""
    rows = connection.execute(_CONTENTS, {"runs": runs}).all()
    others = sorted({row.same_as for row in rows if row.same_as is not None})
    again = connection.execute(_CONTENTS, {"runs": others}) if others else ()
    same = {row.id: row.report for row in again}
    found = {}
    for row in rows:
        known = None if row.same_as is None else same.get(row.same_as)
        if row.report is None or (row.same_as is not None and known is None):
            continue
        if known is None:
            found[row.id] = row.report
        else:
            both = (decode_json(one, Fields) for one in (known, row.report))
            found[row.id] = msgspec.json.encode(next(both) | next(both))
    return found


def load_actions(connection: Connection, run: int) -> tuple[ActionReport, ...]:
    """Return what a run did, in order, and then what it kept: of many deletions the first ones."""
    done = connection.execute(_DONE, {"run": run, "listed": LISTED})
    kept = connection.execute(_KEPT, {"run": run})
    return tuple(
        make_action(
            row.kind,
            row.subject,
            row.ref,
            row.facts,
            row.outcome_facts,
            store_id=row.store_id,
            size=row.size,
        )
        for row in (*done, *kept)
    )


def count_unlisted(connection: Connection, run: int) -> tuple[ActionTotal, ...]:
    """Return the totals of the deletions that `load_actions` leaves out, by outcome."""
    rows = connection.execute(_UNLISTED, {"run": run, "listed": LISTED})
    return tuple(ActionTotal("delete", *row) for row in rows)


def find_neighbours(connection: Connection, report: Report) -> tuple[int | None, int | None]:
    """Return the runs with a report before and after this one, on the same cache."""
    row = connection.execute(_NEIGHBOURS, {"target": report.target, "run": report.run}).one()
    return row.before, row.after


def list_runs(connection: Connection, limit: int, *, target: str | None = None) -> list[RunSummary]:
    """Return the last runs, newest first; with a target, those on that cache."""
    runs = _RUNS if target is None else _RUNS.where(TARGET.c.name == target)
    rows = connection.execute(runs, {"limit": min(limit, _MAX_INTEGER)})
    return [RunSummary(*row) for row in rows]


_run: BindParameter[int] = bindparam("run")
_listed: BindParameter[int] = bindparam("listed")
_LAST = select(RUN.c.id).where(RUN.c.report.is_not(None)).order_by(RUN.c.id.desc()).limit(1)
_LAST_OF = _LAST.join(TARGET, TARGET.c.id == RUN.c.target_id).where(
    TARGET.c.name == bindparam("target")
)
_THIS = select(RUN.c.id).where(RUN.c.id == _run)
_CONTENTS = select(RUN.c.id, RUN.c.report, RUN.c.same_as).where(
    RUN.c.id.in_(bindparam("runs", expanding=True))
)

_NEIGHBOURS = (
    select(
        func.max(RUN.c.id).filter(RUN.c.id < _run).label("before"),
        func.min(RUN.c.id).filter(RUN.c.id > _run).label("after"),
    )
    .join(TARGET, TARGET.c.id == RUN.c.target_id)
    .where(TARGET.c.name == bindparam("target"), RUN.c.report.is_not(None))
)

_numbered = (
    select(
        ACTION.c.id,
        func.row_number()
        .over(partition_by=ACTION.c.kind, order_by=ACTION.c.position)
        .label("number"),
    )
    .where(ACTION.c.run_id == _run)
    .subquery()
)
_DONE = (
    select(
        ACTION.c.kind,
        ACTION.c.subject,
        ACTION.c.ref,
        ACTION.c.store_id,
        ACTION.c.size,
        ACTION.c.facts,
        ACTION.c.outcome_facts,
    )
    .join(_numbered, _numbered.c.id == ACTION.c.id)
    .where((ACTION.c.kind != "delete") | (_numbered.c.number <= _listed))
    .order_by(ACTION.c.position)
)
_KEPT = (
    select(
        literal("keep").label("kind"),
        KEEP.c.subject,
        KEEP.c.ref,
        KEEP.c.store_id,
        KEEP.c.size,
        KEEP.c.facts,
        literal(Kept(), OutcomeText).label("outcome_facts"),
    )
    .join(RUN, RUN.c.target_id == KEEP.c.target_id)
    .where(
        RUN.c.id == _run,
        RUN.c.has_plan,
        KEEP.c.first_run <= _run,
        or_(KEEP.c.last_run.is_(None), KEEP.c.last_run >= _run),
    )
    .order_by(KEEP.c.store_id.nulls_first(), KEEP.c.id)
)
_rest = (
    select(ACTION.c.outcome, ACTION.c.size)
    .where(ACTION.c.run_id == _run, ACTION.c.kind == "delete")
    .order_by(ACTION.c.position)
    .offset(_listed)
    .subquery()
)
_UNLISTED = (
    select(_rest.c.outcome, func.count(), func.coalesce(func.sum(_rest.c.size), 0))
    .group_by(_rest.c.outcome)
    .order_by(_rest.c.outcome)
)
_RUNS = (
    select(
        RUN.c.id.label("run"),
        TARGET.c.name.label("target"),
        *(RUN.c[name] for name in RunSummary.__struct_fields__[2:]),
    )
    .join(TARGET, TARGET.c.id == RUN.c.target_id)
    .order_by(RUN.c.id.desc())
    .limit(bindparam("limit"))
)
