"""The simulations that the pages show: each is made once, as it takes about a second."""

from threading import Lock

from sqlalchemy import Connection

from maintainer.report import Report
from maintainer.report.simulation import Simulation
from maintainer.stages.simulating import simulate_reported


class Simulations:
    """Remembers the simulation of the last report of each cache."""

    def __init__(self) -> None:
        """Begin without any."""
        self._known: dict[str, tuple[int, Simulation]] = {}
        self._lock = Lock()

    def of(self, connection: Connection, report: Report) -> Simulation | None:
        """Return the simulation of a report, if it is the last one of its cache."""
        with self._lock:
            run, known = self._known.get(report.target, (None, None))
            if run == report.run:
                return known
            found = simulate_reported(connection, report)
            if found is not None:
                self._known[report.target] = report.run, found
            return found
