"""`maintainer worker`: real processes on one database, which end, hang, and come back."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from maintainer.clock import now_utc
from maintainer.emulator import Fault, FaultPlan, Request
from maintainer.errors import DatabaseError
from maintainer.graph.database import Database
from maintainer.graph.schedule import (
    Scheduled,
    TargetStatus,
    forget_other_targets,
    load_schedule,
    load_statuses,
)
from maintainer.serve.fleet import Fleet as Member
from maintainer.serve.reloading import Changes
from maintainer.serve.searcher import Searcher
from maintainer.serve.targets import read_targets
from maintainer.serve.timetable import join
from maintainer.serve.upkeep import PATIENCE as UPKEEPS_PATIENCE
from maintainer.serve.upkeep import Upkeep
from maintainer.serve.web.metrics import render_metrics
from maintainer.serve.work import following, work
from maintainer.serve.worker import Worker
from maintainer.settings import Settings, load_settings
from tests.commands import run_here
from tests.integration.directories import a_directory
from tests.integration.hasty import start_hastily
from tests.integration.service import PATIENCE, wait_until
from tests.integration.world import MAIN, World, a_world
from tests.postgresql import create_database, server
from tests.processes import Command, Forked

pytestmark = pytest.mark.waits

PATIENCE_PLEASE = FaultPlan((Fault(kind="status", request="list", status=429, retry_after=200),))
"""The store asks for more patience than a worker has that somebody wants to end."""
A_PAUSE = FaultPlan((Fault(kind="status", request="list", status=429, retry_after=4, times=1),))
_OVERLAPPING = "SELECT a.id, b.id FROM run a JOIN run b ON a.id < b.id"
_UNKNOWN = """
INSERT INTO scheduled
  (name, position, cache, rule, misfire_grace_seconds, next_run_at, due_at, failures)
VALUES ('unknown', 0, '', 'every 1d', 60, 0, 0, 0)
"""
AT_ONCE = 5.0
"""Seconds that a worker may take to end its current step, and as many to record that."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a cache in which an index needs a rewrite."""
    with a_world(tmp_path) as world:
        world.now = datetime.now(UTC)
        world.build("base", "api")
        world.build("base", "web")
        yield world


@pytest.fixture
def fleet(tmp_path: Path, world: World) -> Iterator["Fleet"]:
    with closing(Database(create_database())) as database:
        fleet = Fleet(tmp_path, world, database)
        yield fleet
        fleet.end()


@dataclass
class Fleet:
    """Workers on one database."""

    folder: Path
    world: World
    database: Database
    workers: list[Forked] = field(default_factory=list)

    def configure(self, repositories: dict[str, str], interval: str = "1d", more: str = "") -> None:
        """Write the configuration of all workers: repositories by the names of their targets."""
        targets = (
            f'[[targets]]\nname = "{name}"\nrepository = "example/{repository}"\n'
            for name, repository in repositories.items()
        )
        text = f'[serve]\ninterval = "{interval}"\n{more}\n{"".join(targets)}'
        (self.folder / "maintainer.toml").write_text(text)

    def start(self, concurrency: int = 2, *, namespace: str = "", **others: str) -> Forked:
        """Start a worker, with other variables than usual, and wait until it works."""
        line = ("worker", "--concurrency", str(concurrency), "-v")
        return self._start(line, "working, up to", namespace, **others)

    def serve(self) -> Forked:
        """Start a service that runs targets, beside the workers, and wait until it serves."""
        return self._start(("serve", "--listen", "127.0.0.1:0"), "serving http")

    def _start(self, line: Sequence[str], sign: str, namespace: str = "", **others: str) -> Forked:
        log = self.folder / f"worker-{len(self.workers)}.log"
        log.touch()
        line = (*line, "--config", "maintainer.toml")
        command = Command(line, self.folder, self.variables() | others, Path(os.devnull), log)
        worker = start_hastily(command, namespace)
        self.workers.append(worker)
        wait_until(lambda: sign in self._alive(worker))
        return worker

    def variables(self) -> dict[str, str]:
        """Return the variables of every command here."""
        return {
            "PATH": os.environ["PATH"],
            "MAINTAINER_DATABASE": server().url(self.name),
            **self.world.running.environment(MAIN),
        }

    @property
    def name(self) -> str:
        return self.database.name.partition("?")[0].rpartition("/")[2]

    def _alive(self, worker: Forked) -> str:
        log = self.log(worker)
        assert worker.poll() is None, log
        return log

    def log(self, worker: Forked) -> str:
        """Return the log of a worker."""
        return (self.folder / f"worker-{self.workers.index(worker)}.log").read_text()

    def end(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
        for worker in self.workers:
            worker.wait(PATIENCE)

    def statuses(self) -> dict[str, TargetStatus]:
        """Return the status of each target by name."""
        with self.database.reading() as connection:
            return {one.name: one for one in load_statuses(connection)}

    def results(self) -> Counter[str | None]:
        """Count the results of the last attempts."""
        return Counter(one.last_status for one in self.statuses().values())

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with self.database.reading() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql)]

    def runs(self) -> list[str]:
        """List how the runs ended, the oldest first."""
        return [status for (status,) in self.query("SELECT status FROM run ORDER BY id")]

    def overlapping(self) -> list[tuple[Any, ...]]:
        """List runs of one target at the same time."""
        return self.query(
            f"{_OVERLAPPING} WHERE b.started_at < a.finished_at AND a.target_id = b.target_id"
        )

    def due_now(self) -> None:
        """Let every target be due."""
        with self.database.begin() as connection:
            connection.exec_driver_sql("UPDATE scheduled SET next_run_at = 1, due_at = 1")


class Gate:
    """Holds one run up at its first request, until it is opened."""

    def __init__(self, world: World) -> None:
        self.is_reached = threading.Event()
        self._opened = threading.Event()
        world.running.observe(before=self._wait)

    def _wait(self, request: Request) -> None:
        if request.kind == "list" and not self.is_reached.is_set():
            self.is_reached.set()
            assert self._opened.wait(PATIENCE)

    def open(self) -> None:
        """Let it go on."""
        self._opened.set()


@contextmanager
def a_run_held_up(fleet: Fleet) -> Iterator[tuple[Forked, Gate]]:
    """Start a worker whose first run waits in the middle of its first request."""
    gate = Gate(fleet.world)
    try:
        worker = fleet.start()
        assert gate.is_reached.wait(PATIENCE)
        yield worker, gate
    finally:
        gate.open()


def _seconds_to_end(worker: Forked) -> float:
    began = time.monotonic()
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    return time.monotonic() - began


def test_two_workers_run_each_target_once_and_end_at_once(fleet: Fleet) -> None:
    fleet.configure({f"t{number}": f"r{number}" for number in range(6)})
    first, second = fleet.start(), fleet.start()
    wait_until(lambda: fleet.results()["done"] == 6)

    assert fleet.runs() == ["done"] * 6
    fleet.due_now()
    wait_until(lambda: fleet.runs() == ["done"] * 12)
    assert fleet.overlapping() == []
    assert _seconds_to_end(first) < AT_ONCE
    assert _seconds_to_end(second) < AT_ONCE
    (jobs,) = fleet.query(f"SELECT count(*) FROM {_schema(fleet)}.procrastinate_jobs")
    assert jobs[0] <= 2  # Nothing is left but what is periodic.


def test_workers_run_whatever_isolation_the_server_has_set(fleet: Fleet) -> None:
    fleet.configure({f"t{number}": f"r{number}" for number in range(6)}, interval="1s")
    server().execute(
        f"ALTER DATABASE {fleet.name} SET default_transaction_isolation = 'serializable'"
    )
    workers = fleet.start(), fleet.start()
    wait_until(lambda: len(fleet.runs()) >= 18)

    assert set(fleet.runs()) <= {"done", "running"}
    for worker in workers:
        assert _seconds_to_end(worker) < 2 * AT_ONCE
        assert "serialize" not in fleet.log(worker)
        assert "Traceback" not in fleet.log(worker)


def _schema(fleet: Fleet) -> str:
    ((schema,),) = fleet.query(
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'maintainer_queue_%%'"
    )
    return str(schema)


def test_no_host_has_more_runs_at_once_than_the_limit(fleet: Fleet) -> None:
    fleet.configure({f"t{number}": f"r{number}" for number in range(8)}, more="runs_per_host = 1")
    fleet.start(concurrency=4)
    fleet.start(concurrency=4)
    wait_until(lambda: fleet.results()["done"] == 8)

    assert fleet.runs() == ["done"] * 8
    assert fleet.query(f"{_OVERLAPPING} WHERE b.started_at < a.finished_at") == []


def test_two_workers_together_send_no_more_than_the_rate_limit_allows(fleet: Fleet) -> None:
    fleet.configure({f"t{number}": f"r{number}" for number in range(8)}, interval="1s")
    limit = fleet.world.running.rate_limit
    fleet.world.running.call(lambda _: limit.limit(most=30, seconds=3))
    workers = [fleet.start(), fleet.start()]
    wait_until(lambda: fleet.results()["done"] == 8)
    before = len(fleet.runs())
    wait_until(lambda: len(fleet.runs()) >= before + 16)

    assert limit.resets >= 2
    assert limit.refused == 0
    assert set(fleet.runs()) <= {"done", "running"}
    assert fleet.overlapping() == []
    for worker in workers:
        assert _seconds_to_end(worker) < 2 * AT_ONCE
    ((taken,),) = fleet.query("SELECT taken FROM allowance")
    assert taken == 0  # What a worker does not need, it gives back.


def test_a_worker_starts_no_run_once_a_newer_version_has_migrated_the_database(
    fleet: Fleet,
) -> None:
    fleet.configure({"app": "app", "web": "web"})
    worker = fleet.start()
    wait_until(lambda: fleet.results()["done"] == 2)
    before = fleet.runs()
    with fleet.database.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'")
    fleet.due_now()

    wait_until(lambda: "made by a newer version: upgrade maintainer" in fleet.log(worker))

    assert fleet.runs() == before
    assert fleet.results()["done"] == 2
    assert _seconds_to_end(worker) < 2 * AT_ONCE


def test_the_limit_of_a_host_follows_the_configuration(fleet: Fleet) -> None:
    names = {f"t{number}": f"r{number}" for number in range(8)}
    fleet.configure(names, more="runs_per_host = 4")
    worker = fleet.start(concurrency=4)
    wait_until(lambda: fleet.results()["done"] == 8)
    fleet.configure(names, more="runs_per_host = 1")
    worker.send_signal(signal.SIGHUP)
    wait_until(lambda: "the configuration is reloaded" in fleet.log(worker))
    fleet.due_now()
    wait_until(lambda: fleet.runs() == ["done"] * 16)

    assert fleet.query(f"{_OVERLAPPING} WHERE a.id > 8 AND b.started_at < a.finished_at") == []


def test_sighup_while_a_worker_still_starts_is_a_reload_once_it_works(fleet: Fleet) -> None:
    fleet.configure({"app": "app"})
    log = fleet.folder / "starting.log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "maintainer", "worker", "--config", "maintainer.toml"],
            cwd=fleet.folder,
            env=fleet.variables(),
            stderr=stderr,
        ) as worker,
    ):
        wait_until(lambda: "pydantic_core" in Path(f"/proc/{worker.pid}/maps").read_text())
        worker.send_signal(signal.SIGHUP)
        try:
            wait_until(lambda: worker.poll() or "the configuration is rel" in log.read_text())
            assert worker.poll() is None
        finally:
            worker.terminate()


def test_pages_count_what_workers_have_run_and_what_is_there_no_more(fleet: Fleet) -> None:
    fleet.configure({"app": "app", "web": "web"})
    fleet.start()
    wait_until(lambda: fleet.results()["done"] == 2)
    with fleet.database.begin() as connection:
        forget_other_targets(connection, {one.name: one.cache for one in _schedule(fleet, "app")})
    with fleet.database.reading() as connection:
        metrics = render_metrics(connection, now_utc()).decode()

    assert 'maintainer_runs_total{status="done",target="app"} 1.0' in metrics
    assert 'maintainer_fleet_runs_total{status="done"} 2.0' in metrics
    assert 'target="web"' not in metrics


def _schedule(fleet: Fleet, name: str) -> list[Scheduled]:
    with fleet.database.reading() as connection:
        return [one for one in load_schedule(connection).values() if one.name == name]


@pytest.mark.parametrize("hours", [1, -1])
def test_on_a_server_gc_and_serve_run_nothing_if_the_clock_is_wrong(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """On a file they do: there is no other machine whose clock could say something else."""

    def wrong() -> datetime:
        return now_utc() + timedelta(hours=hours)

    monkeypatch.setattr("maintainer.cli.run.now_utc", wrong)
    variables = fleet.world.running.environment(MAIN)
    before = fleet.world.entries()
    url = server().url(fleet.name)
    done = run_here(fleet.folder, {**variables, "MAINTAINER_DATABASE": url}, "gc")
    settings = load_settings(None, {"database": url})
    cache = a_directory(fleet.folder / "cache")
    cache.build("base")
    place = settings.model_copy(update={"store": f"local:{fleet.folder}/cache"})
    targets = read_targets(place)
    join(fleet.database, targets.values(), now_utc() - timedelta(days=1))
    worker = Worker(fleet.database, targets, wrong)
    worker.run_due()

    assert done.status == 1
    assert f"this machine's clock is {abs(hours) * 3600:,} s " in done.err
    assert fleet.world.entries() == before
    assert "this machine's clock" in worker.trouble["the schedule"]
    assert fleet.runs() == []
    on_a_file = {**variables, "MAINTAINER_DATABASE": f"sqlite:///{fleet.folder}/m.db"}
    assert run_here(fleet.folder, on_a_file, "gc").status == 0


def test_a_pause_that_one_worker_is_asked_for_is_one_for_all(fleet: Fleet) -> None:
    fleet.configure({f"t{number}": f"r{number}" for number in range(8)}, interval="1s")
    times: list[float] = []
    fleet.world.running.observe(before=lambda _: times.append(time.monotonic()))
    fleet.start()
    fleet.start()
    wait_until(lambda: fleet.results()["done"] == 8)
    fleet.world.running.inject(A_PAUSE)
    wait_until(lambda: bool(fleet.query("SELECT 1 FROM allowance WHERE paused_until > 0")))
    asked_at = time.monotonic()
    wait_until(lambda: times[-1] > asked_at + 3)

    during = [at for at in times if asked_at + 0.5 < at < asked_at + 2.5]
    assert during == []
    wait_until(lambda: fleet.results()["done"] == 8)


def test_a_signal_ends_a_run_between_two_steps_and_another_worker_does_it(fleet: Fleet) -> None:
    fleet.configure({"app": "app"})
    fleet.world.running.inject(PATIENCE_PLEASE)
    first = fleet.start()
    wait_until(lambda: fleet.runs() == ["running"])

    assert _seconds_to_end(first) < 2 * AT_ONCE
    assert fleet.runs() == ["interrupted"]
    fleet.world.running.inject()
    with fleet.database.begin() as connection:
        connection.exec_driver_sql("UPDATE allowance SET paused_until = 1")
    fleet.start()
    wait_until(lambda: fleet.results()["done"])

    assert fleet.runs() == ["interrupted", "done"]


def test_what_a_killed_worker_ran_another_one_runs_once_its_lease_is_over(fleet: Fleet) -> None:
    fleet.configure({"app": "app"})
    with a_run_held_up(fleet) as (first, gate):
        second = fleet.start()
        first.kill()
        gate.open()
        first.wait(PATIENCE)
        wait_until(lambda: fleet.results()["done"])

    assert fleet.runs() == ["killed", "done"]
    assert "app: the process was killed during the last run" in fleet.log(second)
    assert fleet.statuses()["app"].failures == 0


def test_what_a_killed_worker_ran_the_service_runs_if_no_worker_is_left(fleet: Fleet) -> None:
    fleet.configure({"app": "app"})
    with a_run_held_up(fleet) as (worker, gate):
        service = fleet.serve()
        assert fleet.statuses()["app"].running_since
        worker.kill()
        gate.open()
        worker.wait(PATIENCE)
        wait_until(lambda: fleet.results()["done"])

    assert fleet.runs() == ["killed", "done"]
    assert "app: the process was killed during the last run" in fleet.log(service)
    assert fleet.statuses()["app"].failures == 0


_OF_SERVICE = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = 2"


def _end_its_lock(fleet: Fleet) -> None:
    """End the connection on which a service has its lock, as a proxy may."""
    fleet.query(f"SELECT pg_terminate_backend(pid, 10000) FROM ({_OF_SERVICE}) AS holder")


def test_a_service_takes_its_lock_again_when_its_connection_has_ended(fleet: Fleet) -> None:
    fleet.configure({"app": "app"})
    service = fleet.serve()
    before = fleet.query(_OF_SERVICE)
    _end_its_lock(fleet)

    wait_until(lambda: fleet.query(_OF_SERVICE) not in ([], before))

    with pytest.raises(DatabaseError, match="another service"), fleet.database.lock_service():
        pass
    assert service.poll() is None


def test_a_service_ends_only_if_another_one_keeps_its_lock_for_long(fleet: Fleet) -> None:
    now, ended = [0.0], list[bool]()
    worker = Worker(fleet.database, {}, now_utc)

    with fleet.database.lock_service() as keep:
        upkeep = Upkeep(
            fleet.database, worker, keep, lambda: ended.append(True), elapsed=lambda: now[0]
        )
        for stays in (False, True):
            _end_its_lock(fleet)
            with fleet.database.lock_service():
                upkeep.tick()
                # It may be a session of its own that the server has not missed yet.
                assert not ended
                now[0] += UPKEEPS_PATIENCE
                if stays:
                    upkeep.tick()
            upkeep.tick()
            assert bool(ended) == stays

    assert "another service works on the database" in str(upkeep.replaced)


def test_a_worker_that_was_paused_and_replaced_does_nothing_more(fleet: Fleet) -> None:
    fleet.configure({"app": "app"})
    with a_run_held_up(fleet) as (first, gate):
        first.send_signal(signal.SIGSTOP)
        gate.open()
        fleet.start()
        wait_until(lambda: fleet.results()["done"])
        entries, rows = fleet.world.entries(), fleet.query("SELECT * FROM scheduled")
        runs = fleet.query("SELECT * FROM run ORDER BY id")
        first.send_signal(signal.SIGCONT)
        wait_until(lambda: "another run has taken" in fleet.log(first))

    assert fleet.runs() == ["killed", "done"]
    assert fleet.overlapping() == []
    assert fleet.query("SELECT * FROM scheduled") == rows
    assert fleet.query("SELECT * FROM run ORDER BY id") == runs
    assert fleet.world.entries() == entries
    assert _seconds_to_end(first) < AT_ONCE


def test_workers_go_on_after_the_server_was_restarted(fleet: Fleet) -> None:
    fleet.configure({f"t{number}": f"r{number}" for number in range(3)}, interval="1s")
    first, second = fleet.start(), fleet.start()
    wait_until(lambda: fleet.results()["done"] == 3)
    server().stop()
    server().start()
    before = len(fleet.runs())

    wait_until(lambda: len(fleet.runs()) >= before + 9 and fleet.results()["done"] == 3)

    assert fleet.overlapping() == []
    for worker in (first, second):
        assert _seconds_to_end(worker) < 2 * AT_ONCE
        assert "Traceback" not in fleet.log(worker)
        assert r"\n" not in fleet.log(worker)


def test_a_worker_goes_on_once_a_table_is_unlocked_and_ends_while_it_is_locked(
    fleet: Fleet,
) -> None:
    fleet.configure({f"t{number}": f"r{number}" for number in range(3)}, interval="1s")
    worker = fleet.start()
    wait_until(lambda: fleet.results()["done"] == 3)
    with _locked(fleet):
        wait_until(lambda: "another program, such as VACUUM FULL, holds" in fleet.log(worker))
    before = len(fleet.runs())
    wait_until(lambda: len(fleet.runs()) >= before + 6 and fleet.results()["done"] == 3)
    with _locked(fleet):
        wait_until(lambda: server().ask(_WAITING, fleet.name))
        # Each wait of a run that ends lasts for seconds here.
        assert _seconds_to_end(worker) < PATIENCE

    assert fleet.overlapping() == []
    assert "Traceback" not in fleet.log(worker)


_WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"


@contextmanager
def _locked(fleet: Fleet) -> Iterator[None]:
    """Hold the table of runs as VACUUM FULL does."""
    with psycopg.connect(server().conninfo(fleet.name)) as connection:
        connection.execute("LOCK TABLE run IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def test_a_queue_without_its_tables_is_said_to_be_that_in_one_line(fleet: Fleet) -> None:
    fleet.configure({"app": "app"})
    worker = fleet.start()
    with fleet.database.begin() as connection:
        connection.exec_driver_sql(f"ALTER SCHEMA {_schema(fleet)} RENAME TO gone")

    wait_until(lambda: "the queue cannot be used: " in fleet.log(worker))

    assert "Traceback" not in fleet.log(worker)
    assert r"\n" not in fleet.log(worker)


def test_a_worker_whose_clock_is_wrong_runs_nothing(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.configure({"app": "app"})
    ahead = timedelta(hours=1)
    worker = Worker(fleet.database, {}, now_utc)
    wrong = Member(
        fleet.database,
        server().url(fleet.name),
        worker,
        lambda: now_utc() + ahead,
        concurrency=1,
        limit=lambda: 1,
    )

    assert not wrong._is_on_time()
    assert not wrong._is_on_time()
    (message,) = caplog.messages
    assert message.startswith("no runs: this machine's clock is 3,600 s ahead of the database's: ")
    ahead = timedelta(seconds=-30)
    assert wrong._is_on_time()


def test_a_worker_whose_clock_was_ahead_goes_on_once_it_is_set_right(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = timedelta(hours=2)

    def clock() -> datetime:
        return now_utc() + ahead

    by_engine = SimpleNamespace(time=lambda: clock().timestamp())
    monkeypatch.setattr("procrastinate.periodic.time", by_engine)
    monkeypatch.setattr("maintainer.serve.fleet._EVERY_FIVE_SECONDS", "* * * * * *")
    monkeypatch.setattr("maintainer.serve.fleet._RETRY_AFTER", 0.1)
    a_directory(fleet.folder).build("base")
    settings = load_settings(None, {}).model_copy(
        update={"store": f"local:{fleet.folder}/cache", "database": server().url(fleet.name)}
    )
    worker = Worker(fleet.database, read_targets(settings), clock)
    join(fleet.database, worker.targets.values(), now_utc())
    member = Member(
        fleet.database, settings.database, worker, clock, concurrency=1, limit=lambda: 1
    )
    thread = threading.Thread(target=member.work)
    thread.start()
    try:
        wait_until(lambda: not member._was_on_time)  # It has dispatched by its own time.
        ahead = timedelta(0)
        wait_until(lambda: fleet.results()["done"], patience=20)
    finally:
        worker.interrupt("the test")
        thread.join(PATIENCE)


def test_a_worker_whose_clock_is_ahead_schedules_nothing_ahead(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "maintainer.serve.reloading.now_utc", lambda: now_utc() + timedelta(hours=2)
    )
    a_directory(fleet.folder).build("base")
    settings = load_settings(None, {}).model_copy(update={"store": f"local:{fleet.folder}/cache"})
    changes = Changes(settings, fleet.database, Worker(fleet.database, {}, now_utc))
    for schedule in (changes.follow, lambda: changes.apply(settings)):
        with fleet.database.begin() as connection:
            forget_other_targets(connection, {})

        schedule()

        (status,) = fleet.statuses().values()
        assert abs(status.next_run_at - now_utc()) < timedelta(minutes=1)


def test_a_worker_says_whether_it_has_run_a_target(fleet: Fleet) -> None:
    """Only then it dispatches: two targets that it does not know would go round for ever."""
    with fleet.database.begin() as connection:
        connection.exec_driver_sql(_UNKNOWN)

    worker = Worker(fleet.database, {}, now_utc)

    assert not worker.run_due_at("unknown", datetime(1970, 1, 1, tzinfo=UTC))


def test_a_signal_while_a_worker_connects_to_its_queue_ends_it(fleet: Fleet) -> None:
    worker = Worker(fleet.database, {}, now_utc)

    def clock() -> datetime:
        # The time is first asked for before the worker connects.
        worker.interrupt("SIGTERM")
        return now_utc()

    url = server().url(fleet.name)
    member = Member(fleet.database, url, worker, clock, concurrency=1, limit=lambda: 1)
    working = threading.Thread(target=member.work, daemon=True)

    working.start()
    working.join(PATIENCE)

    assert not working.is_alive()


def test_a_file_is_not_for_workers(tmp_path: Path) -> None:
    from maintainer.errors import UsageError

    with pytest.raises(UsageError, match="workers need a database of a PostgreSQL server"):
        work(lambda: load_settings(None, {"database": f"sqlite:///{tmp_path}/m.db"}), 1)


def test_a_worker_runs_what_a_service_has_found(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.serve.work._FOLLOWS_EVERY", 0.01)
    settings = Settings.model_validate(
        {"discover": [{"name": "disks", "store": f"local:{tmp_path}/*/cache"}]}
    )
    of_service = Changes(settings, fleet.database, Worker(fleet.database, {}, now_utc))
    service = Searcher(fleet.database, settings, now_utc, searched=of_service.follow)
    worker = Worker(fleet.database, {}, now_utc)

    with following(Changes(settings, fleet.database, worker)):
        for number in (1, 2):
            a_directory(tmp_path / f"disk{number}").build("base")
            service.search_once()
            of_service.follow()
            wait_until(lambda: worker.targets.keys() == of_service.worker.targets.keys())

    worker.run_due()
    assert sorted(fleet.statuses()) == ["disks.disk1", "disks.disk2"]
    assert set(fleet.results()) == {"done"}
