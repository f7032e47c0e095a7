"""Reports and runs, as they are read back."""

from datetime import datetime

import msgspec
from sqlalchemy import Connection, select

from maintainer.errors import NoReportError
from maintainer.graph.tables import RUN, TARGET
from maintainer.graph.trends import with_trend
from maintainer.report.model import Report

REPORTS = 100
"""This many of the newest runs keep their report and decisions, whatever they did."""
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


def load_report(connection: Connection, run: int | None) -> Report:
    """Return the report of a run, by default the last one that ended, with the trend up to it.

    Raises NoReportError if there is none.
    """
    query = select(RUN.c.id, RUN.c.report).order_by(RUN.c.id.desc()).limit(1)
    if run is None:
        row = connection.execute(query.where(RUN.c.report.is_not(None))).first()
        if row is None:
            raise NoReportError("the database holds no report yet: run `maintainer gc` first")
    else:
        known = abs(run) <= _MAX_INTEGER
        row = connection.execute(query.where(RUN.c.id == run)).first() if known else None
        if row is None:
            raise NoReportError(f"the database holds no run {run}: see `maintainer runs`")
        if row.report is None:
            raise NoReportError(
                f"run {run} has no report: it was killed, is running, or changed nothing and is "
                f"not one of the last {REPORTS}"
            )
    return with_trend(connection, msgspec.json.decode(row.report, type=Report))


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
