"""The clock of the machine, for those who begin something; all others are given a clock."""

from datetime import UTC, datetime


def now_utc() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
