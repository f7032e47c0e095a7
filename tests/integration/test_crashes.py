"""A run may be killed anywhere: run again, it arrives where an undisturbed run would have."""

import multiprocessing
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.context import ForkServerContext
from pathlib import Path
from random import Random

import pytest

from maintainer.emulator import Request
from tests.integration.killed import Errand, run
from tests.integration.small import NO_GRACE, Arrival, Stage, a_stage
from tests.integration.test_gc_recorded_history import _seed as seed_history
from tests.integration.world import MAIN, World, blob_of

_MOMENTS = ("before", "after")
_REQUESTS = 38
"""What a run over the world takes; a test holds it."""
_ONE_IN = 6


def _two_scopes(world: World) -> None:
    """Most of what is stored is superseded or dangling, so that a run deletes most of it."""
    world.build("base", "api", "gone")
    world.build("base", "web")
    world.build("base", "web", "docs", scope="web")
    world.build("base", "web", scope="web")
    for number in range(8):
        world.put("buildkit-blob-1-" + blob_of(f"orphan {number}"), size=10)
    world.put("setup-node-Linux", b"other tool")
    world.evict("gone")
    world.passes(days=2)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with a_stage(tmp_path_factory.mktemp("crashes"), _two_scopes) as stage:
        yield stage


@pytest.fixture(scope="module")
def undisturbed(shared: Stage) -> Arrival:
    shared.set_up()
    assert shared.gc().status == "done"
    assert len(shared.requests) == _REQUESTS
    assert sum(request.kind == "delete" for request in shared.requests) > 10
    return shared.arrival()


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Give what makes processes that have everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.killed"])
    return context


class Killer:
    """Kills a process before or after a request is carried out, once."""

    def __init__(self, stage: Stage, moment: str, number: int) -> None:
        self._stage = stage
        self._moment = moment
        self._number = number
        self._count = {"before": 0, "after": 0}
        self._started = threading.Event()
        self.process_id = 0

    def may_begin(self, process_id: int) -> None:
        self.process_id = process_id
        self._started.set()

    def before(self, request: Request) -> None:
        self._stage.watcher.before(request)
        self._strike("before")

    def after(self, request: Request) -> None:
        self._stage.after(request)
        self._strike("after")

    def _strike(self, moment: str) -> None:
        self._count[moment] += 1
        if moment == self._moment and self._count[moment] == self._number:
            self._started.wait()
            os.kill(self.process_id, signal.SIGKILL)


def _kill(stage: Stage, processes: ForkServerContext, killer: Killer) -> int | None:
    """Let a process run and be killed; give its exit code."""
    world = stage.world
    errand = Errand(world.running.environment(MAIN), world.database, world.now)
    stage.begin()
    world.running.observe(before=killer.before, after=killer.after)
    process = processes.Process(target=run, args=(errand,))
    process.start()
    assert process.pid
    killer.may_begin(process.pid)
    process.join(60)
    world.running.observe()
    return process.exitcode


def _statuses(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchone() is None
        return [status for (status,) in connection.execute("SELECT status FROM run ORDER BY id")]


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param(
            moment, number, marks=() if (number + shift) % _ONE_IN == 0 else pytest.mark.soak
        )
        for shift, moment in enumerate(_MOMENTS)
        for number in range(1, _REQUESTS + 1)
    ],
)
def test_killed_at_any_request_a_run_can_simply_be_run_again(
    shared: Stage, undisturbed: Arrival, processes: ForkServerContext, moment: str, number: int
) -> None:
    shared.set_up()

    code = _kill(shared, processes, Killer(shared, moment, number))

    assert code == -signal.SIGKILL
    assert _statuses(shared.world.database) == ["running"]
    assert shared.watcher.problems == []
    shared.world.passes(minutes=5)
    report = shared.gc()
    assert report.status == "done", report.problems
    assert shared.watcher.problems == []
    assert _statuses(shared.world.database) == ["killed", "done"]
    assert shared.arrival() == undisturbed


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(12))
def test_killed_at_a_random_moment_of_the_recorded_history_a_run_can_be_run_again(
    tmp_path: Path, processes: ForkServerContext, seed: int
) -> None:
    with a_stage(tmp_path, seed_history) as stage:
        stage.set_up()
        stage.gc()
        expected, requests = stage.arrival(), len(stage.requests)
        stage.set_up()
        random = Random(seed)
        times = random.choice((1, 2, 3))
        for _ in range(times):
            number = random.randint(1, requests)
            killer = Killer(stage, random.choice(_MOMENTS), number)
            _kill(stage, processes, killer)
            stage.world.passes(minutes=1)

        assert stage.gc(grace=NO_GRACE).status == "done"

        assert stage.watcher.problems == []
        assert stage.arrival() == expected
        assert "running" not in _statuses(stage.world.database)
