"""GitHub's cache is full, and the database is older than the newest export."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.empty_database import make_empty
from tests.integration.world import World, a_world, blob_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def test_the_newest_export_stays_in_a_full_cache_although_the_database_never_saw_it(
    world: World,
) -> None:
    world.build("base", "old")
    world.passes(hours=1)
    world.gc()
    backup = shutil.copy(world.database, world.database.with_suffix(".copy"))
    world.passes(days=9)
    world.build("base", "new")
    world.passes(hours=1)
    for _ in range(2):
        world.gc()
        world.passes(hours=30)
    shutil.copy(backup, world.database)

    world.gc(quota=2_000, room={"keep_free": "0B"})

    assert world.newest().blobs >= {blob_of("base"), blob_of("new")}


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=60)], ids=["right", "ahead"])
def test_once_a_lost_database_is_made_again_old_results_leave_a_full_cache(
    ahead: timedelta, world: World
) -> None:
    for day in range(3):
        world.build("base", f"old {day}")
        world.passes(hours=1)
        world.gc()
        world.passes(hours=23)
    make_empty(world.database)
    right = world.now
    world.cache.clock = lambda: right
    world.now += ahead
    world.gc(no_sweep=True)
    world.now = right
    world.cache.clock = lambda: world.now
    for day in range(40):
        world.passes(hours=23)
        world.build("base", f"new {day % 3}")
        world.passes(hours=1)
        world.gc()
    room = {"keep_free": "0B"}
    stays = world.gc(dry_run=True, quota=100_000_000, room=room).room
    assert stays

    report = world.gc(quota=stays.stored * 2 // 3, room=room)

    assert report.room
    assert report.room.departures
