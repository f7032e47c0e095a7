"""When rules let targets run, and a clock that ticks."""

import threading
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from time import monotonic
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maintainer.errors import ClockError
from maintainer.serve.clock import Clock, Rule
from maintainer.serve.worker import backoff
from maintainer.settings import ServeSettings, TargetSettings
from tests.integration.service import wait_until
from tests.samples import examples

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)  # a Tuesday
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
PATIENCE = 30.0
"""Seconds that something may take that should happen at once."""


def a_rule(
    cron: str | None = None,
    *,
    interval: timedelta = timedelta(days=365),
    jitter: timedelta = timedelta(0),
    timezone: str = "UTC",
    misfire_grace: timedelta = HOUR,
) -> Rule:
    return Rule(cron, interval, jitter, timezone, misfire_grace)


def _next(rule: Rule, now: datetime) -> datetime:
    return rule.next(now, now)


# Rules.


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 12 * * *", datetime(2026, 11, 24, 12, 30, tzinfo=UTC)),
        ("0 3 * * *", datetime(2026, 11, 25, 3, tzinfo=UTC)),
        ("0 3 * * 0", datetime(2026, 11, 29, 3, tzinfo=UTC)),
        ("0 3 * * 7", datetime(2026, 11, 29, 3, tzinfo=UTC)),
        ("0 3 * * mon", datetime(2026, 11, 30, 3, tzinfo=UTC)),
        ("0 0 1 1 *", datetime(2027, 1, 1, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2028, 2, 29, tzinfo=UTC)),
        ("0 0 13 * fri", datetime(2026, 11, 27, tzinfo=UTC)),
        ("0 12 * * *", datetime(2026, 11, 25, 12, tzinfo=UTC)),
    ],
)
def test_the_next_time_of_a_cron_expression(cron: str, expected: datetime) -> None:
    assert _next(a_rule(cron), NOON) == expected


def test_a_cron_expression_is_in_its_time_zone() -> None:
    rule = a_rule("0 3 * * *", timezone="Europe/Berlin")

    assert _next(rule, NOON) == datetime(2026, 11, 25, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("timezone", "cron", "expected"),
    [
        ("Europe/Berlin", "30 2 * * *", datetime(2027, 3, 28, 1, tzinfo=UTC)),
        ("Africa/Cairo", "0 0 * * *", datetime(2026, 4, 23, 22, tzinfo=UTC)),
        ("Africa/Cairo", "0 0 * * 5", datetime(2026, 4, 23, 22, tzinfo=UTC)),
        ("Asia/Beirut", "30 0 29 3 *", datetime(2026, 3, 28, 22, tzinfo=UTC)),
        ("America/Santiago", "0 0 6 9 *", datetime(2026, 9, 6, 4, tzinfo=UTC)),
        ("Australia/Lord_Howe", "15 2 4 10 *", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ],
)
def test_a_time_that_the_clocks_leave_out_is_when_they_go_forward(
    timezone: str, cron: str, expected: datetime
) -> None:
    rule = a_rule(cron, timezone=timezone)

    assert _next(rule, expected - timedelta(minutes=1)) == expected
    assert _next(rule, expected + timedelta(seconds=1)) > expected + timedelta(minutes=59)


def test_a_time_that_the_clocks_show_twice_is_used_once() -> None:
    rule = a_rule("30 2 * * *", timezone="Europe/Berlin")
    first, second = (datetime(2027, 10, 31, hour, 30, tzinfo=UTC) for hour in (0, 1))
    next_day = datetime(2027, 11, 1, 1, 30, tzinfo=UTC)

    assert _next(rule, first - HOUR) == first
    assert _next(rule, first + timedelta(seconds=1)) == next_day
    assert _next(rule, second - timedelta(minutes=1)) == next_day


def test_what_runs_in_each_hour_runs_on_while_the_clocks_change() -> None:
    rule = a_rule("30 * * * *", timezone="Europe/Berlin")
    for begin in (datetime(2027, 3, 28, tzinfo=UTC), datetime(2027, 10, 30, 22, tzinfo=UTC)):
        for number in range(5):
            at = begin + number * HOUR
            assert _next(rule, at) == at + HOUR / 2


@given(
    timezone=st.sampled_from(sorted(available_timezones())),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    year=st.integers(2020, 2040),
)
@settings(max_examples=examples(few=10, many=30))
def test_what_runs_daily_runs_on_each_local_day_in_every_time_zone(
    timezone: str, hour: int, minute: int, year: int
) -> None:
    rule, zone = a_rule(f"{minute} {hour} * * *", timezone=timezone), ZoneInfo(timezone)
    days = [date(year, 1, 1) + timedelta(days=number) for number in range(366)]
    begins = [datetime.combine(day, time(), zone).astimezone(UTC) for day in days]

    for begin, end in pairwise(begins):
        # Where the last minutes of a day are left out, it is the first moment of the next.
        assert begin <= _next(rule, begin - timedelta(microseconds=1)) <= end


@given(
    late=st.timedeltas(timedelta(0), timedelta(days=400)),
    interval=st.timedeltas(timedelta(seconds=1), timedelta(days=400)),
)
def test_the_next_time_is_whole_intervals_after_the_previous_one_and_after_now(
    late: timedelta, interval: timedelta
) -> None:
    at = a_rule(interval=interval).next(NOON, NOON + late)

    assert NOON + late < at <= NOON + late + interval
    assert (at - NOON) % interval == timedelta(0)


def test_an_interval_that_begins_early_counts_from_its_time() -> None:
    assert a_rule(interval=HOUR).next(NOON, NOON - timedelta(minutes=1)) == NOON + HOUR


def test_jitter_comes_on_top() -> None:
    rule = a_rule("0 13 * * *", jitter=timedelta(minutes=10))
    times = {_next(rule, NOON) for _ in range(20)}

    assert len(times) > 1
    assert min(times) >= NOON + HOUR
    assert max(times) <= NOON + HOUR + timedelta(minutes=10)


def test_an_interval_begins_at_once_and_cron_waits_for_its_time() -> None:
    assert a_rule().first(NOON) == NOON
    assert a_rule("0 13 * * *").first(NOON) == NOON + HOUR


def test_what_a_target_leaves_out_the_service_says() -> None:
    serve = ServeSettings(
        interval=timedelta(hours=2), jitter=timedelta(minutes=1), timezone="Europe/Berlin"
    )
    plain = TargetSettings(name="a", repository="octo/a")
    own = TargetSettings(
        name="b",
        repository="octo/b",
        cron="0 3 * * *",
        jitter=timedelta(0),
        timezone="UTC",
    )

    assert str(Rule.of(serve, None)) == "every 2h, up to 1m later"
    assert str(Rule.of(serve, plain)) == "every 2h, up to 1m later"
    assert str(Rule.of(serve, own)) == "cron 0 3 * * * UTC"


@pytest.mark.parametrize(
    ("seconds", "said"), [(1, "1s"), (90, "90s"), (120, "2m"), (86_400, "1d"), (90_000, "25h")]
)
def test_a_rule_says_its_interval_as_it_is_written(seconds: int, said: str) -> None:
    assert str(a_rule(interval=timedelta(seconds=seconds))) == f"every {said}"


def test_the_backoff_doubles_up_to_its_end() -> None:
    waits = [backoff(failures, timedelta(minutes=5)) for failures in range(1, 7)]

    assert [wait.total_seconds() for wait in waits] == [30, 60, 120, 240, 300, 300]
    assert backoff(10_000, timedelta(days=7)) == timedelta(days=7)


# The clock.


class Ticks:
    """What a clock calls: it can hold a tick up, or break the clock."""

    def __init__(self) -> None:
        self.ticked = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.may_end.set()
        self.ended = threading.Event()
        self.problem: Exception | None = None

    def __call__(self) -> None:
        self.ticked.release()
        assert self.may_end.wait(PATIENCE)
        if self.problem:
            raise self.problem

    def expect(self, number: int) -> None:
        """Wait for so many ticks."""
        for _ in range(number):
            assert self.ticked.acquire(timeout=PATIENCE)


@dataclass
class Times:
    """The system time and the monotonic time that a clock reads; both can be set."""

    system: timedelta = timedelta(0)
    monotonic: float = 0.0


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    """Return what moves the times that a clock reads; it ticks all the time."""
    times = Times()

    class SystemTime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + times.system

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", SystemTime)
    monkeypatch.setattr("maintainer.serve.clock.monotonic", lambda: monotonic() + times.monotonic)
    monkeypatch.setattr("maintainer.serve.clock._TICK", 0.01)
    return times


@pytest.mark.usefixtures("times")
def test_a_clock_ticks_at_once_and_again_until_it_is_stopped() -> None:
    ticks = Ticks()
    clock = Clock(ticks, ticks.ended.set)
    assert not clock.is_alive

    with clock.ticking(PATIENCE):
        assert clock.is_alive
        ticks.expect(2)
        assert not ticks.ended.is_set()

    assert not clock.is_alive
    assert ticks.ended.is_set()


def test_a_clock_whose_tick_raises_is_not_alive_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticks = Ticks()
    ticks.problem = ValueError("a bug")
    clock = Clock(ticks, ticks.ended.set)

    with clock.ticking(PATIENCE):
        assert ticks.ended.wait(PATIENCE)
        assert not clock.is_alive

    assert not clock.is_alive
    assert "ValueError: a bug" in caplog.text


@pytest.mark.parametrize("by", [-DAY, DAY, 365 * DAY])
def test_a_clock_ticks_on_if_the_system_time_is_set(times: Times, by: timedelta) -> None:
    ticks = Ticks()

    with Clock(ticks, ticks.ended.set).ticking(PATIENCE):
        for _ in range(3):
            ticks.expect(3)
            times.system += by
        ticks.expect(3)


@pytest.mark.parametrize("by", [-DAY, DAY, 365 * DAY])
def test_a_clock_ticks_on_if_the_system_time_is_set_during_a_tick(
    times: Times, monkeypatch: pytest.MonkeyPatch, by: timedelta
) -> None:
    # So that the first tick is on time, and nothing but its end makes APScheduler look again.
    monkeypatch.setattr("maintainer.serve.clock._TICK", 0.5)
    ticks = Ticks()
    ticks.may_end.clear()

    with Clock(ticks, ticks.ended.set).ticking(PATIENCE):
        ticks.expect(1)
        times.system += by
        ticks.may_end.set()
        ticks.expect(3)


def test_a_clock_is_alive_during_a_tick_however_long_that_takes(times: Times) -> None:
    ticks = Ticks()
    ticks.may_end.clear()
    clock = Clock(ticks, ticks.ended.set)

    with clock.ticking(PATIENCE):
        ticks.expect(1)
        times.monotonic += DAY.total_seconds()
        assert clock.is_alive
        ticks.may_end.set()
        ticks.expect(2)
        assert clock.is_alive


def test_a_clock_that_does_not_tick_is_not_alive(
    times: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.serve.clock._TICK", DAY.total_seconds())
    ticks = Ticks()
    clock = Clock(ticks, ticks.ended.set)

    with clock.ticking(PATIENCE):
        ticks.expect(1)
        times.monotonic += 15
        assert clock.is_alive
        times.monotonic += DAY.total_seconds()
        wait_until(lambda: not clock.is_alive)


def test_a_tick_that_hangs_does_not_keep_the_clock_from_being_stopped() -> None:
    ticks = Ticks()
    ticks.may_end.clear()
    clock = Clock(ticks, ticks.ended.set)

    with clock.ticking(timeout=0.01):
        ticks.expect(1)

    assert not clock.is_alive
    ticks.may_end.set()


@pytest.mark.parametrize(("seconds", "said"), [(90, "90 s ahead of"), (-3_600, "3,600 s behind")])
def test_a_wrong_clock_is_one_line_that_says_how_wrong_and_what_to_do(
    seconds: int, said: str
) -> None:
    assert str(ClockError(timedelta(seconds=seconds))) == (
        f"this machine's clock is {said} the database's: set it right, because grace periods "
        "are counted by both"
    )
