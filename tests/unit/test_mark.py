"""Marking: what every entry is, why, and since when nothing has needed it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from maintainer.cacheconfig import (
    CacheConfig,
    IndexId,
    Record,
    Ref,
    Result,
    Scope,
    content_digest,
    encode,
    merge,
)
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.mark import mark
from maintainer.model.decision import Rules
from maintainer.model.marks import Index, Mark, State
from maintainer.model.reason import Forgotten, LeftForRoom
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot
from maintainer.model.store import StoreFacts
from maintainer.plan import make_plan
from maintainer.report.reasons import format_reason
from tests.snapshots import (
    MAIN,
    NOW,
    PULL,
    RELEASE,
    SIGNED_WEB,
    WEB,
    World,
    a_snapshot,
    ago,
    an_index,
    blob,
    blob_key,
    hours,
)

API = IndexId(MAIN, Scope("api"))
RELEASED_WEB = IndexId(RELEASE, Scope("web"))


def _mark_of(key: str, world: World) -> Mark:
    (found,) = [one for one in mark(world.build()).marks if one.entry.key == key]
    return found


def _index_of(index: IndexId, world: World) -> Index:
    (found,) = [one for one in mark(world.build()).indexes if one.id == index]
    return found


# What an index comes to.


def test_all_generations_are_merged_and_pruned_to_what_exists() -> None:
    world = (
        a_snapshot()
        .with_blobs("base", "api", "web")
        .with_generation(1, ("base", "api"))
        .with_generation(2, ("base", "web"), ("base", "gone"))
    )

    index = _index_of(WEB, world)

    assert [one.number for one in index.inputs] == [1, 2]
    assert index.merged == merge([an_index(("base", "api"), ("base", "web"))])


def test_generations_are_in_order_however_they_were_met() -> None:
    world = a_snapshot().with_generation(10).with_generation(9).remembering(8).remembering(9, "a")

    index = _index_of(WEB, world)

    assert [one.number for one in index.generations] == [9, 10]
    assert [(one.number, one.generation_id) for one in index.inputs] == [
        (8, 3),
        (9, 2),
        (9, 4),
        (10, 1),
    ]
    assert index.generation_ids == {1, 2, 3, 4}


def test_a_generation_that_was_evicted_still_takes_part() -> None:
    world = a_snapshot().with_blobs("a", "b").remembering(1, "a").with_generation(2, "b")

    index = _index_of(WEB, world)

    assert [one.number for one in index.generations] == [2]
    assert index.merged == merge([an_index("a", "b")])


def test_the_merge_is_what_is_remembered_whichever_generations_are_known_still() -> None:
    snapshot = a_snapshot().with_blobs("a", "b").with_generation(2, "b").build()
    known = Remembered(merge([an_index("a", "b", "gone")]), highest=7, up_to_date=1)

    (index,) = mark(replace(snapshot, memory={WEB: known})).indexes

    assert index.merged == merge([an_index("a", "b")])
    assert index.remembered == known.config
    assert index.highest == 7


def test_generations_that_were_merged_before_are_not_named_again() -> None:
    world = a_snapshot().with_blobs("a", "b", "c")
    world.with_generation(1, "a").with_generation(2, "a", "b").with_generation(3, "c")
    snapshot = world.build()
    known = replace(snapshot.memory[WEB], up_to_date=2)

    (index,) = mark(replace(snapshot, memory={WEB: known})).indexes

    assert [one.number for one in index.inputs] == [2, 3]
    assert index.merged == merge([an_index("a", "b", "c")])


def test_what_was_lost_before_the_index_was_up_to_date_is_not_lost_again() -> None:
    snapshot = a_snapshot().with_generation(1, "long gone", "gone").build()
    known = replace(snapshot.memory[WEB], lost=frozenset({blob("long gone")}))

    (index,) = mark(replace(snapshot, memory={WEB: known})).indexes

    assert index.remembered == merge([an_index("gone")])


def test_what_runs_have_deleted_is_not_lost_unless_an_index_still_references_it() -> None:
    snapshot = a_snapshot().with_generation(1, "swept", "gone").with_generation(2, "gone").build()
    rewritten = tuple(one for one in snapshot.generations if one.number == 2)
    known = replace(snapshot.memory[WEB], deleted=frozenset({blob("swept")}))

    before, after = (
        mark(replace(snapshot, generations=stored, memory={WEB: known})).indexes[0]
        for stored in (snapshot.generations, rewritten)
    )

    assert before.remembered == merge([an_index("swept", "gone")])
    assert after.remembered == merge([an_index("gone")])


def test_an_invalid_generation_does_not_take_part() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a").with_invalid_generation(2)

    index = _index_of(WEB, world)

    assert index.newest
    assert index.newest.number == 2
    assert [one.number for one in index.inputs] == [1]
    assert index.merged == merge([an_index("a")])
    assert index.usable == CacheConfig()


def test_scopes_refs_and_signed_indexes_are_kept_apart_and_in_order() -> None:
    world = (
        a_snapshot(reading=[RELEASE])
        .with_blobs("a", "b", "c", "d")
        .with_generation(1, "a", of=RELEASED_WEB)
        .with_generation(1, "b", of=SIGNED_WEB)
        .with_generation(1, "c")
        .with_generation(1, "d", of=API)
        .with_unread_generation(3, of=IndexId(MAIN, Scope("zoo")))
    )

    indexes = mark(world.build()).indexes

    assert [(one.id, one.merged.blobs) for one in indexes] == [
        (API, frozenset({blob("d")})),
        (WEB, frozenset({blob("c")})),
        (SIGNED_WEB, frozenset({blob("b")})),
        (IndexId(MAIN, Scope("zoo")), frozenset()),
        (RELEASED_WEB, frozenset({blob("a")})),
    ]


def test_signed_generations_stand_for_themselves_and_only_while_they_are_stored() -> None:
    shared = ("base", "old"), ("base", "new")
    world = (
        a_snapshot()
        .with_blobs("base", "old", "new", "forgotten")
        .remembering(1, "forgotten", of=SIGNED_WEB)
        .with_generation(2, shared[0], of=SIGNED_WEB)
        .with_generation(3, shared[1], ("base", "gone"), of=SIGNED_WEB)
    )

    index = _index_of(SIGNED_WEB, world)

    assert [one.number for one in index.inputs] == [2, 3]
    assert index.merged == merge([an_index(*shared)])


def test_signed_generations_need_what_each_of_them_leads_to_even_by_the_same_key() -> None:
    old, new = _leading_to("old", at=1), _leading_to("new", at=2)
    world = a_snapshot().with_blobs("old", "new")
    world.with_index(1, old, of=SIGNED_WEB).with_index(2, new, of=SIGNED_WEB)
    world.with_index(1, old).with_index(2, new)

    assert _index_of(SIGNED_WEB, world).merged.blobs == {blob("old"), blob("new")}
    # Of several results of a merge, the newest is kept, as the exporter does.
    assert _index_of(WEB, world).merged.blobs == {blob("new")}


def _leading_to(name: str, *, at: int) -> CacheConfig:
    """Return an index that leads a certain key to a layer, since a certain time."""
    config = an_index(name)
    result = Result((0,), with_parents=True, created_at=Nanoseconds(at))
    return CacheConfig(config.layers, (Record("key", (result,), ()),))


def test_what_builders_can_use_is_what_the_newest_generation_says_and_exists() -> None:
    world = (
        a_snapshot().with_blobs("a", "b").with_generation(1, "a").with_generation(2, "b", "gone")
    )

    assert _index_of(WEB, world).usable == merge([an_index("b")])


def test_where_no_generation_is_stored_builders_can_use_nothing() -> None:
    assert _index_of(WEB, a_snapshot().with_blobs("a").remembering(1, "a")).usable == CacheConfig()


def test_the_highest_number_counts_what_is_stored_remembered_and_unread() -> None:
    assert _index_of(WEB, a_snapshot().with_generation(2).with_generation(1)).highest == 2
    assert _index_of(WEB, a_snapshot().with_generation(2).remembering(5)).highest == 5
    assert _index_of(WEB, a_snapshot().with_generation(2).with_unread_generation(7)).highest == 7


def test_the_newest_generation_is_unknown_if_one_that_may_be_newer_could_not_be_read() -> None:
    def newest(world: World) -> int | None:
        index = _index_of(WEB, world)
        return index.newest.number if index.newest else None

    assert newest(a_snapshot().with_generation(1).with_generation(2)) == 2
    assert newest(a_snapshot().with_generation(2).with_unread_generation(1)) == 2
    assert newest(a_snapshot().with_generation(2).with_unread_generation(3)) is None
    assert newest(a_snapshot().with_generation(2).with_unread_generation(0)) is None
    assert newest(a_snapshot().remembering(2)) is None
    assert newest(a_snapshot().with_unread_generation(3)) is None


# What hides an index from builders that do not sign.


def test_an_entry_that_was_created_later_hides_the_newest_generation() -> None:
    world = (
        a_snapshot()
        .with_blobs("a", "b", "c")
        .with_generation(1, "a")
        .with_generation(2, "b")
        .with_generation(3, "c")
        .where_builders_read("index-web-1-f921bd05#2")
    )

    index = _index_of(WEB, world)

    assert index.shadowed_by == "index-web-1-f921bd05#2"
    assert index.usable == merge([an_index("b")])
    assert [one.number for one in index.current] == [2, 3]
    assert index.referenced == {blob("b"), blob("c")}


def test_what_hides_an_index_may_be_no_generation_of_it() -> None:
    world = (
        a_snapshot()
        .with_blobs("a")
        .with_generation(1, "a")
        .with_generation(9, of=SIGNED_WEB)
        .where_builders_read(str(SIGNED_WEB.key(9)))
    )

    index = _index_of(WEB, world)

    assert index.shadowed_by == str(SIGNED_WEB.key(9))
    assert index.usable == merge([an_index("a")])
    assert [one.number for one in index.current] == [1]


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(
            a_snapshot().with_generation(1).where_builders_read("INDEX-web-1-F921BD05#1"),
            id="services may change the case",
        ),
        pytest.param(
            a_snapshot()
            .with_generation(1)
            .with_unread_generation(2)
            .where_builders_read("index-web-1-f921bd05#2"),
            id="it may be what could not be read",
        ),
        pytest.param(
            a_snapshot().remembering(1).where_builders_read("index-web-1-f921bd05-sig#2"),
            id="nothing is stored that could be hidden",
        ),
    ],
)
def test_an_index_is_not_hidden_by_what_is_or_may_be_its_newest_generation(world: World) -> None:
    assert _index_of(WEB, world).shadowed_by is None


def test_an_index_of_which_it_is_not_known_what_builders_read_is_not_hidden() -> None:
    snapshot = replace(a_snapshot().with_generation(1).build(), read_by_builders={})

    assert [index.shadowed_by for index in mark(snapshot).indexes] == [None]


def test_signed_indexes_are_not_hidden_because_builders_that_sign_ask_for_them() -> None:
    world = a_snapshot().with_generation(1, of=SIGNED_WEB)
    world.where_builders_read("index-web-1-f921bd05#2", of=SIGNED_WEB)

    assert _index_of(SIGNED_WEB, world).shadowed_by is None


# What is needed.


def test_a_blob_is_reachable_when_a_live_result_of_some_index_needs_it() -> None:
    world = a_snapshot().with_blobs("base", "app").with_generation(1, ("base", "app"))

    for name in ("base", "app"):
        marked = _mark_of(blob_key(name), world)
        assert marked.state is State.REACHABLE
        assert format_reason(marked.reason) == "index-web-1-f921bd05 in refs/heads/main needs it"
        assert marked.since is None


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(
            a_snapshot().with_blobs("a").with_generation(1, "a").with_generation(2),
            id="an older generation",
        ),
        pytest.param(a_snapshot().with_blobs("a").remembering(1, "a"), id="a remembered one"),
        pytest.param(
            a_snapshot().with_blobs("a").with_generation(1, "a", of=SIGNED_WEB), id="a signed index"
        ),
        pytest.param(
            a_snapshot(reading=[RELEASE]).with_blobs("a").with_generation(1, "a", of=RELEASED_WEB),
            id="an index of another ref that the token reads",
        ),
        pytest.param(
            a_snapshot(reading=[RELEASE]).with_blob("a", ref=RELEASE).with_generation(1, "a"),
            id="an index of this ref while the blob is in another that the token reads",
        ),
        pytest.param(
            a_snapshot()
            .with_blobs("a")
            .with_generation(1, ("gone", "a"))
            .with_generation(1, "a", of=API),
            id="one index though its result is dead in another",
        ),
    ],
)
def test_a_blob_is_reachable_by_way_of(world: World) -> None:
    assert _mark_of(blob_key("a"), world).state is State.REACHABLE


def test_a_blob_is_not_needed_by_a_result_that_is_dead() -> None:
    world = (
        a_snapshot()
        .with_blobs("base", "app")
        .with_generation(1, ("base", "middle", "app"))
        .with_generation(2)
    )

    for name in ("base", "app"):
        marked = _mark_of(blob_key(name), world)
        assert marked.state is State.DANGLING
        assert format_reason(marked.reason) == "no live result of any index needs it"


# Since when a blob is unreferenced.


def _dangling_since(world: World) -> Mark:
    marked = _mark_of(blob_key("a"), world)
    assert marked.state is State.DANGLING
    return marked


def test_without_memory_a_blob_is_unneeded_since_it_was_created() -> None:
    assert _dangling_since(a_snapshot().with_blob("a", age=hours(9))).since == ago(hours(9))


@pytest.mark.parametrize("listed", [hours(2), -hours(2)])
def test_a_new_blob_came_after_the_last_list_whatever_its_time_and_our_clock_say(
    listed: timedelta,
) -> None:
    snapshot = a_snapshot().with_blob("a", age=hours(9)).build()

    (marked,) = mark(replace(snapshot, listed_before=ago(listed))).marks

    assert marked.since == ago(listed)


def test_what_was_needed_at_a_list_later_than_now_is_unreferenced_since_then() -> None:
    snapshot = a_snapshot().with_blob("a", age=hours(9), known=True).build()

    (marked,) = mark(replace(snapshot, listed_before=ago(-hours(2)))).marks

    assert marked.since == ago(-hours(2))


@pytest.mark.parametrize(("ahead", "counts"), [(29, True), (31, False)])
def test_a_recorded_time_that_is_far_ahead_does_not_count(ahead: int, counts: bool) -> None:
    recorded = -timedelta(days=ahead)
    known = a_snapshot().with_blob("a", age=hours(9), unreferenced_for=recorded)

    assert _dangling_since(known).since == ago(recorded if counts else timedelta(0))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("ahead", "counts"), [(29, True), (31, False)])
def test_an_export_that_is_far_ahead_was_made_now(ahead: int, counts: bool, known: bool) -> None:
    written = ago(-timedelta(days=ahead))
    snapshot = a_snapshot().with_blob("a", age=hours(9), known=known).build()

    (marked,) = mark(replace(snapshot, facts=StoreFacts(quiet_since=written))).marks

    assert marked.since == (written if counts else NOW)


def test_that_a_generation_is_superseded_in_the_far_future_does_not_count() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a", unreferenced_for=-hours(800))
    world.with_generation(2, "a", age=hours(2))

    (superseded,) = [one for one in mark(world.build()).marks if one.state is State.SUPERSEDED]

    assert superseded.since == NOW


def test_without_memory_a_blob_is_unneeded_since_it_was_used_if_that_was_later() -> None:
    world = a_snapshot().with_blob("a", age=hours(9), used=hours(2))

    assert _dangling_since(world).since == ago(hours(2))


def test_with_memory_a_blob_is_unneeded_since_that_was_noticed() -> None:
    world = a_snapshot().with_blob("a", age=hours(90), unreferenced_for=hours(5))

    assert _dangling_since(world).since == ago(hours(5))


def test_a_use_starts_the_time_of_a_blob_anew_for_a_build_may_have_found_it() -> None:
    world = a_snapshot().with_blob("a", age=hours(90), unreferenced_for=hours(5), used=hours(1))

    assert _dangling_since(world).since == ago(hours(1))


def test_a_blob_that_was_needed_when_it_was_last_seen_is_unneeded_since_now() -> None:
    assert _dangling_since(a_snapshot().with_blob("a", known=True)).since == NOW


@pytest.mark.parametrize(("leaving", "since"), [((), hours(500)), (("a",), hours(0))])
def test_what_leaves_in_this_run_was_needed_until_now_and_what_has_left_was_not(
    leaving: tuple[str, ...], since: timedelta
) -> None:
    snapshot = a_snapshot().with_blob("a", age=hours(900), unreferenced_for=hours(500)).build()
    left = LeftForRoom(needed_at=ago(hours(900)), size=20, place=1, freed=10)
    now_leaving = frozenset(map(blob, leaving))

    (marked,) = mark(replace(snapshot, departed={blob("a"): left}, leaving=now_leaving)).marks

    assert (marked.since, marked.reason) == (ago(since), left)


def test_what_the_newest_generation_named_was_needed_until_now_whatever_its_age() -> None:
    world = (
        a_snapshot().with_blob("a", unreferenced_for=hours(500)).with_generation(1, ("gone", "a"))
    )

    marked = _dangling_since(world)

    assert marked.since == NOW
    assert format_reason(marked.reason) == (
        "index-web-1-f921bd05 in refs/heads/main referenced it until now, "
        "but no live result needs it"
    )


def test_what_hides_the_newest_generation_named_a_blob_until_now_too() -> None:
    world = (
        a_snapshot()
        .with_blob("a")
        .with_generation(1, ("gone", "a"))
        .with_generation(2)
        .where_builders_read("index-web-1-f921bd05#1")
    )

    assert _dangling_since(world).since == NOW


def test_without_memory_a_blob_was_needed_until_its_generation_was_followed() -> None:
    world = (
        a_snapshot()
        .with_blob("a", age=hours(90))
        .with_generation(1, ("gone", "a"), age=hours(80))
        .with_generation(2, age=hours(40))
        .with_generation(3, age=hours(20))
    )

    assert _dangling_since(world).since == ago(hours(40))


def test_of_several_generations_the_one_that_was_followed_last_tells() -> None:
    other = IndexId(MAIN, Scope("other"))
    world = (
        a_snapshot()
        .with_blob("a", age=hours(90))
        .with_generation(1, ("gone", "a"), of=API, age=hours(80))
        .with_generation(2, of=API, age=hours(30))
        .with_generation(1, ("gone", "a"), of=other, age=hours(80))
        .with_generation(2, of=other, age=hours(20))
        .with_generation(1, ("gone", "a"), age=hours(80))
        .with_generation(2, age=hours(40))
    )

    assert _dangling_since(world).since == ago(hours(20))


def test_an_old_memory_counts_no_more_than_a_generation_that_has_named_the_blob_since() -> None:
    world = (
        a_snapshot()
        .with_blob("a", age=hours(90), unreferenced_for=hours(60))
        .with_generation(1, ("gone", "a"), age=hours(80))
        .with_generation(2, age=hours(40))
    )

    assert _dangling_since(world).since == ago(hours(40))


def test_a_use_after_its_generation_was_followed_counts() -> None:
    world = (
        a_snapshot()
        .with_blob("a", age=hours(90), used=hours(3))
        .with_generation(1, ("gone", "a"), age=hours(80))
        .with_generation(2, age=hours(40))
    )

    assert _dangling_since(world).since == ago(hours(3))


# Generations.


def test_the_newest_generation_is_what_builders_read() -> None:
    world = a_snapshot().with_generation(1).with_generation(2, unreferenced_for=hours(9))

    marked = _mark_of("index-web-1-f921bd05#2", world)

    assert marked.state is State.NEWEST
    assert format_reason(marked.reason) == "builds read it"
    assert marked.since == NOW
    assert marked.index == WEB


def test_a_generation_that_hides_the_newest_is_read_by_builders_as_well() -> None:
    world = (
        a_snapshot()
        .with_generation(1)
        .with_generation(2)
        .with_generation(3)
        .where_builders_read("index-web-1-f921bd05#2")
    )

    states = [one.state for one in mark(world.build()).marks]

    assert states == [State.SUPERSEDED, State.NEWEST, State.NEWEST]


def test_without_memory_a_generation_is_superseded_since_the_next_was_created() -> None:
    world = (
        a_snapshot()
        .with_generation(1, age=hours(50))
        .with_generation(2, age=hours(40))
        .with_generation(4, age=hours(30))
    )

    marked = _mark_of("index-web-1-f921bd05#1", world)

    assert marked.state is State.SUPERSEDED
    assert format_reason(marked.reason) == "generation 4 is newer"
    assert marked.since == ago(hours(40))
    assert marked.index == WEB


def test_without_memory_a_generation_is_superseded_since_it_was_last_used() -> None:
    world = (
        a_snapshot()
        .with_generation(1, age=hours(50), used=hours(6))
        .with_generation(2, age=hours(40))
    )

    assert _mark_of("index-web-1-f921bd05#1", world).since == ago(hours(6))


def test_with_memory_a_generation_is_superseded_since_that_was_noticed() -> None:
    # Builders ask for the newest only: whoever has looked it up since, it was us.
    world = (
        a_snapshot().with_generation(1, unreferenced_for=hours(7), used=hours(1)).with_generation(2)
    )

    assert _mark_of("index-web-1-f921bd05#1", world).since == ago(hours(7))


def test_a_generation_that_was_the_newest_when_it_was_last_seen_is_superseded_since_now() -> None:
    world = a_snapshot().with_generation(1, known=True).with_generation(2)

    assert _mark_of("index-web-1-f921bd05#1", world).since == NOW


def test_every_signed_generation_is_left_as_it_is() -> None:
    world = a_snapshot().with_generation(1, of=SIGNED_WEB).with_generation(2, of=SIGNED_WEB)

    for marked in mark(world.build()).marks:
        assert marked.state is State.SIGNED
        assert format_reason(marked.reason) == "signed indexes are never rewritten"
        assert marked.index == SIGNED_WEB


def test_a_generation_that_could_not_be_read_is_told_apart() -> None:
    world = a_snapshot().with_generation(1).with_unread_generation(2)

    marked = _mark_of("index-web-1-f921bd05#2", world)

    assert marked.state is State.UNREAD
    assert format_reason(marked.reason) == "it could not be read this time"
    assert marked.index == WEB
    assert _mark_of("index-web-1-f921bd05#1", world).state is State.NEWEST


# Signatures.


def test_a_signature_is_reachable_while_the_index_that_it_signs_is_stored() -> None:
    signed = content_digest(encode(an_index("a")))
    world = a_snapshot().with_generation(3, "a", of=SIGNED_WEB).with_signature(signed)

    marked = _mark_of(f"buildkit-blob-1-{signed}-sig", world)

    assert marked.state is State.REACHABLE
    assert format_reason(marked.reason) == "it signs index-web-1-f921bd05-sig#3"


def test_a_signature_dangles_once_the_index_that_it_signs_is_gone() -> None:
    signed = content_digest(encode(an_index("a")))
    world = (
        a_snapshot()
        .remembering(3, "a", of=SIGNED_WEB)
        .with_signature(signed, age=hours(60), unreferenced_for=hours(4))
    )

    marked = _mark_of(f"buildkit-blob-1-{signed}-sig", world)

    assert marked.state is State.DANGLING
    assert format_reason(marked.reason) == "the index that it signs is gone"
    assert marked.since == ago(hours(4))


def test_without_memory_a_signature_dangles_since_its_last_use() -> None:
    signed = content_digest(b"{}")
    world = a_snapshot().with_signature(signed, age=hours(60), used=hours(2))

    assert _mark_of(f"buildkit-blob-1-{signed}-sig", world).since == ago(hours(2))


def test_the_states_are_called_by_the_words_that_people_query() -> None:
    assert [state.value for state in State] == [
        *("reachable", "dangling", "without content", "newest", "superseded", "signed", "unread"),
        *("unreadable ref", "closed ref", "foreign"),
    ]


# What is not ours, or not ours to see.


@pytest.mark.parametrize("ref", [MAIN, PULL])
def test_an_entry_of_another_tool_is_none_of_our_business(ref: Ref) -> None:
    world = a_snapshot().with_entry("setup-node-Linux-npm-0a1b", ref=ref)

    (marked,) = mark(world.build()).marks

    assert marked.state is State.FOREIGN
    assert format_reason(marked.reason) == "it belongs to another tool"


def test_an_index_under_a_key_that_its_ref_does_not_write_is_none_of_our_business() -> None:
    world = a_snapshot().with_entry(str(RELEASED_WEB.key(1)), ref=MAIN)

    (marked,) = mark(world.build()).marks

    assert marked.state is State.FOREIGN
    assert format_reason(marked.reason) == "builds in refs/heads/main do not write such keys"


@pytest.mark.parametrize(
    "key",
    [
        blob_key("a"),
        f"{blob_key('a')}-sig",
        str(IndexId(PULL, Scope("web")).key(1)),
        str(IndexId(PULL, Scope("web"), signed=True).key(1)),
        str(WEB.key(1)),
    ],
)
def test_what_is_in_a_ref_that_the_token_cannot_read_is_only_counted(key: str) -> None:
    (marked,) = mark(a_snapshot().with_entry(key, ref=PULL).build()).marks

    assert marked.state is State.UNREADABLE
    assert format_reason(marked.reason) == "the token cannot read refs/pull/7/merge"


def test_a_blob_in_an_unreadable_ref_is_not_live_for_what_the_token_reads() -> None:
    world = a_snapshot().with_blob("a", ref=PULL).with_generation(1, "a")

    assert _index_of(WEB, world).merged == CacheConfig()


# Indexes of unknown content.


def _opaque_indexes(world: World) -> list[str]:
    return [one.key for one in mark(world.build()).opaque_indexes]


def test_indexes_of_unknown_content_shield_blobs_the_newest_first() -> None:
    pulled = IndexId(PULL, Scope("web"))
    world = (
        a_snapshot()
        .with_entry(str(pulled.key(1)), ref=PULL, age=hours(3))
        .with_entry(str(pulled.key(3)), ref=PULL, age=hours(1))
        .with_entry(str(pulled.key(2)), ref=PULL, age=hours(1))
        .with_invalid_generation(1, age=hours(2))
        .with_entry(str(RELEASED_WEB.key(1)), ref=MAIN, age=hours(4))
    )

    opaque_indexes = mark(world.build()).opaque_indexes

    assert [(one.key, one.ref, one.created_at) for one in opaque_indexes] == [
        (str(pulled.key(3)), PULL, ago(hours(1))),
        (str(pulled.key(2)), PULL, ago(hours(1))),
        (str(WEB.key(1)), MAIN, ago(hours(2))),
        (str(pulled.key(1)), PULL, ago(hours(3))),
        (str(RELEASED_WEB.key(1)), MAIN, ago(hours(4))),
    ]


def test_what_is_no_index_or_was_read_shields_nothing() -> None:
    world = (
        a_snapshot()
        .with_blob("a", ref=PULL)
        .with_entry("setup-node-Linux-npm-0a1b", ref=PULL)
        .with_generation(1)
        .with_generation(1, of=SIGNED_WEB)
        .remembering(2)
    )

    assert _opaque_indexes(world) == []


# Whether all is known.


@pytest.mark.parametrize(
    ("world", "certain"),
    [
        (a_snapshot().with_generation(1), True),
        (a_snapshot().with_unread_generation(1), False),
        (a_snapshot().with_generation(1).listed_in_part(), False),
    ],
)
def test_what_looks_unneeded_is_so_only_if_all_was_listed_and_read(
    world: World, *, certain: bool
) -> None:
    assert mark(world.build()).certain is certain


def test_marks_keep_to_the_order_of_the_entries_and_hold_the_snapshot() -> None:
    world = a_snapshot().with_blobs("c", "a", "b").with_generation(1, "a")
    snapshot: Snapshot = world.build()

    marks = mark(snapshot)

    assert tuple(one.entry for one in marks.marks) == snapshot.entries
    assert marks.snapshot is snapshot


def test_what_its_owner_had_forgotten_leads_to_nothing_and_is_written_without_it() -> None:
    snapshot = a_snapshot().with_blobs("base").with_generation(3, "base").build()
    known = replace(snapshot.memory[WEB], forgotten=True)

    marks = mark(replace(snapshot, memory={WEB: known}))

    assert marks.indexes[0].merged.records == ()
    (write,) = make_plan(marks, Rules(grace=hours(24))).writes
    assert write.reason == Forgotten()
