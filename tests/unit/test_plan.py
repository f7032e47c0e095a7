"""Plans: what is written, what is deleted, what is left alone, and the reason for each."""

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import (
    MAX_GENERATION,
    MAX_KEY_LENGTH,
    BlobKey,
    CacheConfig,
    Digest,
    IndexId,
    IndexKey,
    Scope,
    SignatureKey,
    content_digest,
    encode,
    merge,
    with_sink,
)
from maintainer.mark import mark
from maintainer.model.decision import DeleteEntry, Keep, Plan, Rules, WriteIndex
from maintainer.model.export import Export
from maintainer.model.index import KnownGeneration
from maintainer.model.marks import State
from maintainer.model.reason import DropMissing, StillReferenced, UnreadIndex
from maintainer.model.snapshot import Snapshot
from maintainer.plan import Planner, make_plan
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
    an_index,
    blob_key,
    hours,
)
from tests.worlds import leads_to

DAY = hours(24)
MOMENT = timedelta(microseconds=1)
API = IndexId(MAIN, Scope("api"))
RELEASED_WEB = IndexId(RELEASE, Scope("web"))
PULLED_WEB = IndexId(PULL, Scope("web"))
SAYS_ALL = "its newest generation is up to date"


def _plan(world: World, grace: timedelta = DAY) -> Plan:
    return make_plan(mark(world.build()), Rules(grace))


def _write(world: World, grace: timedelta = DAY) -> WriteIndex:
    (write,) = _plan(world, grace).writes
    return write


def _fate(key: str, world: World, grace: timedelta = DAY) -> DeleteEntry | Keep | None:
    """Return the one action or decision about an entry, if there is any."""
    plan = _plan(world, grace)
    fates: list[DeleteEntry | Keep] = [one for one in plan.deletes if one.entry.key == key]
    fates += [one for one in plan.keeps if one.subject == key and one.store_id is not None]
    assert len(fates) <= 1
    return fates[0] if fates else None


def _deleted(key: str, world: World, grace: timedelta = DAY) -> DeleteEntry:
    fate = _fate(key, world, grace)
    assert isinstance(fate, DeleteEntry), fate
    return fate


def _kept(key: str, world: World, grace: timedelta = DAY) -> str:
    """Return the reason for which an entry is kept."""
    fate = _fate(key, world, grace)
    assert isinstance(fate, Keep), fate
    return format_reason(fate.reason)


def _about(index: IndexId, world: World) -> str:
    """Return the reason for which an index is left as it is."""
    plan = _plan(world)
    assert not [write for write in plan.writes if write.index == index]
    (keep,) = [k for k in plan.keeps if k.subject == str(index) and k.ref == index.ref]
    assert keep.store_id is None
    assert keep.size is None
    return format_reason(keep.reason)


# Which indexes are written.


def test_generations_that_hide_each_other_are_merged_into_the_next_one() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(5, "a").with_generation(6, "b")

    write = _write(world)

    assert write.index == WEB
    assert str(write.key) == "index-web-1-f921bd05#7"
    assert write.content == merge([an_index("a", "b")])
    assert format_reason(write.reason) == "merge generation 5 with generation 6"


def test_generations_are_merged_in_whenever_they_came_to_be_known() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(6, "b").with_generation(5, "a")

    assert format_reason(_write(world).reason) == "merge generation 5 with generation 6"


def test_a_few_merged_generations_are_named() -> None:
    world = a_snapshot().with_blobs("a", "b", "c", "d")
    world.with_generation(1, "a").with_generation(2, "b")
    world.with_generation(4, "c").with_generation(9, "d")

    assert format_reason(_write(world).reason) == "merge generations 1, 2 and 4 with generation 9"


def test_many_merged_generations_are_counted() -> None:
    world = a_snapshot().with_blobs("a", "b", "c", "d", "e")
    world.with_generation(1, "a").with_generation(2, "b").with_generation(4, "c")
    world.with_generation(7, "d").with_generation(9, "e")

    assert format_reason(_write(world).reason) == "merge 4 generations (1 to 7) with generation 9"


def test_blobs_that_are_gone_are_dropped_and_what_is_left_is_written() -> None:
    world = a_snapshot().with_blobs("a", "b", "c").with_generation(1, "a", "b", "c").without("b")

    write = _write(world)

    assert write.content == merge([an_index("a", "c")])
    assert format_reason(write.reason) == "drop 1 blob that is gone or not needed"
    assert (
        format_reason(_write(world.without("a")).reason)
        == "drop 2 blobs that are gone or not needed"
    )


def test_merging_and_dropping_are_told_together() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(1, "a").with_generation(2, "b", "x")

    assert format_reason(_write(world).reason) == (
        "merge generation 1 with generation 2; drop 1 blob that is gone or not needed"
    )


def test_only_blobs_of_the_index_itself_are_counted() -> None:
    world = a_snapshot().with_blobs("a").with_blob("b", lost_for=DAY).with_blob("c", lost_for=DAY)
    world.with_generation(1, "a", "b", "gone", "gone too")

    assert _write(world).reason == DropMissing(without_content=1, missing=2)


def test_an_index_of_which_nothing_is_left_is_written_empty() -> None:
    write = _write(a_snapshot().with_generation(1, "a"))

    assert write.content == CacheConfig()
    assert format_reason(write.reason) == "drop 1 blob that is gone or not needed"


def test_keys_that_lead_to_nothing_are_dropped() -> None:
    write = _write(a_snapshot().with_blobs("a").with_generation(1, "a", ()))

    assert write.content == merge([an_index("a")])
    assert format_reason(write.reason) == "drop unused keys and results"


def test_twins_within_the_newest_generation_are_no_reason_to_write_for_builders_unite_them() -> (
    None
):
    assert _about(WEB, a_snapshot().with_blobs("a").with_generation(1, "a", "a")) == SAYS_ALL


def test_an_index_that_says_all_is_settled_and_not_written() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a")

    plan = _plan(world)

    assert plan.writes == ()
    assert plan.up_to_date == (WEB,)
    assert _about(WEB, world) == SAYS_ALL


def test_an_index_that_says_all_in_another_order_is_not_written() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(1, "b", "a")
    config = world.build().generations[0].config

    assert config != merge([an_index("a", "b")])
    assert _plan(world).writes == ()


def test_an_index_with_several_leaves_and_no_sink_is_written_again() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(1, "a", "b").by_a_build()

    assert _write(world).content == merge([an_index("a", "b")])
    assert format_reason(_write(world).reason) == (
        "add the sink record, so that builds find all of it"
    )


def test_an_index_with_one_leaf_needs_no_sink() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a").by_a_build()

    assert _plan(world).writes == ()


def test_an_empty_index_of_which_nothing_is_left_is_not_written_again() -> None:
    assert _about(WEB, a_snapshot().with_generation(1)) == SAYS_ALL


def test_settled_indexes_are_listed_in_order() -> None:
    indexes = [IndexId(ref, Scope(name)) for ref in (MAIN, RELEASE) for name in "abcdefgh"]
    world = a_snapshot(reading=[RELEASE])
    for index in reversed(indexes):
        world.with_generation(1, of=index)

    assert _plan(world).up_to_date == tuple(indexes)


def test_an_index_all_of_whose_generations_were_evicted_is_restored_from_memory() -> None:
    world = a_snapshot().with_blobs("a", "b").remembering(3, "a", "b", "gone")

    write = _write(world)

    assert str(write.key) == "index-web-1-f921bd05#4"
    assert write.content == merge([an_index("a", "b")])
    assert format_reason(write.reason) == "all its generations are gone; 2 results are remembered"


def test_an_index_of_which_nothing_is_stored_and_nothing_left_is_not_written() -> None:
    world = a_snapshot().remembering(3, "gone")

    assert _about(WEB, world) == "nothing is left of it"
    assert _plan(world).up_to_date == (WEB,)


def test_a_generation_that_importers_refuse_is_replaced_by_the_merge_of_the_others() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a").with_invalid_generation(2)

    write = _write(world)

    assert str(write.key) == "index-web-1-f921bd05#3"
    assert write.content == merge([an_index("a")])
    assert format_reason(write.reason) == "generation 2 is invalid: record 0: it is broken"


def test_a_generation_that_importers_refuse_is_replaced_even_if_nothing_is_left() -> None:
    assert _write(a_snapshot().with_invalid_generation(2)).content == CacheConfig()


def test_an_invalid_generation_that_is_not_the_newest_is_no_reason_to_write() -> None:
    world = a_snapshot().with_blobs("a").with_invalid_generation(1).with_generation(2, "a")

    assert _about(WEB, world) == SAYS_ALL


def test_what_an_incomplete_list_lacks_is_not_said_to_be_older_than_what_builders_read() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a").with_generation(2, "a")
    world.where_builders_read(str(WEB.key(1))).with_blobs("b")
    snapshot = world.build()
    unlisted = tuple(
        replace(one, last_seen_at=snapshot.now - hours(1)) if one.number == 2 else one
        for one in snapshot.generations
    )
    marks = mark(replace(snapshot, generations=unlisted, listing_complete=False))

    (write,) = make_plan(marks, Rules(hours(24))).writes

    assert format_reason(write.reason) == (
        "index-web-1-f921bd05#2 is not in the list, so builds may read index-web-1-f921bd05#1"
    )


def test_what_is_in_the_list_is_not_said_to_be_missing_whatever_came_before_and_after_it() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a").with_generation(2, "a")
    world.where_builders_read(str(WEB.key(1))).with_blobs("b")
    snapshot = world.build()

    for without in ("#1", A, blob_key("b")):
        seen = tuple(entry for entry in snapshot.entries if not entry.key.endswith(without))
        (write,) = make_plan(mark(replace(snapshot, entries=seen)), Rules(DAY)).writes
        assert format_reason(write.reason).startswith("builds read"), without


def test_an_index_that_builders_do_not_see_is_written_again() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a")
    world.where_builders_read("index-web-1-f921bd05-sig#3")

    write = _write(world)

    assert write.content == merge([an_index("a")])
    assert format_reason(write.reason) == (
        "builds read index-web-1-f921bd05-sig#3 instead, which was created later"
    )


def test_an_index_whose_newest_generation_could_not_be_read_is_not_written() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(1, "a")
    world.with_unread_generation(2)

    assert _about(WEB, world) == (
        "its newest generation could not be read this time: the server is in trouble"
    )
    assert _plan(world).up_to_date == ()


def test_of_several_generations_that_could_not_be_read_the_newest_tells_why() -> None:
    world = a_snapshot().with_unread_generation(1, "it is too large")
    world.with_unread_generation(2, "it is locked").with_blobs("a")

    assert _about(WEB, world).endswith(": it is locked")
    assert _kept(A, world, hours(0)).startswith("index-web-1-f921bd05#1 could not")


def test_an_index_none_of_whose_generations_could_be_read_is_not_written() -> None:
    assert "could not be read this time" in _about(WEB, a_snapshot().with_unread_generation(0))


def test_an_older_generation_that_could_not_be_read_does_not_keep_the_others_from_merging() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(2, "a").with_generation(3, "b")
    world.with_unread_generation(1)

    assert format_reason(_write(world).reason) == "merge generation 2 with generation 3"


def test_the_next_number_is_behind_all_that_was_ever_seen() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(2, "a").remembering(8, "b")

    assert str(_write(world).key) == "index-web-1-f921bd05#9"


def test_an_index_whose_numbers_have_come_to_their_end_is_not_written() -> None:
    def ending_at(number: int) -> World:
        return a_snapshot().with_blobs("a").with_generation(number, "a", "gone")

    last = int(str(MAX_GENERATION))  # as one is read from a key

    assert _write(ending_at(last - 1)).key.generation == last
    assert _about(WEB, ending_at(last)) == "its keys cannot hold a higher number"


def test_an_index_whose_next_key_would_be_too_long_is_not_written() -> None:
    longest = "s" * (MAX_KEY_LENGTH - len(str(IndexId(MAIN, Scope("")).key(9))))
    index = IndexId(MAIN, Scope(longest))
    fits, does_not = (
        a_snapshot()
        .with_blobs("a", "b")
        .with_generation(number - 1, "a", of=index)
        .with_generation(number, "b", of=index)
        for number in (8, 9)
    )

    assert len(str(_write(fits).key)) == MAX_KEY_LENGTH
    assert _about(index, does_not) == "the next key would have 513 characters; the limit is 512"


def test_an_index_that_no_run_could_read_again_is_not_written() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(1, "a").with_generation(2, "b")
    marks = mark(world.build())
    size = len(encode(with_sink(_write(world).content)))

    fits = make_plan(marks, Rules(DAY, size))
    does_not = make_plan(marks, Rules(DAY, size - 1))

    assert len(fits.writes) == 1
    assert does_not.writes == ()
    reasons = [format_reason(keep.reason) for keep in does_not.keeps if keep.subject == str(WEB)]
    assert reasons == [
        f"the merged index has {size:,} bytes, more than the {size - 1:,} of max_index_size"
    ]


def test_what_the_token_cannot_write_is_reported_with_what_is_left_to_do() -> None:
    world = (
        a_snapshot(reading=[RELEASE])
        .with_blobs("a", "b")
        .with_generation(1, "a", of=RELEASED_WEB)
        .with_generation(2, "b", of=RELEASED_WEB)
    )

    assert _about(RELEASED_WEB, world) == (
        "the token cannot write refs/heads/release; "
        "still to do: merge generation 1 with generation 2"
    )
    assert _plan(world).up_to_date == ()


def test_what_the_token_cannot_write_and_could_not_read_is_reported_too() -> None:
    world = a_snapshot(reading=[RELEASE]).with_unread_generation(1, of=RELEASED_WEB)

    assert _about(RELEASED_WEB, world) == (
        "its newest generation could not be read this time: the server is in trouble"
    )


def test_what_the_token_cannot_write_may_be_settled() -> None:
    world = a_snapshot(reading=[RELEASE]).with_generation(1, of=RELEASED_WEB)

    assert _about(RELEASED_WEB, world) == SAYS_ALL


def test_signed_indexes_are_never_rewritten() -> None:
    world = (
        a_snapshot()
        .with_blobs("a", "b")
        .with_generation(1, "a", of=SIGNED_WEB)
        .with_generation(2, "b", "gone", of=SIGNED_WEB)
    )

    assert _about(SIGNED_WEB, world) == "signed indexes are never rewritten"
    assert _plan(world).up_to_date == ()
    assert _plan(world, hours(0)).deletes == ()


def test_every_index_is_planned_by_itself_and_in_order() -> None:
    world = a_snapshot(writing=[MAIN, RELEASE]).with_blobs("a")
    for index in (WEB, RELEASED_WEB, API):
        world.with_generation(1, "a", "gone", of=index)

    assert [write.index for write in _plan(world).writes] == [API, WEB, RELEASED_WEB]


# When superseded generations are deleted.

OLDER = "index-web-1-f921bd05#1"
NEWER = "index-web-1-f921bd05#2"


def _followed(age: timedelta) -> World:
    """Describe a up_to_date index whose first generation was followed so long ago."""
    world = a_snapshot().with_blobs("a").with_generation(1, "a")
    return world.with_generation(2, "a", age=age)


def test_a_superseded_generation_is_deleted_once_the_grace_period_is_over() -> None:
    delete = _deleted(OLDER, _followed(DAY))

    assert delete.state is State.SUPERSEDED
    assert (
        format_reason(delete.reason)
        == "superseded since 2026-07-31 12:00 UTC: generation 2 is newer"
    )
    assert delete.after == frozenset()


def test_a_superseded_generation_is_kept_until_the_very_end_of_the_grace_period() -> None:
    assert _kept(OLDER, _followed(DAY - MOMENT)) == (
        "superseded since 2026-07-31 12:00 UTC, kept until 2026-08-01 12:00 UTC"
    )


def test_an_older_generation_is_deleted_only_after_the_merge_was_written() -> None:
    world = a_snapshot().with_blobs("a", "b")
    world.with_generation(1, "a", age=hours(50)).with_generation(2, "b", age=hours(40))

    assert _deleted(OLDER, world).after == {WEB}


def test_the_grace_period_of_the_newest_generation_starts_when_it_is_replaced() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(1, "a").with_generation(2, "b")

    assert _kept(NEWER, world) == (
        "superseded since 2026-08-01 12:00 UTC, kept until 2026-08-02 12:00 UTC"
    )
    assert _kept(NEWER, world, MOMENT)


def test_without_a_grace_period_the_newest_generation_goes_once_it_is_replaced() -> None:
    world = a_snapshot().with_blobs("a", "b").with_generation(1, "a").with_generation(2, "b")

    delete = _deleted(NEWER, world, hours(0))

    assert delete.state is State.SUPERSEDED
    assert format_reason(delete.reason) == "superseded by the generation that this run writes"
    assert delete.after == {WEB}


def test_the_newest_generation_stays_if_nothing_is_written() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a")

    assert _fate(OLDER, world, hours(0)) is None


def test_generations_stay_while_their_index_is_not_rewritten() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a").with_generation(2)
    world.with_unread_generation(3)

    assert (
        _kept(OLDER, world) == "index-web-1-f921bd05 is not rewritten, so this may still be needed"
    )
    assert _kept("index-web-1-f921bd05#3", world) == "it could not be read this time"
    assert _plan(world, hours(0)).deletes == ()


def test_generations_in_a_ref_that_the_token_cannot_write_stay_until_somebody_merges_them() -> None:
    world = a_snapshot(reading=[RELEASE]).with_blobs("a", "b")
    world.with_generation(1, "a", of=RELEASED_WEB).with_generation(2, "b", of=RELEASED_WEB)

    reason = _kept(str(RELEASED_WEB.key(1)), world)

    assert reason == "index-web-1-57cbf0f4 is not rewritten, so this may still be needed"


def test_superseded_generations_of_a_settled_index_are_deleted_in_readable_refs_too() -> None:
    world = a_snapshot(reading=[RELEASE]).with_blobs("a")
    world.with_generation(1, of=RELEASED_WEB).with_generation(2, of=RELEASED_WEB)

    assert _deleted(str(RELEASED_WEB.key(1)), world).after == frozenset()


# When dangling blobs are deleted.

A = blob_key("a")


def test_a_dangling_blob_is_deleted_once_the_grace_period_is_over() -> None:
    delete = _deleted(A, a_snapshot().with_blob("a", age=DAY))

    assert delete.state is State.DANGLING
    assert format_reason(delete.reason) == (
        "dangling since 2026-07-31 12:00 UTC: no live result of any index needs it"
    )
    assert delete.after == frozenset()


def test_a_young_blob_survives_for_a_build_uploads_its_blobs_before_its_index() -> None:
    assert _kept(A, a_snapshot().with_blob("a", age=DAY - MOMENT)) == (
        "dangling since 2026-07-31 12:00 UTC, kept until 2026-08-01 12:00 UTC"
    )
    assert _kept(A, a_snapshot().with_blob("a", age=hours(1)), hours(1) + MOMENT)


def test_an_old_blob_that_was_used_of_late_survives() -> None:
    assert _kept(A, a_snapshot().with_blob("a", used=hours(23)))
    assert _kept(A, a_snapshot().with_blob("a", used=hours(23), unreferenced_for=hours(99)))


def test_the_grace_period_starts_when_a_blob_is_first_noticed_to_be_unneeded() -> None:
    assert _kept(A, a_snapshot().with_blob("a", unreferenced_for=DAY - MOMENT))
    _deleted(A, a_snapshot().with_blob("a", unreferenced_for=DAY))
    assert _kept(A, a_snapshot().with_blob("a", known=True), MOMENT)


def test_what_the_newest_generation_named_when_the_run_began_survives_it() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, ("gone", "a"))

    assert _kept(A, world) == (
        "dangling since 2026-08-01 12:00 UTC, kept until 2026-08-02 12:00 UTC"
    )


def test_without_a_grace_period_what_an_index_named_goes_after_it_was_rewritten() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, ("gone", "a"))
    world.with_generation(1, ("lost", "a"), of=API)

    delete = _deleted(A, world, hours(0))

    assert delete.after == {API, WEB}
    assert format_reason(delete.reason) == (
        "dangling since 2026-08-01 12:00 UTC: index-api-1-f921bd05 in refs/heads/main "
        "referenced it until now, but no live result needs it"
    )


def test_what_an_index_names_that_nobody_may_rewrite_stays() -> None:
    signed = a_snapshot().with_blobs("a").with_generation(1, ("gone", "a"), of=SIGNED_WEB)
    unwritable = (
        a_snapshot(reading=[RELEASE])
        .with_blobs("a")
        .with_generation(1, ("gone", "a"), of=RELEASED_WEB)
        .with_generation(1, ("gone", "a"))
    )

    assert _kept(A, signed, hours(0)) == (
        "index-web-1-f921bd05-sig still references it and is not rewritten"
    )
    assert _kept(A, unwritable, hours(0)) == (
        f"{RELEASED_WEB} still references it and is not rewritten"
    )


def test_of_several_indexes_that_still_name_a_blob_the_first_is_told() -> None:
    world = a_snapshot(reading=[RELEASE]).with_blobs("a")
    for index in (RELEASED_WEB, SIGNED_WEB):
        world.with_generation(1, ("gone", "a"), of=index)

    (keep,) = [keep for keep in _plan(world, hours(0)).keeps if keep.subject == A]

    assert keep.reason == StillReferenced(str(SIGNED_WEB), MAIN)


def test_no_blob_is_deleted_while_an_index_that_may_need_it_could_not_be_read() -> None:
    world = a_snapshot().with_blobs("a").with_unread_generation(4)

    assert _kept(A, world, hours(0)) == (
        "index-web-1-f921bd05#4 could not be read this time and may need it"
    )


def test_no_blob_is_deleted_while_not_even_the_number_of_a_generation_is_known() -> None:
    world = a_snapshot().with_blobs("a").with_unread_generation(0)

    assert _kept(A, world, hours(0)) == (
        "index-web-1-f921bd05 could not be read this time and may need it"
    )


def test_no_blob_is_deleted_if_an_index_may_have_been_missed_in_the_list() -> None:
    world = a_snapshot().with_blobs("a").listed_in_part()

    assert _kept(A, world, hours(0)) == (
        "the list of entries was incomplete, so an index may have been missed"
    )


def test_unread_indexes_keep_blobs_only_and_not_the_generations_of_other_indexes() -> None:
    world = _followed(DAY).with_unread_generation(4, of=API)

    _deleted(OLDER, world)


def test_the_signature_of_an_index_that_is_gone_is_deleted_like_a_blob() -> None:
    signed = content_digest(encode(an_index("a")))
    key = f"buildkit-blob-1-{signed}-sig"

    delete = _deleted(key, a_snapshot().with_signature(signed, age=DAY))

    assert delete.state is State.DANGLING
    assert format_reason(delete.reason) == (
        "dangling since 2026-07-31 12:00 UTC: the index that it signs is gone"
    )
    assert _kept(key, a_snapshot().with_signature(signed, age=DAY - MOMENT))


# A run waits for an export in progress, if only that keeps an entry.

EXPORT = Export(NOW - hours(1) + MOMENT, MAIN)


def _while_a_build_exports(*, orphan: timedelta) -> World:
    """Describe a blob that nothing needs, and one that a build has uploaded."""
    return a_snapshot().with_blob("a", age=orphan).with_blob("new", age=hours(1) - MOMENT)


def test_an_export_in_progress_puts_off_what_is_due() -> None:
    world = _while_a_build_exports(orphan=DAY)

    plan = _plan(world)

    assert plan.deferred == EXPORT
    assert plan.blocked == EXPORT.reason
    assert _kept(A, world) == format_reason(EXPORT.reason)


def test_a_run_waits_for_no_export_if_nothing_is_due() -> None:
    plan = _plan(_while_a_build_exports(orphan=DAY - MOMENT))

    assert plan.deferred is None
    assert plan.blocked is None


def test_a_run_waits_for_no_export_if_an_index_could_not_be_read() -> None:
    plan = _plan(_while_a_build_exports(orphan=DAY).with_unread_generation(4, of=API))

    assert plan.deferred is None
    assert plan.blocked == UnreadIndex(str(API.key(4)))


def test_generations_are_deleted_while_a_build_exports() -> None:
    _deleted(OLDER, _followed(DAY).with_blob("new", age=hours(1) - MOMENT))


def test_that_a_later_batch_is_put_off_is_in_its_plan() -> None:
    marks = mark(_while_a_build_exports(orphan=DAY).build())
    planner = Planner(marks, Rules(DAY))

    assert planner.plan(()).deferred is None
    assert planner.plan(marks.marks).deferred == EXPORT


# A blob without content is deleted at once.


def test_a_blob_without_content_is_deleted_after_the_indexes_that_name_it_were_rewritten() -> None:
    world = a_snapshot().with_blob("a", age=hours(0), lost_for=hours(0)).with_blobs("b", "c")
    world.with_generation(1, "a", "b").with_generation(1, "b", ("c", "gone"), of=API)

    delete = _deleted(A, world)

    assert {write.index for write in _plan(world).writes} == {WEB, API}
    assert delete.state is State.WITHOUT_CONTENT
    assert delete.after == {WEB}
    assert format_reason(delete.reason) == "its content cannot be downloaded"
    assert _plan(world).deletes[0].entry.key == A


def test_a_blob_without_content_is_deleted_even_if_nobody_may_rewrite_an_index() -> None:
    world = a_snapshot(reading=[RELEASE]).with_blob("a", lost_for=DAY).with_blobs("b")
    world.with_generation(1, "a", "b", of=RELEASED_WEB).with_generation(2, "b", ("gone", "b"))

    assert _deleted(A, world).after == frozenset()


def test_neither_an_export_nor_an_unread_index_keeps_a_blob_without_content() -> None:
    world = a_snapshot().with_blob("a", age=hours(0), lost_for=hours(0))
    world.with_blob("new", age=MOMENT).with_unread_generation(4)

    assert _deleted(A, world).state is State.WITHOUT_CONTENT


def test_a_dangling_blob_is_deleted_after_those_indexes_only_that_name_it() -> None:
    world = a_snapshot().with_blobs("a", "b", "c")
    world.with_generation(1, ("gone", "a"), "b").with_generation(1, "b", ("c", "gone"), of=API)

    delete = _deleted(A, world, hours(0))

    assert {write.index for write in _plan(world).writes} == {WEB, API}
    assert delete.state is State.DANGLING
    assert delete.after == {WEB}


# Indexes of unknown content shield what is older than they are.


def _beside_a_pull_request(*, index: timedelta, blob_age: timedelta) -> World:
    """Describe a blob that nothing needs, and an index in a ref that the token cannot read."""
    world = a_snapshot().with_blob("a", age=blob_age, unreferenced_for=hours(99))
    return world.with_entry(str(PULLED_WEB.key(3)), ref=PULL, age=index)


def test_a_young_index_in_an_unreadable_ref_keeps_older_blobs() -> None:
    world = _beside_a_pull_request(index=hours(1), blob_age=hours(100))

    assert _kept(A, world) == (
        f"{PULLED_WEB.key(3)} in refs/pull/7/merge is newer, its content is unknown, and it "
        "may need this until 2026-08-02 11:00 UTC"
    )


def test_such_an_index_keeps_blobs_until_the_very_end_of_its_grace_period() -> None:
    assert _kept(A, _beside_a_pull_request(index=DAY - MOMENT, blob_age=hours(100)))
    _deleted(A, _beside_a_pull_request(index=DAY, blob_age=hours(100)))
    _deleted(A, _beside_a_pull_request(index=DAY + MOMENT, blob_age=hours(100)))


def test_such_an_index_keeps_no_blob_that_is_younger_than_it() -> None:
    grace = hours(3)
    same_age = _beside_a_pull_request(index=hours(2), blob_age=hours(2))
    younger = _beside_a_pull_request(index=hours(2), blob_age=hours(2) - MOMENT)

    assert "its content is unknown" in _kept(A, same_age, grace)
    assert _kept(A, younger, grace) == (
        "dangling since 2026-08-01 10:00 UTC, kept until 2026-08-01 13:00 UTC"
    )


def test_of_several_such_indexes_the_newest_tells_until_when() -> None:
    world = _beside_a_pull_request(index=hours(5), blob_age=hours(100))
    world.with_entry(str(PULLED_WEB.key(4)), ref=PULL, age=hours(2))

    assert _kept(A, world).startswith(f"{PULLED_WEB.key(4)} in")
    assert _kept(A, world).endswith("2026-08-02 10:00 UTC")


def test_such_an_index_keeps_no_superseded_generation() -> None:
    _deleted(OLDER, _followed(DAY).with_entry(str(PULLED_WEB.key(1)), ref=PULL, age=hours(1)))


def test_an_invalid_index_keeps_blobs_for_the_grace_period_only() -> None:
    def beside_an_invalid_index(age: timedelta) -> World:
        return a_snapshot().with_blob("a", age=2 * DAY).with_invalid_generation(1, age=age)

    assert "its content is unknown" in _kept(A, beside_an_invalid_index(DAY - MOMENT))
    _deleted(A, beside_an_invalid_index(DAY))


def test_an_index_under_a_key_that_its_ref_does_not_write_keeps_young_blobs() -> None:
    blob = a_snapshot().with_blob("a", age=2 * DAY)
    world = blob.with_entry(str(RELEASED_WEB.key(1)), age=hours(1))

    assert "its content is unknown" in _kept(A, world)


def _used_beside_a_pull_request(used: timedelta) -> World:
    world = a_snapshot().with_blob("a", used=used)
    return world.with_entry(str(PULLED_WEB.key(1)), ref=PULL, age=hours(1))


def _deletes(world: World, **rules: Any) -> bool:
    return bool(make_plan(mark(world.build()), Rules(DAY, **rules)).deletes)


def test_an_unreadable_ref_protects_no_blob_that_github_would_evict_tomorrow_anyway() -> None:
    week = 7 * DAY

    assert not _deletes(_used_beside_a_pull_request(6 * DAY - MOMENT), retention=week)
    assert _deletes(_used_beside_a_pull_request(6 * DAY), retention=week)
    assert _deletes(_used_beside_a_pull_request(6 * DAY + MOMENT), retention=week)
    assert not _deletes(_used_beside_a_pull_request(6 * DAY), retention=90 * DAY)
    assert not _deletes(_used_beside_a_pull_request(2 * DAY), retention=week)


def test_a_short_retention_protects_a_blob_for_half_of_it() -> None:
    def is_deleted(used: timedelta) -> bool:
        marks = mark(_used_beside_a_pull_request(used).build())
        return bool(make_plan(marks, Rules(hours(2), retention=DAY)).deletes)

    assert not is_deleted(hours(12) - MOMENT)
    assert is_deleted(hours(12))


def test_a_retention_that_is_not_known_shortens_no_protection() -> None:
    assert not _deletes(_used_beside_a_pull_request(29 * DAY), retention=None)


def test_the_owner_may_let_unreadable_refs_protect_nothing() -> None:
    world = _used_beside_a_pull_request(2 * DAY)

    assert not _deletes(world)
    assert _deletes(world, protects_unreadable_refs=False)


def test_an_older_index_of_ones_own_that_is_not_understood_protects_beside_one_that_may_not() -> (
    None
):
    world = _used_beside_a_pull_request(2 * DAY).with_invalid_generation(1, age=hours(2))

    assert not _deletes(world, protects_unreadable_refs=False)


def test_an_index_of_ones_own_that_is_not_understood_protects_whatever_nobody_uses() -> None:
    world = a_snapshot().with_blob("a", used=29 * DAY).with_invalid_generation(1, age=hours(1))

    assert not _deletes(world, retention=7 * DAY)
    assert not _deletes(world, protects_unreadable_refs=False)


# A repair only rewrites what makes builds fail or miss.


def _repair(world: World) -> Plan:
    return make_plan(mark(world.build()), Rules(hours(0), repair=True))


def test_a_repair_writes_an_index_if_builders_read_one_that_importers_refuse() -> None:
    world = a_snapshot().with_blobs("a").with_invalid_generation(1).with_generation(2, "a")
    world.where_builders_read(str(WEB.key(1)))

    assert [write.index for write in _repair(world).writes] == [WEB]


def test_a_repair_decides_about_no_entry() -> None:
    world = a_snapshot().with_blobs("a", "b", "orphan").with_blob("lost", lost_for=DAY)
    world.with_generation(1, "a").with_generation(2, "a", ("gone", "b"))

    plan = _repair(world)

    assert _plan(world, hours(0)).deletes
    assert plan.deletes == ()
    assert [keep for keep in plan.keeps if keep.store_id is not None] == []


# What is not even mentioned, and the order of deletions.


def test_what_is_needed_foreign_signed_or_unreadable_is_not_mentioned() -> None:
    world = (
        a_snapshot()
        .with_blobs("a")
        .with_generation(1, "a", of=SIGNED_WEB)
        .with_signature(content_digest(encode(an_index("a"))))
        .with_entry("setup-node-Linux-npm-0a1b")
        .with_entry(str(RELEASED_WEB.key(1)), ref=MAIN)
        .with_blob("b", ref=PULL)
        .with_entry(str(PULLED_WEB.key(1)), ref=PULL)
    )

    plan = _plan(world, hours(0))

    assert plan.deletes == ()
    assert [keep.subject for keep in plan.keeps] == [str(SIGNED_WEB)]


def test_what_is_kept_is_told_with_its_ref_size_and_number() -> None:
    keep = _fate(A, a_snapshot().with_blob("a", age=hours(1)))

    assert isinstance(keep, Keep)
    assert (keep.subject, keep.ref, keep.size, keep.store_id) == (A, MAIN, 10, 1)


def test_superseded_generations_go_before_blobs_and_the_oldest_first() -> None:
    world = (
        a_snapshot()
        .with_blob("young", age=hours(30))
        .with_blob("twin", age=hours(60))
        .with_blob("old", age=hours(90))
        .with_blob("other twin", age=hours(60))
        .with_generation(2, age=hours(50))
        .with_generation(1, age=hours(55))
        .with_generation(3, age=hours(40))
    )

    assert [delete.entry.key for delete in _plan(world).deletes] == [
        OLDER,
        NEWER,
        blob_key("old"),
        blob_key("twin"),
        blob_key("other twin"),
        blob_key("young"),
    ]


# What holds for every cache.

_REFS = [MAIN, RELEASE, PULL]
_NAMES = ["a", "b", "c", "d"]
_ages = st.integers(0, 60).map(hours)
_graces = st.sampled_from([hours(0), hours(1), DAY])
_indexes = st.builds(
    IndexId,
    st.sampled_from([MAIN, RELEASE]),
    st.sampled_from([Scope("web"), Scope("api")]),
    st.booleans(),
)
_chains = st.lists(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=3).map(tuple), max_size=3)


@st.composite
def _snapshots(draw: st.DrawFn) -> Snapshot:
    """Draw a cache: some blobs in each ref, some generations, and what is not ours."""
    world = a_snapshot(reading=[RELEASE])
    for ref in _REFS:
        for name in sorted(draw(st.sets(st.sampled_from(_NAMES)))):
            if draw(st.booleans()):
                world.with_blob(name, ref=ref, age=draw(_ages), unreferenced_for=draw(_ages))
            else:
                world.with_blob(name, ref=ref, age=hours(60), used=draw(_ages))
    for index in draw(st.lists(_indexes, unique=True, max_size=4)):
        for number in draw(st.lists(st.integers(1, 5), unique=True, max_size=4)):
            kind = draw(st.sampled_from(["stored", "stored", "stored", "remembered", "invalid"]))
            if kind == "stored":
                world.with_generation(number, *draw(_chains), of=index, age=draw(_ages))
            elif kind == "remembered":
                world.remembering(number, *draw(_chains), of=index)
            else:
                world.with_invalid_generation(number, of=index, age=draw(_ages))
    world.with_entry("setup-node-Linux-npm-0a1b", age=hours(900))
    world.with_entry(str(PULLED_WEB.key(1)), ref=PULL, age=draw(_ages))
    world.with_signature(content_digest(draw(st.sampled_from([b"", encode(an_index("a"))]))))
    if draw(st.integers(0, 9)) == 0:
        world.with_unread_generation(draw(st.sampled_from([0, 6])))
    return world.build()


def _live_chains(generation: KnownGeneration, live: frozenset[Digest]) -> set[tuple[Digest, ...]]:
    """Return the chains of blobs that the live results of a generation need."""
    config = generation.config or CacheConfig()
    chains = {chain for found in leads_to(config).values() for chain in found}
    return {chain for chain in chains if live.issuperset(chain)}


@given(_snapshots(), _graces, st.randoms(use_true_random=False))
def test_a_plan_follows_from_the_cache_the_grace_period_and_the_time_alone(
    snapshot: Snapshot, grace: timedelta, random: Random
) -> None:
    generations = list(snapshot.generations)
    random.shuffle(generations)
    shuffled = replace(snapshot, generations=tuple(generations))

    assert make_plan(mark(shuffled), Rules(grace)) == make_plan(mark(snapshot), Rules(grace))


@given(_snapshots(), _graces)
def test_only_our_own_kinds_in_readable_refs_are_deleted_and_each_entry_has_one_fate(
    snapshot: Snapshot, grace: timedelta
) -> None:
    plan = make_plan(mark(snapshot), Rules(grace))

    for delete in plan.deletes:
        assert isinstance(delete.entry.parsed, BlobKey | SignatureKey | IndexKey)
        assert delete.entry.ref in snapshot.access.readable
        assert delete.after <= {write.index for write in plan.writes}
    fates = [delete.entry.store_id for delete in plan.deletes]
    fates += [keep.store_id for keep in plan.keeps if keep.store_id is not None]
    assert len(fates) == len(set(fates))
    reasons = [format_reason(one.reason) for one in plan.writes] + [
        format_reason(one.reason) for one in plan.deletes
    ]
    assert all(reasons + [format_reason(one.reason) for one in plan.keeps])


@given(_snapshots(), _graces)
def test_no_blob_that_a_live_result_needs_is_ever_deleted(
    snapshot: Snapshot, grace: timedelta
) -> None:
    needed = {
        digest
        for generation in snapshot.generations
        if generation.exists or not generation.index.signed
        for chain in _live_chains(generation, snapshot.live_blobs)
        for digest in chain
    }

    for delete in make_plan(mark(snapshot), Rules(grace)).deletes:
        if isinstance(delete.entry.parsed, BlobKey):
            assert delete.entry.parsed.digest not in needed
            assert not snapshot.unread


@given(_snapshots(), _graces)
def test_nothing_is_deleted_that_was_written_or_used_within_the_grace_period(
    snapshot: Snapshot, grace: timedelta
) -> None:
    for delete in make_plan(mark(snapshot), Rules(grace)).deletes:
        assert delete.entry.last_use_at <= snapshot.now - grace


@given(_snapshots())
def test_what_is_written_leads_to_all_that_is_live_and_names_nothing_else(
    snapshot: Snapshot,
) -> None:
    for write in make_plan(mark(snapshot), Rules(DAY)).writes:
        generations = [one for one in snapshot.generations if one.index == write.index]
        live = [_live_chains(one, snapshot.live_blobs) for one in generations]
        written = {chain for found in leads_to(write.content).values() for chain in found}
        assert written == set().union(*live)
        assert write.content.blobs <= snapshot.live_blobs
        assert write.key.generation > max(one.number for one in generations)
        assert write.index.ref in snapshot.access.writable
        assert not write.index.signed


@given(_snapshots(), _graces)
def test_once_a_plan_was_carried_out_nothing_is_left_to_write(
    snapshot: Snapshot, grace: timedelta
) -> None:
    plan = make_plan(mark(snapshot), Rules(grace))

    again = make_plan(mark(_carried_out(snapshot, plan)), Rules(grace))

    assert again.writes == ()


def _carried_out(snapshot: Snapshot, plan: Plan) -> Snapshot:
    """Return the cache as it is when a plan was carried out."""
    gone = {delete.entry.store_id for delete in plan.deletes}
    entries = tuple(entry for entry in snapshot.entries if entry.store_id not in gone)
    kept = (replace(g, exists=g.exists and g.store_id not in gone) for g in snapshot.generations)
    written = (
        KnownGeneration(
            generation_id=1_000 + number,
            index=write.index,
            number=write.key.generation,
            content_digest=content_digest(encode(write.content)),
            config=write.content,
            violation=None,
            created_at=NOW,
            store_id=1_000 + number,
            exists=True,
            sink=write.sink,
        )
        for number, write in enumerate(plan.writes)
    )
    return replace(
        snapshot,
        entries=entries,
        generations=(*kept, *written),
        live_blobs=frozenset(
            entry.parsed.digest
            for entry in entries
            if isinstance(entry.parsed, BlobKey) and entry.ref in snapshot.access.readable
        ),
        read_by_builders={
            **snapshot.read_by_builders,
            **{write.index: str(write.key) for write in plan.writes},
        },
    )
