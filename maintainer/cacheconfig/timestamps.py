"""RFC 3339 times with all nine digits of a second, as Go writes them.

Python's `datetime` keeps six digits, and the exporter picks the newest result by all nine.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NewType

Nanoseconds = NewType("Nanoseconds", int)
"""Nanoseconds since 1970-01-01T00:00:00Z; negative before, as Go's zero time is."""

_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d)(?:\.(\d+))?"
    r"(?:Z|([+-])((?:[01]\d|2[0-3]):[0-5]\d))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_REMEMBERED = 4_096
"""So many times are not converted again: most indexes hold those of the index before."""
_LONGEST = len("2026-08-01T12:20:30.123456789+02:00")
"""Characters; Go writes no longer ones, and others are not remembered, as they may be huge."""


def parse_time(text: str) -> Nanoseconds:
    """Read an RFC 3339 time. Digits after the ninth are cut, as Go does.

    Raises ValueError for anything else, and for times outside of the years 1 to 9999 in UTC.
    """
    return _parse(text) if len(text) > _LONGEST else _parse_remembered(text)


@lru_cache(_REMEMBERED)
def _parse_remembered(text: str) -> Nanoseconds:
    return _parse(text)


def _parse(text: str) -> Nanoseconds:
    match = _RFC3339.fullmatch(text)
    moment = match and _read_seconds(match)
    if match is None or moment is None:
        raise ValueError("not an RFC 3339 time of the years 1 to 9999")
    nanoseconds = int((match[2] or "0")[:9].ljust(9, "0"))
    return Nanoseconds((moment - _EPOCH) // _SECOND * 1_000_000_000 + nanoseconds)


def _read_seconds(match: re.Match[str]) -> datetime | None:
    """Return the time without its fraction in UTC; None if there is no such time."""
    zone = f"{match[3]}{match[4]}" if match[3] else "+00:00"
    try:
        return datetime.fromisoformat(match[1] + zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


@lru_cache(_REMEMBERED)
def format_time(moment: Nanoseconds) -> str:
    """Write a time as Go's RFC3339Nano in UTC: no trailing zeros, and `Z`."""
    seconds, nanoseconds = divmod(moment, 1_000_000_000)
    whole = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return f"{whole}{fraction}Z"


def to_nanoseconds(moment: datetime) -> Nanoseconds:
    """Return a time as nanoseconds since 1970."""
    return Nanoseconds((moment - _EPOCH) // timedelta(microseconds=1) * 1000)


def to_datetime(moment: Nanoseconds) -> datetime:
    """Return a time in UTC, without its last three digits."""
    return _EPOCH + timedelta(microseconds=moment // 1_000)
