"""The requests that a run has sent to a store."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from anyio.to_thread import run_sync

from maintainer.errors import BudgetExhaustedError
from maintainer.model.reason import RequestsExhausted
from maintainer.stores.http.shared_limit import SharedLimit

REST_KINDS = frozenset({"list", "refs", "recheck", "delete", "limits"})
"""Requests to the REST API, whose rate limit a repository's workflows share."""
_SAME_WINDOW = timedelta(minutes=1)
"""How far the times of one reset may differ in two answers."""
_ALWAYS = frozenset({"reserve", "upload", "finalize"})
"""Requests that are never refused: a write that has begun is finished."""


@dataclass(slots=True)
class RateWindow:
    """What all runs of a process have used of a rate limit since it was reset."""

    used: int = 0
    """Requests."""
    reset_at: datetime | None = None
    """When it is reset next."""
    name: str = ""
    """A digest of what is limited; empty if nobody shares it."""
    shared: SharedLimit | None = None
    """What other processes use, too, where a server knows it."""

    def note(self, reset_at: datetime | None) -> None:
        """Begin anew if the limit was reset since the last answer."""
        if self.reset_at and reset_at and reset_at - self.reset_at > _SAME_WINDOW:
            self.used = 1  # The request whose answer says so.
        self.reset_at = reset_at or self.reset_at


_WINDOWS: dict[str, RateWindow] = {}


def name_limit(*credentials: str) -> str:
    """Return what the rate limit of some credentials is called: a digest, which is no secret."""
    return hashlib.sha256("\0".join(credentials).encode()).hexdigest()


def window_of(name: str) -> RateWindow:
    """Return the window that everybody in this process shares who has the same credentials."""
    return _WINDOWS.setdefault(name, RateWindow(name=name))


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
    answered_at: datetime | None = None
    """The time on the service's clock, as last reported."""
    rest_share: float = 1.0
    """Which part of the rate limit may be used."""
    limit: int | None = None
    """The number of requests that may be sent, besides those that finish a write."""
    window: RateWindow = field(default_factory=RateWindow)
    """What other runs have used of the same rate limit counts, too."""

    @property
    def rest_used(self) -> int:
        """Requests to the REST API that this run, or all that share its limit, have sent."""
        own = sum(self.counts[kind] for kind in REST_KINDS)
        # Where nobody says when it is reset, older requests may not count any more.
        return max(own, self.window.used) if self.window.reset_at else own

    async def may_send(self, number: int) -> bool:
        """Whether so many requests to the REST API are left of the share.

        What is shared with other processes is in a database, so a thread asks for it.
        """
        if self.window.shared:
            return await run_sync(
                self.window.shared.reserve, number, self.rest_share, abandon_on_cancel=True
            )
        if self.rate_limit_remaining is None:
            return True
        used = self.rest_used
        return used + number <= self.rest_share * (self.rate_limit_remaining + used)

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
        self.window.used += kind in REST_KINDS
        self.retries += again
