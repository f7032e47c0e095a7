"""How large an index may become by what is merged into it, and what never leaves it for that."""

from collections.abc import Set as AbstractSet
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import (
    NO_REF,
    CacheConfig,
    Digest,
    IndexId,
    Scope,
    Sink,
    encode,
    merge,
    with_sink,
)
from maintainer.cacheconfig.bounds import has_at_most
from maintainer.cacheconfig.oci import IMPORT_LIMIT
from maintainer.mark import mark
from maintainer.model.decision import Rules
from maintainer.model.marks import Index
from maintainer.model.reason import LeftForRoom
from maintainer.model.snapshot import Snapshot
from maintainer.model.store import StoreFacts
from maintainer.plan import make_plan
from maintainer.report.reasons import format_reason
from tests.integration.world import blob_of, built, leads_to
from tests.snapshots import LONG_AGO, NOW, World, a_snapshot, ago, hours
from tests.worlds import BLOBS, any_index, builds_of_one_repository

_SIZE = 4_000
"""Bytes: room for eight results."""
_LEFT = LeftForRoom(since=NOW, needed_at=NOW, size=10, place=1, freed=10)


def _of(*configs: CacheConfig) -> World:
    """Let builds export these to one index, the last one now; all their blobs exist."""
    world = a_snapshot()
    for number, config in enumerate(configs):
        world.with_index(number + 1, config, age=hours(len(configs) - number)).by_a_build()
    return world


def _limited(
    world: World, size: int | None = _SIZE, gone: AbstractSet[Digest] = frozenset()
) -> Snapshot:
    snapshot = world.build()
    blobs = frozenset[Digest]().union(*(one.blobs for one in snapshot.generations))
    return replace(snapshot, live_blobs=blobs - gone, max_merge_size=size)


def _index(snapshot: Snapshot) -> Index:
    (index,) = mark(snapshot).indexes
    return index


def _with_results(config: CacheConfig) -> set[str]:
    return {record.digest for record in config.records if record.results}


def _size(config: CacheConfig) -> int:
    return len(encode(with_sink(config, Sink.MERGE)))


@given(any_index(), st.integers(min_value=200, max_value=20_000))
def test_what_is_said_to_be_small_enough_is(config: CacheConfig, limit: int) -> None:
    assert has_at_most(config, limit) == (_size(config) <= limit)


@given(builds_of_one_repository(count=3), st.sets(st.sampled_from(BLOBS)), st.integers(1, 6_000))
def test_an_index_grows_to_the_limit_and_never_loses_what_builders_find(
    exports: list[CacheConfig], gone: set[Digest], size: int
) -> None:
    snapshot = _limited(_of(*exports), size, gone)

    index = _index(snapshot)

    found, kept = index.usable, index.merged
    assert has_at_most(kept, size) or kept.result_count <= exports[-1].result_count
    assert _with_results(found) <= _with_results(kept)
    assert index.omitted >= 0


def test_what_builds_used_longest_ago_is_left_out() -> None:
    old, new = built(*"abcdef", at=ago(hours(9))), built(*"uvwxyz", at=ago(hours(2)))

    index = _index(_limited(_of(old, new)))

    assert leads_to(new) < leads_to(index.merged)
    assert index.omitted == 12 - index.merged.result_count > 0


def test_what_a_build_has_found_again_stays_although_it_is_older() -> None:
    old, new = built(*"abcdef", at=ago(hours(9))), built(*"uvwxyz", at=ago(hours(2)))

    index = _index(_limited(_of(new, old)))

    assert leads_to(old) < leads_to(index.merged)


def test_what_a_build_has_exported_counts_as_used_then_although_it_made_nothing() -> None:
    base, newer = built(*"abcd", at=ago(hours(99))), built(*"uvwxyz", at=ago(hours(50)))

    index = _index(_limited(_of(newer, base, built("last"))))

    assert leads_to(base) < leads_to(index.merged)
    assert not leads_to(newer) <= leads_to(index.merged)


def test_what_a_run_has_written_shows_no_use() -> None:
    base, newer = built(*"abcd", at=ago(hours(99))), built(*"uvwxyz", at=ago(hours(50)))
    world = a_snapshot().with_index(1, merge([base, newer]), age=hours(2))
    world.with_index(2, built("last"), age=hours(1)).by_a_build()

    index = _index(_limited(world))

    assert leads_to(newer) < leads_to(index.merged)
    assert not leads_to(base) <= leads_to(index.merged)


def test_what_leaves_to_make_room_is_not_written_again_for_want_of_room_for_the_rest() -> None:
    snapshot = _limited(_of(built(*"abcdefghi"), built(*"xyz")))

    index = _index(replace(snapshot, departed={blob_of("z"): _LEFT}))

    assert leads_to(index.merged) > {blob_of("x"), blob_of("y")}
    assert blob_of("z") not in index.merged.blobs
    assert index.omitted > 0


def test_what_leaves_to_make_room_leaves_an_export_that_is_larger_than_merges_may_be() -> None:
    export = merge([built(*"abcdefghijklmnop")])
    snapshot = _limited(_of(built(*"uvw"), export))

    index = _index(replace(snapshot, departed={blob_of("p"): _LEFT}))

    assert leads_to(index.merged) == leads_to(export) - {blob_of("p")}
    assert _size(index.merged) > _SIZE


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (_SIZE, "max_merge_size is 4,000 bytes"),
        (2 * IMPORT_LIMIT, "importers read 1,048,576 bytes"),
    ],
)
def test_the_reason_says_which_limit_leaves_no_room(size: int, reason: str) -> None:
    steps = [f"{letter * 300_000}" for letter in "abcd"]
    tag = IndexId(NO_REF, Scope("api"))
    world = a_snapshot(reading=(NO_REF,), writing=(NO_REF,))
    for step in steps:
        world.with_blob(step, ref=NO_REF)
    world.remembering(1, *steps, "gone", of=tag)
    snapshot = world.build()
    snapshot = replace(
        snapshot,
        generations=tuple(replace(one, exists=True) for one in snapshot.generations),
        facts=StoreFacts(ago(LONG_AGO), index_limit=IMPORT_LIMIT),
        max_merge_size=size,
    )

    (write,) = make_plan(mark(snapshot), Rules(hours(24))).writes

    assert format_reason(write.reason).endswith(reason)


def test_an_index_without_a_limit_holds_everything() -> None:
    index = _index(_limited(_of(built(*"abcdef"), built(*"uvwxyz")), None))

    assert index.merged.result_count == 12
