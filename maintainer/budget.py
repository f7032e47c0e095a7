"""The budgets of a run, and requests to stop it."""

from collections.abc import Callable
from datetime import datetime

from maintainer.model.reason import (
    DeadlinePassed,
    Exhausted,
    Interrupted,
    RequestsExhausted,
    RestShareExhausted,
)
from maintainer.settings import Settings
from maintainer.stores.http.requests import RequestLog


class Budget:
    """The run checks it before each step that can be deferred to the next run.

    Once it has refused a step, it refuses all others: a run ends in the order of its stages.
    """

    def __init__(
        self, requests: RequestLog, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        self._requests = requests
        self._clock = clock
        self._rest_share = requests.rest_share = settings.rest_share
        self._most = requests.limit = settings.max_requests
        self._ends_at = None if settings.deadline is None else clock() + settings.deadline
        self._granted = 0
        self.exhausted: Exhausted | None = None
        """Why the run does nothing more, if so."""
        self.interrupted = False

    def interrupt(self, what: str) -> None:
        """End the run after the current step, because of a signal."""
        self.interrupted = True
        self.exhausted = Interrupted(what)

    def stop(self, reason: Exhausted) -> Exhausted:
        """End the run for this reason, unless it has already ended; return the reason."""
        self.exhausted = self.exhausted or reason
        return self.exhausted

    @property
    def is_limited(self) -> bool:
        """Whether the number of requests or the duration of the run is limited."""
        return self._most is not None or self._ends_at is not None

    def reserve(self, requests: int) -> Exhausted | None:
        """Reserve requests; return a reason if too few are left.

        Steps may run concurrently, so reserved requests count before they are sent.
        """
        self._granted = self._granted_so_far()
        self.exhausted = self.exhausted or self._why_not(requests)
        if self.exhausted is None:
            self._granted += requests
        return self.exhausted

    async def reserve_rest(self, requests: int, rest: int) -> Exhausted | None:
        """Reserve requests, `rest` of them to the REST API, whose limit others may share."""
        reason = self.exhausted or await self._why_not_rest(requests, rest)
        return self.stop(reason) if reason else self.reserve(requests)

    async def allows_rest(self, requests: int) -> bool:
        """Whether so many requests to the REST API are left.

        For optional work: False does not end the run, and True reserves nothing.
        """
        return self.exhausted is None and not await self._why_not_rest(requests, requests)

    def spare(self) -> "Spare":
        """Return half of the remaining requests: for work that can be deferred."""
        granted = self._granted_so_far()
        requests = None if self._most is None else max(0, self._most - granted) // 2
        now = self._clock()
        ends_at = None if self._ends_at is None else now + (self._ends_at - now) / 2
        return Spare(self, requests, ends_at, self._clock)

    async def _why_not_rest(self, requests: int, rest: int) -> Exhausted | None:
        if reason := self._why_not(requests):
            return reason
        if rest and not await self._requests.may_send(rest):
            return RestShareExhausted(self._rest_share)
        return None

    def _why_not(self, requests: int) -> Exhausted | None:
        if self._most is not None and self._granted_so_far() + requests > self._most:
            return RequestsExhausted(self._most)
        if self._ends_at is not None and self._clock() >= self._ends_at:
            return DeadlinePassed()
        return None

    def _granted_so_far(self) -> int:
        return max(self._granted, self._requests.total)


class Spare:
    """A part of a budget. Unlike the whole, it can be exhausted without ending the run."""

    def __init__(
        self,
        budget: Budget,
        requests: int | None,
        ends_at: datetime | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._budget = budget
        self._left = requests
        self._ends_at = ends_at
        self._clock = clock

    @property
    def is_over(self) -> bool:
        """Whether nothing more may start, whatever was reserved."""
        late = self._ends_at is not None and self._clock() >= self._ends_at
        return late or self._budget.exhausted is not None

    def reserve(self, requests: int) -> bool:
        """Reserve requests; return whether that many were left."""
        if self.is_over or (self._left is not None and requests > self._left):
            return False
        if self._budget.reserve(requests):
            return False
        if self._left is not None:
            self._left -= requests
        return True
