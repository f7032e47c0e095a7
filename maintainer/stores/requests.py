"""The requests that a run has sent to a store."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from maintainer.errors import BudgetExhaustedError
from maintainer.model.reason import RequestsExhausted

REST_KINDS = frozenset({"list", "refs", "recheck", "delete", "limits"})
"""Requests to the REST API, whose rate limit a repository's workflows share."""
_ALWAYS = frozenset({"reserve", "upload", "finalize"})
"""Requests that are never refused: a write that has begun is finished."""


@dataclass(slots=True)
class RequestLog:
    """The requests that a run has sent to the store so far."""

    counts: Counter[str] = field(default_factory=Counter)
    """Requests by kind: list, refs, recheck, look-up, download, reserve, upload, finalize, delete,
    limits; to a package API also packages.
    """
    retries: int = 0
    """How many of them were retries."""
    asked_to_wait: timedelta = timedelta(0)
    """How long the services asked us to wait, in total."""
    rate_limit: int | None = None
    """Requests that the REST API allows the token in its current window, as last reported."""
    rate_limit_remaining: int | None = None
    rate_limit_reset_at: datetime | None = None
    date: str = ""
    """The time on the service's clock, as last reported: the header `Date`."""
    limit: int | None = None
    """The number of requests that may be sent, besides those that finish a write."""

    @property
    def total(self) -> int:
        """All requests so far."""
        return self.counts.total()

    def count(self, kind: str, *, again: bool) -> None:
        """Count a request that is about to be sent.

        Raises BudgetExhaustedError if it may not be.
        """
        if self.limit is not None and self.total >= self.limit and kind not in _ALWAYS:
            raise BudgetExhaustedError(RequestsExhausted(self.limit))
        self.counts[kind] += 1
        self.retries += again
