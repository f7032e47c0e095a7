"""A run may be killed anywhere: run again, it arrives where an undisturbed run would have.

Whatever stores the cache: a service is asked by a run that is killed before or after one of its
requests is carried out, a directory is worked on by one that is killed before an operation.
"""

import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from tests.integration import directories
from tests.integration.small import a_stage
from tests.integration.test_gc_recorded_history import _seed as seed_history
from tests.integration.victims import AFTER, BEFORE, FolderVictim, Point, ServiceVictim, Victim
from tests.integration.world import World, blob_of
from tests.recorded import unpack_directory

_REQUESTS = 58
"""What a run over the service takes; a test holds it."""
_OPERATIONS = 88
"""What a run over the directory takes; a test holds it."""
_ONE_IN = 12
_ORPHANS = 8


def _two_scopes(world: World) -> None:
    """Most of what is stored is superseded or dangling, so that a run deletes most of it."""
    world.build("base", "api", "gone")
    world.build("base", "web")
    world.build("base", "web", "docs", scope="web")
    world.build("base", "web", scope="web")
    for number in range(_ORPHANS):
        world.put("buildkit-blob-1-" + blob_of(f"orphan {number}"), size=10)
    world.put("setup-node-Linux", b"other tool")
    world.evict("gone")
    world.passes(days=2)


def _two_tags(folder: Path) -> directories.World:
    """One is to be pruned, and all to be merged; most of what is stored dangles."""
    world = directories.a_directory(folder)
    world.build("base", "api", "gone")
    world.build("base", "old", tag="web")
    world.build("base", "web", tag="web")
    for number in range(_ORPHANS // 2):
        world.put(f"orphan {number}")
    world.evict("gone")
    world.passes(days=2)
    return world


def _recorded(folder: Path) -> directories.World:
    now = datetime(2026, 11, 25, 10, tzinfo=UTC)
    return directories.World(unpack_directory(folder), folder / "maintainer.db", now)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with a_stage(tmp_path_factory.mktemp("crashes"), _two_scopes) as stage:
        yield ServiceVictim(stage)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    return _directory(tmp_path_factory.mktemp("crashes"), _two_tags)


def _directory(folder: Path, make: Callable[[Path], directories.World]) -> Victim:
    return FolderVictim(folder / "world", make)


@pytest.fixture(scope="module")
def undisturbed(service: Victim, directory: Victim) -> dict[int, object]:
    """Return where an undisturbed run over each of them arrives."""
    arrivals = {}
    for victim in (service, directory):
        victim.set_up()
        report = victim.gc()
        assert report.status == "done", report.problems
        assert report.entries_deleted >= _ORPHANS // 2
        arrivals[id(victim)] = victim.arrival()
    return arrivals


@pytest.fixture
def victim(request: pytest.FixtureRequest) -> Victim:
    found: Victim = request.getfixturevalue(request.param)
    return found


def _statuses(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchone() is None
        return [status for (status,) in connection.execute("SELECT status FROM run ORDER BY id")]


def _points() -> Iterator[tuple[str, Point]]:
    for moment in (BEFORE, AFTER):
        yield from (("service", (moment, number)) for number in range(1, _REQUESTS + 1))
    yield from (("directory", (BEFORE, number)) for number in range(1, _OPERATIONS + 1))


@pytest.mark.parametrize(
    ("victim", "point"),
    [
        pytest.param(
            victim,
            point,
            id=f"{victim}-{point[0]}-{point[1]}",
            marks=() if (point[1] + (point[0] == AFTER)) % _ONE_IN == 0 else pytest.mark.soak,
        )
        for victim, point in _points()
    ],
    indirect=["victim"],
)
def test_killed_anywhere_a_run_can_simply_be_run_again(
    victim: Victim, undisturbed: dict[int, object], point: Point
) -> None:
    victim.set_up()

    assert victim.kill(point) == -signal.SIGKILL

    assert victim.problems() == []
    report = victim.gc()
    assert report.status == "done", report.problems
    assert victim.problems() == []
    assert _statuses(victim.database) == ["killed", "done"]
    assert victim.arrival() == undisturbed[id(victim)]


@pytest.mark.parametrize(
    ("victim", "steps"),
    [("service", _REQUESTS), ("directory", _OPERATIONS)],
    indirect=["victim"],
)
def test_a_run_is_as_long_as_it_is_killed_at_every_step(victim: Victim, steps: int) -> None:
    victim.set_up()
    assert victim.kill((BEFORE, steps + 1)) == 0

    victim.set_up()
    assert victim.kill((BEFORE, steps)) == -signal.SIGKILL


def test_the_promises_name_as_many_kill_points_as_there_are() -> None:
    text = (Path(__file__).parents[2] / "SAFETY.md").read_text()
    all_points = list(_points())
    sampled = sum((number + (at == AFTER)) % _ONE_IN == 0 for _, (at, number) in all_points)

    assert f"{sampled} of the {len(all_points)} kill points" in " ".join(text.split())
    assert re.search(rf"before and after each request\) \| 2 . {_REQUESTS} \(", text)
    assert re.search(rf"before each operation on a file\) \| {_OPERATIONS} \(", text)


@pytest.mark.parametrize("victim", ["service", "directory"], indirect=True)
def test_two_processes_with_databases_of_their_own_get_in_nobodys_way(
    victim: Victim, undisturbed: dict[int, object]
) -> None:
    victim.set_up()

    assert set(victim.run_two()) <= {0, 1}

    assert victim.problems() == []
    report = victim.gc()
    assert report.status == "done", report.problems
    assert victim.problems() == []
    assert victim.arrival() == undisturbed[id(victim)]


@pytest.fixture
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Victim]:
    if request.param == "directory":
        yield _directory(tmp_path, _recorded)
        return
    with a_stage(tmp_path, seed_history) as stage:
        yield ServiceVictim(stage)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("recorded", "steps"), [("service", 849), ("directory", 256)], indirect=["recorded"]
)
@pytest.mark.parametrize("seed", range(12))
def test_killed_at_random_moments_of_the_recorded_history_a_run_can_be_run_again(
    recorded: Victim, steps: int, seed: int
) -> None:
    recorded.set_up()
    recorded.gc()
    expected = recorded.arrival()
    recorded.set_up()
    random = Random(seed)
    for _ in range(random.choice((1, 2, 3))):
        recorded.kill((random.choice((BEFORE, AFTER)), random.randint(1, steps)))

    assert recorded.gc().status == "done"

    assert recorded.problems() == []
    assert recorded.arrival() == expected
    assert "running" not in _statuses(recorded.database)
