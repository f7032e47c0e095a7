"""Doubt: an index that exists but could not be read. It always ends. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Cause(StrEnum):
    """Why an index could not be read."""

    TRANSIENT = "transient"
    """A temporary error: the server, the network, or our own budget. It proves nothing."""
    NOT_FOUND = "not found"
    """It is listed, and a look-up finds nothing."""
    NO_CONTENT = "no content"
    """A look-up finds it, and there is nothing to download."""
    OTHER_SIZE = "other size"
    """The size of the download differs from the listed one."""
    TOO_LARGE = "too large"
    """It is larger than the limit."""


_SHORTEST = timedelta(days=1)
"""An outage of the storage may last hours, whatever grace period its users have chosen."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """The answer, always the same, that earlier runs got when they tried to read an index."""

    cause: Cause
    since: datetime
    entries: frozenset[int] = frozenset()
    """What was stored under its key at the last list; another entry there is another index."""

    def has_ended(self, cause: Cause, now: datetime, grace: timedelta) -> bool:
        """Whether the answer has been the same for a grace period, and a day at least: it is final.

        Builders get that answer too: the index is useless to them.
        """
        lasts = cause is self.cause and cause is not Cause.TRANSIENT
        return lasts and now - self.since >= max(grace, _SHORTEST)
