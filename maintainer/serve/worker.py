"""Claims targets that are due, runs them, and releases them with the time of their next run."""

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
from maintainer.clock import now_utc
from maintainer.collect import collect
from maintainer.console import LoggedProgress
from maintainer.errors import DatabaseError, MaintainerError
from maintainer.graph.allowances import KnownLimits, SharedLimits, load_limits
from maintainer.graph.clock import check_clock
from maintainer.graph.database import Database
from maintainer.graph.lease import Lease
from maintainer.graph.schedule import (
    AttemptResult,
    Claim,
    Scheduled,
    claim,
    load_schedule,
    load_scheduled,
    release,
    reschedule,
    skip,
)
from maintainer.logs import log_context
from maintainer.report import Report
from maintainer.serve.targets import ServedTarget
from maintainer.stages.run import Collector
from maintainer.stores.base import Store

STEP_TIMEOUT = 5.0
"""Seconds for active runs to end their current step."""
_FIRST_BACKOFF = timedelta(seconds=30)
_RETRY_AFTER = 5.0
"""Seconds until the database is retried."""
SET_BACK = timedelta(minutes=1)
"""A clock that goes back by less is only adjusted."""
_MAX_DOUBLINGS = 20
"""One year, which is more than can be configured."""

_T = TypeVar("_T")

log = logging.getLogger(__name__)


class Worker:
    """Runs targets: one after the other, or one in each thread. Errors are recorded, not raised."""

    def __init__(
        self, database: Database, targets: Mapping[str, ServedTarget], clock: Callable[[], datetime]
    ) -> None:
        self.targets = targets
        self.trouble: Mapping[str, str] = {}
        """The target, or the schedule, whose state cannot be recorded now, and why."""
        self.interrupted_by: str | None = None
        self._database = database
        self._clock = clock
        self._latest = clock()
        """When it was last looked for what is due."""
        self._stopping = threading.Event()
        self._active: set[_Active] = set()
        self._limits = SharedLimits(database)

    def run_due(self) -> None:
        """Run all targets that are due, until none is or a signal interrupts the worker."""
        try:
            while due := self._next_due():
                self.run(*due)
            self.trouble = {}
        except DatabaseError as error:
            self._report_trouble("the schedule", error)

    def run_due_at(self, name: str, due_at: datetime) -> bool:
        """Run a target, if it is still due at this time, and nobody else runs it.

        Return whether it was run. Raises DatabaseError, also if a newer version has migrated the
        database.
        """
        self._database.refuse_newer()
        with self._database.reading() as connection:
            due = load_scheduled(connection, name)
            is_resting = self.is_resting(name, load_limits(connection))
        if (
            is_resting
            or due is None
            or due.next_run_at != due_at
            or due.is_running
            or self.interrupted_by
        ):
            return False
        ready = self._prepare(due)
        return ready is not None and self.run(*ready).status != "skipped"

    def check(self) -> None:
        """Check that the schedule can be read, while others run what is due."""
        try:
            with self._database.reading() as connection:
                load_scheduled(connection, "")
            self.trouble = {}
        except DatabaseError as error:
            self._report_trouble("the schedule", error)

    def run(self, target: ServedTarget, due_at: datetime, next_run_at: datetime) -> AttemptResult:
        """Claim a target, run it and release it; it runs next at this time, unless it fails.

        The result is `skipped` if somebody else has claimed it, or changed its time.
        """
        claimed = Claim(target.name, target.cache, due_at, next_run_at)
        with log_context(target=target.name):
            try:
                result = self._attempt(target, claimed)
            except MaintainerError as error:
                log.error("%s", error)  # noqa: TRY400 - one line is enough
                return AttemptResult("failed", problem=str(error))
            except Exception as error:  # noqa: BLE001 - it is logged, and others run
                return _explain(error)
        if result is None:
            return AttemptResult("skipped")
        return result

    def interrupt(self, signal: str) -> None:
        """End the active runs after their current steps, and start no other."""
        self.interrupted_by = self.interrupted_by or signal
        self._stopping.set()
        for active in tuple(self._active):
            active.budget.interrupt(signal)

    def cut_off(self) -> None:
        """End the active runs in the middle of their current steps."""
        for active in tuple(self._active):
            log.warning("the current step is cut off")
            with suppress(RuntimeError):  # its loop has ended
                active.loop.call_soon_threadsafe(active.scope.cancel)

    def pause(self, seconds: float) -> None:
        """Wait, at most until a signal interrupts the worker."""
        self._stopping.wait(seconds)

    def _next_due(self) -> tuple[ServedTarget, datetime, datetime] | None:
        """Return the target that has been due longest, and the times of its next two runs."""
        now = self._clock()
        with self._database.reading() as connection:
            schedule = load_schedule(connection)
            limits = load_limits(connection)
        if now < self._latest - SET_BACK:
            self._put_forward(schedule, now)
        self._latest = now
        for due in sorted(schedule.values(), key=lambda one: one.next_run_at):
            if due.next_run_at > now or self.interrupted_by:
                return None
            # What is running, a worker of the fleet has claimed.
            if due.is_running or self.is_resting(due.name, limits):
                continue
            self._database.refuse_newer()
            check_clock(self._database, self._clock)
            if ready := self._prepare(due):
                return ready
        return None

    def _put_forward(self, schedule: Mapping[str, Scheduled], now: datetime) -> None:
        """Correct the times that follow from a system time which was ahead, and is right again."""
        for due in schedule.values():
            target = self.targets.get(due.name)
            if target is None or due.is_running:
                continue
            latest = target.rule.latest(now)
            if due.next_run_at > latest:
                log.info("%s: the system time was set back, so its next run is earlier", due.name)
                self._reschedule(target, latest)

    def is_resting(self, name: str, limits: KnownLimits) -> bool:
        """Whether a target waits for a rate limit that others have exhausted."""
        target = self.targets.get(name)
        if target is None:
            return False
        return limits.are_exhausted(target.connection.limit, target.settings.rest_share)

    def _prepare(self, due: Scheduled) -> tuple[ServedTarget, datetime, datetime] | None:
        """Return a target that is due, and the times of its next two runs; None if it may not run.

        A run that is too late is skipped.
        """
        now = self._clock()
        target = self.targets.get(due.name)
        if target is None or not due.is_of(target.cache, str(target.rule)):
            return None  # The configuration is being reloaded, or that of another machine is newer.
        next_run_at = target.rule.next(due.next_run_at, now)
        if not (target.rule.cron and due.is_misfired(now)):
            return target, due.next_run_at, next_run_at
        log.warning("%s: the run is more than misfire_grace late, so it is skipped", due.name)
        self._skip(target, next_run_at)
        return None

    def _reschedule(self, target: ServedTarget, until: datetime) -> None:
        self._record(target, lambda c: reschedule(c, target.name, target.cache, until))

    def _skip(self, target: ServedTarget, until: datetime) -> None:
        self._record(target, lambda c: skip(c, target.name, target.cache, until))

    def _release(
        self,
        connection: Connection,
        target: ServedTarget,
        claimed: Claim,
        result: AttemptResult,
        since: datetime,
    ) -> None:
        now = self._clock()
        released = release(connection, claimed, result, since, now)
        if released is None:
            if result.problem:
                log.error("%s: %s", target.name, result.problem)
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
        reschedule(connection, target.name, target.cache, next_run_at)

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

    def _attempt(self, target: ServedTarget, claimed: Claim) -> AttemptResult | None:
        """Return the result, once it is recorded; None if the target could not be claimed.

        Raises DatabaseError if it cannot be recorded when the worker is interrupted.
        """
        attempt = _Attempt(claimed)
        try:
            return anyio.run(self._open, target, attempt)
        except Exception as error:
            if attempt.is_claimed is not None:
                raise
            result = _explain(error)
        # It could not be opened, or somebody else has the lease.
        since = self._clock()

        def record(connection: Connection) -> bool:
            is_ours = claim(connection, claimed, since)
            if is_ours:
                self._release(connection, target, claimed, result, since)
            return is_ours

        return result if self._record(target, record) else None

    async def _open(self, target: ServedTarget, attempt: "_Attempt") -> AttemptResult | None:
        """Claim a target, run and release it, while having the lease.

        Without the lease, others may hold the attempt for killed.
        """
        async with target.connection.open() as store:
            with self._database.lease(store.name) as lease:
                claimed, since = attempt.claimed, self._clock()
                attempt.is_claimed = self._record(
                    target, lambda c: claim(c, claimed, since, store.name)
                )
                if not attempt.is_claimed:
                    return None
                try:
                    result = await self._collect(target, store, lease)
                except Exception as error:  # noqa: BLE001 - it is recorded
                    result = _explain(error)
                self._record(target, lambda c: self._release(c, target, claimed, result, since))
                return result

    async def _collect(self, target: ServedTarget, store: Store, lease: Lease) -> AttemptResult:
        budget = Budget(store.requests, target.settings, now_utc)
        report: Report | None = None
        collector = Collector(
            store,
            self._database,
            target.settings,
            progress=LoggedProgress(),
            budget=budget,
            lease=lease,
        )
        with (
            self._limits.sharing(store.requests.window),
            anyio.CancelScope() as scope,
            self._activate(budget, scope),
        ):
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
        active = _Active(budget, asyncio.get_running_loop(), scope)
        self._active.add(active)
        if self.interrupted_by:
            budget.interrupt(self.interrupted_by)
        try:
            yield
        finally:
            self._active.remove(active)


def _explain(error: Exception) -> AttemptResult:
    """Return an error as the result of an attempt."""
    if isinstance(error, MaintainerError):
        return AttemptResult("failed", problem=str(error))
    log.error("this is a bug in maintainer", exc_info=error)
    return AttemptResult("failed", problem=f"a bug in maintainer: {error!r}")


def backoff(failures: int, maximum: timedelta) -> timedelta:
    """Return the pause after so many failures in a row: it doubles each time."""
    doublings = min(failures - 1, _MAX_DOUBLINGS)
    return min(_FIRST_BACKOFF * (1 << doublings), maximum)


@dataclass(slots=True)
class _Attempt:
    """A claim, and what has become of it."""

    claimed: Claim
    is_claimed: bool | None = None
    """Whether the target was; None if that was not tried yet."""


@dataclass(frozen=True, slots=True, eq=False)
class _Active:
    """A run that other threads may interrupt."""

    budget: Budget
    loop: asyncio.AbstractEventLoop
    scope: anyio.CancelScope
