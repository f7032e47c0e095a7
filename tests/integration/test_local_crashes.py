"""A run over a directory may be killed anywhere: run again, it arrives where it would have."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from datetime import timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.integration.directories import World, a_directory, layer_of, template
from tests.integration.local_errand import Errand, run

_STEPS = 75
"""The operations on files of a run over the world; a test holds it."""
_ONE_IN = 5


def _world(place: Path, known: Path) -> World:
    """Make one with a tag to be pruned, and all to be merged; most of what is stored dangles."""
    place.mkdir()
    world = a_directory(place, known)
    world.build("base", "api", "test")
    world.build("base", "old", tag="web")
    world.build("base", "web", tag="web")
    for number in range(4):
        world.put(f"orphan {number}")
    world.evict("test")
    world.passes(days=2)
    return world


def _gc(world: World) -> None:
    report = world.gc(grace=timedelta(0), merge_tags=True)
    assert report.status == "done", report.problems


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, known: Path) -> dict[str, bytes]:
    world = _world(tmp_path_factory.mktemp("undisturbed") / "world", known)
    _gc(world)
    assert world.steps("orphan 0", "old") == set()
    return world.files()


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Give what makes processes that have everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.local_errand"])
    return context


def _run(world: World, processes: ForkServerContext, kill_before: int) -> int | None:
    errand = Errand(world.path, world.database, world.now, kill_before)
    process = processes.Process(target=run, args=(errand,))
    process.start()
    process.join(60)
    world.settle()
    return process.exitcode


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=() if number % _ONE_IN == 0 else pytest.mark.soak)
        for number in range(1, _STEPS + 1)
    ],
)
def test_killed_at_any_operation_a_run_can_simply_be_run_again(
    tmp_path: Path,
    known: Path,
    undisturbed: dict[str, bytes],
    processes: ForkServerContext,
    number: int,
) -> None:
    world = _world(tmp_path / "world", known)

    assert _run(world, processes, number) == -signal.SIGKILL

    assert world.leads_to("api") in (_layers("base", "api"), _layers("base", "api", "web"))
    assert world.leads_to("web") in (_layers("base", "web"), _layers("base", "api", "web"))
    world.passes(minutes=5)
    _gc(world)
    # What lies about is no older than a run that is gone; the next one that writes takes it away.
    left = {name for name in world.files() if name.startswith(".maintainer-")}
    assert len(left) <= 1
    files = {name: content for name, content in world.files().items() if name not in left}
    files.pop("index.json.lock", None)
    assert files == undisturbed
    with closing(sqlite3.connect(world.database)) as connection:
        statuses = connection.execute("SELECT status FROM run ORDER BY id").fetchall()
    assert statuses == [("killed",), ("done",)]


def _layers(*steps: str) -> set[str]:
    return {layer_of(step) for step in steps}


def test_a_run_takes_as_many_operations_as_are_killed(
    tmp_path: Path, known: Path, processes: ForkServerContext
) -> None:
    world = _world(tmp_path / "world", known)

    assert _run(world, processes, _STEPS + 1) == 0


def test_what_a_killed_run_has_left_is_taken_away_later(tmp_path: Path, known: Path) -> None:
    world = _world(tmp_path / "world", known)
    left = world.path / ".maintainer-0123456789abcdef.tmp"
    near_miss = world.path / ".maintainer-mine.tmp"
    for path in (left, near_miss):
        path.write_bytes(b"left")
        world.touch(path)
    world.passes(minutes=1)

    _gc(world)

    assert not left.exists()
    assert near_miss.exists()


def test_two_processes_with_databases_of_their_own_get_in_nobodys_way(
    tmp_path: Path, known: Path, undisturbed: dict[str, bytes], processes: ForkServerContext
) -> None:
    world = _world(tmp_path / "world", known)
    started = []
    for number in range(2):
        database = tmp_path / f"{number}.db"
        shutil.copy(known, database)
        errand = Errand(world.path, database, world.now, 0)
        started.append(processes.Process(target=run, args=(errand,)))
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    world.settle()
    world.passes(minutes=5)
    _gc(world)

    assert world.files() == undisturbed
    assert not os.path.lexists(world.path / "index.json.lock")
