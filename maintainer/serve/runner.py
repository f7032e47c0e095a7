"""One attempt at a run of one target: on the schedule's thread, and what came of it."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import anyio
from sqlalchemy import Connection

from maintainer.budget import Budget
from maintainer.collect import Collector, collect, now_utc
from maintainer.console import LoggedProgress
from maintainer.errors import DatabaseError, MaintainerError
from maintainer.graph.database import Database
from maintainer.graph.schedule import Outcome, begin_attempt, end_attempt, put_off
from maintainer.logs import log_context
from maintainer.report import Report
from maintainer.scheduler import Schedule
from maintainer.serve.targets import ServedTarget

_FIRST_BACKOFF = timedelta(seconds=30)
_PAUSE = 5.0
"""Seconds until something is written once more that could not be."""
_MOST_DOUBLINGS = 20
"""A year of waiting, which is more than can be configured."""

_T = TypeVar("_T")

log = logging.getLogger(__name__)


class Runner:
    """Runs targets when the schedule says so, one at a time. Errors are told, not raised."""

    def __init__(
        self, database: Database, targets: Mapping[str, ServedTarget], clock: Callable[[], datetime]
    ) -> None:
        self.targets = targets
        self._database = database
        self._clock = clock
        self._idle = threading.Lock()
        self._stopped_by: str | None = None
        self._stopping = threading.Event()
        self.trouble: Mapping[str, str] = {}
        """What of a target cannot be written down at this moment, and why."""
        self._under_way: _UnderWay | None = None

    def run(self, name: str, schedule: Schedule) -> Outcome | None:
        """Try to run a target, and settle when it is tried next. None if it is not to run."""
        outcome: Outcome | None = None
        attempted: str | None = None
        with self._idle, log_context(target=name):
            # It may be given another cache while its run goes on, which is then due at once.
            while (target := self._wanted(name)) and target.cache != attempted:
                attempted = target.cache
                outcome = self._try(target, schedule)
        return outcome

    def interrupt(self, what: str) -> None:
        """Let the run under way end between two steps; later ones do not begin."""
        self._stopped_by = what
        self._stopping.set()
        if under_way := self._under_way:
            under_way.budget.interrupt(what)

    def cut_off(self) -> None:
        """End the run under way in the middle of a step; for one that does not end by itself."""
        if under_way := self._under_way:
            with suppress(RuntimeError):  # its loop has ended meanwhile
                under_way.loop.call_soon_threadsafe(under_way.scope.cancel)

    def wait(self, timeout: float) -> bool:
        """Wait until nothing is under way; tell whether that is so."""
        if not self._idle.acquire(timeout=timeout):
            return False
        self._idle.release()
        return True

    def _wanted(self, name: str) -> ServedTarget | None:
        return None if self._stopped_by else self.targets.get(name)

    def _try(self, target: ServedTarget, schedule: Schedule) -> Outcome:
        try:
            return self._attempt(target, schedule)
        except MaintainerError as error:
            log.error("%s", error)  # noqa: TRY400 - one line is enough
            return Outcome("failed", problem=str(error))

    def _attempt(self, target: ServedTarget, schedule: Schedule) -> Outcome:
        # Not within a transaction: the schedule may be waiting for its end.
        next_run_at = schedule.next_run_at(target.name)
        began_at = self._clock()
        self._write(
            target, lambda c: begin_attempt(c, target.name, target.cache, began_at, next_run_at)
        )
        outcome = self._outcome(target)
        now = self._clock()
        failures = self._write(
            target, lambda c: end_attempt(c, target.name, target.cache, outcome, now)
        )
        if failures is None:
            return outcome
        if outcome.status == "done" and target.rule.cron:
            schedule.keep_to(target.name, target.rule)
        if outcome.status == "failed":
            again_at = now + backoff(failures, target.settings.serve.backoff_max)
            again = f"again at {again_at:%Y-%m-%d %H:%M:%S} UTC"
            log.error(
                "%s: attempt %d failed: %s; %s", target.name, failures, outcome.problem, again
            )
            schedule.put_off(target.name, again_at)
        # If it was interrupted, the schedule has ended; the next one sees that this is still due.
        interrupted = outcome.status == "interrupted"
        due_at = now if interrupted else schedule.next_run_at(target.name)
        if due_at:
            self._write(target, lambda c: put_off(c, target.name, target.cache, due_at))
        return outcome

    def _write(self, target: ServedTarget, write: Callable[[Connection], _T]) -> _T:
        """Write something down, and wait for as long as it cannot be: else nobody would know.

        Raises DatabaseError if it still cannot be when the service ends.
        """
        while True:
            try:
                with self._database.begin() as connection:
                    written = write(connection)
            except DatabaseError as error:
                if not self.trouble:
                    log.error("%s: what came of it is not written down: %s", target.name, error)  # noqa: TRY400
                self.trouble = {target.name: f"what came of it is not written down: {error}"}
                if self._stopping.wait(_PAUSE):
                    raise
            else:
                self.trouble = {}
                return written

    def _outcome(self, target: ServedTarget) -> Outcome:
        try:
            return anyio.run(self._collect, target)
        except MaintainerError as error:
            return Outcome("failed", problem=str(error))
        except Exception as error:
            log.exception("this is a mistake in maintainer")
            return Outcome("failed", problem=f"a mistake in maintainer: {error!r}")

    async def _collect(self, target: ServedTarget) -> Outcome:
        async with target.connection.open() as store:
            budget = Budget(store.requests, target.settings, now_utc)
            collector = Collector(
                store, self._database, target.settings, progress=LoggedProgress(), budget=budget
            )
            report: Report | None = None
            with (
                anyio.CancelScope() as scope,
                self._database.held(),
                self._may_be_ended(budget, scope),
            ):
                report = await collect(collector)
            if report is None:
                return Outcome("interrupted", store.name)
            return Outcome(
                status=report.status,
                target=store.name,
                run=report.run,
                problem=next(iter(report.problems), None),
                rate_limit_remaining=store.requests.rate_limit_remaining,
            )

    @contextmanager
    def _may_be_ended(self, budget: Budget, scope: anyio.CancelScope) -> Iterator[None]:
        """Let another thread end what happens inside."""
        self._under_way = _UnderWay(budget, asyncio.get_running_loop(), scope)
        if self._stopped_by:
            budget.interrupt(self._stopped_by)
        try:
            yield
        finally:
            self._under_way = None


def backoff(failures: int, most: timedelta) -> timedelta:
    """Tell how long to wait after so many failures in a row: twice as long each time."""
    doublings = min(failures - 1, _MOST_DOUBLINGS)
    return min(_FIRST_BACKOFF * (1 << doublings), most)


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A run that another thread may end."""

    budget: Budget
    loop: asyncio.AbstractEventLoop
    scope: anyio.CancelScope
