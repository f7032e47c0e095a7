"""Dates in headers."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def read_http_date(header: str) -> datetime | None:
    """Return the time that a header such as `Date` states; None if it states none."""
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
