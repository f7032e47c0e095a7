"""What a run does to a cache, story by story, over HTTP."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import (
    MAX_KEY_LENGTH,
    CacheConfig,
    IndexId,
    Ref,
    Scope,
    content_digest,
    decode,
    encode,
    hash_ref,
    merge,
)
from maintainer.emulator import Fault, FaultPlan
from maintainer.emulator.requests import Request
from maintainer.emulator.server import Service
from maintainer.report import ActionReport, Report
from maintainer.stores.github.keyed import CacheHit
from tests.integration.world import MAIN, World, a_world, blob_of, built, leads_to

PULL = "refs/pull/7/merge"
WEB = IndexId(Ref(MAIN), Scope("buildkit"))
NO_GRACE = timedelta(0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _blobs(*steps: str) -> set[str]:
    return {blob_of(step) for step in steps}


def _kept(report: Report, subject: str) -> list[ActionReport]:
    return [a for a in report.actions if a.kind == "keep" and a.subject.endswith(subject)]


def test_every_image_finds_its_cache_again_whoever_exported_last(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")

    report = world.gc()

    assert leads_to(world.newest()) == _blobs("base", "api", "web")
    assert report.indexes_written == 1
    assert world.generations() == [1, 2, 3]


@pytest.mark.each_database
def test_what_an_evicted_index_knew_is_remembered_while_its_blobs_survive(world: World) -> None:
    lost = world.build("base", "api")
    world.build("base", "web")
    world.gc(dry_run=True)
    world.evict_entries([lost])

    world.gc()

    assert leads_to(world.newest()) == _blobs("base", "api", "web")


TAG = "refs/tags/v1.2.3"


@pytest.mark.parametrize("below_heads", [False, True])
def test_a_run_on_a_tag_finds_its_generations_however_the_list_spells_its_ref(
    world: World, below_heads: bool
) -> None:
    world.cache.lists_tags_below_heads = below_heads
    world.build("base", "api", ref=TAG)
    world.build("base", "web", ref=TAG)

    report = world.gc(ref=TAG)

    assert leads_to(world.newest(ref=TAG)) == _blobs("base", "api", "web")
    assert report.indexes_written == 1
    world.passes(minutes=5)
    assert world.gc(ref=TAG).indexes_written == 0


def test_a_branch_that_is_named_like_a_tag_is_not_taken_for_it(world: World) -> None:
    branch = f"refs/heads/{TAG}"
    world.build("base", "branch", ref=branch)
    world.build("base", "tag", ref=TAG)

    world.gc(ref=TAG)

    assert leads_to(world.newest(ref=TAG)) == _blobs("base", "tag")
    assert leads_to(world.newest(ref=branch)) == _blobs("base", "branch")


def test_where_a_branch_and_a_tag_cannot_be_told_apart_no_blob_goes(world: World) -> None:
    world.cache.lists_tags_below_heads = True
    branch = f"refs/heads/{TAG}"
    world.put(f"buildkit-blob-1-{blob_of('of the branch')}", ref=branch)
    world.build("base", "branch", ref=branch)
    world.build("base", "tag", ref=TAG)
    world.passes(days=2)

    world.gc(ref=TAG, grace=NO_GRACE)

    assert blob_of("of the branch") in world.blobs(branch)
    assert leads_to(world.newest(ref=TAG)) == _blobs("base", "tag")


def test_a_scope_that_vanished_is_written_again_as_far_as_its_blobs_exist(world: World) -> None:
    world.build("base", "api", "test")
    world.gc()
    world.evict_entries([e for e in world.entries() if e.key.startswith("index-")])
    world.evict("test")

    report = world.gc()

    assert report.status == "done"
    assert leads_to(world.newest()) == _blobs("base", "api")


def test_no_index_points_at_an_evicted_blob_any_more(world: World) -> None:
    world.build("base", "api", "test")
    world.evict("api")

    report = world.gc()

    assert world.newest().blobs == _blobs("base")
    assert report.blobs_missing == 1


@pytest.mark.each_database
def test_when_nothing_is_left_the_index_is_written_empty(world: World) -> None:
    world.build("base", "api")
    world.evict("base")

    report = world.gc(grace=NO_GRACE)

    assert world.newest() == CacheConfig()
    assert world.blobs() == set()
    assert report.status == "done"


def test_a_second_run_writes_nothing_and_only_lists(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    world.gc()
    before = world.entries()
    world.passes(minutes=5)

    world.gc()

    assert world.entries() == before
    assert world.requests == {"list": 1}


def test_a_run_that_has_lost_its_memory_writes_nothing_either(world: World, tmp_path: Path) -> None:
    world.build("base", "api")
    world.build("base", "web")
    world.gc()
    world.passes(minutes=5)

    report = world.gc(database=tmp_path / "other.db")

    assert report.indexes_written == 0
    assert world.generations() == [1, 2, 3]


def test_blobs_that_a_build_has_uploaded_before_its_index_survive(world: World) -> None:
    world.build("base", "api")
    world.put("buildkit-blob-1-" + blob_of("uploaded"), size=10)
    world.gc()
    world.passes(hours=23)

    report = world.gc()

    assert blob_of("uploaded") in world.blobs()
    assert "kept until" in _kept(report, blob_of("uploaded"))[0].sentence


def test_what_nothing_has_needed_for_the_grace_period_is_deleted(world: World) -> None:
    world.build("base", "api")
    world.put("buildkit-blob-1-" + blob_of("orphan"), size=10)
    world.put("buildkit-blob-1-" + content_digest(b"gone") + "-sig", b"bundle")
    world.passes(hours=24)

    report = world.gc()

    assert {action.subject for action in report.deleted} == {
        "buildkit-blob-1-" + blob_of("orphan"),
        "buildkit-blob-1-" + content_digest(b"gone") + "-sig",
    }
    assert all("dangling since" in action.sentence for action in report.deleted)


def test_what_the_newest_index_named_when_the_run_began_has_a_whole_grace_period_left(
    world: World,
) -> None:
    world.build("base", "api", "test")
    world.passes(days=6)
    world.evict("api")
    world.gc()
    assert world.newest().blobs == _blobs("base")
    assert blob_of("test") in world.blobs()
    world.passes(hours=23)
    world.gc()
    assert blob_of("test") in world.blobs()

    world.passes(hours=2)
    world.gc()

    assert blob_of("test") not in world.blobs()


def test_a_blob_that_a_build_has_looked_up_again_starts_its_grace_period_anew(
    world: World,
) -> None:
    world.build("base", "api")
    orphan = world.put("buildkit-blob-1-" + blob_of("orphan"), size=10)
    world.gc()
    world.passes(hours=20)
    world.running.call(lambda c: c.look_up([MAIN], orphan.key, [], orphan.version))
    world.passes(hours=10)

    world.gc()

    assert blob_of("orphan") in world.blobs()


def test_an_index_in_an_unreadable_ref_protects_older_blobs_for_a_grace_period(
    world: World,
) -> None:
    world.build("base", "api")
    world.put("buildkit-blob-1-" + blob_of("maybe"), size=10)
    world.passes(hours=30)
    world.build("pull", ref=PULL)
    world.passes(hours=1)

    report = world.gc()

    assert blob_of("maybe") in world.blobs()
    assert PULL in _kept(report, blob_of("maybe"))[0].sentence
    world.passes(hours=24)
    world.gc()
    assert blob_of("maybe") not in world.blobs()


@pytest.mark.parametrize(
    "key",
    [
        f"index-buildkit-2-{hash_ref(Ref(MAIN))}#1",
        f"Index-buildkit-2-{hash_ref(Ref(MAIN))}-sig#7",
        f"index-buildkit-1-{hash_ref(Ref(MAIN))}#{10**18}",
    ],
    ids=["another version", "signed", "a number of 19 digits"],
)
def test_an_index_that_runs_cannot_read_protects_older_blobs_for_a_grace_period(
    world: World, key: str
) -> None:
    world.build("base", "api")
    world.put("buildkit-blob-1-" + blob_of("maybe"), size=10)
    world.passes(hours=30)
    world.put(key, size=100)
    world.passes(hours=1)

    report = world.gc()

    assert blob_of("maybe") in world.blobs()
    assert key in _kept(report, blob_of("maybe"))[0].sentence
    world.passes(hours=24)
    world.gc()
    assert blob_of("maybe") not in world.blobs()
    assert key in {one.key for one in world.entries()}


def test_nothing_in_an_unreadable_ref_and_nothing_of_others_is_ever_deleted(world: World) -> None:
    world.build("base", "api")
    world.put("node-modules", b"other")
    world.build("pull", ref=PULL)
    world.put("buildkit-blob-1-" + blob_of("orphan"), size=10, ref=PULL)
    others = [entry for entry in world.entries() if entry.ref == PULL or entry.key[0] == "n"]
    world.passes(days=30)

    world.gc(grace=NO_GRACE)

    assert [entry for entry in world.entries() if entry in others] == others


@pytest.mark.each_database
def test_signed_indexes_protect_their_blobs_and_signatures_and_are_never_rewritten(
    world: World,
) -> None:
    signed = world.build("signed base", "signed", signed=True)
    bundle = f"buildkit-blob-1-{content_digest(signed.content or b'')}-sig"
    world.put(bundle, b"bundle")
    world.build("base", "api")
    world.passes(days=3)

    world.gc()

    assert _blobs("signed base", "signed") <= world.blobs()
    assert {signed.key, bundle} <= {entry.key for entry in world.entries()}
    assert [e.key for e in world.entries() if "-sig#" in e.key] == [signed.key]


def test_a_signed_index_that_hides_ours_is_outdated_by_a_new_generation(world: World) -> None:
    world.build("base", "api")
    world.passes(seconds=1)
    world.build("signed", signed=True)

    report = world.gc()

    assert leads_to(world.newest()) == _blobs("base", "api")
    assert "created later" in report.actions[0].sentence


def test_a_late_build_with_a_lower_number_hides_nothing(world: World) -> None:
    world.build("base", "api")
    late = world.build("base", "web")
    world.build("base", "docs")
    world.gc()
    world.passes(minutes=1)
    # The build that had reserved generation 2 finishes only now: it is what builders read.
    world.evict_entries([late])
    world.put(late.key, late.content)

    world.gc()

    assert leads_to(world.newest()) == _blobs("base", "api", "web", "docs")


def test_a_generation_that_a_build_writes_meanwhile_is_merged_in(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    once = iter([True])

    def build(request: Request) -> None:
        if request.kind == "reserve" and next(once, False):
            world.build("base", "docs")

    world.running.observe(before=build)

    report = world.gc()

    assert report.status == "done", report.problems
    assert world.generations() == [1, 2, 3, 4]
    assert leads_to(world.newest()) == _blobs("base", "api", "web", "docs")


def test_no_blob_is_swept_that_an_index_written_meanwhile_may_need(world: World) -> None:
    world.build("base", "api")
    world.put("buildkit-blob-1-" + blob_of("orphan"), size=10)
    world.passes(days=2)
    once = iter([True])

    def build(request: Request) -> None:
        # A build of another scope has found the blob stored, and names it.
        if request.kind == "list" and next(once, False):
            world.build("orphan", scope="new")

    world.running.observe(after=build)

    report = world.gc()

    assert blob_of("orphan") in world.blobs()
    assert [a.outcome_sentence for a in report.actions if a.kind == "delete"] == [
        "skipped: index-new-1-f921bd05#1 was written since the run began and may need it"
    ]
    assert report.status == "done"


def test_a_key_that_a_dead_build_has_reserved_is_waited_for_and_passed_over(world: World) -> None:
    world.build("base", "api")
    second = world.build("base", "web")
    reserved = second.key.replace("#2", "#3")
    world.running.call(lambda cache: cache.reserve(MAIN, reserved, second.version))

    report = world.gc()

    assert report.status == "done", report.problems
    assert world.generations() == [1, 2, 4]
    assert leads_to(world.newest()) == _blobs("base", "api", "web")


def test_a_build_that_writes_its_reserved_key_after_it_was_passed_over_is_merged_in(
    world: World,
) -> None:
    world.build("base", "api")
    second = world.build("base", "web")
    keys = [second.key.replace("#2", f"#{number}") for number in (3, 4)]
    slow = world.running.call(lambda cache: cache.reserve(MAIN, keys[0], second.version))
    # Whoever reserved the other one is dead.
    world.running.call(lambda cache: cache.reserve(MAIN, keys[1], second.version))
    content = encode(built("base", "docs"))
    world.put(f"buildkit-blob-1-{blob_of('docs')}", size=10)
    once = iter([True])

    def finish(request: Request) -> None:
        # The run has given up waiting for the first of the two, and waits for the second.
        if request.kind == "reserve" and request.key == keys[1] and next(once, False):
            slow.put(content)
            world.cache.finalize(slow, len(content))

    world.running.observe(before=finish)

    report = world.gc()

    assert report.status == "done", report.problems
    assert leads_to(world.newest()) == _blobs("base", "api", "web", "docs")


@pytest.mark.each_database
def test_an_index_that_cannot_be_read_this_time_stops_the_sweep_of_blobs(world: World) -> None:
    unread = world.build("base", "api")
    world.build("base", "web")
    world.put("buildkit-blob-1-" + blob_of("orphan"), size=10)
    world.passes(days=2)
    world.running.inject(FaultPlan((Fault(kind="status", request="look-up", key=unread.key),)))

    report = world.gc()

    assert _blobs("orphan", "api") <= world.blobs()
    assert unread.key in _kept(report, blob_of("orphan"))[0].sentence
    assert report.status == "done"
    assert leads_to(world.newest()) == _blobs("base", "web")

    world.running.inject()
    world.gc()

    assert leads_to(world.newest()) == _blobs("base", "api", "web")


def test_an_index_that_is_not_valid_is_replaced_by_the_merge_of_the_others(world: World) -> None:
    world.build("base", "api")
    broken = world.export(b'{"layers": [{"blob": "x"}]}', scope="buildkit", ref=MAIN)
    world.put("buildkit-blob-1-" + blob_of("maybe"), size=10)

    report = world.gc(grace=timedelta(hours=1))

    assert leads_to(world.newest()) == _blobs("base", "api")
    assert "invalid: layer 0: it has no annotations" in report.actions[0].sentence
    world.passes(hours=2)
    world.gc(grace=timedelta(hours=1))
    assert broken.key not in {entry.key for entry in world.entries()}
    assert blob_of("maybe") not in world.blobs()


def test_a_dry_run_changes_nothing_and_prints_the_plan_that_is_then_carried_out(
    world: World,
) -> None:
    world.build("base", "api")
    world.build("base", "web")
    world.put("buildkit-blob-1-" + blob_of("orphan"), size=10)
    world.passes(days=2)
    before = [entry.id for entry in world.entries()]

    planned = world.gc(dry_run=True)

    assert [entry.id for entry in world.entries()] == before
    done = world.gc()
    assert [(a.kind, a.subject, a.sentence) for a in planned.actions] == [
        (a.kind, a.subject, a.sentence) for a in done.actions
    ]
    assert {a.outcome_sentence for a in planned.actions} == {"planned", "kept"}
    assert {a.outcome_sentence for a in done.actions} == {"done", "kept"}


def test_without_a_sweep_nothing_is_deleted(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    world.passes(days=3)

    world.gc(no_sweep=True)

    assert leads_to(world.newest()) == _blobs("base", "api", "web")
    assert world.generations() == [1, 2, 3]


def test_a_run_of_a_pull_request_writes_its_own_ref_only(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    world.build("base", "pull", ref=PULL)
    world.build("base", "pull again", ref=PULL)

    report = world.gc(ref=PULL, readable=[MAIN], grace=NO_GRACE)

    assert leads_to(world.newest(ref=PULL)) == _blobs("base", "pull", "pull again")
    assert world.generations(ref=PULL) == [1, 2, 3] or world.generations() == [1, 2]
    assert any("the token cannot write refs/heads/main" in a.sentence for a in report.actions)


@pytest.mark.parametrize("service", ["v1", "v2"])
class TestWithoutRest:
    """Self-hosted services that can neither list nor delete."""

    def test_the_index_is_merged_and_pruned_by_look_ups_and_nothing_is_deleted(
        self, world: World, service: Service
    ) -> None:
        world.build("base", "api", "test")
        world.build("base", "web")
        world.put("buildkit-blob-1-" + blob_of("orphan"), size=10)
        world.evict("test")
        world.passes(days=3)
        before = {entry.key for entry in world.entries()}

        report = world.gc(rest=False, service=service, grace=NO_GRACE)

        assert report.status == "done", report.problems
        assert leads_to(world.newest()) == _blobs("base", "api", "web")
        assert before < {entry.key for entry in world.entries()}
        assert world.requests["delete"] == world.requests["list"] == 0

    def test_a_second_run_reads_the_newest_generation_only_and_writes_nothing(
        self, world: World, service: Service
    ) -> None:
        world.build("base", "api")
        world.build("base", "web")
        world.gc(rest=False, service=service)

        world.gc(rest=False, service=service)

        assert world.generations() == [1, 2, 3]
        assert set(world.requests) == {"look-up", "download"}
        assert world.requests["download"] == 1

    def test_older_generations_are_found_across_gaps_up_to_the_setting(
        self, world: World, service: Service
    ) -> None:
        entries = [world.build("base", f"step {number}") for number in range(8)]
        world.evict_entries([entries[0], *entries[2:5]])

        world.gc(rest=False, service=service, generation_gap=4)
        assert leads_to(world.newest()) >= _blobs("step 1", "step 5", "step 7")
        assert blob_of("step 3") not in leads_to(world.newest())

    def test_only_configured_scopes_are_looked_up(self, world: World, service: Service) -> None:
        for scope in ("buildkit", "web", "other"):
            world.build("base", "api", scope=scope)
            world.build("base", "web", scope=scope)

        world.gc(rest=False, service=service, scopes=("web", "other"))

        assert world.generations("buildkit") == [1, 2]
        assert world.generations("web") == world.generations("other") == [1, 2, 3]

    def test_numbers_that_start_again_are_noticed(self, world: World, service: Service) -> None:
        world.build("base", "api")
        world.gc(rest=False, service=service)
        world.evict_entries([e for e in world.entries() if e.key.startswith("index-")])
        world.build("base", "web")

        world.gc(rest=False, service=service)

        assert leads_to(world.newest()) == _blobs("base", "api", "web")

    def test_a_server_that_was_emptied_and_counts_from_one_again_is_noticed(
        self, world: World, service: Service
    ) -> None:
        world.build("base", "api")
        world.gc(rest=False, service=service)
        world.running.call(lambda cache: cache.clear(restart_ids=True))
        world.build("base", "web")

        report = world.gc(rest=False, service=service)

        assert report.status == "done", report.problems
        assert leads_to(world.newest()) == _blobs("base", "web")

    def test_a_place_that_follows_from_the_key_is_not_taken_for_its_content(
        self, world: World, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(CacheHit, "location", property(lambda found: found.key))
        world.build("base", "api")
        world.gc(rest=False, service=service)
        world.evict_entries([e for e in world.entries() if e.key.startswith("index-")])
        world.build("base", "web")

        world.gc(rest=False, service=service)

        assert leads_to(world.newest()) == _blobs("base", "api", "web")

    def test_newest_generations_that_are_gone_do_not_count_as_there(
        self, world: World, service: Service
    ) -> None:
        old = world.build("base", "api")
        world.gc(rest=False, service=service)
        world.build("base", "web")
        world.gc(rest=False, service=service)
        indexes = [e for e in world.entries() if e.key.startswith("index-")]
        world.evict_entries([e for e in indexes if e.id != old.id])

        world.gc(rest=False, service=service)

        assert leads_to(world.newest()) == _blobs("base", "api", "web")


def _limit(world: World) -> int:
    """Return a size that the index of each build has, and their merge has not."""
    return max(e.size for e in world.entries() if e.key.startswith("index-")) + 100


def test_a_merged_index_that_no_run_could_read_again_is_not_written(world: World) -> None:
    world.build("base", *(f"api {number}" for number in range(10)))
    world.build("base", *(f"web {number}" for number in range(10)))
    world.passes(days=2)
    before = world.entries()

    world.gc(max_index_size=_limit(world), grace=NO_GRACE)
    world.passes(days=1)
    report = world.gc(max_index_size=_limit(world), grace=NO_GRACE)

    assert report.status == "done"
    assert [entry.id for entry in world.entries()] == [entry.id for entry in before]
    (kept,) = _kept(report, WEB.prefix[:-1])
    assert "more than the" in kept.sentence
    assert world.gc().indexes_written == 1


def test_an_index_that_grows_too_large_by_what_a_build_writes_meanwhile_is_left(
    world: World,
) -> None:
    world.build("base", *(f"api {number}" for number in range(10)))
    world.build("base", "web")
    limit = _limit(world) + 1_000
    more = built("base", *(f"tool {number}" for number in range(9)), at=world.now)
    for blob in more.blobs - world.blobs():
        world.put(f"buildkit-blob-1-{blob}", size=10)
    once = iter([True])

    def build(request: Request) -> None:
        if request.kind == "look-up" and request.key == WEB.prefix and next(once, False):
            world.cache.put(str(WEB.key(3)), encode(more), ref=MAIN)

    world.running.observe(before=build)

    report = world.gc(max_index_size=limit)

    assert report.status == "done"
    assert world.generations() == [1, 2, 3]
    assert "with what builds have written since the run began" in report.actions[0].outcome_sentence


def test_what_was_written_and_could_not_be_read_back_is_not_said_to_be_unwritten(
    world: World,
) -> None:
    world.build("base", "api")
    world.build("base", "web")
    world.running.inject(
        FaultPlan((Fault(kind="status", status=500, request="download", nth=3, times=100),))
    )

    report = world.gc()

    assert world.generations() == [1, 2, 3]
    assert report.status == "failed"
    assert report.problems[0].startswith(f"{WEB.key(3)} could not be read back: ")


def test_keys_that_have_no_further_number_are_left_alone(world: World) -> None:
    index = IndexId(Ref(MAIN), Scope("s" * 493))
    for number, step in ((8, "api"), (9, "web")):
        world.put(f"buildkit-blob-1-{blob_of(step)}", size=10)
        world.put(str(index.key(number)), encode(built(step)))
    assert len(str(index.key(9))) == MAX_KEY_LENGTH

    report = world.gc()

    assert report.status == "done", report.problems
    assert world.generations("s" * 493) == [8, 9]
    assert "the limit is 512" in _kept(report, str(index))[0].sentence


def test_with_rest_alone_nothing_is_written_or_deleted(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    before = world.entries()
    world.passes(days=9)

    environment = world.running.environment(MAIN)
    del environment["ACTIONS_RUNTIME_TOKEN"]
    report = world.gc_in(environment, grace=NO_GRACE)

    assert world.entries() == before
    assert report.status == "done"
    assert [total.state for total in report.entries] == ["unreadable ref"]


def test_a_content_of_the_wrong_size_counts_as_not_read(world: World) -> None:
    hidden = world.build("base", "api")
    # The token reads its own ref first, where somebody has put something else under this key.
    world.put(hidden.key, b"{}", ref=PULL)

    report = world.gc(ref=PULL, readable=[MAIN], dry_run=True)

    assert any("could not be read this time" in action.sentence for action in report.actions)
    assert decode(hidden.content or b"") == merge([built("base", "api", at=world.now)])
