"""Claims targets that are due, runs them, and releases them with the time of their next run."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import anyio
from sqlalchemy import Connection

from maintainer.budget import Budget
from maintainer.collect import collect
from maintainer.console import LoggedProgress
from maintainer.errors import DatabaseError, MaintainerError
from maintainer.graph.database import Database
from maintainer.graph.schedule import (
    AttemptResult,
    claim,
    load_schedule,
    postpone,
    release,
    skip,
)
from maintainer.logs import log_context
from maintainer.report import Report
from maintainer.serve.targets import ServedTarget
from maintainer.stages.run import Collector, now_utc

_FIRST_BACKOFF = timedelta(seconds=30)
_RETRY_AFTER = 5.0
"""Seconds until the database is retried."""
_MAX_DOUBLINGS = 20
"""One year, which is more than can be configured."""

_T = TypeVar("_T")

log = logging.getLogger(__name__)


class Worker:
    """Runs targets, one at a time. Errors are recorded, not raised."""

    def __init__(
        self, database: Database, targets: Mapping[str, ServedTarget], clock: Callable[[], datetime]
    ) -> None:
        self.targets = targets
        self.trouble: Mapping[str, str] = {}
        """The target, or the schedule, whose state cannot be recorded now, and why."""
        self.ended = Counter[tuple[str, str]]()
        """How many runs have ended since the start, by target and status."""
        self.interrupted_by: str | None = None
        self._database = database
        self._clock = clock
        self._stopping = threading.Event()
        self._active: _Active | None = None

    def run_due(self) -> None:
        """Run all targets that are due, until none is or a signal interrupts the worker."""
        try:
            while due := self._next_due():
                self.run(*due)
            self.trouble = {}
        except DatabaseError as error:
            self._report_trouble("the schedule", error)

    def run(self, target: ServedTarget, next_run_at: datetime) -> AttemptResult:
        """Claim a target, run it and release it; it runs next at this time, unless it fails."""
        with log_context(target=target.name):
            try:
                self._record(
                    target,
                    lambda c: claim(c, target.name, target.cache, self._clock(), next_run_at),
                )
                result = self._attempt(target)
                self.ended[target.name, result.status] += 1
                self._record(target, lambda c: self._release(c, target, result))
            except MaintainerError as error:
                log.error("%s", error)  # noqa: TRY400 - one line is enough
                return AttemptResult("failed", problem=str(error))
            return result

    def interrupt(self, signal: str) -> None:
        """End the active run after its current step, and start no other."""
        self.interrupted_by = self.interrupted_by or signal
        self._stopping.set()
        if active := self._active:
            active.budget.interrupt(signal)

    def cut_off(self) -> None:
        """End the active run in the middle of its current step."""
        if active := self._active:
            log.warning("the current step is cut off")
            with suppress(RuntimeError):  # its loop has ended
                active.loop.call_soon_threadsafe(active.scope.cancel)

    def _next_due(self) -> tuple[ServedTarget, datetime] | None:
        """Return the target that has been due longest, and the time of its run after that."""
        now = self._clock()
        with self._database.reading() as connection:
            schedule = load_schedule(connection)
        for due in sorted(schedule.values(), key=lambda one: one.next_run_at):
            target = self.targets.get(due.name)
            if due.next_run_at > now or self.interrupted_by:
                return None
            if target is None or not due.is_of(target.cache, str(target.rule)):
                continue  # The configuration is being reloaded.
            next_run_at = target.rule.next(due.next_run_at, now)
            if not (target.rule.cron and due.is_misfired(now)):
                return target, next_run_at
            log.warning("%s: the run is more than misfire_grace late, so it is skipped", due.name)
            self._skip(target, next_run_at)
        return None

    def _skip(self, target: ServedTarget, until: datetime) -> None:
        self._record(target, lambda c: skip(c, target.name, target.cache, until))

    def _release(self, connection: Connection, target: ServedTarget, result: AttemptResult) -> None:
        now = self._clock()
        released = release(connection, target.name, target.cache, result, now)
        if released is None:
            return
        if result.status == "interrupted":
            next_run_at = now
        elif result.status == "failed":
            next_run_at = now + backoff(released.failures, target.settings.serve.backoff_max)
            log.error(
                "%s: attempt %d failed: %s; the next one is at %s UTC",
                target.name,
                released.failures,
                result.problem,
                f"{next_run_at:%Y-%m-%d %H:%M:%S}",
            )
        elif released.next_run_at > now:
            return
        else:  # It became due during the run.
            rule = self.targets.get(target.name, target).rule
            next_run_at = rule.next(released.next_run_at, now)
        postpone(connection, target.name, target.cache, next_run_at)

    def _record(self, target: ServedTarget, write: Callable[[Connection], _T]) -> _T:
        """Write to the database, and retry as long as that fails.

        Raises DatabaseError if it still fails when the worker is interrupted.
        """
        while True:
            try:
                with self._database.begin() as connection:
                    written = write(connection)
            except DatabaseError as error:
                self._report_trouble(target.name, error)
                if self._stopping.wait(_RETRY_AFTER):
                    raise
            else:
                self.trouble = {}
                return written

    def _report_trouble(self, name: str, error: DatabaseError) -> None:
        if not self.trouble:
            log.error("%s: %s; retrying until it can", name, error)
        self.trouble = {name: str(error)}

    def _attempt(self, target: ServedTarget) -> AttemptResult:
        try:
            return anyio.run(self._collect, target)
        except MaintainerError as error:
            return AttemptResult("failed", problem=str(error))
        except Exception as error:
            log.exception("this is a bug in maintainer")
            return AttemptResult("failed", problem=f"a bug in maintainer: {error!r}")

    async def _collect(self, target: ServedTarget) -> AttemptResult:
        async with target.connection.open() as store:
            budget = Budget(store.requests, target.settings, now_utc)
            report: Report | None = None
            with (
                anyio.CancelScope() as scope,
                self._database.lease(store.name) as lease,
                self._activate(budget, scope),
            ):
                collector = Collector(
                    store,
                    self._database,
                    target.settings,
                    progress=LoggedProgress(),
                    budget=budget,
                    lease=lease,
                )
                report = await collect(collector)
            if report is None:
                return AttemptResult("interrupted", store.name)
            return AttemptResult(
                status=report.status,
                target=store.name,
                run=report.run,
                problem=next(iter(report.problems), None),
                rate_limit_remaining=store.requests.rate_limit_remaining,
            )

    @contextmanager
    def _activate(self, budget: Budget, scope: anyio.CancelScope) -> Iterator[None]:
        """Let other threads interrupt the run inside."""
        self._active = _Active(budget, asyncio.get_running_loop(), scope)
        if self.interrupted_by:
            budget.interrupt(self.interrupted_by)
        try:
            yield
        finally:
            self._active = None


def backoff(failures: int, maximum: timedelta) -> timedelta:
    """Return the pause after so many failures in a row: it doubles each time."""
    doublings = min(failures - 1, _MAX_DOUBLINGS)
    return min(_FIRST_BACKOFF * (1 << doublings), maximum)


@dataclass(frozen=True, slots=True)
class _Active:
    """A run that other threads may interrupt."""

    budget: Budget
    loop: asyncio.AbstractEventLoop
    scope: anyio.CancelScope
