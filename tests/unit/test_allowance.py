"""A rate limit that several processes share: together they never send more than remains."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
from hypothesis import given
from hypothesis import strategies as st

from maintainer.model.allowance import Allowance, Heard
from maintainer.stores.http.answers import Answer
from maintainer.stores.http.limits import read_limit

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
NEW = Heard(most=5_000, remaining=4_999, resets_in=HOUR)


def _known(remaining: int = 5_000, *, answered: int = 0, taken: int = 0) -> Allowance:
    return Allowance(0, 5_000, remaining, answered, taken, NOW + HOUR)


def test_as_long_as_nobody_knows_a_limit_one_request_is_taken_at_a_time() -> None:
    after, number, wait = Allowance().take(1, 0.5, NOW)

    assert (number, wait, after.taken) == (1, timedelta(0), 1)


def test_the_first_answer_says_what_remains() -> None:
    unknown = Allowance(answered=70, taken=3)

    after = unknown.after(replace(NEW, answered=1), NOW)

    assert after == Allowance(0, 5_000, 4_999, 0, 2, NOW + HOUR)


def test_of_much_much_is_taken_at_once_and_of_little_little() -> None:
    for remaining, some in ((15_000, 100), (1_000, 20), (40, 1)):
        assert _known(remaining).take(1, 1, NOW)[1] == some
    assert _known(10).take(7, 1, NOW)[1] == 7


def test_what_is_taken_is_nobody_elses_and_what_is_given_back_is_again() -> None:
    taken = _known(10, taken=10)

    assert taken.take(1, 1, NOW)[1:] == (0, HOUR)
    assert taken.after(Heard(returned=4), NOW).take(4, 1, NOW)[1] == 4


def test_all_together_have_a_share_and_only_what_is_needed_may_be_more() -> None:
    used = _known(500, answered=500)

    assert used.take(1, 0.5, NOW)[1:] == (0, HOUR)
    assert used.take(1, 0.6, NOW)[1] == 10
    assert used.take(1, 0.5, NOW, is_needed=True)[1] == 1
    assert _known(0, answered=500).take(1, 0.5, NOW, is_needed=True)[1:] == (0, HOUR)


def test_an_answer_that_comes_late_makes_nothing_remain() -> None:
    assert _known(90).after(Heard(most=5_000, remaining=100, resets_in=HOUR), NOW).remaining == 90
    assert _known(90).after(Heard(remaining=10, resets_in=-SECOND), NOW).remaining == 90
    assert _known(90).after(Heard(remaining=10, resets_in=HOUR / 2), NOW).remaining == 90
    assert _known(90).after(Heard(remaining=80), NOW).remaining == 80


def test_after_a_reset_all_remains_and_requests_of_before_do_not_count() -> None:
    later = NOW + HOUR

    after = _known(0, answered=4_000, taken=9).at(later)

    assert after == Allowance(1, 5_000, 5_000)
    assert _known(0).after(Heard(resets=0, answered=5, returned=3), later).answered == 0
    assert _known(0).is_exhausted(1, NOW)
    assert not _known(0).is_exhausted(1, later)


def test_a_reset_may_come_earlier_than_expected() -> None:
    after = _known(3, answered=9).after(Heard(most=60, remaining=59, resets_in=2 * HOUR), NOW)

    assert after == Allowance(1, 60, 59, 0, 0, NOW + 2 * HOUR)


def test_a_pause_is_for_all_and_never_becomes_shorter() -> None:
    paused = _known().after(Heard(pause=5 * MINUTE), NOW).after(Heard(pause=MINUTE), NOW)

    assert paused.take(1, 1, NOW, is_needed=True)[1:] == (0, 5 * MINUTE)
    assert paused.pause(NOW) == 5 * MINUTE
    assert paused.is_exhausted(1, NOW)
    assert paused.take(1, 1, NOW + 5 * MINUTE)[1] == 100
    assert paused.at(NOW + HOUR).paused_until == NOW + 5 * MINUTE


def test_who_asks_for_nothing_waits_for_nothing_but_a_pause() -> None:
    assert _known(0).take(0, 1, NOW) == (_known(0), 0, timedelta(0))


def test_without_a_time_of_the_reset_it_is_tried_again_after_a_minute() -> None:
    assert Allowance(remaining=0).take(1, 1, NOW)[1:] == (0, MINUTE)


def test_who_took_everything_after_a_reset_and_was_killed_holds_up_the_others_until_the_next() -> (
    None
):
    after = _known(0, answered=5_000).at(NOW + HOUR)
    held = replace(after, taken=5_000)  # By processes that nobody hears of again.

    assert held.take(1, 1, NOW + HOUR)[1:] == (0, MINUTE)
    sent, number, _ = held.take(1, 0.5, NOW + HOUR, is_needed=True)
    assert number == 1, "only an answer says when the next reset is"
    heard = sent.after(replace(NEW, resets=1, answered=1), NOW + HOUR)
    assert heard.take(1, 1, NOW + HOUR, is_needed=True)[1:] == (0, HOUR)
    assert heard.at(NOW + 2 * HOUR).take(1, 1, NOW + 2 * HOUR)[1] == 100


def test_what_others_hold_is_no_reason_not_to_begin() -> None:
    assert not _known(100, taken=100).is_exhausted(1, NOW)


def test_one_process_remembers_the_least_that_it_has_heard_until_a_reset() -> None:
    heard = Heard(answered=2, remaining=5, resets_in=MINUTE, pause=SECOND)

    assert heard.and_then(Heard()) is heard
    assert heard.and_then(Heard(most=9, remaining=6, resets_in=MINUTE)).remaining == 5
    assert heard.and_then(Heard(remaining=4)).remaining == 4
    later = heard.and_then(Heard(most=9, remaining=8, resets_in=HOUR))
    assert later == Heard(0, 2, 0, 9, 8, HOUR, SECOND)
    assert Heard().and_then(NEW).remaining == NEW.remaining


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200), st.integers(1, 60))
def test_whoever_sends_in_whatever_order_no_more_is_sent_than_the_limit(
    steps: list[tuple[int, bool]], most: int
) -> None:
    known = Allowance(0, most, most, reset_at=NOW + HOUR)
    held, unsaid, sent = [0] * 4, [Heard()] * 4, 0
    for who, is_said in steps:
        if is_said or not held[who]:
            known, number, _ = known.after(unsaid[who], NOW).take(1, 1, NOW, is_needed=True)
            unsaid[who], held[who] = Heard(), held[who] + number
        if held[who]:
            held[who], sent = held[who] - 1, sent + 1
            said = Heard(most=most, remaining=most - sent, resets_in=HOUR)
            unsaid[who] = replace(unsaid[who], answered=unsaid[who].answered + 1).and_then(said)
    assert sent <= most


def test_a_limit_counts_only_with_the_time_of_its_reset() -> None:
    def heard(*headers: tuple[str, str], status: int = 200) -> Heard | None:
        told = httpx2.Headers([("date", format_datetime(NOW, usegmt=True)), *headers])
        request = httpx2.Request("GET", "https://api.github.com/")
        return read_limit(Answer(status, told, b"", request))

    def reset_in(seconds: int) -> tuple[str, str]:
        return "x-ratelimit-reset", f"{NOW.timestamp() + seconds:.0f}"

    limit = "x-ratelimit-remaining", "7"

    assert heard(limit, reset_in(60)) == Heard(remaining=7, resets_in=MINUTE)
    assert heard(limit) == Heard(), "it would never be reset"
    assert heard(status=502) is None, "a proxy has answered, which knows of no limit"
    for past_or_absurd in (-1, 10**9):
        assert heard(limit, reset_in(past_or_absurd)) is None
