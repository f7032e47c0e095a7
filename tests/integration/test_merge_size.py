"""What is merged into an index keeps it as small as `max_merge_size`; no export loses anything."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from maintainer.cacheconfig import IndexId, Ref, Scope, encode
from maintainer.emulator.requests import Request
from maintainer.graph.database import Database
from maintainer.graph.explain import explain
from maintainer.report import Report
from maintainer.report.why import render_why
from maintainer.stores.objects.store import ObjectStore
from maintainer.stores.s3.client import open_bucket
from tests.empty_database import url_of
from tests.integration.invariants import import_index
from tests.integration.simulated_runs import Memory
from tests.integration.world import MAIN, World, a_world, blob_of, built, leads_to
from tests.stores.contract import NO_GRACE
from tests.stores.runs import run_on
from tests.stores.s3 import BLOBS, MANIFESTS, Moto, a_server

_SIZE = 6_000
"""Bytes: room for a dozen results."""
_REASON = f"used longest ago: max_merge_size is {_SIZE:,} bytes"
_INDEX = IndexId(Ref(MAIN), Scope("buildkit"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _steps(build: str, count: int) -> list[str]:
    return [f"{build} {number}" for number in range(count)]


def _blobs(steps: Sequence[str]) -> set[str]:
    return set(map(blob_of, steps))


def _size(world: World) -> int:
    """Return the bytes of the index that builders read."""
    indexes = [one for one in world.entries() if one.key.startswith("index-")]
    return max(indexes, key=lambda one: one.created_at).size


def _written(report: Report) -> list[str]:
    return [one.sentence for one in report.actions if one.kind == "write"]


def _why(world: World, subject: str) -> str:
    with closing(Database(url_of(world.database))) as database, database.reading() as connection:
        return render_why(explain(connection, subject)).plain


def test_a_merge_grows_to_the_size_that_its_owner_allows_and_has_what_builds_used_last(
    world: World,
) -> None:
    for build in "abcdefgh":
        world.build(*_steps(build, 3))
        world.passes(hours=1)

    report = world.gc(max_merge_size=_SIZE)

    assert _REASON in _written(report)[0]
    assert 0.9 * _SIZE < _size(world) <= _SIZE
    found = leads_to(world.newest())
    assert _blobs(_steps("h", 3) + _steps("g", 3)) < found
    assert not _blobs(_steps("a", 3)) & found
    again = world.gc(max_merge_size=_SIZE)
    assert not _written(again)
    assert any(_REASON in one.sentence for one in again.actions)
    assert world.gc(max_merge_size=10 * _SIZE).indexes_written == 1
    assert leads_to(world.newest()) >= _blobs(_steps("a", 3))


def test_why_says_of_what_was_left_out_that_there_is_no_room_and_not_that_it_is_needed(
    world: World,
) -> None:
    for build in "abcdefgh":
        world.build(*_steps(build, 3))
        world.passes(hours=1)
    for _ in range(2):
        world.gc(max_merge_size=_SIZE)
        world.passes(hours=1)

    left_out, needed = (_why(world, blob_of(step)) for step in ("a 1", "h 1"))

    assert "Needed by" not in left_out
    assert "#9 in refs/heads/main has no room for 2 results that need it." in left_out
    assert "has no room" not in needed
    assert "Needed by 2 live results" in needed


def test_what_runs_delete_because_it_was_left_out_is_not_said_to_be_lost(world: World) -> None:
    for build in "abcdefgh":
        world.build(*_steps(build, 3))
        world.passes(hours=1)
    world.passes(days=2)
    world.running.observe(before=lambda _: world.passes(seconds=1))

    first, second = [world.gc(max_merge_size=_SIZE) for _ in range(2)]

    assert sum(one.kind == "delete" for one in first.actions) > 10
    assert [first.results.lost, second.results.lost] == [0, 0]
    assert second.verdict
    assert second.verdict.level == "good"


def test_an_export_that_is_larger_than_that_stays_and_loses_only_what_is_gone(
    world: World,
) -> None:
    world.build(*_steps("old", 3))
    world.passes(hours=1)
    steps = _steps("large", 30)
    world.build(*steps)
    assert _size(world) > _SIZE

    untouched = world.gc(max_merge_size=_SIZE)
    world.evict(steps[-1])
    mended = world.gc(max_merge_size=_SIZE)

    assert not _written(untouched)
    assert untouched.results_usable == 30
    assert _REASON in _written(mended)[0]
    assert leads_to(world.newest()) == _blobs(steps[:-1])
    assert _size(world) > _SIZE


@pytest.mark.parametrize("count", [10, 30])
def test_an_export_while_an_index_is_written_loses_nothing_to_older_results(
    world: World, count: int
) -> None:
    for build in "ab":
        world.build(*_steps(build, 6))
        world.passes(hours=1)
    steps = _steps("new", count)
    export = built(*steps, at=world.now)
    for layer in export.layers:
        world.put(f"buildkit-blob-1-{layer.blob}", size=layer.size)
    once = iter([True])

    def export_meanwhile(request: Request) -> None:
        if request.kind == "look-up" and request.key == _INDEX.prefix and next(once, False):
            world.cache.put(str(_INDEX.key(3)), encode(export), ref=MAIN)

    world.running.observe(before=export_meanwhile)

    report = world.gc(max_merge_size=_SIZE)

    assert next(once, None) is None
    assert report.status == "done", report.problems
    assert leads_to(world.newest()) >= _blobs(steps)
    assert _size(world) <= max(_SIZE, len(encode(export)))


@pytest.fixture(scope="module")
def server() -> Iterator[Moto]:
    with a_server() as moto:
        yield moto


def test_in_a_bucket_the_merge_of_all_names_is_small_and_each_name_keeps_its_export(
    server: Moto, tmp_path: Path
) -> None:
    (memory,) = Memory.make(tmp_path, 1)
    for name in "abcdefgh":
        server.now += timedelta(hours=1)
        server.export(name, *_steps(name, 3))

    async def run() -> Report:
        address = server.address()
        async with open_bucket(address) as bucket:
            layout = address.layout.naming("maintained")
            store = ObjectStore(bucket, layout, max_index_size=2**20)
            return await run_on(store, memory, NO_GRACE, server.now, max_merge_size=_SIZE)

    report = anyio.run(run)

    assert any(_REASON in sentence for sentence in _written(report))
    content = server.keys[MANIFESTS + "maintained"].value
    assert len(content) <= _SIZE
    assert _blobs(_steps("h", 3)) < import_index(content).blobs
    for name in "abcdefgh":
        assert server.blobs_of(name) == _blobs(_steps(name, 3))
    assert {BLOBS + blob for name in "abcdefgh" for blob in _blobs(_steps(name, 3))} <= set(
        server.keys
    )
