"""`maintainer serve`: from the first schedule to the last signal.

The order at the end is the safety argument: no other run starts; the active run ends after its
current step, or is cut off; then the pages close.
"""

import logging
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial

from maintainer.clock import now_utc
from maintainer.errors import MaintainerError
from maintainer.graph.clock import schedule_now
from maintainer.graph.database import open_database
from maintainer.serve.clock import Clock
from maintainer.serve.discovery import retire
from maintainer.serve.reloading import Changes, read_again
from maintainer.serve.searcher import Searcher
from maintainer.serve.targets import known_targets, read_targets
from maintainer.serve.timetable import join, start
from maintainer.serve.upkeep import Upkeep
from maintainer.serve.web.server import PageServer
from maintainer.serve.worker import STEP_TIMEOUT, Worker
from maintainer.settings import Settings
from maintainer.signals import RELOAD, Queue, interruptible, received

_END_TIMEOUT = 60.0
"""Seconds for a run that was cut off to record what it has done."""

log = logging.getLogger(__name__)


def serve(load: Callable[[], Settings], *, pages_only: bool = False) -> None:
    """Run targets when they are due, and serve pages, until SIGINT or SIGTERM.

    With `pages_only`, workers run the targets, and there may be several services.

    `load` reads the configuration: now, and again at each SIGHUP. Raises UsageError if it is
    invalid now; AddressBusyError if the address of the pages is not available now; DatabaseError if
    the database is unusable.
    """
    settings = load()
    read_targets(settings)
    with (
        open_database(settings.database) as database,
        nullcontext(_ignore) if pages_only else database.lock_service() as keep_lock,
        received(RELOAD) as events,
    ):
        retire(database, settings, now_utc)
        targets = known_targets(database, settings)
        worker = Worker(database, targets, now_utc)
        end = partial(events.put, None)
        upkeep = Upkeep(database, worker, keep_lock, end)
        clock = Clock(worker.check if pages_only else upkeep.tick, ended=end)
        changes = Changes(settings, database, worker)
        searcher = Searcher(database, settings, now_utc, changes.follow)
        server = PageServer(
            settings.serve,
            database,
            lambda: clock.is_alive,
            lambda: {**searcher.trouble, **worker.trouble},
            lambda: changes.refused,
        )
        with closing(server):
            now = schedule_now(database, now_utc)
            (join if pages_only else start)(database, targets.values(), now)
            _Service(load, settings, changes, searcher, clock, server, upkeep, events).run()


def _ignore() -> None:
    """Do nothing: there may be several services that only have pages."""


@dataclass(frozen=True, slots=True)
class _Service:
    """The service between start and end."""

    load: Callable[[], Settings]
    settings: Settings
    """The settings that it started with."""
    changes: Changes
    searcher: Searcher
    clock: Clock
    server: PageServer
    upkeep: Upkeep
    events: Queue
    """Signals to reload; None ends the service."""

    def run(self) -> None:
        """Serve until a signal ends it, or the clock stops."""
        worker = self.changes.worker
        with (
            interruptible(self._stop, worker.cut_off, patience=STEP_TIMEOUT),
            self.server.serving(),
            self.clock.ticking(STEP_TIMEOUT + _END_TIMEOUT),
            self.searcher.searching(STEP_TIMEOUT),
        ):
            try:
                while self.events.get():
                    self._reload()
            finally:
                is_bug = worker.interrupted_by is None
                worker.interrupt("the end of the service")
        if self.upkeep.replaced:
            raise self.upkeep.replaced
        if is_bug:
            raise MaintainerError("the clock has stopped: see the log, and restart the service")

    def _stop(self, signal: str) -> None:
        log.info("%s: stopping", signal)
        self.changes.worker.interrupt(signal)
        self.events.put(None)

    def _reload(self) -> None:
        settings = read_again(self.load, self.settings, self.changes)
        self.searcher.reload(settings)
        self.server.reload(settings.serve)
