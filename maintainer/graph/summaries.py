"""The summary of each cache: the figures of its last run, for pages that show thousands of them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, func, select

from maintainer.decoding import decode_json
from maintainer.graph.dialect import insert_or_update
from maintainer.graph.schedule import STATUSES, TargetStatus, read_status
from maintainer.graph.tables import ENTRY, RUN, RUN_STATE, SCHEDULED, SUMMARY, TARGET
from maintainer.model.entry import in_batches
from maintainer.report.model import Report, Space

_POINTS = 40
"""How many runs a trend has."""
_CHUNK = 500
"""Values in one statement."""


class Summary(msgspec.Struct, frozen=True):
    """The figures of the last run on a cache that succeeded, or else of the last one."""

    run: int
    level: str | None
    """Of its verdict."""
    message: str
    used: int
    """Bytes."""
    quota: int | None
    """Bytes above which the store evicts, if it does."""
    results: int | None
    """Results that builds can use; None if the run could read no index."""


class Overview(msgspec.Struct, frozen=True):
    """A target, and the summary of its cache."""

    status: TargetStatus
    summary: Summary | None

    def level(self, now: datetime) -> str:
        """Return the level of its verdict: `bad` if its last attempt failed, `none` before one.

        It is `listed` if runs can read no index: nobody knows what builds find, and all is as it
        was set up. Otherwise every repository of an organization would seem to have a problem.
        """
        known = self.summary.level if self.summary else None
        if self.status.last_status == "failed":
            return "bad"
        if self.status.trouble(now):
            return "attention" if known else "none"
        if known == "attention" and self.summary and self.summary.results is None:
            return "listed"
        return known or "none"


def save_summary(connection: Connection, report: Report) -> None:
    """Record the figures of a run, unless it failed and an earlier one on its cache did not.

    If it ended before it had any, those of the earlier one stay.
    """
    if report.dry_run:
        return
    row = connection.execute(_KNOWN, {"run": report.run}).one()
    is_done = report.status == "done"
    if row.status == "done" and not is_done:
        return
    verdict, figures = report.verdict, _figures(report)
    values = {
        "run_id": report.run,
        "status": report.status,
        "level": verdict.level if verdict else None,
        "message": verdict.message if verdict else "",
        "succeeded_at": report.finished_at if is_done else None,
    }
    is_news = row.status is None or not report.saw_nothing
    statement = insert_or_update(SUMMARY, ["target_id"], values | figures if is_news else values)
    connection.execute(statement.values(values | figures | {"target_id": row.target_id}))


def _figures(report: Report) -> dict[str, object]:
    space = report.space
    return {
        "used": space.used if space else sum(one.size for one in report.entries),
        "quota": space.quota if space else None,
        "results": report.results.after if report.readable else None,
        "space": msgspec.json.encode(_trim(space)) if space else None,
    }


def _trim(space: Space) -> Space:
    """Return what the page of all caches needs."""
    return msgspec.structs.replace(space, refs=())


def load_overviews(connection: Connection) -> list[Overview]:
    """Return all targets, in the order of the configuration, by one statement."""
    return [
        Overview(
            read_status(row),
            None
            if row.summary_run is None
            else Summary(row.summary_run, row.level, row.message, row.used, row.quota, row.results),
        )
        for row in connection.execute(_OVERVIEWS)
    ]


def load_trends(connection: Connection, caches: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Return the bytes at the end of the last runs, oldest first, by the names of caches."""
    found: dict[str, list[int]] = {}
    for names in in_batches(sorted(caches), _CHUNK):
        for row in connection.execute(_TRENDS, {"caches": names}):
            found.setdefault(row.name, []).append(int(row.size))
    return {name: tuple(sizes) for name, sizes in found.items()}


def load_spaces(connection: Connection) -> Iterator[tuple[str, Space]]:
    """Yield the names of targets, and what takes the space of their caches."""
    for row in connection.execute(_SPACES):
        yield row.name, decode_json(row.space, Space)


@dataclass(frozen=True, slots=True)
class RunTimes:
    """When a run started and ended, and how many blobs it found evicted."""

    started_at: datetime
    finished_at: datetime
    blobs_gone: int


def load_times(connection: Connection, runs: Collection[int]) -> dict[int, RunTimes]:
    """Return the times of some runs, by their numbers."""
    gone = {row.id: row.number for row in connection.execute(_GONE, {"runs": runs})}
    return {
        row.id: RunTimes(row.started_at, row.finished_at, gone.get(row.id, 0))
        for row in connection.execute(_TIMES, {"runs": runs})
    }


_KNOWN = (
    select(RUN.c.target_id, SUMMARY.c.status)
    .outerjoin(SUMMARY, SUMMARY.c.target_id == RUN.c.target_id)
    .where(RUN.c.id == bindparam("run"))
)
_OVERVIEWS = STATUSES.add_columns(
    SUMMARY.c.run_id.label("summary_run"),
    *(SUMMARY.c[name] for name in ("level", "message", "used", "quota", "results")),
)
_recent = RUN.alias("recent")
_newest = (
    select(_recent.c.id)
    .where(_recent.c.target_id == TARGET.c.id)
    .order_by(_recent.c.id.desc())
    .limit(_POINTS)
    .correlate(TARGET)
    .subquery()
)
# Materialized, or PostgreSQL would look for the first of these runs for each run of the target.
_since = (
    select(TARGET.c.id, TARGET.c.name, select(func.min(_newest.c.id)).scalar_subquery().label("at"))
    .where(TARGET.c.name.in_(bindparam("caches", expanding=True)))
    .cte("since")
    .prefix_with("MATERIALIZED")
)
_TRENDS = (
    select(_since.c.name, RUN.c.id, func.sum(RUN_STATE.c.size).label("size"))
    .join(RUN, (RUN.c.target_id == _since.c.id) & (RUN.c.id >= _since.c.at))
    .join(RUN_STATE, RUN_STATE.c.run_id == RUN.c.id)
    .group_by(_since.c.name, RUN.c.id)
    .order_by(_since.c.name, RUN.c.id)
)
_SPACES = (
    select(SCHEDULED.c.name, SUMMARY.c.space)
    .join(TARGET, TARGET.c.name == SCHEDULED.c.target)
    .join(SUMMARY, SUMMARY.c.target_id == TARGET.c.id)
    .where(SUMMARY.c.space.is_not(None))
)
_runs = RUN.c.id.in_(bindparam("runs", expanding=True))
_TIMES = select(RUN.c.id, RUN.c.started_at, RUN.c.finished_at).where(_runs)
# Everything that a run finds missing has the start of the run as its time.
_GONE = (
    select(RUN.c.id, func.count().label("number"))
    .join(
        ENTRY,
        (ENTRY.c.target_id == RUN.c.target_id) & (ENTRY.c.missing_since == RUN.c.started_at),
    )
    .where(_runs, ENTRY.c.kind == "blob", ENTRY.c.state == "evicted")
    .group_by(RUN.c.id)
)
