"""What the graph forgets of runs, so that a service can run for years on one file."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.graph.database import Database
from maintainer.graph.sqlite import _PATIENCE
from tests.empty_database import change, need_sqlite, query, url_of
from tests.integration import directories
from tests.integration.world import MAIN, World, a_world, blob_of, built, leads_to


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        world.build("base", "api")
        yield world


def _ask(world: World, sql: str) -> list[tuple[object, ...]]:
    return query(world.database, sql)


def _leave_as_killed(world: World, *, dry_run: bool) -> None:
    """Leave the only run so far as one that was killed behind its plan."""
    is_dry = "true" if dry_run else "false"
    change(
        world.database,
        f"UPDATE run SET status = 'running', finished_at = NULL, dry_run = {is_dry}",
    )


@pytest.mark.each_database
def test_of_runs_that_changed_nothing_only_the_newest_keep_their_report(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.runs.REPORTS", 2)
    world.build("base", "web")
    for _ in range(5):
        world.gc()
        world.passes(minutes=1)

    assert _ask(world, "SELECT id, report IS NOT NULL FROM run ORDER BY id") == [
        (1, 1),
        (2, 1),  # Those after it were idle: their reports are what differs from this one.
        (3, 0),
        (4, 1),
        (5, 1),
    ]
    assert _ask(world, "SELECT DISTINCT run FROM actions ORDER BY run") == [(1,), (2,), (4,), (5,)]


@pytest.mark.each_database
def test_runs_of_long_ago_and_beyond_a_number_are_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.runs._RUNS", 3)
    for number in range(4):
        world.build("base", f"web {number}")
        world.gc()
        world.passes(minutes=1)
    assert _ask(world, "SELECT id FROM runs ORDER BY id") == [(2,), (3,), (4,)]
    world.passes(days=91)

    world.gc()

    assert _ask(world, "SELECT id FROM runs") == [(5,)]


def test_a_generation_is_forgotten_a_month_after_it_was_replaced_and_deleted(world: World) -> None:
    world.build("base", "web")
    world.gc()
    for days, expected in [(2, [1, 2, 3]), (29, [1, 2, 3]), (2, [3])]:
        world.passes(days=days)
        world.gc()
        numbers = _ask(world, "SELECT generation FROM generations ORDER BY generation")
        assert numbers == [(number,) for number in expected]


@pytest.mark.each_database
def test_of_each_index_only_the_last_generations_are_remembered_that_were_replaced_and_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.expire._GENERATIONS", 2)
    for number in range(3):
        world.build("base", f"web {number}")
        world.build("base", f"tool {number}", scope="tools")
    for _ in range(3):
        world.gc()
        world.passes(days=2)

    kept = "SELECT scope, generation FROM generations ORDER BY scope, generation"
    assert _ask(world, kept) == [
        *(("buildkit", number) for number in (3, 4, 5)),
        *(("tools", number) for number in (2, 3, 4)),
    ]


def test_however_many_they_are_none_is_forgotten_within_the_grace_period(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.expire._GENERATIONS", 0)
    monkeypatch.setattr("maintainer.graph.expire._GENERATIONS_FOR", timedelta(0))
    world.build("base", "web")
    world.gc()
    world.evict_entries(one for one in world.entries() if one.key.endswith(("#1", "#2")))
    numbers = "SELECT generation FROM generations ORDER BY generation"
    for hours, expected in [(1, [1, 2, 3]), (23, [1, 2, 3]), (2, [3])]:
        world.passes(hours=hours)
        world.gc(dry_run=True)
        assert _ask(world, numbers) == [(number,) for number in expected]


def test_a_generation_that_is_gone_and_that_nothing_has_replaced_is_not_forgotten(
    world: World,
) -> None:
    world.gc()
    world.evict("api")
    world.evict_entries(entry for entry in world.entries() if entry.key.startswith("index-"))
    for _ in range(3):
        world.passes(days=40)
        world.gc(dry_run=True)

    assert _ask(world, "SELECT generation, is_stored FROM generations") == [(1, 0)]


def test_a_file_is_small_again_once_most_of_what_it_held_is_forgotten(world: World) -> None:
    need_sqlite()
    others = [world.put(f"npm-{number}", size=1) for number in range(8_000)]
    world.gc()
    large = world.database.stat().st_size
    world.evict_entries(others)
    world.gc(accept_loss=True)
    world.passes(days=91)
    world.gc()

    world.gc()

    assert world.database.stat().st_size < large / 3


def test_a_file_that_somebody_else_writes_to_stays_as_large_as_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_sqlite()
    monkeypatch.setattr("maintainer.graph.sqlite._PATIENCE", 0.1)
    with closing(sqlite3.connect(world.database)) as other:
        other.execute("CREATE TABLE filled AS SELECT randomblob(4000000)")
        other.execute("DROP TABLE filled")
        size = world.database.stat().st_size

        with closing(Database(url_of(world.database))) as database, database.lease("x"):
            other.execute("BEGIN IMMEDIATE")

    assert world.database.stat().st_size == size


def test_a_run_waits_for_no_reader_to_give_space_back_and_the_space_is_given_back_after_it(
    world: World,
) -> None:
    need_sqlite()
    with closing(sqlite3.connect(world.database)) as reader:
        reader.execute("CREATE TABLE filled AS SELECT randomblob(4000000)")
        reader.execute("DROP TABLE filled")
        size = world.database.stat().st_size
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM run").fetchall()
        with closing(Database(url_of(world.database))) as database:
            began_at = time.monotonic()
            with database.lease("x"):
                pass
            assert time.monotonic() - began_at < _PATIENCE / 2

    assert world.database.stat().st_size < size / 2


@pytest.mark.each_database
def test_the_indexes_that_a_run_has_read_are_counted_without_the_blobs_it_has_checked(
    world: World,
) -> None:
    world.build("base", "web", scope="web")

    report = world.gc(verify_after="1h")

    assert report.contents.checked == 3
    assert _ask(world, "SELECT indexes_read FROM runs") == [(2,)]


def test_the_tags_that_a_run_has_read_are_counted(tmp_path: Path) -> None:
    place = directories.a_directory(tmp_path)
    place.build("base", "web", tag="web")
    place.build("base", "api", tag="api")
    place.gc()
    place.build("base", "new", tag="api")

    place.gc()

    assert query(place.database, "SELECT indexes_read FROM runs ORDER BY id") == [(2,), (1,)]


@pytest.mark.each_database
def test_a_ref_is_forgotten_once_nothing_of_it_was_stored_for_three_months(world: World) -> None:
    pull = "refs/pull/7/merge"
    world.build("base", "new", scope="feature", ref=pull)
    world.gc(readable=[pull])
    world.evict_entries([one for one in world.entries() if one.ref == pull])
    known = "SELECT name FROM ref UNION SELECT name FROM scope ORDER BY name"
    world.passes(days=30)
    world.gc()
    world.passes(days=59)
    world.gc()
    assert _ask(world, known) == [("buildkit",), ("feature",), (MAIN,), (pull,)]

    world.passes(days=32)
    world.gc()

    assert _ask(world, known) == [("buildkit",), (MAIN,)]
    for table in ("cache_index", "memory", "generation"):
        assert _ask(world, f"SELECT count(*) FROM {table}") == [(1,)]
    assert _ask(world, "SELECT count(*) FROM blob") == [(2,)]


@pytest.mark.each_database
def test_an_index_of_a_ref_that_runs_read_is_remembered_however_long_it_is_gone(
    world: World,
) -> None:
    """Its blobs are stored in another ref, and dry runs forget nothing for good."""
    branch = "refs/heads/release"
    world.export(built("base", "api"), scope="release", ref=branch)
    world.gc(ref=branch, readable=[MAIN], dry_run=True)
    world.evict_entries([one for one in world.entries() if one.ref == branch])
    for _ in range(4):
        world.passes(days=40)
        world.gc(ref=branch, readable=[MAIN], dry_run=True)

    world.gc(ref=branch, readable=[MAIN])

    assert leads_to(world.newest("release", branch)) == {blob_of("base"), blob_of("api")}


@pytest.mark.parametrize(("dry_run", "state"), [(True, "evicted"), (False, "deleted")])
@pytest.mark.each_database
def test_only_a_killed_run_that_deletes_explains_what_is_gone(
    world: World, dry_run: bool, state: str
) -> None:
    orphan = f"buildkit-blob-1-{blob_of('orphan')}"
    world.put(orphan, size=10)
    world.passes(days=3)
    world.gc(dry_run=True)
    _leave_as_killed(world, dry_run=dry_run)
    world.passes(hours=1)
    world.evict("orphan")

    world.gc()

    assert _ask(world, f"SELECT state FROM entries WHERE key = '{orphan}'") == [(state,)]


def test_what_goes_long_after_a_killed_run_was_not_deleted_by_it(world: World) -> None:
    orphan = f"buildkit-blob-1-{blob_of('orphan')}"
    world.put(orphan, size=10)
    world.passes(days=3)
    world.gc(dry_run=True)
    _leave_as_killed(world, dry_run=False)
    world.passes(hours=1)
    world.gc(no_sweep=True)
    world.passes(hours=1)
    world.evict("orphan")

    world.gc()

    assert _ask(world, f"SELECT state FROM entries WHERE key = '{orphan}'") == [("evicted",)]


def test_a_run_that_cannot_read_indexes_does_not_say_that_none_is_usable(world: World) -> None:
    world.gc()
    world.passes(minutes=1)
    environment = world.running.environment(MAIN)
    del environment["ACTIONS_RUNTIME_TOKEN"]
    world.gc_in(environment, grace=timedelta(0))
    world.passes(minutes=1)

    report = world.gc()

    assert [point.usable for point in report.trend.points] == [2, None, 2]
