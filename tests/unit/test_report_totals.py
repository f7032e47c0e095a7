"""Entries are counted by state, batch after batch, while a run plans and deletes them."""

from collections.abc import Iterable
from datetime import timedelta

import pytest
from msgspec.structs import replace as change

from maintainer.cacheconfig import NO_REF, IndexId, Ref, Scope
from maintainer.mark import mark
from maintainer.model.content import Content
from maintainer.model.decision import DeleteEntry, Deletion, RewriteResult
from maintainer.model.index import ReadGeneration
from maintainer.model.marks import State
from maintainer.model.outcome import AlreadyGone, Done, Failed, Outcome, Skipped
from maintainer.model.reason import LookedUp, Unreferenced
from maintainer.report import EntryTotal
from maintainer.report.model import NamedSpace, UsedDay
from maintainer.report.totals import EntryTotals
from tests.snapshots import MAIN, NOW, WEB, a_snapshot, blob, blob_key

TOOL = "setup-node-linux-0123456789"
OLD, NEW = str(WEB.key(1)), str(WEB.key(2))
CACHE = (
    a_snapshot()
    .with_blobs("base", "orphan", "other orphan")
    .with_generation(1, "base")
    .with_generation(2, "base")
    .with_entry(TOOL)
    .build()
)
MARKS = {one.entry.key: one for one in mark(CACHE).marks}


def delete(key: str, *after: IndexId) -> DeleteEntry:
    """Return the decision to delete an entry, as a sweep reads it back from the graph."""
    marked = MARKS[key]
    entry = change(marked.entry, state=marked.state)
    return DeleteEntry(entry, marked.state, Unreferenced(), frozenset(after))


def planned(*deletes: DeleteEntry) -> EntryTotals:
    """Return the totals of the cache, counted in two batches."""
    totals = EntryTotals()
    marks = list(MARKS.values())
    for batch in (marks[:3], marks[3:]):
        ids = {one.entry.store_id for one in batch}
        totals.plan(batch, [one for one in deletes if one.entry.store_id in ids])
    return totals


def table(totals: Iterable[EntryTotal]) -> dict[str, tuple[int, int]]:
    return {one.state: (one.entries, one.size) for one in totals}


def test_all_entries_are_counted_by_state() -> None:
    assert table(planned().stored([])) == {
        State.REACHABLE: (1, 10),
        State.DANGLING: (2, 20),
        State.SUPERSEDED: (1, 10),
        State.NEWEST: (1, 10),
        State.FOREIGN: (1, 10),
    }
    assert not table(planned().due([]))


def test_the_newest_generation_is_superseded_once_its_index_is_written() -> None:
    totals = planned(delete(OLD, WEB), delete(NEW, WEB))

    assert table(totals.due([])) == {State.SUPERSEDED: (1, 10), State.NEWEST: (1, 10)}
    assert table(totals.due([WEB])) == {State.SUPERSEDED: (2, 20)}
    assert table(totals.stored([WEB]))[State.SUPERSEDED] == (2, 20)
    assert State.NEWEST not in table(totals.stored([WEB]))


def test_what_is_to_be_deleted_is_counted_over_all_batches() -> None:
    totals = planned(delete(OLD), delete(blob_key("orphan")))

    assert totals.deletions == 2
    assert table(totals.due([])) == {State.SUPERSEDED: (1, 10), State.DANGLING: (1, 10)}
    assert table(totals.stored([])) == table(planned().stored([]))


def test_what_exists_is_counted_by_the_day_of_its_last_use() -> None:
    orphan = delete(blob_key("orphan"))
    totals = planned(orphan)
    used_at = orphan.entry.last_use_at
    everything = UsedDay(used_at.date(), 6, 60)

    assert list(totals.used_days(used_at + timedelta(days=7))) == [everything]
    assert list(totals.used_days(used_at + timedelta(days=8))) == [UsedDay(None, 6, 60)]

    totals.sweep(Deletion(orphan, Done()), wanted=[])

    assert list(totals.used_days(used_at)) == [UsedDay(used_at.date(), 5, 50)]
    assert list(totals.refs()) == [NamedSpace(MAIN, 5, 50)]


def test_a_day_of_which_nothing_is_left_is_not_told() -> None:
    orphan = delete(blob_key("orphan"))
    totals = planned(orphan)
    used_at = orphan.entry.last_use_at
    for _ in range(6):
        totals.sweep(Deletion(orphan, Done()), wanted=[])

    assert list(totals.used_days(used_at)) == []


def test_small_refs_are_counted_together() -> None:
    world = a_snapshot()
    for number in range(10):
        for entry in range(number + 1):
            world.with_entry(f"{TOOL}-{number}-{entry}", ref=Ref(f"refs/pull/{number}/merge"))
    totals = EntryTotals()
    totals.plan(mark(world.build()).marks, [])

    refs = list(totals.refs())

    assert refs[0] == NamedSpace("refs/pull/9/merge", 10, 100)
    assert [one.size for one in refs] == [100, 90, 80, 70, 60, 50, 40, 30, 30]
    assert refs[-1] == NamedSpace("", 3, 30)


def test_the_indexes_of_a_scope_are_counted_until_they_are_deleted() -> None:
    old = delete(OLD, WEB)
    totals = planned(old)

    assert list(totals.scopes()) == [NamedSpace("web", 2, 20)]

    totals.sweep(Deletion(old, Done()), wanted=[])

    assert list(totals.scopes()) == [NamedSpace("web", 1, 10)]


def test_entries_of_other_tools_are_counted_by_tool_unless_they_are_to_be_deleted() -> None:
    assert planned().foreign == {"setup-node-": EntryTotal("setup-node-", 1, 10)}
    assert not planned(delete(TOOL)).foreign


@pytest.mark.parametrize("outcome", [Done(), AlreadyGone()])
def test_a_deleted_blob_is_counted_neither_as_stored_nor_as_due(outcome: Outcome) -> None:
    orphan, other = delete(blob_key("orphan")), delete(blob_key("other orphan"))
    totals = planned(orphan, other)

    totals.sweep(Deletion(orphan, outcome), wanted=[])

    assert totals.blobs_deleted == 1
    assert totals.deletions == 2
    assert table(totals.stored([]))[State.DANGLING] == (1, 10)
    assert table(totals.due([])) == {State.DANGLING: (1, 10)}

    totals.sweep(Deletion(other, outcome), wanted=[])

    assert totals.blobs_deleted == 2
    assert State.DANGLING not in table(totals.stored([]))
    assert not table(totals.due([]))


def test_a_blob_in_a_closed_ref_is_no_blob_that_builds_could_read() -> None:
    orphan = delete(blob_key("orphan"))
    closed = change(orphan, state=State.CLOSED)
    totals = planned(orphan)

    totals.sweep(Deletion(closed, Done()), wanted=[blob("orphan")])

    assert totals.blobs_deleted == 0
    assert totals.deleted_blobs == set()


def test_only_wanted_blobs_are_recorded() -> None:
    orphan, other = delete(blob_key("orphan")), delete(blob_key("other orphan"))
    totals = planned(orphan, other)

    for one in (orphan, other):
        totals.sweep(Deletion(one, Done()), wanted=[blob("orphan"), blob("base")])

    assert totals.deleted_blobs == {blob("orphan")}


@pytest.mark.parametrize("outcome", [Skipped(LookedUp()), Failed("the server is away")])
def test_an_entry_that_was_not_deleted_is_still_counted(outcome: Outcome) -> None:
    orphan = delete(blob_key("orphan"))
    totals = planned(orphan)
    before = table(totals.stored([])), table(totals.due([]))

    totals.sweep(Deletion(orphan, outcome), wanted=[blob("orphan")])

    assert (table(totals.stored([])), table(totals.due([]))) == before
    assert not totals.deleted_blobs
    assert totals.blobs_deleted == 0


def test_deleted_generations_are_counted_by_index() -> None:
    old, new, tool = delete(OLD), delete(NEW, WEB), delete(TOOL)
    totals = planned(old, new, tool)

    for one in (old, new, tool):
        totals.sweep(Deletion(one, Done()), wanted=[])

    assert totals.deleted_generations == {WEB: 2}
    assert totals.blobs_deleted == 0
    assert table(totals.stored([WEB])) == {State.REACHABLE: (1, 10), State.DANGLING: (2, 20)}
    assert not table(totals.due([WEB]))


def test_a_replaced_generation_is_taken_off_where_it_was_counted() -> None:
    """The graph has it as superseded by then, among others that stay."""
    new = delete(NEW, WEB)
    totals = planned(new)
    superseded = change(new, entry=change(new.entry, state=State.SUPERSEDED))

    totals.sweep(Deletion(superseded, Done()), wanted=[])

    assert table(totals.stored([WEB])) == {
        State.REACHABLE: (1, 10),
        State.DANGLING: (2, 20),
        State.SUPERSEDED: (1, 10),
        State.FOREIGN: (1, 10),
    }
    assert table(totals.stored([])) == table(totals.stored([WEB]))
    assert not table(totals.due([WEB]))


def written(index: IndexId, **entries: int) -> RewriteResult:
    """Return the result of writing an index, with the entries that hold it."""
    generation = ReadGeneration(index, 3, Content.of(b""), None, None, NOW, None, None)
    return RewriteResult(index, generation, (), entries=entries)


def test_what_the_run_writes_is_counted_in_every_division() -> None:
    totals = EntryTotals()

    totals.write(written(WEB, new=30), stored=[])

    assert table(totals.stored([WEB])) == {State.NEWEST: (1, 30)}
    assert list(totals.refs()) == [NamedSpace(MAIN, 1, 30)]
    assert list(totals.scopes()) == [NamedSpace("web", 1, 30)]
    assert list(totals.used_days(NOW)) == [UsedDay(NOW.date(), 1, 30)]


def test_what_was_not_written_is_not_counted() -> None:
    totals = EntryTotals()

    totals.write(RewriteResult(WEB, None, (), error="the server is away"), stored=[])

    assert not table(totals.stored([]))


def test_what_is_written_and_was_stored_before_or_is_written_twice_counts_once() -> None:
    totals = EntryTotals()
    api, tools = IndexId(NO_REF, Scope("api")), IndexId(NO_REF, Scope("tools"))

    totals.write(written(api, manifest=7, config=30), stored=[(NO_REF, "config")])
    totals.write(written(tools, manifest=7, other=40), stored=[])

    assert table(totals.stored([])) == {State.NEWEST: (2, 47)}
    assert not list(totals.scopes())
