"""When a rule says that it is time, and what a schedule makes of it."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maintainer.graph.database import Database
from maintainer.scheduler import Rule, Schedule, _trigger, next_time
from maintainer.serve.runner import backoff
from maintainer.settings import ServeSettings, TargetSettings

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)  # a Tuesday
HOUR = timedelta(hours=1)
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


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    tick = threading.Event()
    for _ in range(int(PATIENCE * 20)):
        if condition():
            return
        tick.wait(0.05)
    pytest.fail("it did not happen")


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
        ("0 12 * * *", NOON),
    ],
)
def test_the_next_time_of_a_cron_expression(cron: str, expected: datetime) -> None:
    assert next_time(a_rule(cron), NOON) == expected


def test_a_cron_expression_is_in_its_time_zone() -> None:
    rule = a_rule("0 3 * * *", timezone="Europe/Berlin")

    assert next_time(rule, NOON) == datetime(2026, 11, 25, 2, tzinfo=UTC)


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

    assert next_time(rule, expected - timedelta(minutes=1)) == expected
    assert next_time(rule, expected + timedelta(seconds=1)) > expected + timedelta(minutes=59)


def test_a_time_that_the_clocks_show_twice_is_used_once() -> None:
    rule = a_rule("30 2 * * *", timezone="Europe/Berlin")
    first, second = (datetime(2027, 10, 31, hour, 30, tzinfo=UTC) for hour in (0, 1))
    next_day = datetime(2027, 11, 1, 1, 30, tzinfo=UTC)

    assert next_time(rule, first - HOUR) == first
    assert next_time(rule, first + timedelta(seconds=1)) == next_day
    assert next_time(rule, second - timedelta(minutes=1)) == next_day


def test_what_runs_in_each_hour_runs_on_while_the_clocks_change() -> None:
    rule = a_rule("30 * * * *", timezone="Europe/Berlin")
    for begin in (datetime(2027, 3, 28, tzinfo=UTC), datetime(2027, 10, 30, 22, tzinfo=UTC)):
        for number in range(5):
            at = begin + number * HOUR
            assert next_time(rule, at) == at + HOUR / 2


@given(
    timezone=st.sampled_from(sorted(available_timezones())),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    year=st.integers(2020, 2040),
)
@settings(max_examples=30)
def test_what_runs_daily_runs_on_each_local_day_in_every_time_zone(
    timezone: str, hour: int, minute: int, year: int
) -> None:
    rule, zone = a_rule(f"{minute} {hour} * * *", timezone=timezone), ZoneInfo(timezone)
    days = [date(year, 1, 1) + timedelta(days=number) for number in range(366)]
    begins = [datetime.combine(day, time(), zone).astimezone(UTC) for day in days]

    for begin, end in pairwise(begins):
        # Where the last minutes of a day are left out, it is the first moment of the next.
        assert begin <= next_time(rule, begin) <= end


def test_the_next_time_is_another_one_even_if_the_clock_stands_still() -> None:
    trigger = _trigger(a_rule("* * * * *"))

    assert trigger.get_next_fire_time(NOON, NOON) == NOON + timedelta(minutes=1)


def test_jitter_comes_on_top() -> None:
    rule = a_rule("0 13 * * *", jitter=timedelta(minutes=10))
    times = {next_time(rule, NOON) for _ in range(20)}

    assert len(times) > 1
    assert min(times) >= NOON + HOUR
    assert max(times) <= NOON + HOUR + timedelta(minutes=10)


def test_an_interval_begins_at_once_and_cron_waits_for_its_time() -> None:
    assert a_rule().after(NOON) == NOON
    assert a_rule("0 13 * * *").after(NOON) == NOON + HOUR


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


# Schedules.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a database at this version's revision."""
    path = tmp_path / "maintainer.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()
    return path


class Calls:
    """The runs that a schedule has asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.may_end = threading.Event()
        self.may_end.set()
        self._changed = threading.Condition()

    def __call__(self, name: str) -> None:
        """Do a run."""
        with self._changed:
            self.names.append(name)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self._changed.notify_all()
        assert self.may_end.wait(PATIENCE)
        with self._changed:
            self.at_once -= 1

    def wait_for(self, number: int) -> None:
        """Wait until so many runs have begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.names) >= number, PATIENCE)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def schedule(path: Path, calls: Calls) -> Iterator[Schedule]:
    schedule = Schedule(f"sqlite:///{path}", calls)
    schedule.open()
    yield schedule
    calls.may_end.set()
    schedule.close()


def now() -> datetime:
    return datetime.now(UTC)


def test_nothing_runs_before_the_schedule_runs(schedule: Schedule, calls: Calls) -> None:
    schedule.set("web", a_rule(), now())
    assert calls.names == []

    schedule.run()

    calls.wait_for(1)
    assert calls.names == ["web"]


def test_the_next_time_is_an_interval_later(schedule: Schedule, calls: Calls) -> None:
    begin = now()
    schedule.set("web", a_rule(interval=HOUR), begin)
    schedule.run()
    calls.wait_for(1)

    next_run_at = schedule.next_run_at("web")

    assert next_run_at == begin + HOUR


def test_runs_of_one_target_never_overlap_and_those_of_others_wait(
    schedule: Schedule, calls: Calls
) -> None:
    calls.may_end.clear()
    schedule.set("web", a_rule(interval=timedelta(seconds=1)), now())
    schedule.run()
    calls.wait_for(1)
    schedule.set("other", a_rule(), now())
    first_next = schedule.next_run_at("web")
    assert first_next
    wait_until(lambda: (schedule.next_run_at("web") or first_next) > first_next)

    assert calls.names == ["web"]
    calls.may_end.set()
    calls.wait_for(2)

    assert calls.names[1] == "other"
    assert calls.most_at_once == 1


def test_what_is_put_off_runs_at_that_time(schedule: Schedule, calls: Calls) -> None:
    schedule.set("web", a_rule(), now() + HOUR)
    schedule.run()

    schedule.put_off("web", now())

    calls.wait_for(1)


def test_a_removed_target_does_not_run(schedule: Schedule, calls: Calls) -> None:
    schedule.set("web", a_rule(), now() + HOUR)
    schedule.remove("web")
    schedule.remove("web")
    schedule.put_off("web", now())
    schedule.set("other", a_rule(), now())
    schedule.run()

    calls.wait_for(1)

    assert calls.names == ["other"]
    assert schedule.next_run_at("web") is None


def test_a_late_cron_run_is_left_out_and_a_late_interval_is_not(
    schedule: Schedule, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    schedule.set("cron", a_rule("0 3 1 1 *", misfire_grace=timedelta(seconds=1)), now() - HOUR)
    schedule.set("interval", a_rule(misfire_grace=timedelta(seconds=1)), now() - HOUR)
    schedule.run()

    calls.wait_for(1)
    wait_until(lambda: "left out" in caplog.text)

    assert calls.names == ["interval"]
    assert "cron: the run was late by more than misfire_grace" in caplog.text


def test_a_run_that_is_made_up_for_may_be_late_and_the_next_may_not(
    schedule: Schedule, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    rule = a_rule("0 3 1 1 *", misfire_grace=timedelta(seconds=1))
    schedule.set("killed", rule, now() - HOUR, may_be_late=True)
    schedule.set("failed", rule, now() + HOUR)
    schedule.put_off("failed", now() - HOUR)
    schedule.run()
    calls.wait_for(2)

    schedule.keep_to("failed", rule)
    schedule.keep_to("forgotten", rule)
    schedule.set("failed", rule, now() - HOUR)

    wait_until(lambda: "failed: the run was late" in caplog.text)
    assert sorted(calls.names) == ["failed", "killed"]


def test_a_cron_run_within_its_grace_is_done_once_however_many_were_missed(
    schedule: Schedule, calls: Calls
) -> None:
    schedule.set("cron", a_rule("* * * * *", misfire_grace=HOUR), now() - HOUR)
    schedule.run()

    calls.wait_for(1)
    wait_until(lambda: (schedule.next_run_at("cron") or now()) > now())

    assert calls.names == ["cron"]


def test_times_are_kept_in_the_file(path: Path, schedule: Schedule) -> None:
    at = now() + HOUR
    schedule.set("web", a_rule(), at)

    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT id, next_run_time FROM schedule").fetchall()
    connection.close()

    assert rows == [("web", pytest.approx(at.timestamp()))]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_schedule_that_cannot_be_kept_is_not_alive(path: Path, schedule: Schedule) -> None:
    schedule.run()
    assert schedule.is_alive
    connection = sqlite3.connect(path)
    schedule.set("web", a_rule(interval=timedelta(seconds=1)), now() + timedelta(seconds=2))
    connection.execute(
        "CREATE TRIGGER refuse BEFORE UPDATE ON schedule BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    connection.commit()
    connection.close()

    wait_until(lambda: not schedule.is_alive)
