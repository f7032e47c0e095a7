"""When targets run: the rules of the configuration, and a clock that ticks.

The database stores when each target runs next; the clock only makes the worker read it.
"""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import SystemRandom
from time import monotonic
from zoneinfo import ZoneInfo

from apscheduler.events import EVENT_SCHEDULER_PAUSED  # type: ignore[import-untyped]
from apscheduler.executors.debug import DebugExecutor  # type: ignore[import-untyped]
from apscheduler.job import Job  # type: ignore[import-untyped]
from apscheduler.jobstores.memory import MemoryJobStore  # type: ignore[import-untyped]
from apscheduler.schedulers.background import BackgroundScheduler  # type: ignore[import-untyped]
from apscheduler.schedulers.base import STATE_RUNNING  # type: ignore[import-untyped]
from apscheduler.triggers.interval import IntervalTrigger  # type: ignore[import-untyped]
from cronsim import CronSim

from maintainer.settings import ServeSettings, TargetSettings

_TICK = 1.0
"""Seconds from one tick to the next."""
_MAX_SILENCE = 30.0
"""Seconds after the last tick until the clock counts as dead."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))
_random = SystemRandom()


@dataclass(frozen=True, slots=True)
class Rule:
    """When a target runs."""

    cron: str | None
    interval: timedelta
    """Used without a cron expression."""
    jitter: timedelta
    timezone: str
    misfire_grace: timedelta

    @classmethod
    def of(cls, serve: ServeSettings, target: TargetSettings | None) -> "Rule":
        """Return the rule of a target; None is the environment's own."""
        if target is None:
            return cls(None, serve.interval, serve.jitter, serve.timezone, serve.misfire_grace)
        return cls(
            target.cron,
            target.interval or serve.interval,
            serve.jitter if target.jitter is None else target.jitter,
            target.timezone or serve.timezone,
            serve.misfire_grace,
        )

    def __str__(self) -> str:
        """Return the rule as text; different rules have different texts."""
        later = f", up to {_format(self.jitter)} later" if self.jitter else ""
        if self.cron:
            return f"cron {' '.join(self.cron.split())} {self.timezone}{later}"
        return f"every {_format(self.interval)}{later}"

    def first(self, now: datetime) -> datetime:
        """Return when a new target runs for the first time; an interval starts at once."""
        return self.next(now, now) if self.cron else now

    def next(self, previous: datetime, now: datetime) -> datetime:
        """Return the first time after `now`; an interval counts from the previous time."""
        if self.cron:
            at = _next_by_cron(self.cron, ZoneInfo(self.timezone), now)
        else:
            missed = max(now - previous, timedelta(0)) // self.interval
            at = previous + self.interval * (missed + 1)
        return at + self.jitter * _random.random()

    def latest(self, now: datetime) -> datetime:
        """Return a time that the next run does not exceed, if the system time was right so far."""
        return self.next(now, now) + self.jitter


def _next_by_cron(cron: str, zone: ZoneInfo, now: datetime) -> datetime:
    before = (now - timedelta(microseconds=1)).astimezone(zone)
    # Within an hour that the clocks show twice, the next time may be in the first pass.
    times = (at.astimezone(UTC) for at in CronSim(cron, before))
    return next(at for at in times if at > now)


def _format(duration: timedelta) -> str:
    """Return a duration in the format of the settings, in the largest unit without a fraction."""
    seconds = int(duration.total_seconds())
    for size, unit in _UNITS:
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


class Clock:
    """Calls a function every second, on APScheduler's own thread.

    With a thread pool, a hanging tick would keep the process from ending.
    """

    def __init__(self, tick: Callable[[], object], ended: Callable[[], object]) -> None:
        """Call `tick`; call `ended` when the clock stops, which it does if `tick` raises."""
        self._tick = tick
        self._active = threading.Lock()
        self._alive_until = -math.inf
        """By the monotonic clock."""
        self._scheduler = BackgroundScheduler(
            executors={"default": DebugExecutor()},
            jobstores={"default": _JobStore()},
            timezone=UTC,
        )
        self._scheduler.add_listener(lambda _: ended(), EVENT_SCHEDULER_PAUSED)

    @property
    def is_alive(self) -> bool:
        """Whether the clock ticks: a tick is active, or the last one was a short time ago."""
        return self._scheduler.state == STATE_RUNNING and monotonic() < self._alive_until

    @contextmanager
    def ticking(self, timeout: float) -> Iterator[None]:
        """Tick as long as the context lasts; then wait for the last tick, at most `timeout`."""
        self._scheduler.add_job(
            self._run,
            IntervalTrigger(seconds=_TICK, timezone=UTC),
            name="tick",
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
            next_run_time=datetime.now(UTC),
        )
        self._alive_until = monotonic() + _MAX_SILENCE
        self._scheduler.start()
        try:
            yield
        finally:
            self._scheduler.pause()
            if self._active.acquire(timeout=timeout):  # or else `shutdown` waits for the tick
                self._scheduler.shutdown()

    def _run(self) -> None:
        if not self._active.acquire(blocking=False):
            return  # The clock is being stopped.
        self._alive_until = math.inf
        try:
            self._tick()
        except BaseException:
            self._scheduler.pause()
            raise  # APScheduler logs it.
        finally:
            self._alive_until = monotonic() + _MAX_SILENCE
            self._active.release()
        # If the system time was changed during the tick, the job store corrects that now.
        self._scheduler.wakeup()


class _JobStore(MemoryJobStore):  # type: ignore[misc]
    """Keeps the next tick close to the system time, even if somebody changes that.

    After a change back, APScheduler would wait until the clock has caught up; after a change
    forward, it would list every skipped tick.
    """

    def get_due_jobs(self, now: datetime) -> list[Job]:
        """Return the jobs that are due at a time; APScheduler asks at least once per tick."""
        for job in self.get_all_jobs():
            if abs(job.next_run_time - now) > timedelta(seconds=_TICK):
                job.modify(next_run_time=now)
        due: list[Job] = super().get_due_jobs(now)
        return due
