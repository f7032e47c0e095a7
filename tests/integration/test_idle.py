"""Idle runs: they list and stop, and never skip what a run that does everything would do."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from maintainer.cacheconfig import ENTRY_VERSION, BlobKey
from maintainer.emulator import ActionsCache, Request
from maintainer.graph.tables import METADATA
from maintainer.model import fingerprint as fingerprint_module
from maintainer.model.reason import NothingChanged, SharedNames
from maintainer.report import Report
from tests.empty_database import need_sqlite, query
from tests.integration import directories
from tests.integration.world import MAIN, World, a_world, blob_of

PULL = "refs/pull/7/merge"
GRACE = timedelta(hours=24)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def is_idle(report: Report) -> bool:
    """Whether a run did nothing but list."""
    return any(isinstance(note.reason, NothingChanged) for note in report.notes)


def settle(world: World, **how: object) -> Report:
    """Do runs until one is idle; return it."""
    for _ in range(6):
        report = world.gc(**how)  # type: ignore[arg-type]
        if is_idle(report):
            return report
        world.passes(minutes=1)
    raise AssertionError


# What it does.


@pytest.mark.parametrize("idle", [False, True], ids=["whole", "idle"])
def test_a_clock_that_is_set_back_during_a_run_gives_no_negative_duration(
    world: World, idle: bool
) -> None:
    world.build("base", "api")
    if idle:
        settle(world)
    world.passes(minutes=5)
    began_at = world.now

    def set_back(_request: Request) -> None:
        world.now = began_at - timedelta(hours=10)

    world.running.observe(after=set_back)
    report = world.gc()

    assert is_idle(report) == idle
    assert report.started_at == report.finished_at == began_at


def test_an_idle_run_says_again_what_to_change_at_the_store(tmp_path: Path) -> None:
    folder = directories.a_directory(tmp_path)
    for number in range(8):
        folder.build("base", "xy"[number % 2], tag="shared")
        folder.passes(hours=1)
        folder.gc(merged_tag="maintained")
        folder.passes(hours=30)

    whole = idle = folder.gc(merged_tag="maintained")
    while not is_idle(idle):
        whole = idle
        folder.passes(minutes=5)
        idle = folder.gc(merged_tag="maintained")

    (shared,) = (note for note in whole.notes if isinstance(note.reason, SharedNames))
    assert shared in idle.notes
    assert idle.verdict == whole.verdict


def test_a_run_after_one_that_had_nothing_to_do_lists_and_stops(world: World) -> None:
    world.build("base", "api")
    first = world.gc()
    world.passes(hours=1)

    report = world.gc()

    assert not is_idle(first)
    assert is_idle(report)
    assert world.requests == {"list": 1}
    assert report.requests.counts == {"list": 1}
    assert report.notes[0].sentence == (
        "nothing has changed since run 1, which had nothing to do, and nothing is due before "
        "2026-01-02 00:00 UTC"
    )


@pytest.mark.each_database
def test_its_report_is_that_of_the_run_before(world: World) -> None:
    world.build("base", "api")
    world.put(f"buildkit-blob-1-{blob_of('orphan')}", size=10)
    first = world.gc()
    world.passes(hours=1)

    report = world.gc()

    assert is_idle(report)
    assert (report.run, report.started_at) == (2, world.now)
    for name in ("entries", "indexes", "actions", "results", "space", "readable", "verdict"):
        assert getattr(report, name) == getattr(first, name)
    assert report.actions
    assert report.changes.previous_run == 1
    assert [point.run for point in report.trend.points] == [1, 2]
    actions = "SELECT position, subject, facts FROM actions WHERE run = {} ORDER BY position"
    kept = [query(world.database, actions.format(run)) for run in (1, 2)]
    seen = query(world.database, "SELECT DISTINCT last_seen_at FROM entries")
    assert kept[0] == kept[1]
    assert seen == [("2026-01-01 01:00:00.000000",)]


@pytest.mark.parametrize("many", [20, pytest.param(120, marks=pytest.mark.soak)])
def test_it_goes_on_where_it_was_after_many_idle_runs(world: World, many: int) -> None:
    world.build("base", "api")
    last = world.gc()
    for _ in range(many):
        world.passes(minutes=10)
        last = world.gc()
        assert is_idle(last)

    assert last.indexes
    assert [point.run for point in last.trend.points] == list(range(1, many + 2))


@pytest.mark.each_database
def test_it_writes_as_few_rows_and_statements_whatever_the_cache(tmp_path: Path) -> None:
    def count(steps: int, name: str) -> tuple[int, int]:
        statements: list[str] = []

        def note(*arguments: object) -> None:
            statements.append(str(arguments[2]))

        (tmp_path / name).mkdir()
        with a_world(tmp_path / name) as world:
            world.build(*(f"step {number}" for number in range(steps)))
            world.gc()
            world.passes(hours=1)
            assert is_idle(world.gc())
            before = _rows(world.database)
            world.passes(hours=1)
            event.listen(Engine, "before_cursor_execute", note)
            try:
                assert is_idle(world.gc())
            finally:
                event.remove(Engine, "before_cursor_execute", note)
            return len(statements), len(_rows(world.database) - before)

    few = count(2, "few")

    assert few[1] < 10
    assert count(90, "many") == few


def _rows(database: Path) -> set[tuple[object, ...]]:
    return {
        (name, *row) for name in METADATA.tables for row in query(database, f"SELECT * FROM {name}")
    }


# What it does not skip.


def test_what_is_due_is_done_at_the_moment_when_it_is(world: World) -> None:
    world.build("base", "api")
    world.put(f"buildkit-blob-1-{blob_of('orphan')}", size=10)
    world.gc(grace=timedelta(hours=5))
    for _ in range(4):
        world.passes(hours=1)
        assert is_idle(world.gc(grace=timedelta(hours=5)))
    world.passes(hours=1)

    report = world.gc(grace=timedelta(hours=5))

    assert not is_idle(report)
    assert blob_of("orphan") not in world.blobs()


def test_everything_is_done_once_a_day(world: World) -> None:
    world.build("base", "api")
    world.gc()
    world.passes(hours=23, minutes=59)
    assert is_idle(world.gc())
    world.passes(minutes=1)

    assert not is_idle(world.gc())


def test_a_clock_that_was_put_back_counts_for_nothing(world: World) -> None:
    world.build("base", "api")
    world.gc()
    world.passes(hours=-1)

    assert not is_idle(world.gc())


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.build("base", "web"),
        lambda world: world.build("base", "web", ref=PULL),
        lambda world: world.evict("api"),
        lambda world: world.put("setup-node", size=1),
        lambda world: _use(world, "base"),
    ],
    ids=["build", "pull request", "eviction", "other tool", "use"],
)
def test_after_any_change_everything_is_done(world: World, change: object) -> None:
    world.build("base", "api")
    settle(world)
    world.passes(minutes=1)

    assert callable(change)
    change(world)

    assert not is_idle(world.gc())


@pytest.mark.parametrize(
    "how",
    [
        {"grace": timedelta(hours=3)},
        {"merged_scope": "all"},
        {"quota": 20_000_000_000},
        {"dry_run": True},
        {"no_sweep": True},
        {"repair": True},
        {"accept_loss": True},
        {"readable": [PULL]},
    ],
    ids=str,
)
def test_a_run_that_is_told_something_else_does_everything(
    world: World, how: dict[str, object]
) -> None:
    world.build("base", "api")
    settle(world)
    world.passes(minutes=1)

    assert not is_idle(world.gc(**how))  # type: ignore[arg-type]


def test_another_version_does_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.build("base", "api")
    settle(world)
    world.passes(minutes=1)
    monkeypatch.setattr(fingerprint_module, "__version__", "another")

    assert not is_idle(world.gc())


def test_without_a_list_everything_is_done(world: World) -> None:
    world.build("base", "api")
    for _ in range(3):
        assert not is_idle(world.gc(rest=False))
        world.passes(minutes=1)


def test_contents_are_checked_when_that_is_due(world: World) -> None:
    world.build("base", "api")
    how: dict[str, object] = {"verify_after": timedelta(hours=2)}
    settle(world, **how)
    world.passes(hours=2)

    report = world.gc(**how)  # type: ignore[arg-type]

    assert report.contents.checked == 2


def test_a_run_that_is_not_idle_makes_the_next_one_do_everything_if_it_fails(
    world: World,
) -> None:
    world.build("base", "api")
    settle(world)
    world.passes(minutes=1)
    world.build("base", "web")
    world.gc(max_requests=3)
    world.passes(minutes=1)

    report = world.gc()

    assert not is_idle(report)
    assert report.indexes_written == 1


def test_a_database_from_before_a_run_makes_the_next_one_do_everything(world: World) -> None:
    world.build("base", "api")
    settle(world)
    earlier = world.database.with_name("earlier.db")
    shutil.copy(world.database, earlier)
    world.passes(minutes=1)
    world.build("base", "web")
    world.gc()
    world.passes(minutes=1)

    assert not is_idle(world.gc(database=earlier))


def test_a_directory_is_left_alone_until_something_changes(tmp_path: Path) -> None:
    world = directories.a_directory(tmp_path)
    world.build("base", "api")
    reports = []
    for _ in range(3):
        world.passes(hours=1)
        reports.append(world.gc())
    assert is_idle(reports[-1])
    world.passes(hours=1)
    assert not is_idle(world.gc(verify=True))
    world.passes(hours=1)
    world.gc()
    world.passes(hours=1)
    assert is_idle(world.gc())

    world.build("base", "web")

    assert not is_idle(world.gc())


# Whatever happens.

_EVENTS: dict[str, Callable[[World], object]] = {
    "build api": lambda world: world.build("base", "api"),
    "build web": lambda world: world.build("base", "web"),
    "build test": lambda world: world.build("base", "api", "test"),
    "build in another scope": lambda world: world.build("base", "other", scope="other"),
    "build in a pull request": lambda world: world.build("base", "pull", ref=PULL),
    "leave an orphan": lambda world: world.put(
        f"buildkit-blob-1-{blob_of(f'orphan {len(world.entries())} {world.now}')}", size=10
    ),
    "evict a layer": lambda world: world.evict("api"),
    "evict the newest index": lambda world: world.evict_entries(
        [one for one in world.entries() if one.key.startswith("index-")][-1:]
    ),
    "use a layer": lambda world: _use(world, "base"),
    "a minute passes": lambda world: world.passes(minutes=1),
    "an hour passes": lambda world: world.passes(hours=1),
    "half a day passes": lambda world: world.passes(hours=12),
    "a month passes": lambda world: world.passes(days=31),
}
_RUN = "run"


_suppressed = [HealthCheck.function_scoped_fixture]
_graces = pytest.mark.parametrize("grace", [timedelta(minutes=30), GRACE], ids=str)
_steps = st.lists(st.sampled_from([*_EVENTS, *[_RUN] * len(_EVENTS)]), max_size=25)


@_graces
@settings(max_examples=8, suppress_health_check=_suppressed)
@given(steps=_steps)
@example(steps=["build api", "leave an orphan", *["run", "run", "half a day passes"] * 3, "run"])
def test_a_run_that_is_idle_would_have_planned_nothing(
    tmp_path_factory: pytest.TempPathFactory, grace: timedelta, steps: list[str]
) -> None:
    _follow(tmp_path_factory.mktemp("idle"), grace, steps)


@pytest.mark.soak
@pytest.mark.timeout(7_200)
@_graces
@settings(max_examples=1_000, suppress_health_check=_suppressed)
@given(steps=_steps)
def test_in_a_thousand_sequences_an_idle_run_would_have_planned_nothing(
    tmp_path_factory: pytest.TempPathFactory, grace: timedelta, steps: list[str]
) -> None:
    _follow(tmp_path_factory.mktemp("idle"), grace, steps)


def _follow(folder: Path, grace: timedelta, steps: list[str]) -> None:
    """Let all this happen, and compare each idle run with one that does everything."""
    with a_world(folder) as world:
        for step in steps:
            if step == _RUN:
                # A clock that goes back, as for three runs at one moment, makes entries younger.
                world.passes(seconds=1)
                _run_and_compare(world, grace)
            else:
                _EVENTS[step](world)


def _use(world: World, step: str) -> None:
    """Let a build look a layer up now."""

    def use(cache: ActionsCache) -> None:
        cache.look_up([MAIN], str(BlobKey(blob_of(step))), (), ENTRY_VERSION)

    world.running.call(use)


def _run_and_compare(world: World, grace: timedelta) -> None:
    """Do a run; if it is idle, do everything on a copy of its database, and compare."""
    how = {"grace": grace, "merged_scope": "maintained", "verify_after": timedelta(hours=6)}
    copy = world.database.with_name("copy.db")
    need_sqlite()
    shutil.copy(world.database, copy)
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("UPDATE target SET idle_run = NULL")
    before = world.entries()

    report = world.gc(**how)  # type: ignore[arg-type]

    if is_idle(report):
        assert world.entries() == before
        whole = world.gc(database=copy, **how)  # type: ignore[arg-type]
        assert not is_idle(whole)
        assert {action.kind for action in whole.actions} <= {"keep"}
        assert whole.contents.checked == 0
        assert whole.actions == report.actions
        assert whole.entries == report.entries
        assert whole.results == report.results
        assert world.entries() == before


@pytest.mark.parametrize("what", ["manifest", "config"])
def test_a_damaged_tag_is_noticed_at_once_although_nothing_looks_changed(
    tmp_path: Path, what: str
) -> None:
    world = directories.a_directory(tmp_path)
    digest = world.build("base", "api")
    for _ in range(2):
        world.gc()
        world.passes(hours=1)
    assert is_idle(world.gc())
    manifest = world.blobs / digest[7:]
    place = manifest
    if what == "config":
        place = world.blobs / json.loads(manifest.read_bytes())["config"]["digest"][7:]
    there = place.stat()
    place.chmod(0o644)
    place.write_bytes(bytes(there.st_size))
    os.utime(place, ns=(there.st_atime_ns, there.st_mtime_ns))

    assert not is_idle(world.gc())
