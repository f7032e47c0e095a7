"""What a run may still do, and why it may do no more."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from maintainer.budget import Budget
from maintainer.errors import BudgetExhaustedError, UnfinishedError
from maintainer.model.reason import (
    DeadlinePassed,
    Interrupted,
    RequestsExhausted,
    RestShareExhausted,
)
from maintainer.settings import Settings
from maintainer.stores.http.requests import RequestLog, name_limit, window_of

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that somebody else winds."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


def _budget(log: RequestLog, clock: Clock | None = None, **settings: object) -> Budget:
    return Budget(log, Settings.model_validate(settings), clock or Clock())


async def test_without_limits_everything_is_granted() -> None:
    budget = _budget(RequestLog())

    assert await budget.reserve_rest(10**9, 10**9) is None
    assert budget.exhausted is None
    assert not budget.interrupted


def test_requests_are_granted_up_to_the_limit_and_not_one_more() -> None:
    budget = _budget(RequestLog(), max_requests=10)

    assert budget.reserve(7) is None
    assert budget.reserve(4) == RequestsExhausted(10)


def test_what_was_granted_counts_before_it_is_used() -> None:
    budget = _budget(RequestLog(), max_requests=10)

    assert [budget.reserve(4) is None for _ in range(3)] == [True, True, False]


def test_requests_beyond_what_was_granted_count_too() -> None:
    log = RequestLog()
    budget = _budget(log, max_requests=10)
    assert budget.reserve(1) is None
    for _ in range(9):
        log.count("look-up", again=False)

    assert budget.reserve(1) is None
    log.count("look-up", again=False)
    assert budget.reserve(1) is not None


def test_once_it_has_said_no_it_says_no_to_all() -> None:
    budget = _budget(RequestLog(), max_requests=10)
    refused = budget.reserve(11)

    assert refused
    assert budget.reserve(1) == refused == budget.exhausted


def test_the_deadline_counts_from_the_beginning_and_by_the_clock() -> None:
    clock = Clock()
    budget = _budget(RequestLog(), clock, deadline="10m")
    clock.now += timedelta(seconds=599)
    assert budget.reserve(1) is None
    clock.now += timedelta(seconds=1)

    assert budget.reserve(1) == DeadlinePassed()


@pytest.mark.parametrize(
    ("share", "used", "remaining", "asked", "granted"),
    [
        (0.5, 0, 100, 50, True),
        (0.5, 0, 100, 51, False),
        # What the run itself has used belongs to what there was.
        (0.5, 20, 80, 30, True),
        (0.5, 20, 80, 31, False),
        (1, 0, 0, 1, False),
        (1, 0, 1, 1, True),
        (0.1, 0, None, 10**6, True),
        (0.1, 0, 0, 0, True),
    ],
)
async def test_a_share_of_the_rest_apis_rate_limit_is_used(
    share: float, used: int, remaining: int | None, asked: int, granted: bool
) -> None:
    log = RequestLog(rate_limit_remaining=remaining)
    log.counts.update({"list": used, "look-up": 1000})
    budget = _budget(log, rest_share=share)

    refused = await budget.reserve_rest(asked, asked)

    assert (refused is None) == granted
    if refused:
        assert refused == RestShareExhausted(share)


async def test_what_the_share_does_not_allow_ends_the_run_only_if_it_is_not_optional() -> None:
    budget = _budget(RequestLog(rate_limit_remaining=10), rest_share=0.5)

    assert await budget.allows_rest(5)
    assert not await budget.allows_rest(6)
    assert budget.exhausted is None
    assert await budget.reserve_rest(6, 6) == RestShareExhausted(0.5) == budget.exhausted
    assert not await budget.allows_rest(1)


async def test_more_requests_than_the_run_may_send_are_refused_whatever_the_share_allows() -> None:
    budget = _budget(RequestLog(rate_limit_remaining=10), max_requests=3)

    assert await budget.reserve_rest(4, 1) == RequestsExhausted(3)


def test_an_interrupt_says_no_from_then_on() -> None:
    budget = _budget(RequestLog())
    budget.interrupt("SIGTERM")

    assert budget.interrupted
    assert budget.reserve(0) == budget.exhausted == Interrupted("SIGTERM")


def test_who_stops_it_gives_the_reason_unless_there_is_one() -> None:
    budget = _budget(RequestLog())

    assert budget.stop(DeadlinePassed()) == DeadlinePassed() == budget.reserve(1)
    assert budget.stop(RequestsExhausted(1)) == DeadlinePassed()
    assert not budget.interrupted


def test_who_could_not_finish_says_what_and_why() -> None:
    error = UnfinishedError("the tags could not all be read", DeadlinePassed())

    assert (str(error), error.reason) == ("the tags could not all be read", DeadlinePassed())


def test_the_limit_holds_for_every_request_but_those_that_end_a_write() -> None:
    log = RequestLog()
    _budget(log, max_requests=1)
    log.count("list", again=False)

    for kind in ("reserve", "upload", "finalize"):
        log.count(kind, again=True)
    for kind in ("list", "recheck", "look-up", "download", "delete", "limits"):
        with pytest.raises(BudgetExhaustedError) as refused:
            log.count(kind, again=False)
        assert refused.value.reason == RequestsExhausted(1)
    assert log.total == 4
    assert log.retries == 3


async def test_runs_that_share_a_rate_limit_share_its_budget_until_it_is_reset() -> None:
    name = name_limit("https://api.example.com", "token")
    window = window_of(name)
    assert window_of(name_limit("https://api.example.com", "token")) is window
    assert window_of(name_limit("https://api.example.com", "other")) is not window
    reset_at = datetime(2026, 1, 1, 1, tzinfo=UTC)
    first, second = RequestLog(window=window), RequestLog(window=window)
    for _ in range(400):
        first.count("list", again=False)
    second.count("list", again=False)
    second.count("download", again=False)
    second.rate_limit_remaining = 599
    window.note(reset_at)
    settings = Settings.defaults().model_copy(update={"rest_share": 0.5})

    assert await Budget(second, settings, lambda: reset_at).reserve_rest(99, 99) is None
    assert await Budget(second, settings, lambda: reset_at).reserve_rest(100, 100) is not None

    window.note(reset_at + timedelta(seconds=1))
    assert second.rest_used == 401
    window.note(reset_at + timedelta(hours=1))
    assert second.rest_used == 1
