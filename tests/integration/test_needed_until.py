"""The grace period begins when builders last read what needed an entry, however that came about."""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    IndexId,
    Layer,
    Record,
    Ref,
    Result,
    Scope,
    encode,
    merge,
)
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.emulator import Entry, Fault, FaultPlan
from maintainer.graph.explain import explain
from maintainer.report.why import render_why
from tests.integration.invariants import watched
from tests.integration.world import MAIN, START, World, a_world, blob_of, leads_to

DAY = timedelta(days=1)
BUILDKIT = IndexId(Ref(MAIN), Scope("buildkit"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _leads(key: str, blob: str, at: datetime) -> CacheConfig:
    """Return an index in which one cache key leads to one layer."""
    time = Nanoseconds(int(at.timestamp()) * 10**9)
    layer = Layer(
        blob=blob_of(blob),
        parent=-1,
        diff_id=blob_of(f"diff of {blob}"),
        media_type="application/vnd.oci.image.layer.v1.tar+gzip",
        size=10,
        created_at=time,
    )
    record = Record(
        digest=f"sha256:{hashlib.sha256(key.encode()).hexdigest()}",
        results=(Result((0,), with_parents=True, created_at=time),),
        inputs=(),
    )
    return CacheConfig((layer,), (record,))


def _export(world: World, *configs: CacheConfig, number: int | None = None) -> Entry:
    """Export an index, with its blobs; by default under the next number."""
    config = merge(configs)
    for layer in config.layers:
        key = str(BlobKey(layer.blob))
        if key not in {entry.key for entry in world.entries()}:
            world.put(key, size=layer.size)
    if number is None:
        return world.export(config, scope="buildkit", ref=MAIN)
    return world.put(str(BUILDKIT.key(number)), encode(config))


def test_a_clock_begins_again_though_a_run_could_not_read_everything(world: World) -> None:
    # The newest index leads to an older layer than the one before, so that a merge displaces it.
    _export(world, _leads("K", "newer", START - 2 * DAY))
    world.passes(hours=1)
    _export(world, _leads("K", "older", START - 3 * DAY), _leads("L", "other", START))
    world.passes(hours=1)
    world.gc(dry_run=True)
    world.passes(days=3)
    world.build("docs", scope="docs")
    # The only index that is new cannot be read, however often; what is written is read back.
    world.running.inject(FaultPlan((Fault(kind="status", request="download", nth=1, times=6),)))
    assert world.gc().indexes_written == 1
    world.passes(hours=1)

    with watched(world, grace=DAY, readable=[MAIN]) as watcher:
        world.gc()

    assert watcher.problems == []
    assert blob_of("older") in world.blobs()


def test_builders_read_what_was_created_last_whatever_its_number(world: World) -> None:
    # The second was reserved first, and finished after the third.
    _export(world, _leads("L", "other", START))
    world.passes(minutes=1)
    _export(world, _leads("L", "other", START), number=3)
    world.passes(minutes=1)
    _export(world, _leads("K", "older", START - DAY), number=2)
    world.passes(days=5)
    assert leads_to(world.newest()) == {blob_of("older")}
    _export(world, _leads("K", "newer", world.now), number=4)
    world.passes(hours=1)

    with watched(world, grace=DAY, readable=[MAIN]) as watcher:
        world.gc()

    assert watcher.problems == []
    assert blob_of("older") in world.blobs()
    world.passes(days=2)
    world.gc()
    assert blob_of("older") not in world.blobs()


def test_a_superseded_generation_is_needed_again_while_the_newer_ones_are_gone(
    world: World,
) -> None:
    _export(world, _leads("K", "older", START), _leads("L", "other", START))
    world.passes(hours=1)
    _export(world, _leads("K", "newer", world.now))
    world.passes(hours=1)
    world.gc()
    world.passes(days=1)
    world.evict_entries([entry for entry in world.entries() if entry.key.endswith(("#2", "#3"))])
    assert leads_to(world.newest()) == {blob_of("older"), blob_of("other")}
    world.passes(days=5)
    _export(world, _leads("M", "more", world.now))
    world.passes(hours=1)

    with watched(world, grace=DAY, readable=[MAIN]) as watcher:
        world.gc()

    assert watcher.problems == []
    assert blob_of("older") in world.blobs()


def test_what_an_evicted_generation_needed_was_needed_until_builders_read_the_next(
    world: World,
) -> None:
    _export(world, _leads("K", "newer", START - 2 * DAY))
    world.passes(hours=1)
    second = _export(world, _leads("K", "older", START - 3 * DAY))
    world.passes(hours=1)
    world.gc(dry_run=True)
    world.passes(days=3)
    _export(world, _leads("M", "more", world.now))
    world.evict_entries([second])
    world.passes(hours=1)

    world.gc()

    assert blob_of("older") in world.blobs(), "builders read what needs it until an hour ago"
    world.passes(days=2)
    world.gc()
    assert blob_of("older") not in world.blobs()


def test_runs_that_cannot_read_a_ref_do_not_restart_the_clocks_there(world: World) -> None:
    other = "refs/heads/other"
    world.build("base", "api", ref=other)
    world.put(str(BlobKey(blob_of("orphan"))), ref=other)
    for _ in range(3):
        world.passes(hours=12)
        world.gc(ref=other, readable=(other, MAIN), grace=DAY)
        world.passes(hours=1)
        world.build("base", "web")
        world.gc(grace=DAY)

    assert blob_of("orphan") not in world.blobs(other)


def test_why_does_not_say_since_when_something_is_unreferenced_where_the_run_cannot_read(
    world: World,
) -> None:
    other = "refs/heads/other"
    world.put(str(BlobKey(blob_of("orphan"))), ref=other)
    world.build("base", "api", ref=other)
    world.passes(hours=1)
    world.gc(ref=other, readable=(other, MAIN), grace=DAY)
    world.passes(hours=1)
    world.build("base", "web")
    world.gc(grace=DAY)

    with world.databases[world.database].reading() as connection:
        text = render_why(explain(connection, blob_of("orphan"))).plain

    assert "unreadable ref: " in text
