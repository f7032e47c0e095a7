"""What a service that runs targets does from time to time, where the database is shared."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from maintainer.clock import now_utc
from maintainer.errors import DatabaseError
from maintainer.graph.clock import schedule_now
from maintainer.graph.database import Database
from maintainer.serve.timetable import end_killed
from maintainer.serve.worker import Worker

EVERY = 30.0
"""Seconds until it is looked for killed attempts again."""
PATIENCE = 300.0
"""Seconds for which somebody else may have the lock: a session of our own, perhaps, that the
network has cut off, and that the server has not missed yet.
"""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Upkeep:
    """Its lock, and what workers do, too: alone, nobody else would let killed targets run again."""

    database: Database
    worker: Worker
    keep_lock: Callable[[], None]
    """Keeps the lock of the service. Raises DatabaseError if there is another service."""
    end: Callable[[], object]
    """Ends the service."""
    replaced: DatabaseError | None = None
    """There is another service, as the lock was lost for a while."""
    elapsed: Callable[[], float] = monotonic
    _lost_at: float | None = None
    _done_at: float = 0.0

    def tick(self) -> None:
        """Run what is due, unless there is another service; before that, do what else is due."""
        self._stay_alone()
        if self.database.is_shared and self.elapsed() >= self._done_at + EVERY:
            self._done_at = self.elapsed()
            self._end_killed()
        if not self.replaced:
            self.worker.run_due()

    def _stay_alone(self) -> None:
        """Keep the lock, which ends with its connection; without it, another service may start.

        Until that is certain, both run what is due: only one of them gets the lease of a target.
        """
        try:
            self.keep_lock()
        except DatabaseError as error:
            now = self.elapsed()
            self._lost_at = now if self._lost_at is None else self._lost_at
            if now >= self._lost_at + PATIENCE:
                self.replaced = error
                self.end()
        else:
            self._lost_at = None

    def _end_killed(self) -> None:
        """Let attempts run again that were killed, or whose claim was never confirmed to us."""
        try:
            now = schedule_now(self.database, now_utc)
            end_killed(self.database, self.worker.targets.values(), now)
        except DatabaseError as error:
            log.debug("%s", error)  # `run_due` says so.
