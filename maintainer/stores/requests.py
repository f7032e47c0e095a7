"""What a run has asked of a store."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from maintainer.errors import UsedUpError
from maintainer.model.reason import RequestsExhausted

REST_KINDS = frozenset({"list", "recheck", "delete", "limits"})
"""Requests to the REST API, whose rate limit a repository's workflows share."""
_ALWAYS = frozenset({"reserve", "upload", "finalize"})
"""Requests that are never refused: a write that was begun is brought to its end."""


@dataclass(slots=True)
class RequestLog:
    """What a run has asked of the store so far."""

    counts: Counter[str] = field(default_factory=Counter)
    """Requests by kind: list, recheck, look-up, download, reserve, upload, finalize, delete,
    limits.
    """
    retries: int = 0
    """How many of them were further attempts."""
    asked_to_wait: timedelta = timedelta(0)
    """How long the services asked us to wait, in all."""
    rate_limit: int | None = None
    """Requests that the REST API allows the token in its current window, as last told."""
    rate_limit_remaining: int | None = None
    rate_limit_reset_at: datetime | None = None
    limit: int | None = None
    """So many requests may be sent, but for those that bring a write to its end."""

    @property
    def total(self) -> int:
        """All requests so far."""
        return self.counts.total()

    def count(self, kind: str, *, again: bool) -> None:
        """Count a request that is about to be sent. Raises UsedUpError if it may not be."""
        if self.limit is not None and self.total >= self.limit and kind not in _ALWAYS:
            raise UsedUpError(RequestsExhausted(self.limit))
        self.counts[kind] += 1
        self.retries += again
