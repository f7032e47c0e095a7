"""What is counted and what is protected when a run makes room, and what leaves then."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, Record, Result, Scope, Sink
from maintainer.cacheconfig.timestamps import Nanoseconds, to_datetime
from maintainer.making_room import choose
from maintainer.mark import mark
from maintainer.model.decision import Rules
from maintainer.model.marks import Marks, State
from maintainer.model.reason import (
    DropMissing,
    LeftForRoom,
    Merge,
    ProtectedExceedsLimit,
)
from maintainer.model.room import Room
from maintainer.model.stock import LastExport, Needs, Stock, newest_exports, newest_rewrites
from maintainer.plan import make_plan
from tests.snapshots import (
    MAIN,
    MERGE,
    NOW,
    RELEASE,
    SIGNED_WEB,
    WEB,
    World,
    a_snapshot,
    ago,
    an_index,
    blob,
    hours,
)

DAY = timedelta(days=1)
API = IndexId(MAIN, Scope("api"))
LEAVES = LeftForRoom(needed_at=ago(9 * DAY), size=20, place=1, freed=10)


def _digests(*names: str) -> frozenset[Digest]:
    return frozenset(map(blob, names))


def _stock(marks: Marks, rules: Rules) -> Stock:
    stock = Stock()
    stock.add(marks.marks, make_plan(marks, rules))
    return stock


def _choose(
    world: World,
    most: int,
    *,
    needed: Mapping[str, timedelta] = {},
    exports: Mapping[IndexId, LastExport] = {},
    grace: timedelta = DAY,
) -> Room:
    """Return what leaves, so that no more than so many bytes stay; a blob and an index take 10."""
    marks = mark(world.build())
    needs = Needs({blob(name): ago(age) for name, age in needed.items()}, exports)
    stock = _stock(marks, Rules(grace=grace))
    return choose(marks, stock, needs, most, grace)


def _old() -> World:
    """Return an index of two chains that stand on one layer; nobody has used it for a month."""
    world = a_snapshot().with_blobs("base", "a", "b")
    return world.with_generation(1, ("base", "a"), ("base", "b"))


def test_everything_is_counted_and_what_is_unreferenced_leaves_anyway() -> None:
    world = _old().with_entry("node-modules").with_blobs("due")
    world.with_blob("in grace", age=hours(1)).with_entry("release", ref=RELEASE)

    stock = _stock(mark(world.build()), Rules(grace=DAY))

    assert (stock.stored, stock.leaving) == (80, 20)
    assert stock.sizes == dict.fromkeys(_digests("base", "a", "b"), 10)


def test_a_blob_in_two_refs_counts_twice_and_was_used_when_either_was() -> None:
    world = a_snapshot(reading=(RELEASE,)).with_blob("a", age=9 * DAY, used=3 * DAY)
    world.with_blob("a", ref=RELEASE, age=8 * DAY, used=2 * DAY).with_generation(1, "a")

    stock = _stock(mark(world.build()), Rules(grace=DAY))

    assert stock.sizes == {blob("a"): 20}
    assert stock.used_at == {blob("a"): ago(2 * DAY)}


def test_the_result_needed_longest_ago_leaves() -> None:
    room = _choose(_old(), 30, needed={"base": 2 * DAY, "a": 9 * DAY, "b": 2 * DAY})

    assert room.departed == {blob("a"): LEAVES}
    assert room.remaining == 30


def test_a_look_up_by_a_build_counts_as_a_need() -> None:
    world = a_snapshot().with_blobs("base", "b").with_blob("a", used=timedelta(days=2))
    world.with_generation(1, ("base", "a"), ("base", "b"))

    room = _choose(world, 30, needed={"base": 5 * DAY, "a": 9 * DAY, "b": 5 * DAY})

    assert room.departed.keys() == {blob("b")}


def test_a_result_of_which_nobody_knows_when_it_was_needed_counts_as_needed_when_it_was_made() -> (
    None
):
    marks = mark(_old().build())
    stock = _stock(marks, Rules(grace=DAY))
    stock.used_at.clear()

    room = choose(marks, stock, Needs({}, {}), 10, DAY)

    assert {departure.branch.needed_at for departure in room.departures} == {
        to_datetime(Nanoseconds(0))
    }


def test_what_a_build_exported_within_the_grace_period_stays_with_what_it_stands_on() -> None:
    room = _choose(_old(), 20, needed={"a": DAY - timedelta(microseconds=1)})

    assert room.blocked == ProtectedExceedsLimit(limit=20, protected=20, others=10)

    room = _choose(_old(), 30, needed={"a": DAY - timedelta(microseconds=1), "b": DAY})

    assert room.departed.keys() == {blob("b")}


def test_so_does_what_a_build_looked_up_within_the_grace_period() -> None:
    world = a_snapshot().with_blobs("base", "b").with_blob("a", used=hours(23))
    world.with_generation(1, ("base", "a"), ("base", "b"))

    room = _choose(world, 20, needed=dict.fromkeys(("base", "a", "b"), 9 * DAY))

    assert room.blocked == ProtectedExceedsLimit(limit=20, protected=20, others=10)


def test_what_it_stands_on_stays_down_to_the_lowest_layer() -> None:
    world = a_snapshot().with_blobs("base", "mid", "top").with_generation(1, ("base", "mid", "top"))

    room = _choose(world, 30, needed={"base": 9 * DAY, "mid": 9 * DAY, "top": hours(1)})

    assert room.blocked == ProtectedExceedsLimit(limit=30, protected=30, others=10)


def test_what_a_build_exported_a_grace_period_ago_may_leave() -> None:
    room = _choose(_old(), 10, needed={"base": DAY, "a": DAY, "b": DAY})

    assert room.departed.keys() == _digests("base", "a", "b")


def test_the_newest_export_of_an_index_is_protected_for_seven_days() -> None:
    blobs, week = _digests("base", "a"), timedelta(days=7)
    needed = {"base": 2 * DAY, "a": week, "b": 2 * DAY}

    for age, gone in ((week - timedelta(microseconds=1), "b"), (week, "a"), (2 * week, "a")):
        room = _choose(_old(), 30, needed=needed, exports={WEB: LastExport(blobs, ago(age))})

        assert room.departed.keys() == {blob(gone)}


def test_what_an_index_references_that_cannot_be_written_stays() -> None:
    world = a_snapshot(reading=(RELEASE,)).with_blobs("a", "b", "c", "d")
    world.with_generation(1, "a", of=IndexId(RELEASE, Scope("web")))
    world.with_generation(1, "b", of=SIGNED_WEB).with_generation(1, "c", "d")

    assert _choose(world, 50).departed.keys() == _digests("c", "d")


def test_so_does_what_only_its_older_generations_reference() -> None:
    released = IndexId(RELEASE, Scope("web"))
    world = a_snapshot(reading=(RELEASE,)).with_blobs("a", "b", "c", "d")
    world.with_generation(1, "a", of=released).with_generation(2, "b", of=released)
    world.with_generation(1, "c", "d")

    assert _choose(world, 49).departed.keys() == _digests("c", "d")


def test_a_merge_is_not_counted_again_but_keeps_what_it_references_if_a_build_has_written_it() -> (
    None
):
    world = a_snapshot().with_blobs("a", "b").with_generation(1, "a", "b")
    world.with_generation(1, "a", of=MERGE).by_a_build()
    snapshot = replace(world.build(), merged_scope=Scope("maintained"))
    marks = mark(snapshot)

    room = choose(marks, _stock(marks, Rules(grace=DAY)), Needs({}, {}), 30, timedelta(0))

    assert room.departed.keys() == {blob("b")}


def test_a_merge_that_could_not_be_read_keeps_what_it_may_reference() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(1, "a", "b")
    world.with_generation(1, "a", of=MERGE).with_unread_generation(2, of=MERGE)
    snapshot = replace(world.build(), merged_scope=MERGE.scope)
    merge = replace(snapshot.generations[1], sink=Sink.MERGE)
    marks = mark(replace(snapshot, generations=(snapshot.generations[0], merge)))

    room = choose(marks, _stock(marks, Rules(grace=DAY)), Needs({}, {}), 30, timedelta(0))

    assert blob("a") not in room.departed


def test_the_newest_export_is_the_last_one_that_a_build_wrote() -> None:
    world = a_snapshot().with_blobs("a")
    world.with_generation(1, "a", age=3 * DAY).by_a_build()
    world.with_generation(2, "a", age=2 * DAY).by_a_build().with_generation(3, "a", age=DAY)
    world.with_invalid_generation(4, age=hours(1))

    newest = newest_exports(world.build().generations)

    assert {index: one.number for index, one in newest.items()} == {WEB: 2}


def test_what_a_run_wrote_counts_as_the_newest_export_if_no_other_is_known() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a", age=2 * DAY, of=API)
    world.with_generation(2, "a", age=DAY, of=API).with_generation(1, "a", of=MERGE)
    generations = [
        replace(one, sink=Sink.MERGE) if one.index == MERGE else one
        for one in world.build().generations
    ]

    newest = newest_exports(generations)

    assert {index: one.number for index, one in newest.items()} == {API: 2}


def test_the_newest_rewrite_is_the_last_one_that_a_run_wrote() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a", age=3 * DAY)
    world.with_generation(2, "a", age=2 * DAY).with_generation(3, "a", age=DAY).by_a_build()
    world.with_generation(1, "a", of=API).by_a_build()

    newest = newest_rewrites(world.build().generations)

    assert {index: one.number for index, one in newest.items()} == {WEB: 2}


def _departed(world: World, *names: str) -> Marks:
    return mark(replace(world.build(), departed=dict.fromkeys(_digests(*names), LEAVES)))


def test_what_has_left_is_not_in_the_merge_and_is_unreferenced_once_the_index_is_written() -> None:
    marks = _departed(_old(), "a")

    (index,) = marks.indexes
    assert index.merged.blobs == _digests("base", "b")
    (found,) = [one for one in marks.marks if getattr(one.entry.parsed, "digest", "") == blob("a")]
    assert (found.state, found.reason, found.since) == (State.DANGLING, LEAVES, NOW)
    (write,) = make_plan(marks, Rules(grace=DAY)).writes
    assert write.reason == DropMissing(leaving=1)


def test_an_older_result_does_not_take_the_place_of_what_has_left() -> None:
    config = an_index("old", "new")
    results = tuple(Result((layer,), True, Nanoseconds(layer)) for layer in (0, 1))
    both = CacheConfig(config.layers, (Record("key", results, ()),))
    world = a_snapshot().with_blobs("old", "new").with_index(1, both)
    (index,) = mark(world.build()).indexes
    assert index.merged.blobs == _digests("new")

    (index,) = _departed(world, "new").indexes

    assert index.merged.blobs == frozenset()


def test_a_merge_of_generations_says_what_leaves() -> None:
    world = a_snapshot().with_blobs("base", "a", "b").with_generation(1, ("base", "b"))
    world.with_generation(2, ("base", "a"))

    (write,) = make_plan(_departed(world, "a"), Rules(grace=DAY)).writes

    assert write.reason == Merge(generations=(1,), into=2, leaving=1)


def test_what_leaves_another_index_only_is_not_counted() -> None:
    world = a_snapshot().with_blobs("a", "b", "c").with_generation(1, "a", "c")
    world.with_generation(1, "b", "c", of=API)

    writes = make_plan(_departed(world, "a", "b"), Rules(grace=DAY)).writes

    assert [write.reason for write in writes] == [DropMissing(leaving=1)] * 2


@pytest.mark.parametrize("generations", [(), (1,)], ids=["alone", "merged"])
def test_a_blob_without_content_that_has_left_is_counted_once(generations: tuple[int, ...]) -> None:
    world = a_snapshot().with_blobs("a", "kept")
    world.with_blob("b", lost_for=DAY).with_blob("c", lost_for=DAY)
    for number in generations:
        world.with_generation(number, "kept")
    world.with_generation(2, "a", "b", "c", "missing")

    (write,) = make_plan(_departed(world, "a", "b"), Rules(grace=DAY)).writes

    counts = {"without_content": 2, "missing": 1, "leaving": 1}
    merged = Merge(generations=generations, into=2, **counts)
    assert write.reason == (merged if generations else DropMissing(**counts))


def test_a_blob_that_has_left_and_that_no_index_references_is_deleted_after_its_grace_period() -> (
    None
):
    world = a_snapshot().with_blob("base").with_blob("a", unreferenced_for=DAY)
    world.with_generation(1, "base")

    (delete,) = make_plan(_departed(world, "a"), Rules(grace=DAY)).deletes

    assert delete.reason == msgspec.structs.replace(LEAVES, since=ago(DAY))
