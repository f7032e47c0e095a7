"""RFC 3339 times with all nine digits of a second, as Go writes them.

Python's `datetime` keeps six digits, and the exporter picks the newest result by all nine.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import NewType

Nanoseconds = NewType("Nanoseconds", int)
"""Nanoseconds since 1970-01-01T00:00:00Z; negative before, as Go's zero time is."""

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_HOURS_A_DAY = 24
_MINUTES_AN_HOUR = 60


def parse_time(text: str) -> Nanoseconds:
    """Read an RFC 3339 time. Digits after the ninth are cut, as Go does.

    Raises ValueError for anything else, and for times outside of the years 1 to 9999 in UTC.
    """
    match = _RFC3339.fullmatch(text)
    moment = match and _read_seconds(match)
    if match is None or moment is None:
        raise ValueError("not an RFC 3339 time of the years 1 to 9999")
    nanoseconds = int((match[7] or "0")[:9].ljust(9, "0"))
    return Nanoseconds((moment - _EPOCH) // _SECOND * 1_000_000_000 + nanoseconds)


def _read_seconds(match: re.Match[str]) -> datetime | None:
    """Return the time without its fraction in UTC; None if there is no such time."""
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    offset_hours, offset_minutes = int(match[9] or 0), int(match[10] or 0)
    if offset_hours >= _HOURS_A_DAY or offset_minutes >= _MINUTES_AN_HOUR:
        return None
    offset = timedelta(hours=offset_hours, minutes=offset_minutes)
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        return moment + offset if match[8] == "-" else moment - offset
    except (ValueError, OverflowError):
        return None


def format_time(moment: Nanoseconds) -> str:
    """Write a time as Go's RFC3339Nano in UTC: no trailing zeros, and `Z`."""
    seconds, nanoseconds = divmod(moment, 1_000_000_000)
    whole = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return f"{whole}{fraction}Z"


def to_datetime(moment: Nanoseconds) -> datetime:
    """Return a time in UTC, without its last three digits."""
    return _EPOCH + timedelta(microseconds=moment // 1_000)
