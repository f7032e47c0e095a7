"""`maintainer serve`: from the first schedule to the last signal.

The order at the end is the safety argument: nothing new begins; the run under way ends between two
steps, or is cut off; the pages go; the schedule is closed.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread
from filelock import FileLock, Timeout

from maintainer.collect import now_utc
from maintainer.errors import DatabaseError, MaintainerError
from maintainer.graph.database import Database
from maintainer.report.words import say_count
from maintainer.scheduler import Schedule
from maintainer.serve.runner import Runner
from maintainer.serve.server import PageServer
from maintainer.serve.targets import read_targets
from maintainer.serve.timetable import take_over, take_up
from maintainer.settings import Settings

STEP_PATIENCE = 5.0
"""Seconds for the run under way to end its step."""
_CUT_OFF_PATIENCE = 60.0
"""Seconds for a run that was cut off to write down what it has done."""
_PULSE = 1.0
"""Seconds between two looks at whether the schedule is alive."""

log = logging.getLogger(__name__)


def serve(load: Callable[[], Settings]) -> None:
    """Run targets when they are due, and serve pages, until SIGTERM or Ctrl-C.

    `load` reads the configuration: now, and again at each SIGHUP. Raises UsageError if it is
    wrong now; AddressBusyError if the pages have no place now; DatabaseError if the database
    cannot be used, now or later.
    """
    settings = load()
    targets = read_targets(settings)
    with alone(settings) as database:
        runner = Runner(database, targets, now_utc)
        schedule = Schedule(settings.database, lambda name: runner.run(name, schedule))
        server = PageServer(settings.serve, database, schedule, lambda: runner.trouble)
        with closing(schedule), closing(server):
            take_up(database, schedule, targets.values(), now_utc())
            service = _Service(load, settings, database, runner, schedule, server)
            asyncio.run(service.run())


@contextmanager
def alone(settings: Settings) -> Iterator[Database]:
    """Open the database, at this version's revision, for the only service that works on it."""
    database = Database(settings.database)
    database.upgrade()
    lock = FileLock(Path(f"{database.file}.serve.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DatabaseError(f"another service works on the database {database.path}") from None
    except OSError as error:
        raise DatabaseError(f"{lock.lock_file} cannot be used: {error.strerror or error}") from None
    try:
        yield database
    finally:
        lock.release()
        database.close()


def _drift() -> float:
    """Tell how far the clock is from the one by which threads sleep, in seconds."""
    return time.time() - time.monotonic()


@dataclass(slots=True)
class _Service:
    """What goes on between start and end."""

    load: Callable[[], Settings]
    settings: Settings
    """Those that it started with."""
    database: Database
    runner: Runner
    schedule: Schedule
    server: PageServer
    to_reload: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Serve until a signal says that it is enough."""
        stopped_by = asyncio.get_running_loop().create_future()
        self._listen(stopped_by)
        reloading = asyncio.create_task(self._reload_when_told())
        self.schedule.run()
        what = "the service ends"
        with self.server.serving():
            try:
                what = await self._until_stopped(stopped_by)
                log.info("%s: ending", what)
            finally:
                reloading.cancel()
                await anyio.to_thread.run_sync(self._end, what)
                await asyncio.wait([reloading])

    def _listen(self, stopped_by: asyncio.Future[str]) -> None:
        loop = asyncio.get_running_loop()

        def stop(number: signal.Signals) -> None:
            loop.remove_signal_handler(number)  # so that a second one ends the process at once
            if not stopped_by.done():
                stopped_by.set_result(number.name)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.to_reload.set)
        # It was kept back since the process began: one that came meanwhile comes now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])

    async def _until_stopped(self, stopped_by: asyncio.Future[str]) -> str:
        drift = _drift()
        while not stopped_by.done():
            if abs(_drift() - drift) > _PULSE:
                drift = _drift()
                self.schedule.wake()
            if not self.schedule.is_alive:
                raise DatabaseError("the schedule could not be written: see the log, start again")
            await asyncio.wait([stopped_by], timeout=_PULSE)
        return stopped_by.result()

    def _end(self, what: str) -> None:
        self.schedule.pause()
        self.runner.interrupt(what)
        if not self.runner.wait(STEP_PATIENCE):
            log.warning("the step under way does not end: it is cut off")
            self.runner.cut_off()
            self.runner.wait(_CUT_OFF_PATIENCE)

    async def _reload_when_told(self) -> None:
        while True:
            await self.to_reload.wait()
            self.to_reload.clear()
            try:
                await anyio.to_thread.run_sync(self._reload)
            except MaintainerError as error:
                log.error("the old configuration stays: %s", error)  # noqa: TRY400
            except Exception:
                log.exception("the old configuration stays: this is a mistake in maintainer")

    def _reload(self) -> None:
        settings = self.load()
        targets = read_targets(settings)
        for what in ("database", "log_format"):
            if getattr(settings, what) != getattr(self.settings, what):
                log.warning("%s is taken over when the service starts again", what)
        if settings.serve.listen != self.settings.serve.listen:
            log.warning("serve.listen is taken over when the service starts again")
        # Whatever can fail comes first. What becomes due at once must be known by then.
        changes = take_over(self.database, targets.values(), now_utc())
        self.runner.targets = targets
        changes.take_effect(self.schedule)
        self.server.take_over(settings.serve)
        log.info("the configuration was read again: %s", say_count(len(targets), "target"))
