"""When runs happen: APScheduler, behind what is used of it here.

No other module touches APScheduler, for it has no types. One thread looks at the clock; another
does the runs, one after the other, because a database is held by one run at a time.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.events import (  # type: ignore[import-untyped]
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobEvent,
)
from apscheduler.executors.pool import ThreadPoolExecutor  # type: ignore[import-untyped]
from apscheduler.jobstores.base import JobLookupError  # type: ignore[import-untyped]
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore  # type: ignore[import-untyped]
from apscheduler.schedulers.background import BackgroundScheduler  # type: ignore[import-untyped]
from apscheduler.triggers.base import BaseTrigger  # type: ignore[import-untyped]
from apscheduler.triggers.interval import IntervalTrigger  # type: ignore[import-untyped]
from cronsim import CronSim
from sqlalchemy import create_engine

from maintainer.settings import ServeSettings, TargetSettings

_TABLE = "schedule"
_PATIENCE = 600.0
"""Seconds to wait for a run that writes down what it has seen: an error would end the thread."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))

log = logging.getLogger(__name__)

_run: Callable[[str], object] | None = None
"""What APScheduler calls. A job is kept by the name of a function, so this cannot be its argument;
and there is one schedule in a process.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """When a target runs."""

    cron: str | None
    interval: timedelta
    """Counts where there is no cron expression."""
    jitter: timedelta
    timezone: str
    misfire_grace: timedelta

    @classmethod
    def of(cls, serve: ServeSettings, target: TargetSettings | None) -> "Rule":
        """Give the rule of a target; None is the environment's own."""
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
        """Say it; another rule is said in another way."""
        later = f", up to {_say(self.jitter)} later" if self.jitter else ""
        if self.cron:
            return f"cron {' '.join(self.cron.split())} {self.timezone}{later}"
        return f"every {_say(self.interval)}{later}"

    def after(self, now: datetime) -> datetime:
        """Tell when it is time next; an interval begins at once."""
        return next_time(self, now) if self.cron else now


class Schedule:
    """When each target runs next, kept in the database."""

    def __init__(self, url: str, run: Callable[[str], object]) -> None:
        """Schedule calls of `run` with the name of a target; never two of one target at once."""
        global _run  # noqa: PLW0603
        _run = run
        self._engine = create_engine(url, connect_args={"timeout": _PATIENCE})
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(max_workers=1)},
            jobstores={"default": SQLAlchemyJobStore(engine=self._engine, tablename=_TABLE)},
            timezone=UTC,
        )
        self._scheduler.add_listener(_missed, EVENT_JOB_MISSED)
        self._scheduler.add_listener(_skipped, EVENT_JOB_MAX_INSTANCES)

    def open(self) -> None:
        """Begin to keep times, without running anything yet."""
        self._scheduler.start(paused=True)

    def run(self) -> None:
        """Begin to run what is due."""
        self._scheduler.resume()

    def pause(self) -> None:
        """Run nothing more; a run under way goes on."""
        self._scheduler.pause()

    def close(self) -> None:
        """End. A run under way goes on, but nothing waits for it: it may want the schedule."""
        if self._scheduler.running:
            # While it shuts down it would still take what is due from the store, for nobody to run.
            self._scheduler.remove_jobstore("default")
            self._scheduler.shutdown(wait=False)
        self._engine.dispose()

    @property
    def is_alive(self) -> bool:
        """Whether its thread is: it ends for good if the database cannot be written."""
        thread = self._scheduler._thread  # noqa: SLF001 - there is no other way to learn it
        return thread is not None and bool(thread.is_alive())

    def wake(self) -> None:
        """Look at the clock now: it may have been set, or the machine have slept."""
        self._scheduler.wakeup()

    def set(
        self, name: str, rule: Rule, next_run_at: datetime, *, may_be_late: bool = False
    ) -> None:
        """Add a target, or change when it runs; the first time however late, if it may be."""
        self._scheduler.add_job(
            f"{__name__}:run_target",
            _trigger(rule),
            args=[name],
            id=name,
            name=name,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None if may_be_late else _misfire_grace(rule),
            next_run_time=next_run_at,
            replace_existing=True,
        )

    def remove(self, name: str) -> None:
        """Run a target no more."""
        try:
            self._scheduler.remove_job(name)
        except JobLookupError:
            log.debug("%s was not scheduled", name)

    def put_off(self, name: str, until: datetime) -> None:
        """Run a target at another time, however late; then at the times of its rule again."""
        self._modify(name, next_run_time=until, misfire_grace_time=None)

    def keep_to(self, name: str, rule: Rule) -> None:
        """Leave runs out again that are too late, once one has ended that might be late."""
        self._modify(name, misfire_grace_time=_misfire_grace(rule))

    def _modify(self, name: str, **changes: object) -> None:
        try:
            self._scheduler.modify_job(name, **changes)
        except JobLookupError:
            log.debug("%s is not scheduled any more", name)

    def next_run_at(self, name: str) -> datetime | None:
        """Tell when a target runs next."""
        job = self._scheduler.get_job(name)
        return None if job is None else job.next_run_time.astimezone(UTC)


def next_time(rule: Rule, now: datetime) -> datetime:
    """Tell when it is time after `now`."""
    at: datetime = _trigger(rule).get_next_fire_time(None, now)
    return at.astimezone(UTC)


def run_target(name: str) -> None:
    """Do what the schedule is for. Called by APScheduler, which knows it by name."""
    if _run is not None:
        _run(name)


def _misfire_grace(rule: Rule) -> int | None:
    """Give the seconds that a run may be late. An interval says how often, and not when."""
    return max(1, int(rule.misfire_grace.total_seconds())) if rule.cron else None


def _trigger(rule: Rule) -> Any:  # noqa: ANN401
    jitter = rule.jitter.total_seconds() or None
    if rule.cron is None:
        return IntervalTrigger(
            seconds=int(rule.interval.total_seconds()), timezone=UTC, jitter=jitter
        )
    return _CronTrigger(rule.cron, rule.timezone, jitter)


class _CronTrigger(BaseTrigger):  # type: ignore[misc]
    """In place of APScheduler's own.

    To that one 0 is Monday, and it leaves a day out if its clocks leave that time out.
    """

    def __init__(self, cron: str, timezone: str, jitter: float | None) -> None:
        self._cron = cron
        self._zone = ZoneInfo(timezone)
        self._jitter = jitter

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Give the time after the previous one, or the first one from `now` on."""
        start = now
        if previous_fire_time is not None:
            start = min(now, previous_fire_time + timedelta(microseconds=1))
        if start == previous_fire_time:
            start += timedelta(microseconds=1)
        before = (start - timedelta(microseconds=1)).astimezone(self._zone)
        # Within an hour that the clocks show twice, the next one may be in its first pass.
        times = (at.astimezone(UTC) for at in CronSim(self._cron, before))
        at: datetime = self._apply_jitter(
            next(at for at in times if at >= start), self._jitter, now
        )
        return at


def _say(duration: timedelta) -> str:
    """Say a duration as the settings take it, in the largest unit in which it is whole."""
    seconds = int(duration.total_seconds())
    for size, unit in _UNITS:
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _missed(event: JobEvent) -> None:
    log.warning("%s: the run was late by more than misfire_grace, so it is left out", event.job_id)


def _skipped(event: JobEvent) -> None:
    log.debug("%s: it is time again, but the last run still goes on", event.job_id)
