"""`maintainer serve`: from the first schedule to the last signal.

The order at the end is the safety argument: no other run starts; the active run ends after its
current step, or is cut off; then the pages close.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from maintainer.errors import MaintainerError
from maintainer.graph.database import Database
from maintainer.report.words import format_count
from maintainer.serve.clock import Clock
from maintainer.serve.discovery import load_recorded, retire
from maintainer.serve.searcher import Searcher
from maintainer.serve.targets import combine, read_targets
from maintainer.serve.timetable import join, reload, start
from maintainer.serve.web.server import PageServer
from maintainer.serve.worker import Worker
from maintainer.settings import Settings
from maintainer.signals import RELOAD, Queue, interruptible, received
from maintainer.stages.run import now_utc

STEP_TIMEOUT = 5.0
"""Seconds for the active run to end its current step."""
_END_TIMEOUT = 60.0
"""Seconds for a run that was cut off to record what it has done."""

log = logging.getLogger(__name__)


def serve(load: Callable[[], Settings]) -> None:
    """Run targets when they are due, and serve pages, until SIGINT or SIGTERM.

    `load` reads the configuration: now, and again at each SIGHUP. Raises UsageError if it is
    invalid now; AddressBusyError if the address of the pages is not available now; DatabaseError if
    the database is unusable.
    """
    settings = load()
    read_targets(settings)
    with open_alone(settings) as database, received(RELOAD) as events:
        retire(database, settings, now_utc())
        targets = combine(settings, load_recorded(database, settings))
        worker = Worker(database, targets, now_utc)
        clock = Clock(worker.run_due, ended=lambda: events.put(None))
        changes = _Changes(database, worker)
        searcher = Searcher(
            database, settings, now_utc, lambda: changes.apply_found(searcher.settings)
        )
        server = PageServer(
            settings.serve,
            database,
            lambda: clock.is_alive,
            lambda: {**searcher.trouble, **worker.trouble},
            worker.ended,
        )
        with closing(server):
            start(database, targets.values(), now_utc())
            _Service(load, settings, changes, searcher, clock, server, events).run()


@contextmanager
def open_alone(settings: Settings) -> Iterator[Database]:
    """Open the database, at this version's revision, for the only service that uses it."""
    database = Database(settings.database)
    try:
        database.upgrade()
        with database.lock_service():
            yield database
    finally:
        database.close()


@dataclass(frozen=True, slots=True)
class _Changes:
    """Changes the targets: the main thread does, and the searcher, one at a time."""

    database: Database
    worker: Worker
    lock: threading.Lock = field(default_factory=threading.Lock)

    def apply(self, settings: Settings) -> int:
        """Apply another configuration; return how many targets there are. Raises MaintainerError.

        Everything that can fail comes first.
        """
        with self.lock:
            read_targets(settings)
            retire(self.database, settings, now_utc())
            targets = combine(settings, load_recorded(self.database, settings))
            reload(self.database, targets.values(), now_utc())
            self.worker.targets = targets
            return len(targets)

    def apply_found(self, settings: Settings) -> None:
        """Apply what a search has found; the targets that were there keep their times."""
        with self.lock:
            targets = combine(settings, load_recorded(self.database, settings))
            join(self.database, targets.values(), now_utc())
            self.worker.targets = targets


@dataclass(frozen=True, slots=True)
class _Service:
    """The service between start and end."""

    load: Callable[[], Settings]
    settings: Settings
    """The settings that it started with."""
    changes: _Changes
    searcher: Searcher
    clock: Clock
    server: PageServer
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
        if is_bug:
            raise MaintainerError("the clock has stopped: see the log, and restart the service")

    def _stop(self, signal: str) -> None:
        log.info("%s: stopping", signal)
        self.changes.worker.interrupt(signal)
        self.events.put(None)

    def _reload(self) -> None:
        try:
            self._read_again()
        except MaintainerError as error:
            log.error("the old configuration stays: %s", error)  # noqa: TRY400
        except Exception:
            log.exception("the old configuration stays: this is a bug in maintainer")

    def _read_again(self) -> None:
        settings = self.load()
        number = self.changes.apply(settings)
        for what in ("database", "log_format"):
            if getattr(settings, what) != getattr(self.settings, what):
                log.warning("a change of %s needs a restart", what)
        if settings.serve.listen != self.settings.serve.listen:
            log.warning("a change of serve.listen needs a restart")
        self.searcher.reload(settings)
        self.server.reload(settings.serve)
        log.info("the configuration is reloaded: %s", format_count(number, "target"))
