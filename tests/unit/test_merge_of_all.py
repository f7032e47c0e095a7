"""The merge of all other indexes of a ref, or of all other tags: when it is written, and why."""

from dataclasses import replace
from datetime import timedelta

import pytest
from msgspec import structs

from maintainer.cacheconfig import NO_REF, CacheConfig, IndexId, Scope, Sink, merge
from maintainer.cacheconfig.timestamps import to_nanoseconds
from maintainer.mark import mark
from maintainer.model.decision import Plan, Rules
from maintainer.model.marks import Index
from maintainer.model.reason import NeededByOtherName, NeededByOtherTag, Reason
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot
from maintainer.model.store import StoreFacts
from maintainer.plan import make_plan
from maintainer.report.reasons import format_reason
from tests.snapshots import (
    MAIN,
    MERGE,
    NOW,
    RELEASE,
    WEB,
    Chain,
    World,
    a_snapshot,
    ago,
    an_index,
    blob,
    hours,
)

API = IndexId(MAIN, Scope("api"))
TAG, TOGETHER = IndexId(NO_REF, Scope("api")), IndexId(NO_REF, Scope("maintained"))


def _with_a_merge(world: World) -> Snapshot:
    """Let `maintained` hold the merge; what is there with a sink was written by us."""
    return _written_by_us(replace(world.build(), merged_scope=MERGE.scope))


def _written_by_us(snapshot: Snapshot, *scopes: str) -> Snapshot:
    ours = scopes or (MERGE.scope,)
    return replace(
        snapshot,
        generations=tuple(
            replace(one, sink=Sink.MERGE) if one.sink and one.index.scope in ours else one
            for one in snapshot.generations
        ),
    )


def _merge_in(snapshot: Snapshot) -> Index:
    (found,) = [one for one in mark(snapshot).indexes if one.is_merge]
    return found


def _plan(snapshot: Snapshot) -> Plan:
    return make_plan(mark(snapshot), Rules(hours(24)))


def _reason(snapshot: Snapshot, index: IndexId = MERGE) -> str:
    """Return why the merge is written."""
    (write,) = [one for one in _plan(snapshot).writes if one.index == index]
    assert write.sink is Sink.MERGE
    return format_reason(write.reason)


def _kept(snapshot: Snapshot, index: IndexId = MERGE) -> str:
    plan = _plan(snapshot)
    assert index not in [one.index for one in plan.writes]
    (reason,) = [format_reason(one.reason) for one in plan.keeps if one.subject == str(index)]
    return reason


def _two_images() -> World:
    world = a_snapshot().with_blobs("a", "b")
    return world.with_generation(1, "a").with_generation(1, "b", of=API)


def test_the_merge_of_all_indexes_is_written_once_there_are_some() -> None:
    snapshot = _with_a_merge(_two_images())

    assert _merge_in(snapshot).merged == merge([an_index("a", "b")])
    assert _reason(snapshot) == "merge the 2 other indexes of refs/heads/main"


def test_a_merge_holds_nothing_of_another_ref() -> None:
    world = a_snapshot(reading=(MAIN, RELEASE), writing=(MAIN, RELEASE)).with_blobs("a")
    world.with_blob("b", ref=RELEASE).with_generation(1, "a")
    world.with_generation(1, "b", of=IndexId(RELEASE, Scope("web")))

    merges = [one for one in mark(_with_a_merge(world)).indexes if one.is_merge]

    assert {one.id.ref: one.merged for one in merges} == {
        MAIN: an_index("a"),
        RELEASE: an_index("b"),
    }
    assert [one.merged_with for one in merges] == [1, 1]


def test_a_merge_holds_what_only_an_earlier_merge_of_others_held() -> None:
    snapshot = _with_a_merge(a_snapshot().with_blobs("a", "b").with_generation(1, "a"))
    taken_over = Remembered(replaced={NOW.date(): merge([an_index("b", "gone")])})
    snapshot = replace(snapshot, memory={**snapshot.memory, MERGE: taken_over})

    index = _merge_in(snapshot)

    assert index.merged == merge([an_index("a", "b")])
    assert index.taken_over == index.needs == an_index("b")
    assert index.merged_with == 1


def test_while_not_all_is_seen_a_merge_keeps_what_its_newest_generation_has_and_no_older_one() -> (
    None
):
    world = a_snapshot().with_blobs("a", "old", "new").with_generation(1, "a")
    world.with_generation(4, "old", of=MERGE).with_generation(5, "new", of=MERGE)

    index = _merge_in(_with_a_merge(world.listed_in_part()))

    assert index.merged == merge([an_index("a", "new")])


def test_while_not_all_is_seen_a_merge_whose_newest_generation_is_invalid_follows_the_others() -> (
    None
):
    world = _two_images().with_invalid_generation(4, of=MERGE).listed_in_part()

    assert _merge_in(_with_a_merge(world)).merged == merge([an_index("a", "b")])


def test_a_former_merge_is_what_its_newest_generation_says() -> None:
    world = _two_images().with_generation(4, "b", of=MERGE).with_generation(5, "a", of=MERGE)

    assert _merge_in(_written_by_us(world.build())).merged == merge([an_index("a")])


def test_a_former_merge_has_a_sink_of_merges_until_a_build_exports_to_it() -> None:
    world = a_snapshot(writing=()).with_blobs("a", "b").with_generation(4, "a", of=API)
    theirs = world.with_generation(5, "b", of=API).by_a_build().build()
    ours = a_snapshot(writing=()).with_blobs("a").with_generation(4, "a", of=API).build()

    mixed, alone = (mark(_written_by_us(one, "api")).indexes for one in (theirs, ours))

    assert [one.sink for one in (*mixed, *alone)] == [Sink.REWRITE, Sink.MERGE]


def test_one_other_index_is_not_counted() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a")

    assert _reason(_with_a_merge(world)) == "merge the other index of refs/heads/main"


def test_where_nothing_is_stored_there_is_no_merge() -> None:
    assert mark(_with_a_merge(a_snapshot())).indexes == ()


def test_a_merge_of_nothing_is_emptied() -> None:
    world = a_snapshot().with_blobs("a").with_generation(3, "a", of=MERGE)

    assert _merge_in(_with_a_merge(world)).merged.records == ()


def test_a_merge_stays_as_it_is_if_the_settings_choose_none_of_the_names_that_exist() -> None:
    alone = a_snapshot().with_blobs("a", "b").with_generation(3, "a", of=MERGE)
    with_another = a_snapshot().with_blobs("a", "b").with_generation(3, "a", of=MERGE)
    with_another.with_generation(1, "b")
    chosen = StoreFacts(leaves_out=True)

    assert _merge_in(replace(_with_a_merge(alone), facts=chosen)).merged == an_index("a")
    assert _merge_in(replace(_with_a_merge(with_another), facts=chosen)).merged == an_index("b")


@pytest.mark.parametrize(
    ("held", "changes"),
    [
        (("a",), ": 1 blob more"),
        (("a", "b", "c"), ": 1 blob less"),
        (("c",), ": 2 blobs more, 1 blob less"),
        (("a", "b", ("a", "b")), ""),
    ],
)
def test_a_merge_follows_the_indexes_that_it_is_made_of(
    held: tuple[Chain, ...], changes: str
) -> None:
    world = _two_images().with_blobs("c").with_generation(4, *held, of=MERGE)

    reason = _reason(_with_a_merge(world))

    assert reason == f"follow the 2 other indexes of refs/heads/main{changes}"


def test_a_merge_that_holds_all_is_left_as_it_is() -> None:
    world = _two_images().with_index(4, merge([an_index("a", "b")]), of=MERGE)

    assert "is up to date" in _kept(_with_a_merge(world))


def test_a_merge_of_which_nothing_is_left_follows_nobody() -> None:
    world = a_snapshot().with_blobs("a").with_generation(4, "a", of=MERGE)

    assert _reason(_with_a_merge(world)) == "drop 1 blob that is gone or not needed"


@pytest.mark.parametrize("unread", [True, False])
def test_nothing_goes_from_a_merge_while_not_all_is_seen(unread: bool) -> None:
    world = _two_images().with_blobs("c").with_generation(4, "a", "b", "c", of=MERGE)
    world = world.with_unread_generation(2) if unread else world.listed_in_part()

    assert blob("c") in _merge_in(_with_a_merge(world)).merged.blobs


def _made(index: CacheConfig, *, days_ago: int) -> CacheConfig:
    at = to_nanoseconds(NOW - timedelta(days=days_ago))
    records = (
        structs.replace(
            one, results=tuple(structs.replace(each, created_at=at) for each in one.results)
        )
        for one in index.records
    )
    return structs.replace(index, records=tuple(records))


@pytest.mark.parametrize(("days_ago", "stays"), [(29, True), (31, False)])
def test_where_indexes_are_only_searched_a_merge_keeps_for_a_month_what_others_may_need(
    days_ago: int, stays: bool
) -> None:
    held = _made(an_index("a", "c", "gone"), days_ago=days_ago)
    snapshot = _with_a_merge(_two_images().with_blobs("c").with_index(4, held, of=MERGE))

    merged = _merge_in(replace(snapshot, facts=StoreFacts(is_searched=True))).merged

    assert merged.blobs == {blob("a"), blob("b")} | ({blob("c")} if stays else set())


def test_where_indexes_are_only_searched_a_former_merge_drops_only_what_is_gone() -> None:
    world = _two_images().with_blobs("c").with_generation(4, "a", "c", "gone", of=MERGE)
    snapshot = replace(_written_by_us(world.build()), facts=StoreFacts(is_searched=True))

    assert _merge_in(snapshot).merged.blobs == {blob("a"), blob("c")}


def test_what_is_forgotten_leaves_a_merge_of_indexes_that_are_only_searched() -> None:
    held = _made(an_index("a", "b", "c"), days_ago=1)
    snapshot = _with_a_merge(_two_images().with_blobs("c").with_index(4, held, of=MERGE))
    forgotten = {WEB: Remembered(forgotten=True)}

    facts = StoreFacts(is_searched=True)
    index = _merge_in(replace(snapshot, facts=facts, memory={**snapshot.memory, **forgotten}))

    assert blob("c") not in index.merged.blobs


def test_where_a_build_exports_no_merge_is_written() -> None:
    world = _two_images().with_generation(4, "b", of=MERGE).by_a_build()

    assert "a build has exported index-maintained-1-" in _kept(_with_a_merge(world))


def test_a_former_merge_keeps_no_blob_alive_and_drops_what_goes() -> None:
    world = _two_images().with_blobs("c").with_generation(4, "a", "c", of=MERGE)

    index = _merge_in(_written_by_us(world.build()))

    assert index.merged == merge([an_index("a")])


def test_a_former_merge_that_was_not_read_is_not_written() -> None:
    world = _two_images().remembering(3, "a", of=MERGE).with_unread_generation(4, of=MERGE)

    assert "could not be read" in _kept(_written_by_us(world.build()))


def test_a_former_merge_that_is_gone_is_forgotten() -> None:
    world = _two_images().remembering(4, "a", of=MERGE)

    assert [one.id for one in mark(_written_by_us(world.build())).indexes] == [API, WEB]


def test_a_merge_of_which_builders_read_nothing_valid_gives_them_nothing() -> None:
    world = _two_images().with_invalid_generation(4, of=MERGE)

    assert _merge_in(_with_a_merge(world)).usable.records == ()


def _tags(*, others: frozenset[IndexId] = frozenset()) -> Snapshot:
    world = a_snapshot(reading=(NO_REF,), writing=(NO_REF,))
    for name in "ab":
        world.with_blob(name, ref=NO_REF)
    world.remembering(1, "a", of=TAG).remembering(1, "b", of=IndexId(NO_REF, Scope("web")))
    snapshot = world.build()
    return replace(
        snapshot,
        generations=tuple(replace(one, exists=True) for one in snapshot.generations),
        facts=StoreFacts(ago(hours(48)), others=others),
        merged_scope=TOGETHER.scope,
    )


def test_the_merge_of_all_tags_is_a_tag() -> None:
    assert _reason(_tags(), TOGETHER) == "merge the 2 other indexes"


@pytest.mark.parametrize("reason", [NeededByOtherName("pr"), NeededByOtherTag("image")])
def test_the_merge_keeps_what_names_need_that_the_settings_leave_out(reason: Reason) -> None:
    world = a_snapshot(reading=(NO_REF,), writing=(NO_REF,))
    for name in "abc":
        world.with_blob(name, ref=NO_REF)
    world.remembering(1, "a", of=TAG).remembering(1, "a", "b", "c", of=TOGETHER)
    snapshot = world.build()
    snapshot = replace(
        snapshot,
        generations=tuple(
            replace(one, exists=True, sink=Sink.MERGE if one.index == TOGETHER else None)
            for one in snapshot.generations
        ),
        memory={TAG: snapshot.memory[TAG]},
        facts=StoreFacts(ago(hours(48)), pinned={blob("b"): reason}),
        merged_scope=TOGETHER.scope,
    )

    kept = ("a", "b") if isinstance(reason, NeededByOtherName) else ("a",)
    assert _merge_in(snapshot).merged == merge([an_index(*kept)])


def test_a_merge_under_a_former_tag_stays_a_merge() -> None:
    former = _written_by_us(_tags(), TAG.scope)

    sinks = {one.id.scope: one.sink for one in mark(former).indexes if not one.is_merge}

    assert sinks == {"api": Sink.MERGE, "web": Sink.REWRITE}


def test_no_merge_takes_the_place_of_a_tag_that_is_no_cache() -> None:
    assert "somebody else has written it" in _kept(_tags(others=frozenset({TOGETHER})), TOGETHER)
