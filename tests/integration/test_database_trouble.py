"""A database that is of no use stops a run before it touches the store, and is not made worse."""

import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.errors import DatabaseError
from maintainer.graph import sqlite as sqlite_module
from tests.integration.small import Arrival, Stage, a_small_world, a_stage
from tests.integration.world import MAIN, World, blob_of, leads_to
from tests.privileges import bound_by_modes
from tests.samples import every_other, once_each

CHANGING = {"reserve", "upload", "finalize", "delete"}
KIB = 1024


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with a_stage(tmp_path_factory.mktemp("trouble"), a_small_world) as stage:
        yield stage


@pytest.fixture(scope="module")
def undisturbed(shared: Stage) -> Arrival:
    shared.set_up()
    assert shared.gc().status == "done"
    return shared.arrival()


@pytest.fixture
def stage(shared: Stage, undisturbed: Arrival) -> Stage:
    shared.set_up()
    return shared


def _trouble(stage: Stage) -> str:
    """Do a run that fails for its database; give the line that says so."""
    try:
        report = stage.gc()
    except DatabaseError as error:
        line = str(error)
    else:  # There was room enough to write down at least that.
        assert report.status == "failed"
        (line,) = report.problems
    assert line.isprintable()
    assert not CHANGING & {request.kind for request in stage.requests}
    return line


def _used(stage: Stage) -> Path:
    """Return the file after a run that decided, and did nothing."""
    assert stage.gc(dry_run=True).status == "done"
    return stage.world.database


def _check(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@contextmanager
def _a_disk_with_room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond a number of bytes, as far as this process writes it."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.parametrize(
    ("size", "new"), once_each([0, 4 * KIB, 40 * KIB, 100 * KIB], [True, False])
)
def test_a_disk_that_is_full_from_the_beginning_stops_the_run(
    stage: Stage, undisturbed: Arrival, size: int, *, new: bool
) -> None:
    if new:
        stage.world.database.unlink()
    for number in range(300 if size > 4 * KIB else 0):  # More than there is room to write down.
        stage.world.put(f"other-tool-{number}-{'x' * 300}", size=1)
    with _a_disk_with_room_for(size):
        line = _trouble(stage)

    assert line.startswith(f"the database {stage.world.database} cannot be used: ")
    _check(stage.world.database)
    assert stage.gc().status == "done"
    assert stage.watcher.problems == []
    assert stage.arrival().indexes == undisturbed.indexes


@pytest.mark.parametrize("more", every_other(range(0, 120, 12)))
def test_a_disk_that_fills_up_meanwhile_leaves_a_valid_state(
    stage: Stage, undisturbed: Arrival, more: int
) -> None:
    path = _used(stage)
    size = path.stat().st_size
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    stage.world.passes(minutes=1)
    with _a_disk_with_room_for(size // 4 + more * KIB):
        try:
            ended = stage.gc().status
        except DatabaseError as error:
            ended = str(error)

    assert ended == "done" or ended.isprintable()
    assert stage.watcher.problems == []
    _check(path)
    stage.world.passes(minutes=1)
    assert stage.gc().status == "done"
    assert stage.watcher.problems == []
    assert stage.arrival() == undisturbed


def test_a_file_that_is_read_only_stops_the_run(stage: Stage, undisturbed: Arrival) -> None:
    used = _used(stage)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as monkeypatch:
        path, certificates = Path(name) / "maintainer.db", Path(name) / "one.pem"
        shutil.copy(used, path)
        shutil.copy(stage.folder / "one.pem", certificates)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates))
        before = path.read_bytes()
        for place in (path, Path(name)):
            place.chmod(stat.S_IREAD | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
        stage.world.database = path
        with bound_by_modes():
            line = _trouble(stage)
        assert path.read_bytes() == before
        Path(name).chmod(stat.S_IRWXU)

    assert line.startswith(f"the database {path} cannot be used: ")
    stage.world.database = used
    assert stage.gc().status == "done"
    assert stage.arrival() == undisturbed


def _garbage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 8192):
        content[page : page + 4096] = b"\xa5" * 4096
    path.write_bytes(content)


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _header(path: Path) -> None:
    path.write_bytes(bytes(100) + path.read_bytes()[100:])


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_garbage, "cannot be used: "),
        (_half, "cannot be used: "),
        (_header, "cannot be used: file is not a database: name another one"),
        (_newer, "was made by a newer version: upgrade maintainer"),
    ],
)
def test_a_file_of_no_use_stops_the_run_and_is_left_as_it_is(
    stage: Stage, undisturbed: Arrival, spoil: Callable[[Path], None], problem: str
) -> None:
    path = _used(stage)
    spoil(path)
    before = path.read_bytes()
    stage.world.passes(minutes=1)

    line = _trouble(stage)

    assert line.startswith(f"the database {path} {problem}")
    assert stage.requests == []
    assert path.read_bytes() == before
    for file in path.parent.glob(f"{path.name}*"):  # What the line leaves to do.
        file.unlink()
    assert stage.gc().status == "done"
    assert stage.arrival() == undisturbed


def test_an_index_that_the_file_holds_and_that_makes_no_sense_stops_the_run(
    stage: Stage, undisturbed: Arrival
) -> None:
    path = _used(stage)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE generation SET content = x'00ff' WHERE number = 2")
    stage.world.passes(minutes=1)

    report = stage.gc()

    assert report.status == "failed"
    assert len(report.problems) == 1
    assert "the database holds index-buildkit-1-f921bd05#2" in report.problems[0]
    assert not CHANGING & {request.kind for request in stage.requests}


def test_a_file_that_somebody_else_has_locked_stops_the_run(
    stage: Stage, undisturbed: Arrival, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _used(stage)
    stage.world.passes(minutes=1)
    monkeypatch.setattr(sqlite_module, "_PATIENCE", 0.2)
    monkeypatch.setattr(stage.world, "databases", {})  # Those that are open wait longer.
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        line = _trouble(stage)
        other.execute("ROLLBACK")

    assert line == f"the database {path} cannot be used: database is locked"
    assert stage.requests == []
    assert stage.gc().status == "done"
    assert stage.arrival() == undisturbed


def test_people_read_one_line_and_scripts_the_status(stage: Stage) -> None:
    path = _used(stage)
    _header(path)
    stage.requests.clear()

    done = subprocess.run(
        [sys.executable, "-m", "maintainer", "gc", "--database", f"sqlite:///{path}"],
        env=stage.world.running.environment(MAIN),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"maintainer: the database {path} cannot be used: file is not a database: name another one "
        "(`database`), or move this file away\n"
    )
    assert stage.requests == []


def test_a_lost_database_costs_nothing_but_the_memory_of_when(stage: Stage) -> None:
    world = stage.world
    day = timedelta(days=1)
    assert stage.gc(grace=day).status == "done"
    assert leads_to(world.newest()) == {blob_of(step) for step in ("base", "api", "web")}
    generations = world.generations()
    world.passes(hours=1)
    world.put("buildkit-blob-1-" + blob_of("new"), size=10)
    _lose(world)

    report = stage.gc(grace=day)

    assert report.status == "done"
    assert report.indexes_written == 0
    assert stage.watcher.problems == []
    # Superseded generations are younger than they were: the clock began anew.
    assert world.generations()[-1] == generations[-1]
    assert leads_to(world.newest()) <= world.blobs()
    assert blob_of("new") in world.blobs()
    _lose(world)
    world.passes(days=2)
    assert stage.gc(grace=day).status == "done"
    assert stage.watcher.problems == []
    assert world.generations() == generations[-1:]
    assert blob_of("new") not in world.blobs()


def _lose(world: World) -> None:
    for file in world.database.parent.glob(f"{world.database.name}*"):
        file.unlink()
