"""What only a directory has: manifests that tags hold, pins, uploads, and tags that change."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as change

from maintainer.cacheconfig import (
    NO_REF,
    BlobKey,
    CacheConfig,
    IndexId,
    Record,
    Result,
    Scope,
    UploadKey,
    merge,
)
from maintainer.cacheconfig.oci import IMPORT_LIMIT
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.mark import mark
from maintainer.model.decision import DeleteEntry, Plan, Rules
from maintainer.model.entry import KnownEntry
from maintainer.model.marks import Mark, State
from maintainer.model.reason import (
    AddSink,
    DropMissing,
    Invalid,
    Merge,
    NeededByOtherTag,
    NotBroken,
    NotWritable,
    OpaqueIndex,
    Replaced,
)
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot
from maintainer.model.store import StoreFacts
from maintainer.plan import make_plan
from maintainer.report.reasons import format_reason
from tests.snapshots import (
    LONG_AGO,
    MAIN,
    NOW,
    WEB,
    World,
    a_snapshot,
    ago,
    an_index,
    blob,
    blob_key,
    hours,
)

API = IndexId(NO_REF, Scope("api"))
MAIN_API = IndexId(MAIN, Scope("api"))
SITE = IndexId(NO_REF, Scope("site"))


def _a_directory(*names: str) -> World:
    """Store blobs for which no memory speaks."""
    world = a_snapshot(reading=(NO_REF,), writing=(NO_REF,))
    for name in names:
        world.with_blob(name, ref=NO_REF)
    return world


def _tagged(world: World, facts: StoreFacts | None = None) -> Snapshot:
    """Let what was remembered be what tags lead to."""
    snapshot = world.build()
    return replace(
        snapshot,
        generations=tuple(replace(one, exists=True) for one in snapshot.generations),
        facts=replace(facts or StoreFacts(ago(LONG_AGO)), index_limit=IMPORT_LIMIT),
    )


def _mark_of(name: str, snapshot: Snapshot) -> Mark:
    (found,) = [one for one in mark(snapshot).marks if one.entry.parsed == BlobKey(blob(name))]
    return found


def _plan(snapshot: Snapshot) -> Plan:
    return make_plan(mark(snapshot), Rules(hours(24)))


def _holding(*names: str) -> StoreFacts:
    return StoreFacts(
        ago(LONG_AGO), manifest_blobs={blob(name): frozenset({API}) for name in names}
    )


def test_a_manifest_that_a_tag_leads_to_is_read_by_builders() -> None:
    snapshot = _tagged(_a_directory("a", "manifest").remembering(1, "a", of=API))
    snapshot = replace(snapshot, facts=_holding("manifest"))

    found = _mark_of("manifest", snapshot)

    assert (found.state, found.index) == (State.NEWEST, API)
    assert _plan(snapshot).deletes == ()


def test_a_manifest_goes_once_its_tag_is_rewritten() -> None:
    world = _a_directory("a", "manifest").remembering(1, "a", "gone", of=API)
    snapshot = replace(_tagged(world), facts=_holding("manifest"))

    plan = make_plan(mark(snapshot), Rules(hours(0)))

    (delete,) = plan.deletes
    assert delete.entry.key == blob_key("manifest")
    assert delete.after == {API}
    assert delete.reason == Replaced(is_named=True)


def test_a_manifest_stays_if_only_one_of_its_tags_is_rewritten() -> None:
    world = _a_directory("a", "manifest").remembering(1, "a", "gone", of=API)
    tags = frozenset({API, SITE})
    facts = StoreFacts(ago(LONG_AGO), manifest_blobs={blob("manifest"): tags})
    snapshot = replace(_tagged(world.remembering(1, "a", of=SITE)), facts=facts)

    plan = make_plan(mark(snapshot), Rules(hours(0)))

    assert [write.index for write in plan.writes] == [API]
    assert plan.deletes == ()


@pytest.mark.parametrize("names", [("manifest", "other"), ("other", "manifest")])
def test_so_it_does_beside_a_manifest_of_the_other_tag_alone(names: tuple[str, str]) -> None:
    world = _a_directory("a", "manifest", "other").remembering(1, "a", "gone", of=API)
    tags = {"manifest": frozenset({API, SITE}), "other": frozenset({SITE})}
    facts = StoreFacts(ago(LONG_AGO), manifest_blobs={blob(name): tags[name] for name in names})
    snapshot = replace(_tagged(world.remembering(1, "a", of=SITE)), facts=facts)

    assert make_plan(mark(snapshot), Rules(hours(0))).deletes == ()


def test_a_tag_is_written_however_small_indexes_without_names_have_to_be() -> None:
    world = _a_directory("a").remembering(1, "a", "gone", of=API)

    (write,) = make_plan(mark(_tagged(world)), Rules(hours(24), max_index_size=1)).writes

    assert write.index == API


def test_what_something_else_needs_is_pinned() -> None:
    facts = StoreFacts(ago(LONG_AGO), pinned={blob("image"): NeededByOtherTag("image")})

    found = _mark_of("image", _tagged(_a_directory("image"), facts))

    assert (found.state, found.reason) == (State.REACHABLE, NeededByOtherTag("image"))


def test_an_upload_that_was_left_is_deleted_after_all_else() -> None:
    snapshot = _tagged(_a_directory("orphan"))
    (orphan,) = snapshot.entries
    upload = change(
        orphan, store_id=2, key="ingest/x", parsed=UploadKey("x"), created_at=ago(LONG_AGO * 2)
    )
    snapshot = replace(snapshot, entries=(upload, orphan))

    assert [one.entry for one in _plan(snapshot).deletes] == [orphan, upload]


def test_what_a_tag_may_have_needed_is_needed_until_a_tag_was_replaced() -> None:
    facts = StoreFacts(ago(hours(3)), recent_roots=frozenset({blob("orphan")}))

    found = _mark_of("orphan", _tagged(_a_directory("orphan"), facts))

    assert (found.state, found.since) == (State.DANGLING, ago(hours(3)))


@pytest.mark.parametrize(("used", "since"), [(29.5, 3), (30, 26), (40, 26)])
def test_what_builds_may_have_used_without_a_sign_was_needed_until_an_index_was_replaced(
    used: float, since: float
) -> None:
    # A build touches a blob at most every four hours.
    facts = StoreFacts(ago(hours(3)), unseen_for=hours(4))
    age = hours(used)
    world = _a_directory()
    world.with_blob("orphan", ref=NO_REF, age=age, used=age, unreferenced_for=hours(26))

    assert _mark_of("orphan", _tagged(world, facts)).since == ago(hours(since))


def test_what_a_tag_named_stays_while_the_tag_cannot_be_written() -> None:
    world = a_snapshot(reading=(NO_REF,), writing=())
    world.with_blob("a", ref=NO_REF).remembering(1, "a", "gone", of=API)

    (keep,) = _plan(_tagged(world)).keeps

    assert isinstance(keep.reason, NotWritable)
    assert keep.reason.pending is not None


def test_an_invalid_manifest_is_repaired() -> None:
    snapshot = _tagged(_a_directory("a").remembering(1, "a", of=API))
    broken = tuple(replace(one, violation="it is broken") for one in snapshot.generations)

    (write,) = _plan(replace(snapshot, generations=broken)).writes

    assert write.reason == Invalid("it is broken", None)


def test_an_invalid_tag_keeps_what_it_may_need() -> None:
    snapshot = _tagged(_a_directory("a", "orphan").remembering(1, "a", of=API))
    (tag,) = snapshot.generations
    tag = replace(tag, config=None, violation="it is broken", created_at=NOW)

    plan = _plan(replace(snapshot, generations=(tag,)))

    assert plan.deletes == ()
    assert any(isinstance(one.reason, OpaqueIndex) for one in plan.keeps)


def _large(name: str, results: int, *, at: int) -> CacheConfig:
    """Return an export of so many results, each of which takes a thousand bytes."""
    made_at = Result((0,), with_parents=True, created_at=Nanoseconds(at))
    records = (Record(f"{name} {number:01000}", (made_at,), ()) for number in range(results))
    return CacheConfig(an_index("a").layers, tuple(records))


def _digests(config: CacheConfig) -> set[str]:
    return {record.digest for record in config.records}


def test_the_merge_of_all_tags_leaves_out_what_builds_used_longest_ago() -> None:
    old, new = _large("old", 600, at=1), _large("new", 600, at=2)
    snapshot = _tagged(_a_directory("a").remembering(1, of=API).remembering(1, of=SITE))
    generations = tuple(
        replace(one, config=config, sink=None)
        for one, config in zip(snapshot.generations, (old, new), strict=True)
    )
    memory = {API: Remembered(old), SITE: Remembered(new)}

    for known in (memory, {}):
        marks = mark(
            replace(
                snapshot, generations=generations, memory=known, merged_scope=Scope("maintained")
            )
        )

        (together,) = [one for one in marks.indexes if one.is_merge]
        assert _digests(new) < _digests(together.merged)
        assert together.omitted == 1_200 - together.merged.result_count > 0


@pytest.mark.parametrize("results", [950, 1_100])
def test_no_export_is_written_anew_if_there_is_no_room_for_anything_else_beside_it(
    results: int,
) -> None:
    newest = merge([_large("new", results, at=2)])
    former = CacheConfig(newest.layers, (Record("x" * 60_000, newest.records[0].results, ()),))
    snapshot = _tagged(_a_directory("a").remembering(1, of=API))
    (tag,) = snapshot.generations
    tag = replace(tag, config=newest, sink=None)
    memory = {API: Remembered(newest, {NOW.date(): former})}

    (index,) = mark(replace(snapshot, generations=(tag,), memory=memory)).indexes

    assert index.merged == newest
    assert index.omitted == 1


@pytest.mark.parametrize(("results", "writes"), [(900, [AddSink()]), (1_100, [])])
def test_a_tag_gets_a_sink_only_if_importers_have_room_for_it(
    results: int, writes: list[AddSink]
) -> None:
    newest = merge([_large("new", results, at=2)])
    snapshot = _tagged(_a_directory("a").remembering(1, of=API))
    (tag,) = snapshot.generations
    tag = replace(tag, config=newest, sink=None)
    memory = {API: Remembered(newest)}

    plan = make_plan(mark(replace(snapshot, generations=(tag,), memory=memory)), Rules(hours(24)))

    assert [write.reason for write in plan.writes] == writes


def test_a_repair_plans_for_no_entry_and_leaves_sound_tags_alone() -> None:
    world = _a_directory("a", "b", "orphan").remembering(1, "a", ("a", "b"), of=API)
    snapshot = _tagged(world)

    plan = make_plan(mark(snapshot), Rules(hours(0), repair=True))

    assert not plan.deletes
    assert not plan.writes
    assert [keep.subject for keep in plan.keeps] == [str(API)]


def test_a_repair_writes_what_is_broken_and_nothing_else() -> None:
    world = a_snapshot().with_blobs("a", "b", "orphan").with_generation(1, "a", "gone")
    world.with_generation(1, "a", of=MAIN_API).with_generation(2, "b", of=MAIN_API)

    plan = make_plan(mark(world.build()), Rules(hours(0), repair=True))

    assert [write.index for write in plan.writes] == [WEB]
    (keep,) = plan.keeps
    assert keep.subject == str(MAIN_API)
    assert isinstance(keep.reason, NotBroken)
    assert isinstance(keep.reason.pending, Merge)


def test_a_repair_writes_what_importers_refuse() -> None:
    world = a_snapshot().with_blobs("a").with_generation(1, "a").with_invalid_generation(2)

    (write,) = make_plan(mark(world.build()), Rules(hours(0), repair=True)).writes

    assert isinstance(write.reason, Invalid)


def _without_content(entry: KnownEntry) -> KnownEntry:
    return change(entry, content_missing_since=ago(hours(1)))


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_a_blob_without_content_goes_at_once_and_after_its_index(names: tuple[str, ...]) -> None:
    world = a_snapshot().with_blobs("a", "b", "c").with_generation(1, "a", "b", "c")
    snapshot = world.build()
    broken = frozenset(map(blob, names))
    snapshot = replace(
        snapshot,
        entries=tuple(
            _without_content(one)
            if isinstance(one.parsed, BlobKey) and one.parsed.digest in broken
            else one
            for one in snapshot.entries
        ),
        live_blobs=snapshot.live_blobs - broken,
        broken_blobs=broken,
    )

    plan = _plan(snapshot)

    first: DeleteEntry = plan.deletes[0]
    assert first.state is State.WITHOUT_CONTENT
    assert first.after == {plan.writes[0].index}
    assert isinstance(plan.writes[0].reason, DropMissing)
    assert plan.writes[0].reason.without_content == len(names)


def test_what_a_build_has_overwritten_is_added_as_of_an_earlier_export() -> None:
    snapshot = _tagged(_a_directory("a", "b").remembering(1, "a", of=API))
    earlier = snapshot.memory[API].with_export(an_index("b"), None, NOW.date())

    (write,) = _plan(replace(snapshot, memory={API: earlier})).writes

    assert write.content == merge([an_index("a"), an_index("b")])
    assert format_reason(write.reason) == "add the results of 1 blob from earlier exports"


def test_what_importers_have_no_room_for_is_left_out_and_counted() -> None:
    names = [letter * 400_000 for letter in "abcd"]
    snapshot = _tagged(_a_directory(*names).remembering(1, *names, "gone", of=API))

    (index,) = mark(snapshot).indexes
    (write,) = _plan(snapshot).writes

    assert index.omitted == 2
    assert write.reason.omitted == 2
