"""Cron expressions: the five fields of `crontab` and of a workflow's `on: schedule`. Pure.

Source: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/crontab.html, with steps (`*/15`)
and names, as all common crons have them.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache

_PART = re.compile(r"(\*|[0-9a-z]{1,3})(?:-([0-9a-z]{1,3}))?(?:/([0-9]{1,2}))?", re.ASCII)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FIELDS = 5
_SUNDAY = 7
"""Sunday is 0, and 7 too."""
_A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Cron:
    """The minutes at which something is to happen."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    """Of the month, from 1."""
    months: frozenset[int]
    """From 1."""
    weekdays: frozenset[int]
    """0 is Sunday."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()

    def parse(self, text: str) -> frozenset[int]:
        return frozenset().union(*(self._part(part) for part in text.split(",")))

    def _part(self, text: str) -> range:
        match = _PART.fullmatch(text)
        if match is None or (match[1] == "*" and match[2]):
            raise ValueError(f"has no such {self.name} as {text!r}")
        if match[1] == "*":
            first, last = self.first, self.last
        else:
            first = self._number(match[1])
            # A step without an end goes on to the last: `5/15` is 5, 20, 35, 50.
            open_end = self.last if match[3] else first
            last = self._number(match[2]) if match[2] else open_end
        step = int(match[3] or 1)
        if step == 0 or first > last:
            raise ValueError(f"has no such {self.name} as {text!r}")
        return range(first, last + 1, step)

    def _number(self, text: str) -> int:
        if text in self.names:
            return self.names.index(text) + self.first
        number = int(text) if text.isdigit() else -1
        if not self.first <= number <= self.last:
            raise ValueError(f"has no such {self.name} as {text!r}")
        return number


_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("hour", 0, 23)
_DAY = _Field("day of the month", 1, 31)
_MONTH = _Field("month", 1, 12, _MONTHS)
_WEEKDAY = _Field("day of the week", 0, _SUNDAY, _WEEKDAYS)


def parse_cron(text: str) -> Cron:
    """Read a cron expression. Raises ValueError, whose message goes on behind a name for it."""
    fields = text.lower().split()
    if len(fields) != _FIELDS:
        raise ValueError("is no cron expression of five fields such as '30 3 * * *'")
    minute, hour, day, month, weekday = fields
    if day != "*" and weekday != "*":
        # Cron then takes either, people who write it mostly mean both.
        raise ValueError("names days of the month and days of the week: say only one of them")
    cron = Cron(
        _MINUTE.parse(minute),
        _HOUR.parse(hour),
        _DAY.parse(day),
        _MONTH.parse(month),
        frozenset(number % _SUNDAY for number in _WEEKDAY.parse(weekday)),
    )
    if min(cron.days) > max(_LONGEST[number - 1] for number in cron.months):
        raise ValueError("names a day that no such month has")
    return cron


def next_moment(cron: Cron, zone: tzinfo, start: datetime) -> datetime:
    """Give the first moment from `start` on at which it is time, in UTC.

    A time that the clocks of the zone leave out is the moment at which they go forward. One that
    they show twice is two moments.
    """
    # Clocks never change within a second, so all that follows is of whole ones.
    at = start.astimezone(UTC) + timedelta(microseconds=-start.microsecond % 1_000_000)
    while True:
        wall = at.replace(tzinfo=None) + _offset(zone, at)
        moment = at + (_next_on_the_wall(cron, wall) - wall)
        change = _next_change(zone, at, moment)
        if change is None:
            return moment
        before = wall + (change - at)
        after = change.replace(tzinfo=None) + _offset(zone, change)
        if _next_on_the_wall(cron, before) < after:
            return change
        at = change


def _next_on_the_wall(cron: Cron, wall: datetime) -> datetime:
    """Give the first time from `wall` on that it names. Neither is in a zone."""
    times = _times(cron)
    day, place = wall.date(), bisect_left(times, wall.time())
    while place == len(times) or not _has_day(cron, day):
        day, place = day + _A_DAY, 0
    return datetime.combine(day, times[place])


@cache
def _times(cron: Cron) -> list[time]:
    return [time(hour, minute) for hour in sorted(cron.hours) for minute in sorted(cron.minutes)]


def _has_day(cron: Cron, day: date) -> bool:
    weekday = day.isoweekday() % _SUNDAY
    return day.month in cron.months and day.day in cron.days and weekday in cron.weekdays


def _next_change(zone: tzinfo, start: datetime, end: datetime) -> datetime | None:
    """Give the moment at which clocks change first, after `start` and at `end` at the latest."""
    offset = _offset(zone, start)
    while start < end:
        later = min(start + _A_DAY, end)
        if _offset(zone, later) != offset:
            return _change_between(zone, start, later)
        start = later
    return None


def _change_between(zone: tzinfo, start: datetime, end: datetime) -> datetime:
    """Give the moment at which clocks change; `end` is such a moment, or behind it."""
    offset = _offset(zone, start)

    def is_changed(seconds: int) -> bool:
        return _offset(zone, start + timedelta(seconds=seconds)) != offset

    length = int((end - start).total_seconds())
    return start + timedelta(seconds=bisect_left(range(length), True, key=is_changed))


def _offset(zone: tzinfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)
