"""What the pages and metrics show of each target: the figures of its last run that has a report."""

from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Connection, func, select

from maintainer.graph.reports import load_content
from maintainer.graph.schedule import TargetStatus
from maintainer.graph.tables import ENTRY, RUN, RUN_STATE, TARGET
from maintainer.report import EntryTotal, RequestReport
from maintainer.report.model import ResultTotals, Space, Verdict

_POINTS = 40
"""How many runs a trend on the index page has."""


class Figures(msgspec.Struct, frozen=True):
    """The parts of a report that are shown; the rest, which can be large, is not decoded."""

    entries: tuple[EntryTotal, ...]
    requests: RequestReport
    readable: tuple[str, ...] = ()
    results: ResultTotals = ResultTotals()
    indexes_broken: int = 0
    space: Space | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class LastRun:
    """The last run on a cache that succeeded, or else the last one; dry runs do not count."""

    run: int
    started_at: datetime
    finished_at: datetime
    blobs_vanished: int
    figures: Figures


@dataclass(frozen=True, slots=True)
class TargetFigures:
    """What the database contains about a target."""

    status: TargetStatus
    last: LastRun | None
    stored: tuple[int, ...]
    """Bytes at the end of the last runs, oldest first."""

    def level(self, now: datetime) -> str:
        """Return the level of its verdict: `bad` if its last attempt failed, `none` before one."""
        verdict = self.last.figures.verdict if self.last else None
        if self.status.last_status == "failed":
            return "bad"
        if self.status.complaint(now):
            return "attention" if verdict else "none"
        return verdict.level if verdict else "none"


def read_figures(connection: Connection, status: TargetStatus) -> TargetFigures:
    """Read the figures of a target."""
    of_target = TARGET.c.name == status.target
    stored = connection.execute(
        select(func.sum(RUN_STATE.c.size))
        .join(RUN, RUN.c.id == RUN_STATE.c.run_id)
        .join(TARGET, TARGET.c.id == RUN.c.target_id)
        .where(of_target)
        .group_by(RUN.c.id)
        .order_by(RUN.c.id.desc())
        .limit(_POINTS)
    )
    return TargetFigures(
        status,
        _last_run(connection, status),
        tuple(reversed([size for (size,) in stored])),
    )


def _last_run(connection: Connection, status: TargetStatus) -> LastRun | None:
    last = connection.execute(
        select(RUN.c.id, RUN.c.target_id, RUN.c.started_at, RUN.c.finished_at)
        .join(TARGET, TARGET.c.id == RUN.c.target_id)
        .where(
            TARGET.c.name == status.target,
            RUN.c.dry_run.is_(False),
            RUN.c.report.is_not(None),
        )
        .order_by((RUN.c.status == "done").desc(), RUN.c.id.desc())
        .limit(1)
    ).first()
    content = None if last is None else load_content(connection, last.id)
    if last is None or content is None:
        return None
    vanished = connection.execute(
        select(func.count()).where(
            ENTRY.c.target_id == last.target_id,
            ENTRY.c.kind == "blob",
            ENTRY.c.state == "evicted",
            # Everything that a run finds missing has the start of the run as its time.
            ENTRY.c.missing_since == last.started_at,
        )
    ).scalar_one()
    figures = msgspec.json.decode(content, type=Figures)
    return LastRun(last.id, last.started_at, last.finished_at, vanished, figures)
