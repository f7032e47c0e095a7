"""Reports and runs, as they are read back."""

from datetime import datetime

import msgspec
from sqlalchemy import Connection, func, literal, or_, select

from maintainer.errors import NoReportError
from maintainer.graph.tables import ACTION, KEEP, RUN, TARGET, OutcomeText
from maintainer.graph.trends import with_trend
from maintainer.model.outcome import Kept
from maintainer.report.actions import make_action
from maintainer.report.model import ActionReport, ActionTotal, Report
from maintainer.sanitize import printable

LISTED = 5_000
"""Up to this many deletions, and this many kept entries, are listed one by one."""
REPORTS = 100
"""This many of the newest runs keep their report and decisions, whatever they did."""
_NAMED = 5
"""Up to this many targets are named."""
_KEPT = ("subject", "ref", "store_id", "size", "facts")
_MAX_INTEGER = 2**63 - 1
"""The highest number that SQLite holds."""


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
    bytes_deleted: int
    requests: int


def load_report(
    connection: Connection, run: int | None = None, *, target: str | None = None
) -> Report:
    """Return the report of a run, by default the last one that ended, with the trend up to it.

    With a target, of the last run on that. Raises NoReportError if there is none.
    """
    query = select(RUN.c.id).order_by(RUN.c.id.desc()).limit(1)
    if target is not None:
        query = query.join(TARGET, TARGET.c.id == RUN.c.target_id).where(TARGET.c.name == target)
        row = connection.execute(query.where(RUN.c.report.is_not(None))).first()
        if row is None:
            raise NoReportError(_no_report_of(connection, target))
    elif run is None:
        row = connection.execute(query.where(RUN.c.report.is_not(None))).first()
        if row is None:
            raise NoReportError("the database holds no report yet: run `maintainer gc` first")
    else:
        known = abs(run) <= _MAX_INTEGER
        row = connection.execute(query.where(RUN.c.id == run)).first() if known else None
        if row is None:
            raise NoReportError(f"the database holds no run {run}: see `maintainer runs`")
    report = read_report(connection, row.id)
    if report is None:
        raise NoReportError(
            f"run {run} has no report: it was killed, is running, or changed nothing and is not "
            f"one of the last {REPORTS}"
        )
    return with_trend(connection, report)


def _no_report_of(connection: Connection, target: str) -> str:
    names = connection.execute(select(TARGET.c.name).order_by(TARGET.c.name).limit(_NAMED + 1))
    known = [printable(name) for name in names.scalars()]
    some = ", ".join(known[:_NAMED]) + (", …" if len(known) > _NAMED else "")
    return f"the database holds no report of {printable(target)}; it holds: {some or 'none'}"


def read_report(connection: Connection, run: int) -> Report | None:
    """Return the report of a run, without the trend, if it has one."""
    content = load_content(connection, run)
    if content is None:
        return None
    report = msgspec.json.decode(content, type=Report)
    return msgspec.structs.replace(report, actions=load_actions(connection, run))


Fields = dict[str, msgspec.Raw]
"""The fields of a report, none of them decoded."""


def load_content(connection: Connection, run: int) -> bytes | None:
    """Return the report of a run as JSON, without its actions and the trend, if it has one."""
    row = connection.execute(select(RUN.c.report, RUN.c.same_as).where(RUN.c.id == run)).first()
    if row is None or row.report is None or row.same_as is None:
        return row and row.report
    same = connection.execute(select(RUN.c.report).where(RUN.c.id == row.same_as)).scalar()
    if same is None:
        return None
    known, changed = (msgspec.json.decode(one, type=Fields) for one in (same, row.report))
    return msgspec.json.encode(known | changed)


def load_actions(connection: Connection, run: int) -> tuple[ActionReport, ...]:
    """Return what a run did, in order, and then what it kept: of many deletions the first ones."""
    number = func.row_number().over(partition_by=ACTION.c.kind, order_by=ACTION.c.position)
    numbered = select(ACTION.c.id, number.label("number")).where(ACTION.c.run_id == run).subquery()
    done = connection.execute(
        select(ACTION.c.kind, *(ACTION.c[name] for name in _KEPT), ACTION.c.outcome_facts)
        .join(numbered, numbered.c.id == ACTION.c.id)
        .where((ACTION.c.kind != "delete") | (numbered.c.number <= LISTED))
        .order_by(ACTION.c.position)
    )
    kept = connection.execute(
        select(
            literal("keep").label("kind"),
            *(KEEP.c[name] for name in _KEPT),
            literal(Kept(), OutcomeText).label("outcome_facts"),
        )
        .join(RUN, RUN.c.target_id == KEEP.c.target_id)
        .where(
            RUN.c.id == run,
            RUN.c.has_plan,
            KEEP.c.first_run <= run,
            or_(KEEP.c.last_run.is_(None), KEEP.c.last_run >= run),
        )
        .order_by(KEEP.c.store_id, KEEP.c.id)
    )
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
    rest = (
        select(ACTION.c.outcome, ACTION.c.size)
        .where(ACTION.c.run_id == run, ACTION.c.kind == "delete")
        .order_by(ACTION.c.position)
        .offset(LISTED)
        .subquery()
    )
    rows = connection.execute(
        select(rest.c.outcome, func.count(), func.coalesce(func.sum(rest.c.size), 0))
        .group_by(rest.c.outcome)
        .order_by(rest.c.outcome)
    )
    return tuple(ActionTotal("delete", *row) for row in rows)


def list_runs(connection: Connection, limit: int) -> list[RunSummary]:
    """Return the last runs, newest first."""
    rows = connection.execute(
        select(
            RUN.c.id.label("run"),
            TARGET.c.name.label("target"),
            *(RUN.c[name] for name in RunSummary.__struct_fields__[2:]),
        )
        .join(TARGET, TARGET.c.id == RUN.c.target_id)
        .order_by(RUN.c.id.desc())
        .limit(min(limit, _MAX_INTEGER))
    )
    return [RunSummary(*row) for row in rows]
