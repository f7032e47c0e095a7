"""What is due when a service starts, and when its configuration changes: all of it in this process.

The schedule, the database, the runs and the caches are real; only signals and pages are not there.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from maintainer.collect import now_utc
from maintainer.emulator import Request
from maintainer.graph.database import Database
from maintainer.graph.record import find_target
from maintainer.graph.runs import begin_run, list_runs
from maintainer.graph.schedule import TargetStatus, begin_attempt, load_statuses, put_off
from maintainer.scheduler import Rule, Schedule
from maintainer.serve.once import _early, _next
from maintainer.serve.runner import Runner
from maintainer.serve.targets import ServedTarget, read_targets
from maintainer.serve.timetable import take_over, take_up
from maintainer.settings import load_settings
from tests.integration.service import PATIENCE, wait_until
from tests.integration.world import MAIN, World, a_world

APP = '[[targets]]\nname = "own"\nrepository = "example/app"\n'
OTHER = APP.replace("/app", "/other")


@dataclass
class Timetable:
    """A service without its outside."""

    folder: Path
    database: Database
    runner: Runner
    schedule: Schedule

    def start(self, configuration: str) -> None:
        """Begin with a configuration."""
        self.runner.targets = self._read(configuration)
        take_up(self.database, self.schedule, self.runner.targets.values(), now_utc())
        self.schedule.run()

    def change(self, configuration: str) -> None:
        """Take another one over."""
        targets = self._read(configuration)
        changes = take_over(self.database, targets.values(), now_utc())
        self.runner.targets = targets
        changes.take_effect(self.schedule)

    def _read(self, configuration: str) -> Mapping[str, ServedTarget]:
        path = self.folder / "maintainer.toml"
        path.write_text(configuration)
        return read_targets(load_settings(path, {}))

    @property
    def status(self) -> TargetStatus:
        """How the one target is doing."""
        with self.database.reading() as connection:
            (status,) = load_statuses(connection)
        return status

    @property
    def complaint(self) -> str | None:
        """What is wrong with it."""
        return self.status.complaint(now_utc())

    @property
    def runs(self) -> list[str]:
        """How the runs went, the oldest first."""
        with self.database.reading() as connection:
            return [run.status for run in reversed(list_runs(connection, 10))]

    def wait_until_done(self, target: str) -> None:
        """Wait for a good run on a cache."""
        wait_until(lambda: (self.status.target, self.status.last_status) == (target, "done"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Give a cache, in whose environment everything runs."""
    with a_world(tmp_path) as world:
        world.now = datetime.now(UTC)
        world.build("base")
        for name, value in world.running.environment(MAIN).items():
            monkeypatch.setenv(name, value)
        yield world


@pytest.fixture
def timetables(tmp_path: Path, world: World) -> "Iterator[Timetables]":
    made = Timetables(tmp_path)
    yield made
    made.end()


@pytest.fixture
def timetable(timetables: "Timetables") -> Timetable:
    return timetables.make()


class Timetables:
    """One service after the other on one database."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: Timetable | None = None

    def make(self) -> Timetable:
        """End the last one, if there is one, and make the next."""
        self.end()
        url = f"sqlite:///{self._folder / 'served.db'}"
        database = Database(url)
        database.upgrade()
        runner = Runner(database, {}, now_utc)
        schedule = Schedule(url, lambda name: runner.run(name, schedule))
        self._last = Timetable(self._folder, database, runner, schedule)
        return self._last

    def end(self) -> None:
        """End the last one as a service ends."""
        if last := self._last:
            last.schedule.pause()
            last.runner.interrupt("the test")
            assert last.runner.wait(PATIENCE)
            last.schedule.close()
            last.database.close()


class Gate:
    """Holds a run up at its first request, until it is opened."""

    def __init__(self, world: World) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()
        world.running.observe(before=self._wait)

    def _wait(self, _: Request) -> None:
        self.reached.set()
        assert self._opened.wait(PATIENCE)

    def wait_for_run(self) -> None:
        """Wait until a run is under way."""
        assert self.reached.wait(PATIENCE)

    def open(self) -> None:
        """Let the run go on."""
        self._opened.set()


# Another cache.


def test_a_target_with_another_cache_forgets_the_old_one_and_runs_at_once(
    timetable: Timetable,
) -> None:
    timetable.start(APP)
    timetable.wait_until_done("github:example/app")

    timetable.schedule.pause()
    timetable.change(OTHER)

    assert timetable.complaint == "it has not run yet"
    assert timetable.status.target is None
    timetable.schedule.run()
    timetable.wait_until_done("github:example/other")


def test_a_target_with_another_cache_forgets_the_old_one_at_a_restart(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(APP)
    timetable.wait_until_done("github:example/app")

    again = timetables.make()
    again.start(OTHER)

    again.wait_until_done("github:example/other")


def test_a_run_on_the_old_cache_says_nothing_of_the_new_one(
    timetable: Timetable, world: World
) -> None:
    gate = Gate(world)
    timetable.start(APP)
    gate.wait_for_run()

    timetable.change(OTHER)
    gate.open()

    timetable.wait_until_done("github:example/other")
    assert timetable.status.running_since is None


def test_a_target_with_the_cache_that_it_had_keeps_its_result(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(APP)
    timetable.wait_until_done("github:example/app")
    before = timetable.status

    timetable.change(APP.replace("example/app", "Example/App"))
    again = timetables.make()
    again.start(APP)

    assert again.status == before
    assert before.next_run_at
    assert before.next_run_at > now_utc() + timedelta(hours=5)


# During a run.

HASTY = f"[serve]\nmisfire_grace = '5s'\n{APP}interval = "
MINUTE = timedelta(minutes=1)


def test_a_rule_that_is_changed_during_a_run_holds_from_then_on_and_nothing_is_overdue(
    timetable: Timetable, world: World
) -> None:
    timetable.start(f"{HASTY}'1h'")
    timetable.wait_until_done("github:example/app")
    gate = Gate(world)
    # The schedule learns a little later than the database that the run before has ended.
    while not gate.reached.wait(0.1):
        timetable.schedule.put_off("own", now_utc())

    timetable.change(f"{HASTY}'10m'")
    during = timetable.status
    gate.open()
    wait_until(lambda: timetable.status.running_since is None)

    after = timetable.status
    assert after.due_at == during.due_at == after.next_run_at
    assert during.complaint(now_utc() + MINUTE) is after.complaint(now_utc() + MINUTE) is None
    assert 8 * MINUTE < after.due_at - now_utc() <= 10 * MINUTE
    assert timetable.runs == ["done", "done"]


def test_what_is_left_out_during_a_run_is_not_overdue_once_it_has_ended(
    timetable: Timetable, world: World
) -> None:
    gate = Gate(world)
    timetable.start(f"{HASTY}'1h'")
    gate.wait_for_run()
    cache = timetable.runner.targets["own"].cache
    with timetable.database.begin() as connection:
        put_off(connection, "own", cache, now_utc() - MINUTE)

    gate.open()
    timetable.wait_until_done("github:example/app")

    wait_until(lambda: timetable.complaint is None)
    assert timetable.status.due_at == timetable.status.next_run_at


# Killed.


def _leave_as_killed(timetable: Timetable, *, run: bool = True) -> None:
    """Write what a process leaves that is killed during a run, or just before there is one."""
    timetable.schedule.pause()
    cache = timetable.runner.targets["own"].cache
    with timetable.database.begin() as connection:
        begin_attempt(connection, "own", cache, now_utc(), None)
        if run:
            target = find_target(connection, "github:example/app")
            begin_run(connection, target, now_utc(), dry_run=False)


def test_a_killed_run_is_a_failure_with_its_own_number_and_tried_again_later(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(APP)
    timetable.wait_until_done("github:example/app")
    _leave_as_killed(timetable)

    again = timetables.make()
    again.start(APP)

    status = again.status
    assert again.runs == ["done", "killed"]
    assert (status.last_status, status.last_run, status.failures) == ("failed", 2, 1)
    assert status.running_since is None
    assert (again.complaint or "").endswith("the process was killed during the run")
    assert status.next_run_at
    assert timedelta(0) < status.next_run_at - now_utc() <= timedelta(seconds=30)


def test_an_attempt_that_was_killed_before_its_run_is_a_failure_without_a_number(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(APP)
    timetable.wait_until_done("github:example/app")
    _leave_as_killed(timetable, run=False)

    again = timetables.make()
    again.start(APP)

    assert again.runs == ["done"]
    assert (again.status.last_status, again.status.last_run) == ("failed", None)


def test_a_run_that_somebody_else_does_meanwhile_is_not_held_for_killed(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(APP)
    timetable.wait_until_done("github:example/app")
    _leave_as_killed(timetable)
    with timetable.database.held():
        with timetable.database.begin() as connection:
            target = find_target(connection, "github:example/app")
            begin_run(connection, target, now_utc(), dry_run=False)

        again = timetables.make()
        again.start(APP)

    assert again.runs == ["done", "killed", "running"]
    assert again.status.last_run == 2


def test_an_interrupted_cron_run_is_made_up_for_however_late_that_is(
    timetables: Timetables, timetable: Timetable, world: World
) -> None:
    yearly = f"[serve]\nmisfire_grace = '1s'\n{APP}cron = '0 3 1 1 *'"
    gate = Gate(world)
    timetable.start(yearly)
    timetable.schedule.put_off("own", now_utc())
    gate.wait_for_run()
    timetable.schedule.pause()
    timetable.runner.interrupt("SIGTERM")
    gate.open()
    assert timetable.runner.wait(PATIENCE)
    _set_due(timetable, now_utc() - timedelta(hours=1))

    again = timetables.make()
    again.start(yearly)

    again.wait_until_done("github:example/app")


def _set_due(timetable: Timetable, at: datetime) -> None:
    cache = timetable.runner.targets["own"].cache
    with timetable.database.begin() as connection:
        put_off(connection, "own", cache, at)


def test_a_time_that_a_wrong_clock_has_set_is_not_waited_for(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(f"{APP}interval = '6h'")
    timetable.wait_until_done("github:example/app")
    in_a_year = now_utc() + timedelta(days=365)
    timetable.schedule.put_off("own", in_a_year)
    _set_due(timetable, in_a_year)

    again = timetables.make()
    again.start(f"{APP}interval = '6h'")

    assert again.status.next_run_at
    assert again.status.next_run_at - now_utc() <= timedelta(hours=6)


def test_an_attempt_that_cannot_be_written_down_is_told_and_written_as_soon_as_it_can(
    timetables: Timetables, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.database._PATIENCE", 0.1)
    monkeypatch.setattr("maintainer.serve.runner._PAUSE", 0.1)
    timetable = timetables.make()
    gate = Gate(world)
    timetable.start(APP)
    gate.wait_for_run()

    with closing(sqlite3.connect(timetable.database.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        gate.open()
        wait_until(lambda: "not written down" in timetable.runner.trouble.get("own", ""))
        other.rollback()

    wait_until(lambda: timetable.status.failures == 1)
    assert not timetable.runner.trouble
    assert timetable.status.next_run_at
    assert timetable.status.next_run_at - now_utc() <= timedelta(seconds=30)


def test_an_interval_of_somebody_elses_clock_counts_from_when_it_was_time() -> None:
    rule = Rule(None, timedelta(hours=6), timedelta(0), "UTC", timedelta(hours=1))
    due_at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    for late, expected in [(-20, 6), (20, 6), (6 * 3_600 + 1, 12)]:
        assert _next(rule, due_at, due_at + timedelta(seconds=late)) == due_at + timedelta(
            hours=expected
        )
    assert _early(rule) == timedelta(minutes=1)
    assert _early(Rule("0 3 * * *", *fields(rule))) == timedelta(0)


def fields(rule: Rule) -> tuple[timedelta, timedelta, str, timedelta]:
    """Give all but the expression."""
    return rule.interval, rule.jitter, rule.timezone, rule.misfire_grace


def test_an_interrupted_run_is_no_failure_and_due_at_once(
    timetables: Timetables, timetable: Timetable, world: World
) -> None:
    gate = Gate(world)
    timetable.start(APP)
    gate.wait_for_run()
    timetable.schedule.pause()
    timetable.runner.interrupt("SIGTERM")
    gate.open()
    assert timetable.runner.wait(PATIENCE)
    assert (timetable.status.last_status, timetable.status.failures) == ("interrupted", 0)

    again = timetables.make()
    again.start(APP)

    again.wait_until_done("github:example/app")
