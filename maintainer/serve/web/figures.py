"""What the metrics of a target show: the figures of its last run that has a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Connection

from maintainer.decoding import decode_json
from maintainer.graph.reports import load_contents
from maintainer.graph.schedule import TargetStatus
from maintainer.graph.summaries import Overview, load_times
from maintainer.model.entry import in_batches
from maintainer.report import EntryTotal, RequestReport
from maintainer.report.model import ResultTotals, Space

_CHUNK = 500
"""Runs in one statement."""


class Figures(msgspec.Struct, frozen=True):
    """The parts of a report that are shown; the rest, which can be large, is not decoded."""

    entries: tuple[EntryTotal, ...]
    requests: RequestReport
    readable: tuple[str, ...] = ()
    results: ResultTotals = ResultTotals()
    indexes_broken: int = 0
    space: Space | None = None


@dataclass(frozen=True, slots=True)
class LastRun:
    """The last run on a cache that succeeded, or else the last one; dry runs do not count."""

    started_at: datetime
    finished_at: datetime
    blobs_gone: int
    figures: Figures


@dataclass(frozen=True, slots=True)
class TargetFigures:
    """What the database contains about a target."""

    overview: Overview
    last: LastRun | None

    @property
    def status(self) -> TargetStatus:
        """Its status."""
        return self.overview.status

    def level(self, now: datetime) -> str:
        """Return the level of its verdict."""
        return self.overview.level(now)


def read_figures(connection: Connection, targets: Sequence[Overview]) -> list[TargetFigures]:
    """Read the figures of targets, by a few statements for each 500 of them."""
    runs = [one.summary.run for one in targets if one.summary]
    last: dict[int, LastRun] = {}
    for some in in_batches(runs, _CHUNK):
        last |= _read_runs(connection, some)
    return [
        TargetFigures(one, last.get(one.summary.run) if one.summary else None) for one in targets
    ]


def _read_runs(connection: Connection, runs: Sequence[int]) -> dict[int, LastRun]:
    contents = load_contents(connection, runs)
    return {
        run: LastRun(
            one.started_at, one.finished_at, one.blobs_gone, decode_json(contents[run], Figures)
        )
        for run, one in load_times(connection, runs).items()
        if run in contents
    }
