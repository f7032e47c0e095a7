"""Simulate the cache of a report, for the page that shows it."""

from sqlalchemy import Connection

from maintainer.graph.history import load_history
from maintainer.report import Report
from maintainer.report.simulation import Simulation, simulate_cache


def simulate_reported(connection: Connection, report: Report) -> Simulation | None:
    """Return what caches of other sizes would have kept; None if nothing is known of builds."""
    history = load_history(connection, report.target)
    return simulate_cache(report, history) if history.builds else None
