"""How one process uses a rate limit that it shares: few questions, and a pause is heard soon."""

import threading
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from maintainer.model.allowance import Heard
from maintainer.stores.http.requests import RateWindow, RequestLog
from maintainer.stores.http.shared_limit import Asked, Granted, SharedLimit

pytestmark = pytest.mark.anyio

ANSWER = Heard(most=5_000, remaining=4_000, resets_in=timedelta(hours=1))
SOON = timedelta(seconds=30)


@dataclass
class Others:
    """The other processes, as they answer."""

    grants: list[Granted]
    heard: list[Heard] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    now: float = 100.0

    def exchange(self, name: str, heard: Heard, asked: Asked) -> Granted:
        """Answer as foreseen."""
        assert name == "octo"
        self.heard.append(heard)
        self.asked.append(asked)
        return self.grants.pop(0)

    def limit(self) -> SharedLimit:
        """Return the limit of one process."""
        return SharedLimit("octo", self.exchange, lambda: self.now)


def test_a_process_asks_once_for_many_requests() -> None:
    others = Others([Granted(3, 3), Granted(3, 5)])
    limit = others.limit()

    for _ in range(3):
        assert limit.send(0.5) == (3, 0.0)
        limit.answered(3, ANSWER)
    assert others.asked == [Asked(1, 0.5, is_needed=True)]
    assert limit.send(0.5) == (3, 0.0)
    assert others.heard[-1] == Heard(3, 3, 0, 5_000, 4_000, timedelta(hours=1))


def test_after_seconds_it_asks_whether_there_is_a_pause() -> None:
    others = Others([Granted(0, 9), Granted(0, 0, SOON, is_paused=True), Granted(0, 0)])
    limit = others.limit()
    limit.send(1)
    others.now += 6

    assert limit.send(1) == (0, 30.0)
    assert others.asked[-1].number == 0
    assert limit.send(1) == (0, 30.0)  # Without another question.
    assert limit.reserve(1, 1)
    others.now += 31
    assert limit.send(1) == (0, 0.0)


def test_what_was_taken_before_a_reset_is_not_sent_after_it() -> None:
    first = Granted(0, 9, resets_in=timedelta(seconds=2))
    others = Others([first, Granted(1, 0), Granted(1, 4), Granted(1, 0)])
    limit = others.limit()
    limit.send(1)
    others.now += 2

    assert limit.send(1) == (1, 0.0)
    limit.answered(0, ANSWER)  # Of a request of before the reset.
    limit.give_back()
    assert [one.number for one in others.asked] == [1, 0, 1, 0]


def test_if_nothing_is_left_it_says_how_long_to_wait() -> None:
    others = Others([Granted(0, 0, SOON), Granted(0, 0, SOON)])
    limit = others.limit()

    assert limit.send(1) == (0, 30.0)
    assert not limit.reserve(2, 0.5)
    assert others.asked[-1] == Asked(2, 0.5)


def test_a_service_without_a_limit_is_asked_about_seldom() -> None:
    others = Others([Granted(0, 1), Granted(0, 1)])
    limit = others.limit()
    limit.send(1)
    limit.answered(0, Heard())
    for _ in range(20):
        limit.send(1)
        limit.answered(0, Heard())
    limit.answered(0, None)

    assert limit.reserve(5, 0.5)
    assert len(others.asked) == 1
    others.now += 6
    limit.send(1)
    assert others.asked[-1].number == 0
    assert others.heard[-1].answered == 21 + 1


def test_a_pause_is_said_at_once_and_what_is_not_needed_given_back() -> None:
    others = Others([Granted(0, 5), Granted(0, 0, SOON, is_paused=True), Granted(0, 0)])
    limit = others.limit()
    limit.send(1)

    limit.pause(SOON)
    assert others.heard[-1].pause == SOON
    assert limit.send(1) == (0, 30.0)
    limit.give_back()
    assert others.heard[-1].returned == 4


def test_what_was_heard_long_ago_is_told_as_it_is_now() -> None:
    others = Others([Granted(0, 9), Granted(0, 9), Granted(0, 9)])
    limit = others.limit()
    limit.send(1)
    limit.answered(0, ANSWER)
    others.now += 20 * 60
    limit.send(1)
    assert others.heard[-1].resets_in == timedelta(minutes=40), "another reset would seem to be"
    limit.answered(0, ANSWER)
    others.now += 3_600
    limit.send(1)

    assert others.heard[-1] == Heard(answered=1), "what remained before a reset says nothing"


def test_what_could_not_be_given_back_is_given_back_later() -> None:
    others = Others([Granted(0, 5)])
    limit = others.limit()
    limit.send(1)
    for _ in range(2):
        with pytest.raises(IndexError):  # No answer is left.
            limit.give_back()

    assert [one.returned for one in others.heard] == [0, 4, 4]


async def test_nothing_else_waits_while_the_database_is_asked_how_much_is_left() -> None:
    asked_by: list[int] = []

    def exchange(_name: str, _heard: Heard, asked: Asked) -> Granted:
        asked_by.append(threading.get_ident())
        return Granted(0, asked.number)

    log = RequestLog(window=RateWindow(shared=SharedLimit("octo", exchange)))

    assert await log.may_send(3)
    assert len(asked_by) == 1
    assert threading.get_ident() not in asked_by
