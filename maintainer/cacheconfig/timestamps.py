"""RFC 3339 times with all nine digits of a second, as Go writes them.

Python's `datetime` keeps six digits, and the exporter picks the newest result by all nine.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import NewType

Nanoseconds = NewType("Nanoseconds", int)
"""Nanoseconds since 1970-01-01T00:00:00Z; negative before, as Go's zero time is."""

_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_MINUTES_A_DAY = 24 * 60


def parse_time(text: str) -> Nanoseconds:
    """Read an RFC 3339 time. Digits after the ninth are cut, as Go does.

    Raises ValueError for anything else, and for times outside of the years 1 to 9999 in UTC.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time")
    seconds, fraction, sign, hours, minutes = match.groups()
    moment = datetime.fromisoformat(f"{seconds}+00:00")
    if sign:
        offset = int(hours) * 60 + int(minutes)
        if offset >= _MINUTES_A_DAY or int(minutes) > 59:  # noqa: PLR2004
            raise ValueError("not an RFC 3339 time")
        try:
            moment -= timedelta(minutes=offset if sign == "+" else -offset)
        except OverflowError:
            raise ValueError("outside of the years 1 to 9999") from None
    nanoseconds = int((fraction or "0")[:9].ljust(9, "0"))
    return Nanoseconds((moment - _EPOCH) // _SECOND * 1_000_000_000 + nanoseconds)


def format_time(moment: Nanoseconds) -> str:
    """Write a time as Go's RFC3339Nano in UTC: no trailing zeros, and `Z`."""
    seconds, nanoseconds = divmod(moment, 1_000_000_000)
    whole = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return f"{whole}{fraction}Z"
