"""Something was restored from a backup: a directory, or a service that counts its entries."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import BlobKey
from maintainer.emulator import ActionsCache
from tests.integration import directories
from tests.integration.world import MAIN, World, a_world, blob_of, built

PULL = "refs/pull/7/merge"
DAY = timedelta(days=1)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _save(world: World) -> Callable[[], None]:
    """Save what is stored; return what puts it back, with the number that was given last."""
    saved = []

    def save(cache: ActionsCache) -> None:
        saved.append((dict(cache._entries), dict(cache._places), cache._last_id))

    def put_back(cache: ActionsCache) -> None:
        ((cache._entries, cache._places, cache._last_id),) = saved

    world.running.call(save)
    return lambda: world.running.call(put_back)


def _restores(world: World) -> None:
    """Let a run see many entries that are stored later, and forget them."""
    put_back = _save(world)
    world.passes(hours=1)
    for number in range(30):
        world.put(f"npm-{number}", size=5)
    world.gc(grace=DAY)
    world.passes(hours=2)
    put_back()


def test_an_index_with_a_number_of_before_protects_what_it_may_need(world: World) -> None:
    world.build("base", "api")
    world.put(str(BlobKey(blob_of("x"))), size=10)
    world.gc(grace=DAY)
    _restores(world)
    world.passes(hours=21)
    world.export(built("base", "x", at=world.now), scope="buildkit", ref=PULL)
    world.passes(hours=4)

    world.gc(grace=DAY)

    assert blob_of("x") in world.blobs()


def test_entries_with_numbers_of_before_are_maintained_like_all_others(world: World) -> None:
    world.build("base", "api")
    world.gc(grace=DAY)
    _restores(world)
    world.put(str(BlobKey(blob_of("orphan"))), size=10)
    for day in range(4):
        world.passes(days=1)
        world.build("base", "api", f"step of {day}")
        world.gc(grace=DAY)

    report = world.gc(grace=DAY)

    assert blob_of("orphan") not in world.blobs()
    assert sum(total.entries for total in report.entries) == len(world.entries())


def test_a_service_that_has_lost_all_and_counts_from_one_again_is_an_outage(world: World) -> None:
    world.build("base", *(f"step {number}" for number in range(12)))
    world.gc(grace=DAY)
    stored = len(world.entries())

    def lose(cache: ActionsCache) -> None:
        cache._entries, cache._places, cache._last_id = {}, {}, 0

    world.running.call(lose)
    world.passes(hours=1)
    for number in range(stored + 3):
        world.put(f"npm-{number}", size=5)

    report = world.gc(grace=DAY)

    assert report.status == "failed"
    assert f"only 0 of {stored} known entries" in report.problems[0]


def test_an_index_whose_number_another_entry_has_is_written_again_from_memory(
    world: World,
) -> None:
    world.build("base", "api")
    world.put(str(BlobKey(blob_of("web"))), size=10)
    world.gc(grace=DAY)
    put_back = _save(world)
    world.passes(hours=1)
    world.export(built("base", "web", at=world.now), scope="later", ref=MAIN)
    world.passes(hours=1)
    world.gc(grace=DAY)
    put_back()
    for number in range(5):
        world.put(f"npm-{number}", size=5)

    world.gc(grace=DAY)

    assert blob_of("web") in world.newest("later").blobs


def test_the_newest_export_stays_in_a_full_cache_that_gives_its_number_again(world: World) -> None:
    put_back = _save(world)
    world.build("base", "old")
    world.gc()
    world.passes(hours=1)
    put_back()
    world.build("base", "new")
    world.passes(hours=1)
    world.gc(accept_loss=True, no_sweep=True)
    for _ in range(2):
        world.passes(hours=30)
        world.gc(accept_loss=True)

    world.gc(quota=2_200, room={"keep_free": "0B"})

    assert blob_of("new") in world.newest().blobs


def test_an_export_whose_number_another_entry_has_is_not_the_newest(world: World) -> None:
    world.build("base")
    world.gc()
    put_back = _save(world)
    world.put("npm-x", size=5)
    world.build("base", "old")
    world.passes(hours=1)
    world.gc()
    world.passes(hours=1)
    put_back()
    world.build("base", "new")
    world.passes(hours=2)
    world.put("npm-y", size=5)
    world.put("npm-z", size=5)
    world.passes(hours=1)
    for _ in range(3):
        world.gc(accept_loss=True)
        world.passes(hours=30)
    room = {"keep_free": "0B"}
    stays = world.gc(dry_run=True, quota=100_000_000, room=room).room
    assert stays

    report = world.gc(dry_run=True, quota=stays.stored - 900, room=room)

    assert report.room
    assert blob_of("new") not in {one.digest for one in report.room.departures}


def test_a_blob_that_was_gone_has_its_grace_period_once_it_is_back(tmp_path: Path) -> None:
    world = directories.a_directory(tmp_path)
    world.build("base", "x", tag="web")
    world.build("base", "api")
    world.gc()
    backup = shutil.copytree(world.path, tmp_path / "backup", copy_function=shutil.copy2)
    index = json.loads((world.path / "index.json").read_bytes())
    index["manifests"] = [one for one in index["manifests"] if "web" not in str(one)]
    (world.path / "index.json").write_text(json.dumps(index))
    world.touch(world.path / "index.json")
    world.gc()
    world.passes(hours=25)
    world.gc()
    assert not world.steps("x")
    shutil.rmtree(world.path)
    shutil.copytree(backup, world.path, copy_function=shutil.copy2)
    world.passes(hours=2)
    world.build("base", "y", tag="web")
    world.passes(minutes=10)

    world.gc()

    assert world.steps("x")
