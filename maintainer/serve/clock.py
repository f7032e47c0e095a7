"""When targets run: the rules of the configuration, and a clock that ticks.

The database holds when each target runs next; the clock only makes the worker look at it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import SystemRandom
from zoneinfo import ZoneInfo

from cronsim import CronSim

from maintainer.settings import ServeSettings, TargetSettings

_TICK = 1.0
"""Seconds. Threads sleep by a clock that nobody sets, so a changed system time delays no tick."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))
_random = SystemRandom()


@dataclass(frozen=True, slots=True)
class Rule:
    """When a target runs."""

    cron: str | None
    interval: timedelta
    """Used if there is no cron expression."""
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
        """Return the rule in words; different rules differ in words."""
        later = f", up to {_format(self.jitter)} later" if self.jitter else ""
        if self.cron:
            return f"cron {' '.join(self.cron.split())} {self.timezone}{later}"
        return f"every {_format(self.interval)}{later}"

    def first(self, now: datetime) -> datetime:
        """Return when a new target runs for the first time; an interval begins at once."""
        return self.next(now, now) if self.cron else now

    def next(self, previous: datetime, now: datetime) -> datetime:
        """Return the first time after `now`; an interval counts from the previous time."""
        if self.cron:
            at = _next_by_cron(self.cron, ZoneInfo(self.timezone), now)
        else:
            missed = max(now - previous, timedelta(0)) // self.interval
            at = previous + self.interval * (missed + 1)
        return at + self.jitter * _random.random()


def _next_by_cron(cron: str, zone: ZoneInfo, now: datetime) -> datetime:
    before = (now - timedelta(microseconds=1)).astimezone(zone)
    # Within an hour that the clocks show twice, the next time may be in the first pass.
    times = (at.astimezone(UTC) for at in CronSim(cron, before))
    return next(at for at in times if at > now)


def _format(duration: timedelta) -> str:
    """Return a duration as the settings take it, in the largest unit in which it is whole."""
    seconds = int(duration.total_seconds())
    for size, unit in _UNITS:
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


class Clock:
    """Calls a function every second, on a thread of its own."""

    def __init__(self, tick: Callable[[], object], ended: Callable[[], object]) -> None:
        """Call `tick`; call `ended` when the thread ends, which it does if `tick` raises."""
        self._tick = tick
        self._ended = ended
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the clock ticks."""
        return self._thread.is_alive()

    @contextmanager
    def ticking(self, timeout: float) -> Iterator[None]:
        """Tick as long as the context lasts; then wait for the last tick, at most `timeout`."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._tick()
                self._stopped.wait(_TICK)
        finally:
            self._ended()
