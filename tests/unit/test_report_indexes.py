"""What a report says of each index, and how many results builds can use, whatever has happened."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from msgspec.structs import replace as change

from maintainer.cacheconfig import NO_REF, CacheConfig, Digest, IndexId, Scope, Sink
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.mark import mark
from maintainer.model.content import Content
from maintainer.model.decision import Deletion, Heal, RewriteResult, Rules
from maintainer.model.index import ReadGeneration
from maintainer.model.marks import Index, Marks
from maintainer.model.outcome import Deferred, Done, Failed, Kept, Outcome, Planned, Skipped
from maintainer.model.reason import Exported, WrittenByOtherRun
from maintainer.model.snapshot import Snapshot
from maintainer.plan import make_plan
from maintainer.report.carried_out import CarriedOut, Decided
from maintainer.report.indexes import report_indexes
from maintainer.report.model import IndexReport, ResultTotals
from maintainer.report.results import total_results
from maintainer.report.sizes import BlobSizes
from maintainer.report.totals import EntryTotals
from tests.snapshots import MAIN, MERGE, NOW, WEB, Chain, World, a_snapshot, an_index, blob, hours

API = IndexId(MAIN, Scope("api"))
TAG = IndexId(NO_REF, Scope("web"))
RULES = Rules(grace=hours(24))
NOTHING_DONE = CarriedOut({}, (), dry_run=False)
ONLY_PLANNED = CarriedOut({}, (), dry_run=True)


def _report(
    snapshot: Snapshot,
    carried_out: CarriedOut = NOTHING_DONE,
    *,
    entries: EntryTotals | None = None,
    sizes: Mapping[Digest, int] | None = None,
) -> dict[str, IndexReport]:
    marks = mark(snapshot)
    stored = BlobSizes(marks, _sizes(marks) if sizes is None else sizes)
    plan = make_plan(marks, RULES)
    decided = Decided(marks, plan, None)
    contents = carried_out.contents(decided)
    found = report_indexes(decided, carried_out, contents, entries or EntryTotals(), stored)
    return {one.scope: one for one in found}


def _results(snapshot: Snapshot, carried_out: CarriedOut = NOTHING_DONE) -> ResultTotals:
    marks = mark(snapshot)
    return _totals(marks, carried_out, _sizes(marks))


def _totals(
    marks: Marks, carried_out: CarriedOut, sizes: Mapping[Digest, int] | None = None
) -> ResultTotals:
    contents = carried_out.contents(Decided(marks, make_plan(marks, RULES), None))
    return total_results(marks, contents, BlobSizes(marks, sizes or {}))


def _sizes(marks: Marks) -> dict[Digest, int]:
    return dict.fromkeys(marks.snapshot.live_blobs, 100)


def _read(number: int, *chains: Chain, of: IndexId = WEB) -> ReadGeneration:
    """Return a generation that was written an hour after the snapshot; without chains, invalid."""
    config = an_index(*chains) if chains else None
    at = NOW + hours(1)
    return ReadGeneration(of, number, Content.of(b"{}"), config, None, at, None, None)


def _rewritten(*results: RewriteResult) -> CarriedOut:
    return CarriedOut({one.index: one for one in results}, (), dry_run=False)


def _one_blob_is_gone() -> World:
    return a_snapshot().with_blobs("a").with_generation(1, "a", "b")


WRITTEN = RewriteResult(WEB, _read(3, "a"), ())
FAILED = RewriteResult(WEB, None, (), error="it was refused")
DEFERRED = RewriteResult(WEB, None, (), deferred=Exported())
BY_ANOTHER_RUN = RewriteResult(WEB, None, ())


@pytest.mark.parametrize(
    ("done", "outcome", "number", "broken"),
    [
        (NOTHING_DONE, Planned(), 2, True),
        (ONLY_PLANNED, Planned(), 2, False),
        (_rewritten(WRITTEN), Done(), 3, False),
        (_rewritten(FAILED), Failed("it was refused"), 2, True),
        (_rewritten(DEFERRED), Deferred(Exported()), 2, True),
        (_rewritten(BY_ANOTHER_RUN), Skipped(WrittenByOtherRun()), 2, False),
    ],
)
def test_an_index_shows_what_has_become_of_its_write(
    done: CarriedOut, outcome: Outcome, number: int, broken: bool
) -> None:
    snapshot = _one_blob_is_gone().build()

    one = _report(snapshot, done)["web"]

    assert (one.outcome, one.written) == (outcome, str(WEB.key(number)))
    assert one.still_broken is broken
    assert (one.usable_before, one.usable_after, one.usable_possible) == (1, 1, 1)
    assert (one.blobs_missing, one.results_lost) == (1, 1)


def test_a_written_index_is_a_generation_more_and_the_newest() -> None:
    snapshot = _one_blob_is_gone().build()

    before, after = (_report(snapshot, one)["web"] for one in (NOTHING_DONE, _rewritten(WRITTEN)))

    assert (before.generations_after, after.generations_after) == (1, 2)
    assert before.newest_at == before.oldest_at == after.oldest_at
    assert after.newest_at == NOW + hours(1)


def test_deleted_generations_are_not_counted_any_more() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a").with_generation(2, "a")
    snapshot = world.build()
    marks = mark(snapshot)
    plan, entries = make_plan(marks, RULES), EntryTotals()
    entries.plan(marks.marks, plan.deletes)
    for delete in plan.deletes:
        read_back = change(delete, entry=change(delete.entry, state=delete.state))
        entries.sweep(Deletion(read_back, Done()), frozenset())

    one = _report(snapshot, entries=entries)["web"]

    assert (one.generations, one.generations_after) == (2, 1)


def test_what_a_build_exported_meanwhile_is_what_builders_find() -> None:
    world = a_snapshot().with_blobs("a", "c").with_generation(1, "a", "b")
    merged = RewriteResult(WEB, _read(3, "a", "c"), (_read(2, "c"),))
    done = _rewritten(merged)

    one = _report(world.build(), done)["web"]

    assert one.usable_after == 2
    assert done.exported == {blob("c")}
    assert done.written == done.done == {WEB}


def test_only_what_was_planned_and_not_done_is_not_written() -> None:
    plan = make_plan(mark(_one_blob_is_gone().build()), RULES)

    assert NOTHING_DONE.not_written(plan) == _rewritten(FAILED).not_written(plan) == {WEB}
    assert _rewritten(WRITTEN).not_written(plan) == frozenset()


@pytest.mark.parametrize(
    ("healed", "usable", "broken"),
    [
        (RewriteResult(WEB, _read(3, "a"), ()), 1, False),
        (RewriteResult(WEB, _read(3), ()), 0, False),
        (FAILED, 0, True),
        (None, 0, True),
    ],
)
def test_an_index_that_was_healed_is_what_builders_find(
    healed: RewriteResult | None, usable: int, broken: bool
) -> None:
    snapshot = a_snapshot().with_blobs("a").with_invalid_generation(2).build()
    heals = (
        Heal(_read(1, of=API), frozenset()),
        Heal(_read(2), frozenset(), result=healed),
    )

    one = _report(snapshot, CarriedOut({}, heals, dry_run=False))["web"]

    assert (one.usable_after, one.still_broken) == (usable, broken)


def test_an_index_that_is_kept_shows_why() -> None:
    snapshot = a_snapshot().with_blobs("a").with_generation(1, "a").build()

    one = _report(snapshot)["web"]

    assert (one.written, one.outcome, one.still_broken) == (None, Kept(), False)
    assert one.sentence == "its newest generation is up to date"


def test_bytes_are_told_apart_by_who_needs_them() -> None:
    world = a_snapshot().with_blobs("base", "a", "b")
    world.with_generation(1, ("base", "a")).with_generation(1, ("base", "b"), of=API)
    world.with_generation(1, "base", of=IndexId(MAIN, Scope("cli")))

    found = _report(world.build())

    assert {name: (one.bytes_usable, one.bytes_own) for name, one in found.items()} == {
        "web": (200, 100),
        "api": (200, 100),
        "cli": (100, 0),
    }
    assert [row.needed_by for row in found["web"].chains] == [("api", "cli", "web")]


def test_a_merge_needs_nothing_that_others_need() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a").with_generation(1, "a", of=MERGE)
    snapshot = _with_merge(world)

    found = _report(snapshot)

    assert (found["web"].bytes_own, found["maintained"].bytes_own) == (100, 0)


def _with_merge(world: World) -> Snapshot:
    """Return the snapshot, where `maintained` was written by a run."""
    snapshot = replace(world.build(), merged_scope=MERGE.scope)
    generations = (
        replace(one, sink=Sink.MERGE) if one.index.scope == MERGE.scope else one
        for one in snapshot.generations
    )
    return replace(snapshot, generations=tuple(generations))


def test_blobs_that_only_older_generations_reach_are_told_apart() -> None:
    world = a_snapshot().with_blobs("a", "old").with_generation(1, "old").with_generation(2, "a")

    one = _report(world.build())["web"]
    written = _report(world.build(), _rewritten(RewriteResult(WEB, _read(3, "a"), ())))["web"]

    assert one.bytes_dangling_before == 100
    assert (one.bytes_dangling_after, written.bytes_dangling_after) == (0, 100)


def test_where_nothing_is_listed_an_index_says_how_large_its_blobs_are() -> None:
    snapshot = a_snapshot().with_blobs("a", "b").with_generation(1, ("a", "b")).build()

    one = _report(snapshot, sizes={})["web"]

    assert one.bytes_usable == 2 * 10  # As `an_index` states it.


def _tagged(*chains: Chain, sink: Sink | None = None, times: int = 0) -> Snapshot:
    world = a_snapshot(reading=(NO_REF,), writing=(NO_REF,)).with_blob("a", ref=NO_REF)
    built = world.with_index(0, _made(times, *chains), of=TAG).build()
    return replace(built, generations=tuple(replace(x, sink=sink) for x in built.generations))


def _made(at: int, *chains: Chain) -> CacheConfig:
    config = an_index(*chains)
    records = (
        change(one, results=tuple(change(x, created_at=Nanoseconds(at)) for x in one.results))
        for one in config.records
    )
    return CacheConfig(config.layers, tuple(records))


def test_a_tag_is_as_new_as_its_newest_result() -> None:
    at = int(timedelta(days=1) / timedelta(microseconds=1)) * 1_000

    found, without_results = _report(_tagged("a", times=at))["web"], _report(_tagged())["web"]

    assert found.newest_at is not None
    assert found.newest_at.isoformat() == "1970-01-02T00:00:00+00:00"
    assert without_results.newest_at is None
    assert (found.merged_from, found.generations_after) == ((), 1)


def test_a_result_in_two_indexes_counts_once() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(1, "a", "b")
    world.with_generation(1, "a", of=API)

    results = _results(world.build())

    assert (results.before, results.after, results.possible, results.size) == (2, 2, 2, 200)
    assert (results.lost, results.dropped) == (0, 0)


def test_a_result_whose_blob_is_gone_in_all_indexes_is_lost() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a", "b")
    world.with_generation(1, "b", of=API).with_generation(1, "a", of=MERGE)

    assert _results(_with_merge(world)).lost == 1


def test_results_for_which_there_is_no_room_are_not_lost() -> None:
    world = a_snapshot().with_blobs("a", "c").with_generation(1, "a", "b", "c")
    snapshot = world.build()
    marks = mark(snapshot)
    small = replace(marks, indexes=tuple(_shortened(one) for one in marks.indexes))

    totals = _totals(small, NOTHING_DONE)

    assert (totals.possible, totals.lost) == (1, 1)


def _shortened(index: Index) -> Index:
    return replace(index, merged=an_index("a"), omitted=1)


def test_what_a_written_index_leaves_out_was_dropped_by_the_run() -> None:
    world = a_snapshot().with_blobs("a", "c").with_generation(1, "a", "b", "c")

    results = _results(world.build(), _rewritten(RewriteResult(WEB, _read(3, "a"), ())))

    assert (results.before, results.after, results.dropped) == (2, 1, 1)


@pytest.mark.parametrize(("sink", "dropped"), [(None, 1), (Sink.REWRITE, 0)])
def test_what_expires_under_a_name_that_a_run_wrote_was_not_dropped(
    sink: Sink | None, dropped: int
) -> None:
    snapshot = _tagged("a", sink=sink)
    marks = mark(snapshot)
    (index,) = marks.indexes
    expired = replace(marks, indexes=(replace(index, merged=an_index(())),))
    written = RewriteResult(TAG, _read(0, (), of=TAG), ())

    totals = _totals(expired, _rewritten(written))

    assert (totals.before, totals.after, totals.dropped) == (1, 0, dropped)


def test_what_an_owner_has_forgotten_was_not_dropped() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a").with_generation(1, "a", of=MERGE)
    marks = mark(_with_merge(world))
    forgotten = tuple(
        replace(one, merged=an_index(()), is_forgotten=one.id == WEB) for one in marks.indexes
    )
    less = replace(marks, indexes=forgotten)
    written = (RewriteResult(one, _read(3, (), of=one), ()) for one in (WEB, MERGE))

    totals = _totals(less, _rewritten(*written))

    assert (totals.before, totals.after, totals.dropped) == (1, 0, 0)
