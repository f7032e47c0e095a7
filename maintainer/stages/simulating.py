"""Simulate the cache of a report, for the page that shows it."""

from sqlalchemy import Connection

from maintainer.graph.history import load_history
from maintainer.graph.schedule import last_reported_run
from maintainer.report import Report
from maintainer.report.simulation import Simulation, simulate_cache

_MOST = 200_000
"""Builds times results: some seconds."""


def simulate_reported(connection: Connection, report: Report) -> Simulation | None:
    """Return what caches of other sizes would have kept.

    None if no time lies between the exports that are known, as after the first run on a directory:
    then a run per day would be none. None also if the report is not the last one of its cache: the
    database does not know what it knew before. A page must not take minutes, so of a long history
    only the last builds count.
    """
    if last_reported_run(connection, report.target) != report.run:
        return None
    history = load_history(connection, report.target).latest(_MOST)
    moments = {build.at for build in history.builds}
    return simulate_cache(report, history) if len(moments) > 1 else None
