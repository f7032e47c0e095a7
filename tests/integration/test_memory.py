"""What the graph forgets of runs, so that a service can run for years on one file."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.world import MAIN, World, a_world, blob_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        world.build("base", "api")
        yield world


def _ask(world: World, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(world.database)) as connection:
        return connection.execute(query).fetchall()


def _leave_as_killed(world: World, *, dry_run: bool) -> None:
    """Leave the only run so far as one that was killed behind its plan."""
    with closing(sqlite3.connect(world.database)) as connection:
        connection.execute(
            "UPDATE run SET status = 'running', finished_at = NULL, dry_run = ?", (dry_run,)
        )
        connection.commit()


def test_of_runs_that_changed_nothing_only_the_newest_keep_their_report(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.runs._REPORTS", 2)
    world.build("base", "web")
    for _ in range(5):
        world.gc()
        world.passes(minutes=1)

    assert _ask(world, "SELECT id, report IS NOT NULL FROM run") == [
        (1, 1),
        (2, 0),
        (3, 0),
        (4, 1),
        (5, 1),
    ]
    assert _ask(world, "SELECT DISTINCT run FROM actions") == [(1,), (4,), (5,)]


def test_runs_of_long_ago_and_beyond_a_number_are_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.runs._RUNS", 3)
    for _ in range(4):
        world.gc()
        world.passes(minutes=1)
    assert _ask(world, "SELECT id FROM runs ORDER BY id") == [(2,), (3,), (4,)]
    world.passes(days=91)

    world.gc()

    assert _ask(world, "SELECT id FROM runs") == [(5,)]


@pytest.mark.parametrize(("dry_run", "state"), [(True, "evicted"), (False, "deleted")])
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
