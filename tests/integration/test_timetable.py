"""What is due when a service starts, and when its configuration changes: all of it in this process.

The schedule, the database, the runs and the caches are real; only signals and pages are not there.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from maintainer.clock import now_utc
from maintainer.emulator import Fault, FaultPlan, Request
from maintainer.graph import clock as database_clock
from maintainer.graph.database import Database
from maintainer.graph.record import find_target
from maintainer.graph.reports import list_runs
from maintainer.graph.runs import begin_run
from maintainer.graph.schedule import Claim, TargetStatus, claim, load_statuses, reschedule
from maintainer.report.trouble import format_trouble
from maintainer.serve.clock import Rule
from maintainer.serve.once import early, following
from maintainer.serve.targets import ServedTarget, read_targets
from maintainer.serve.timetable import end_killed, reload, start
from maintainer.serve.worker import Worker
from maintainer.settings import load_settings
from tests.empty_database import make_empty, need_sqlite, url_of
from tests.integration.service import PATIENCE, wait_until
from tests.integration.world import MAIN, World, a_world

APP = '[[targets]]\nname = "own"\nrepository = "example/app"\n'
OTHER = APP.replace("/app", "/other")
STRANGER = OTHER.replace("own", "stranger")
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
YEARLY = f"[serve]\nmisfire_grace = '1s'\n{APP}cron = '0 3 1 1 *'"
FORBIDDEN = FaultPlan((Fault(kind="status", request="list", status=403),))


@dataclass
class Clock:
    """A clock that can be set."""

    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return now_utc() + self.ahead


@dataclass
class Timetable:
    """A service without its outside."""

    folder: Path
    database: Database
    worker: Worker
    clock: Clock

    def start(self, configuration: str) -> None:
        """Begin with a configuration, and run what is due."""
        self.worker.targets = self._read(configuration)
        start(self.database, self.worker.targets.values(), self.clock())
        self.run_due()

    def reload(self, configuration: str) -> None:
        """Apply another one, and run nothing."""
        targets = self._read(configuration)
        reload(self.database, targets.values(), self.clock())
        self.worker.targets = targets

    def run_due(self, *, later: timedelta = timedelta(0)) -> None:
        """Run what is due, or will be later."""
        self.clock.ahead += later
        self.worker.run_due()

    def set_due(self, at: datetime) -> None:
        """Set when the target runs next."""
        with self.database.begin() as connection:
            reschedule(connection, "own", self.cache, at)

    @property
    def cache(self) -> str:
        """The cache of the target."""
        return self.worker.targets["own"].cache

    def _read(self, configuration: str) -> Mapping[str, ServedTarget]:
        path = self.folder / "maintainer.toml"
        path.write_text(configuration)
        return read_targets(load_settings(path, {}))

    @property
    def statuses(self) -> list[TargetStatus]:
        """The status of each target."""
        with self.database.reading() as connection:
            return load_statuses(connection)

    @property
    def status(self) -> TargetStatus:
        """The status of the only target."""
        (status,) = self.statuses
        return status

    @property
    def trouble(self) -> str | None:
        """What is wrong with it."""
        return format_trouble(self.status, self.clock())

    @property
    def runs(self) -> list[str]:
        """How the runs ended, the oldest first."""
        with self.database.reading() as connection:
            return [run.status for run in reversed(list_runs(connection, 10))]

    @property
    def result(self) -> tuple[str | None, str | None]:
        """The cache of the target, and how its last attempt ended."""
        return self.status.target, self.status.last_status


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a cache, in whose environment everything runs."""
    with a_world(tmp_path) as world:
        world.now = datetime.now(UTC)
        world.build("base")
        for name, value in world.running.environment(MAIN).items():
            monkeypatch.setenv(name, value)
        yield world


@pytest.fixture
def timetables(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> "Iterator[Timetables]":
    # Nobody sets the clock of a server, which ours may differ from by a minute otherwise.
    monkeypatch.setattr(database_clock, "_SKEW", timedelta.max)
    made = Timetables(tmp_path)
    yield made
    made.end()


@pytest.fixture
def timetable(timetables: "Timetables") -> Timetable:
    return timetables.make()


@dataclass
class Timetables:
    """One service after the other on one database, all with one clock."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    made: list[Timetable] = field(default_factory=list)

    def make(self) -> Timetable:
        """End the last one, if there is one, and make the next."""
        self.end()
        path = self.folder / "served.db"
        if not path.exists():
            make_empty(path)
        database = Database(url_of(path))
        worker = Worker(database, {}, self.clock)
        self.made.append(Timetable(self.folder, database, worker, self.clock))
        return self.made[-1]

    def end(self) -> None:
        """End the last one as a service ends."""
        for one in self.made[-1:]:
            one.worker.interrupt("the test")
            one.database.close()


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


@contextmanager
def a_run_held_up(world: World, timetable: Timetable) -> Iterator[Gate]:
    """Run what is due on another thread; its first request waits until the context ends."""
    gate = Gate(world)
    thread = threading.Thread(target=timetable.run_due)
    thread.start()
    try:
        gate.wait_for_run()
        yield gate
    finally:
        gate.open()
        thread.join(PATIENCE)


# What is due.


def test_the_next_run_is_an_interval_after_the_last_was_due(timetable: Timetable) -> None:
    timetable.start(f"{APP}interval = '1h'")
    first = timetable.status
    timetable.run_due(later=HOUR)

    assert timetable.runs == ["done", "done"]
    assert timetable.status.next_run_at == first.next_run_at + HOUR
    assert timetable.status.due_at == timetable.status.next_run_at


def test_nothing_runs_before_its_time(timetable: Timetable) -> None:
    timetable.start(f"{APP}interval = '1h'")
    timetable.run_due(later=HOUR - MINUTE)

    assert timetable.runs == ["done"]


def test_what_is_due_for_longest_runs_first(timetable: Timetable) -> None:
    timetable.start(f"{APP}interval = '2h'\n{STRANGER}interval = '1h'")
    timetable.run_due(later=10 * HOUR)

    with timetable.database.reading() as connection:
        runs = [run.target for run in reversed(list_runs(connection, 10))]
    assert runs == [f"github:example/{name}" for name in ("app", "other", "other", "app")]


def test_a_target_that_is_removed_does_not_run(timetable: Timetable) -> None:
    timetable.start(f"{APP}interval = '1h'\n{STRANGER}interval = '1h'")
    timetable.reload(f"{APP}interval = '1h'")
    timetable.run_due(later=2 * HOUR)

    assert timetable.status.target == "github:example/app"
    assert len(timetable.runs) == 3


def test_a_target_waits_while_its_configuration_is_being_reloaded(timetable: Timetable) -> None:
    timetable.start(f"{APP}interval = '1h'")
    before = timetable.worker.targets
    timetable.reload(f"{APP}interval = '1s'")
    after, timetable.worker.targets = timetable.worker.targets, before

    timetable.run_due()
    assert len(timetable.runs) == 1
    timetable.worker.targets = after
    timetable.run_due()
    assert len(timetable.runs) == 2


def test_a_late_cron_run_is_skipped_and_overdue_until_the_next(
    timetable: Timetable, caplog: pytest.LogCaptureFixture
) -> None:
    timetable.start(YEARLY)
    timetable.set_due(timetable.clock() - HOUR)

    timetable.run_due()

    assert timetable.runs == []
    assert "own: the run is more than misfire_grace late, so it is skipped" in caplog.text
    assert timetable.status.next_run_at > timetable.clock()
    assert timetable.status.is_overdue(timetable.clock())
    timetable.set_due(timetable.clock())
    timetable.run_due()
    assert timetable.trouble is None


def test_a_late_interval_run_is_not_skipped(timetable: Timetable) -> None:
    timetable.start(f"[serve]\nmisfire_grace = '1s'\n{APP}interval = '1h'")

    timetable.run_due(later=10 * HOUR)

    assert timetable.runs == ["done", "done"]


def test_a_cron_run_within_its_grace_is_done_once_however_many_were_missed(
    timetable: Timetable,
) -> None:
    timetable.start(f"[serve]\nmisfire_grace = '2h'\n{APP}cron = '* * * * *'")
    timetable.run_due(later=HOUR)

    assert timetable.runs == ["done"]
    assert timetable.status.next_run_at > timetable.clock()


def test_a_retry_may_be_late_and_the_run_after_it_may_not(
    timetable: Timetable, world: World
) -> None:
    timetable.start(YEARLY)
    world.running.inject(FORBIDDEN)
    timetable.set_due(timetable.clock())
    timetable.run_due()
    assert timetable.runs == ["failed"]
    world.running.inject()

    timetable.run_due(later=HOUR)
    assert timetable.runs == ["failed", "done"]
    timetable.set_due(timetable.clock() - HOUR)
    timetable.run_due()

    assert timetable.runs == ["failed", "done"]


@pytest.mark.each_database
def test_a_failing_target_is_retried_later_and_later(timetable: Timetable, world: World) -> None:
    world.running.inject(FORBIDDEN)
    timetable.start(APP)
    waits = [timetable.status.next_run_at - timetable.clock()]
    timetable.run_due(later=31 * SECOND)
    waits.append(timetable.status.next_run_at - timetable.clock())

    assert [round(wait.total_seconds(), -1) for wait in waits] == [30, 60]
    assert timetable.status.failures == 2


# Another cache.


@pytest.mark.each_database
def test_a_target_with_another_cache_forgets_the_old_one_and_runs_at_once(
    timetable: Timetable,
) -> None:
    timetable.start(APP)
    assert timetable.result == ("github:example/app", "done")

    timetable.reload(OTHER)

    assert timetable.trouble == "it has not run yet"
    assert timetable.status.target is None
    timetable.run_due()
    assert timetable.result == ("github:example/other", "done")


def test_a_target_with_another_cache_forgets_the_old_one_at_a_restart(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(APP)
    assert timetable.result == ("github:example/app", "done")

    again = timetables.make()
    again.start(OTHER)

    assert again.result == ("github:example/other", "done")


def test_a_run_on_the_old_cache_says_nothing_of_the_new_one(
    timetable: Timetable, world: World
) -> None:
    timetable.start(APP)
    timetable.clock.ahead += 6 * HOUR
    with a_run_held_up(world, timetable):
        timetable.reload(OTHER)

    assert timetable.result == ("github:example/other", "done")
    assert timetable.status.running_since is None


def test_a_target_with_the_cache_that_it_had_keeps_its_result(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(APP)
    assert timetable.result == ("github:example/app", "done")
    before = timetable.status

    timetable.reload(APP.replace("example/app", "Example/App"))
    again = timetables.make()
    again.start(APP)

    assert again.status == before
    assert before.next_run_at > again.clock() + 5 * HOUR


# During a run.

HASTY = f"[serve]\nmisfire_grace = '5s'\n{APP}interval = "


def test_a_rule_that_is_changed_during_a_run_holds_from_then_on_and_nothing_is_overdue(
    timetable: Timetable, world: World
) -> None:
    timetable.start(f"{HASTY}'1h'")
    timetable.clock.ahead += HOUR
    with a_run_held_up(world, timetable):
        timetable.reload(f"{HASTY}'10m'")
        during = timetable.status

    after, now = timetable.status, timetable.clock()
    assert after.due_at == during.due_at == after.next_run_at
    assert during.trouble(now + MINUTE) is after.trouble(now + MINUTE) is None
    assert 8 * MINUTE < after.due_at - now <= 10 * MINUTE
    assert timetable.runs == ["done", "done"]


def test_what_is_left_out_during_a_run_is_not_overdue_once_it_has_ended(
    timetable: Timetable, world: World
) -> None:
    timetable.start(f"{HASTY}'1h'")
    timetable.clock.ahead += HOUR
    with a_run_held_up(world, timetable):
        timetable.set_due(timetable.clock() - MINUTE)

    assert timetable.runs == ["done", "done"]
    assert timetable.trouble is None
    assert timetable.status.due_at == timetable.status.next_run_at > timetable.clock()


# Killed.


def _leave_as_killed(timetable: Timetable, *, run: bool = True) -> None:
    """Write what a process leaves that is killed during a run, or just before there is one."""
    now = timetable.clock()
    with timetable.database.begin() as connection:
        due_at = timetable.status.next_run_at
        claim(connection, Claim("own", timetable.cache, due_at, due_at), now, "github:example/app")
        if run:
            target = find_target(connection, "github:example/app")
            begin_run(connection, target, now, dry_run=False)


@pytest.mark.each_database
def test_a_killed_run_is_a_failure_with_its_own_number_and_tried_again_later(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(APP)
    assert timetable.result == ("github:example/app", "done")
    _leave_as_killed(timetable)

    again = timetables.make()
    again.start(APP)

    status = again.status
    assert again.runs == ["done", "killed"]
    assert (status.last_status, status.last_run, status.failures) == ("failed", 2, 1)
    assert status.running_since is None
    assert (again.trouble or "").endswith("the process was killed during the run")
    assert timedelta(0) < status.next_run_at - again.clock() <= 30 * SECOND


def test_an_attempt_that_was_killed_before_its_run_is_a_failure_without_a_number(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(APP)
    assert timetable.result == ("github:example/app", "done")
    _leave_as_killed(timetable, run=False)

    again = timetables.make()
    again.start(APP)

    assert again.runs == ["done"]
    assert (again.status.last_status, again.status.last_run) == ("failed", None)


@pytest.mark.each_database
def test_a_run_that_somebody_else_does_meanwhile_is_not_held_for_killed(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(APP)
    assert timetable.result == ("github:example/app", "done")
    _leave_as_killed(timetable)
    with closing(Database(url_of(timetable.folder / "served.db"))) as elsewhere, elsewhere.lock():
        with elsewhere.begin() as connection:
            target = find_target(connection, "github:example/app")
            begin_run(connection, target, now_utc(), dry_run=False)

        again = timetables.make()
        again.start(APP)

    assert again.runs == ["done", "killed", "running"]
    assert again.status.last_run == 2


@pytest.mark.parametrize("kind_of_database", ["postgresql"], indirect=True)
def test_an_attempt_on_another_machine_is_killed_once_its_lease_is_free_and_not_before(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(APP)
    _leave_as_killed(timetable)
    since = timetable.status.running_since
    with (
        closing(Database(url_of(timetable.folder / "served.db"))) as elsewhere,
        elsewhere.lease("github:example/app"),
    ):
        again = timetables.make()
        again.start(APP)
        end_killed(again.database, again.worker.targets.values(), again.clock())

        assert again.status.running_since == since
        assert again.runs == ["done", "running"]
    end_killed(again.database, again.worker.targets.values(), again.clock())

    assert again.runs == ["done", "killed"]
    assert (again.status.last_status, again.status.failures) == ("failed", 1)
    assert timedelta(0) < again.status.next_run_at - again.clock() <= 30 * SECOND


def test_an_interrupted_cron_run_is_made_up_for_however_late_that_is(
    timetables: Timetables, timetable: Timetable, world: World
) -> None:
    timetable.start(YEARLY)
    timetable.set_due(timetable.clock())
    with a_run_held_up(world, timetable):
        timetable.worker.interrupt("SIGTERM")
    assert timetable.runs == ["interrupted"]
    timetable.set_due(timetable.clock() - HOUR)

    again = timetables.make()
    again.start(YEARLY)

    assert again.runs == ["interrupted", "done"]


def test_a_time_that_a_wrong_clock_has_set_is_not_waited_for(
    timetables: Timetables, timetable: Timetable
) -> None:
    timetable.start(f"{APP}interval = '6h'")
    timetable.set_due(timetable.clock() + timedelta(days=365))

    again = timetables.make()
    again.start(f"{APP}interval = '6h'")

    assert again.status.next_run_at - again.clock() <= 6 * HOUR


def test_once_a_clock_that_was_ahead_is_right_again_targets_run_as_before(
    timetable: Timetable,
) -> None:
    timetable.start(f"{APP}interval = '1h'")
    timetable.run_due(later=timedelta(days=365))
    timetable.clock.ahead -= timedelta(days=365)
    before = len(timetable.runs)
    for _ in range(3):
        timetable.run_due(later=HOUR)

    assert len(timetable.runs) - before >= 2
    assert timetable.trouble is None


def test_an_attempt_that_cannot_be_written_down_is_told_and_written_as_soon_as_it_can(
    timetables: Timetables, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_sqlite()
    monkeypatch.setattr("maintainer.graph.sqlite._PATIENCE", 0.1)
    monkeypatch.setattr("maintainer.serve.worker._RETRY_AFTER", 0.1)
    timetable = timetables.make()
    timetable.start(APP)
    timetable.clock.ahead += 6 * HOUR
    path = timetable.database.name
    with closing(sqlite3.connect(path)) as other, a_run_held_up(world, timetable) as gate:
        other.execute("BEGIN IMMEDIATE")
        gate.open()
        wait_until(lambda: "locked" in timetable.worker.trouble.get("own", ""))
        other.rollback()

    assert timetable.status.failures == 1
    assert not timetable.worker.trouble
    assert timetable.status.next_run_at - timetable.clock() <= 30 * SECOND


def test_a_schedule_that_cannot_be_read_is_trouble_until_it_can_be(
    timetable: Timetable, caplog: pytest.LogCaptureFixture
) -> None:
    need_sqlite()
    timetable.start(f"{APP}interval = '1h'")
    with closing(sqlite3.connect(timetable.database.name)) as other:
        other.execute("ALTER TABLE scheduled RENAME TO elsewhere")
        timetable.run_due(later=HOUR)
        timetable.run_due()
        assert "no such table" in timetable.worker.trouble["the schedule"]
        other.execute("ALTER TABLE elsewhere RENAME TO scheduled")

    timetable.run_due()

    assert timetable.runs == ["done", "done"]
    assert not timetable.worker.trouble
    assert caplog.text.count("the schedule: the database") == 1


def test_an_interval_of_somebody_elses_clock_counts_from_when_it_was_time() -> None:
    rule = Rule(None, timedelta(hours=6), timedelta(0), "UTC", timedelta(hours=1))
    due_at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    for late, expected in [(-20, 6), (20, 6), (6 * 3_600 + 1, 12)]:
        assert following(rule, due_at, due_at + timedelta(seconds=late)) == due_at + timedelta(
            hours=expected
        )
    assert early(rule) == timedelta(minutes=1)
    assert early(Rule("0 3 * * *", *fields(rule))) == timedelta(0)


def fields(rule: Rule) -> tuple[timedelta, timedelta, str, timedelta]:
    """Return all but the expression."""
    return rule.interval, rule.jitter, rule.timezone, rule.misfire_grace


def test_an_interrupted_run_is_no_failure_and_due_at_once(
    timetables: Timetables, timetable: Timetable, world: World
) -> None:
    timetable.start(APP)
    timetable.clock.ahead += 6 * HOUR
    with a_run_held_up(world, timetable):
        timetable.worker.interrupt("SIGTERM")
    assert (timetable.status.last_status, timetable.status.failures) == ("interrupted", 0)

    again = timetables.make()
    again.start(APP)

    assert again.runs == ["done", "interrupted", "done"]
