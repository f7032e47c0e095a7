"""Only one run works on a target: a worker that was paused, and replaced, changes nothing more."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from sqlalchemy import Connection

from maintainer.emulator import Request
from maintainer.errors import DatabaseError, LeaseLostError
from maintainer.graph.backend import HeldError
from maintainer.graph.database import Database
from maintainer.graph.lease import Lease
from maintainer.graph.tables import METADATA
from maintainer.stages.run import Collector
from tests.empty_database import change, make_empty, query, url_of
from tests.integration.killed import LeasedErrand, run_leased
from tests.integration.service import wait_until
from tests.integration.world import MAIN, World, a_world, blob_of
from tests.postgresql import create_database, opened, server
from tests.processes import processes

TARGET = "github:example/app"
_PATIENCE = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "maintainer.db"
    make_empty(path)
    return path


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with closing(Database(url_of(path))) as database:
        yield database


@contextmanager
def _leased(path: Path) -> Iterator[Lease]:
    """Have a lease, as another process would."""
    with closing(Database(url_of(path))) as other, other.lease(TARGET) as lease:
        yield lease


def _expire(path: Path) -> None:
    """Let the clock of the database go on until all leases are over."""
    change(path, "UPDATE lease SET expires_at = 0")


@pytest.mark.each_database
def test_a_lease_is_had_by_one_at_a_time_and_each_has_a_higher_token(path: Path) -> None:
    with _leased(path) as first:
        with pytest.raises(DatabaseError, match="another run holds the database"), _leased(path):
            pass
        first.confirm()

    with _leased(path) as second:
        assert second.token == first.token + 1


@pytest.mark.each_database
def test_who_has_lost_a_lease_records_nothing_and_is_told(
    path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.lease._TRUSTED", 0)
    with _leased(path) as first:
        collector = Collector(None, database, None, lease=first)  # type: ignore[arg-type]
        _expire(path)
        with _leased(path) as second:
            with pytest.raises(LeaseLostError) as caught:
                first.confirm()
            assert str(caught.value).startswith("another run has taken ")
            with pytest.raises(LeaseLostError), collector.begin() as connection:
                connection.exec_driver_sql("DELETE FROM run")
            second.confirm()
            with pytest.raises(DatabaseError, match="another run holds"), _leased(path):
                pass
        # The first one is still there, and has nothing to give back.
        assert query(path, "SELECT token, expires_at FROM lease") == [(second.token, None)]


def test_a_pause_right_after_a_check_is_noticed(
    path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr("maintainer.graph.lease._elapsed", lambda: clock)

    @contextmanager
    def begin_and_pause() -> Iterator[Connection]:
        with database.begin() as connection:
            execute = connection.execute
            monkeypatch.setattr(connection, "execute", lambda *asked: pause(execute(*asked)))
            yield connection

    def pause(result: object) -> object:
        nonlocal clock
        clock += 600
        return result

    with _leased(path) as taken:
        lease = Lease("", taken.token, begin_and_pause, TARGET)
        lease.confirm()
        change(path, "UPDATE lease SET token = token + 1")

        for one in (taken, lease):
            with pytest.raises(LeaseLostError):
                one.confirm()


@pytest.mark.each_database
def test_a_lease_that_is_over_and_that_nobody_has_taken_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.lease._TRUSTED", 0)
    with _leased(path) as lease:
        _expire(path)
        lease.confirm()

        with pytest.raises(DatabaseError, match="another run holds"), _leased(path):
            pass


def test_a_lease_is_renewed_while_its_run_is_busy(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = threading.Event()

    @contextmanager
    def begin() -> Iterator[Connection]:
        with database.begin() as connection:
            yield connection
        if threading.current_thread().name == "lease":
            renewed.set()

    monkeypatch.setattr("maintainer.graph.lease.DURATION", timedelta(milliseconds=30))
    with database.lease(TARGET) as lease, Lease("", lease.token, begin, TARGET).renewing():
        assert renewed.wait(_PATIENCE)


# The locks of a run, which end with their connections.

_HOLDERS = """
SELECT pid, state_change FROM pg_stat_activity WHERE pid IN (
  SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""
_TERMINATE = f"SELECT pg_terminate_backend(pid) FROM ({_HOLDERS}) AS holder"


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Return a database on a server, where leases are renewed ten times a second."""
    monkeypatch.setattr("maintainer.graph.lease._BEATS", 600)
    with opened(create_database()) as database:
        yield database


def _holders(database: Database) -> dict[int, datetime]:
    """Return who holds locks, and when each of them did something last."""
    with database.reading() as connection:
        return {row.pid: row.state_change for row in connection.exec_driver_sql(_HOLDERS)}


def _end_connections_of_locks(database: Database) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql(_TERMINATE)
    wait_until(lambda: not _holders(database))


def _end_all_connections(database: Database, *, but: int) -> None:
    """End also those on which a lock was only looked for."""
    with database.begin() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            f"WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), {but})"
        )


def test_a_run_uses_the_connections_of_its_locks_so_that_nobody_ends_them_as_idle(
    shared: Database,
) -> None:
    with shared.lease(TARGET):
        before = _holders(shared)
        wait_until(lambda: min(_holders(shared).values()) > max(before.values()))

        assert _holders(shared).keys() == before.keys()


def test_a_run_takes_its_locks_again_if_their_connections_have_ended(shared: Database) -> None:
    with closing(Database(_url(shared))) as other, shared.lease(TARGET) as lease:
        before = _holders(shared)
        with shared.begin() as connection:
            connection.exec_driver_sql(_TERMINATE)
        wait_until(lambda: len(_holders(shared).keys() - before.keys()) == len(before))

        with pytest.raises(DatabaseError, match="another run holds"), other.lease(TARGET):
            pass
        with pytest.raises(DatabaseError, match="another run holds"), other.lock():
            pass
        lease.confirm()
    assert not _holders(shared)
    with shared.lease(TARGET) as second:
        assert second.token == lease.token + 1


def _url(database: Database) -> str:
    return server().url(database.name.rpartition("/")[2])


def test_a_lock_that_somebody_else_has_taken_meanwhile_stays_with_them(shared: Database) -> None:
    with closing(Database(_url(shared))) as other, shared._backend.lock("a") as keep:
        _end_connections_of_locks(shared)
        with other._backend.lock("a"):
            (theirs,) = _holders(shared)
            keep()
            assert list(_holders(shared)) == [theirs]
            _end_all_connections(shared, but=theirs)
            keep()
            assert list(_holders(shared)) == [theirs]

        keep()

        assert theirs not in _holders(shared)
        with pytest.raises(HeldError), other._backend.lock("a"):
            pass
    assert not _holders(shared)


class _Pause:
    """Stops a process once it has got so far."""

    def __init__(self, kind: str) -> None:
        self.is_reached = threading.Event()
        self.process: BaseProcess | None = None
        self._kind = kind
        self._started = threading.Event()

    def watch(self, process: BaseProcess) -> None:
        """Stop this one."""
        self.process = process
        self._started.set()

    def after(self, request: Request) -> None:
        """Stop it, after a request of its kind and before the answer."""
        if request.kind == self._kind and not self.is_reached.is_set():
            assert self._started.wait(_PATIENCE)
            assert self.process
            assert self.process.pid
            os.kill(self.process.pid, signal.SIGSTOP)
            self.is_reached.set()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Let an index need a rewrite, and entries a deletion."""
    with a_world(tmp_path) as world:
        world.build("base", "api", "test")
        world.evict("test")
        for number in range(4):
            world.put(f"buildkit-blob-1-{blob_of(f'orphan {number}')}", size=70)
        yield world


def _dump(path: Path) -> dict[str, list[tuple[object, ...]]]:
    return {name: query(path, f"SELECT * FROM {name} ORDER BY 1, 2") for name in METADATA.tables}


@pytest.mark.each_database
@pytest.mark.parametrize("kind", ["list", "delete"])
def test_a_paused_run_that_was_replaced_changes_nothing_when_it_comes_back(
    world: World, tmp_path: Path, kind: str
) -> None:
    pause = _Pause(kind)
    world.running.observe(after=pause.after)
    url, problem = url_of(world.database), tmp_path / "problem"
    # Its clock is a month late, which no lease depends on.
    errand = LeasedErrand(
        world.running.environment(MAIN), url, world.now - timedelta(days=30), problem
    )
    process = processes().Process(target=run_leased, args=(errand,))
    process.start()
    pause.watch(process)
    assert pause.is_reached.wait(_PATIENCE)
    world.running.observe()
    try:
        with pytest.raises(DatabaseError, match="another run holds"), _leased(world.database):
            pass
        _expire(world.database)
        assert world.gc(grace="0s").status == "done"
        entries, rows = world.entries(), _dump(world.database)
    finally:
        os.kill(process.pid or 0, signal.SIGCONT)

    process.join(_PATIENCE)

    assert process.exitcode == 1
    assert "taken" in problem.read_text()
    assert world.entries() == entries
    assert _dump(world.database) == rows
    assert query(world.database, "SELECT status FROM run ORDER BY id") == [("killed",), ("done",)]


@pytest.mark.parametrize("kind", ["finalize", "delete"])
def test_nothing_is_written_or_deleted_once_the_lease_is_lost(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.lease._TRUSTED", 0)
    world.build("base", "web", "gone", scope="web")
    world.evict("gone")
    kinds: list[str] = []

    def take_over(request: Request) -> None:
        kinds.append(request.kind)
        if request.kind == kind and kinds.count(kind) == 1:
            change(world.database, "UPDATE lease SET token = token + 1")

    world.running.observe(after=take_over)
    with pytest.raises(LeaseLostError):
        # With a limit, indexes are written one by one.
        world.gc(grace="0s", max_requests=1_000)

    assert kinds.count(kind) == 1
    assert kinds.count("delete") == (kind == "delete")


@pytest.mark.each_database
def test_a_killed_run_is_replaced_at_once(world: World, tmp_path: Path) -> None:
    pause = _Pause("list")
    world.running.observe(after=pause.after)
    url = url_of(world.database)
    errand = LeasedErrand(world.running.environment(MAIN), url, world.now, tmp_path / "problem")
    process = processes().Process(target=run_leased, args=(errand,))
    process.start()
    pause.watch(process)
    assert pause.is_reached.wait(_PATIENCE)
    world.running.observe()
    process.kill()
    process.join(_PATIENCE)

    with closing(Database(url)) as database:
        _wait_for_the_server(database)
        with database.lease(TARGET) as lease:
            assert lease.token == 2
    assert world.gc(grace="0s").status == "done"


def _wait_for_the_server(database: Database) -> None:
    """Wait until a server has noticed that a process has ended."""
    if database.is_shared:
        with database.begin() as connection:
            connection.exec_driver_sql("SET LOCAL statement_timeout = '20s'")
            connection.exec_driver_sql(
                "SELECT pg_advisory_xact_lock(classid::int, objid::oid::bigint::int) "
                "FROM pg_locks WHERE locktype = 'advisory' AND granted"
            )
