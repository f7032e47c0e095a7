"""What cannot be downloaded does not exist: contents are checked, remembered, and let go."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maintainer.cacheconfig import BlobKey
from maintainer.cacheconfig.keys import ENTRY_VERSION
from maintainer.emulator import ActionsCache, Fault, FaultPlan
from maintainer.emulator.faults import FaultKind
from maintainer.report import Report
from tests.integration.simulated_builds import built
from tests.integration.world import MAIN, World, a_world, blob_of, leads_to

CHECKED: dict[str, Any] = {"verify_after": "3d"}
PULL = "refs/pull/7/merge"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def lose(world: World, *steps: str, ref: str = MAIN) -> None:
    """Lose the content of the layers of these steps, whose entries stay."""
    lose_entries(world, {key(step) for step in steps}, ref)


def lose_entries(world: World, keys: Collection[str], ref: str = MAIN) -> None:
    """Lose the content of entries, which stay."""

    def let_go(cache: ActionsCache) -> None:
        for entry in cache.entries():
            if entry.key in keys and entry.ref == ref:
                cache.lose(entry.id)

    world.running.call(let_go)


def restore(world: World, *steps: str) -> None:
    """Let the content of the layers of these steps be there again, as after an outage."""
    keys = {key(step) for step in steps}

    def put_back(cache: ActionsCache) -> None:
        for entry in cache.entries():
            if entry.key in keys:
                cache._entries[entry.id] = replace(entry, lost=False)

    world.running.call(put_back)


def use(world: World, *steps: str) -> None:
    """Look up the layers of these steps, as a build does."""

    def look_up(cache: ActionsCache) -> None:
        for step in steps:
            assert cache.look_up([MAIN], key(step), [], ENTRY_VERSION)

    world.running.call(look_up)


def deleted(report: Report) -> dict[str, tuple[str, str]]:
    return {one.subject: (one.sentence, one.outcome_sentence) for one in report.deletions}


def key(step: str) -> str:
    return str(BlobKey(blob_of(step)))


@pytest.mark.each_database
def test_what_cannot_be_downloaded_is_dropped_and_its_entry_deleted(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    lose(world, "api")

    report = world.gc(**CHECKED)

    assert report.status == "done"
    assert world.newest().blobs == {blob_of("base"), blob_of("web")}
    assert world.blobs() == {blob_of("base"), blob_of("web")}
    assert deleted(report) == {key("api"): ("its content cannot be downloaded", "done")}
    assert report.notes == ()


def test_the_next_build_uploads_it_again_and_it_counts_again(world: World) -> None:
    world.build("base", "api")
    lose(world, "api")
    world.gc(**CHECKED)
    assert world.newest().blobs == {blob_of("base")}

    world.passes(hours=1)
    world.build("base", "api")
    world.gc(**CHECKED)

    assert world.newest().blobs == {blob_of("base"), blob_of("api")}


def test_the_index_says_what_it_drops(world: World) -> None:
    world.build("base", "api")
    world.gc(**CHECKED)
    world.passes(days=4)
    lose(world, "api")

    report = world.gc(**CHECKED)

    write = next(action for action in report.actions if action.kind == "write")
    assert write.sentence == "drop 1 blob without content"
    assert world.newest().blobs == {blob_of("base")}


def test_each_blob_is_looked_up_and_one_byte_of_it_downloaded(world: World) -> None:
    world.build("base", "api")
    world.gc(verify_after="0")
    before = dict(world.requests)
    again = World(world.cache, world.running, world.database.with_name("other.db"))
    again.database.write_bytes(world.database.read_bytes())

    report = world.gc(database=again.database, **CHECKED)

    assert report.requests.counts == {"list": 1, "look-up": 2, "download": 2}
    assert before["download"] == 1  # The index.


def test_a_second_run_within_three_days_only_lists(world: World) -> None:
    world.build("base", "api")
    world.gc(**CHECKED)
    world.passes(days=2)

    report = world.gc(**CHECKED)

    assert report.requests.counts == {"list": 1}


def test_checks_are_due_again_after_a_while(world: World) -> None:
    world.build("base", "api")
    world.gc(**CHECKED)
    world.passes(days=3)

    report = world.gc(**CHECKED)

    # Two blobs, and their index.
    assert report.requests.counts == {"list": 1, "look-up": 3, "download": 3}


@pytest.mark.parametrize("rest", [True, False], ids=["listed", "looked up"])
def test_without_checks_a_blob_that_a_build_has_uploaded_again_is_not_broken_for_ever(
    world: World, rest: bool
) -> None:
    world.build("base", "api")
    lose(world, "base")
    world.gc(rest=rest, **CHECKED)
    assert not leads_to(world.newest())
    world.passes(hours=1)
    world.evict("base")
    world.build("base", "web")

    world.gc(rest=rest, verify_after="0")
    world.passes(hours=1)
    world.gc(rest=rest, verify_after="0")

    assert blob_of("web") in leads_to(world.newest())


def test_a_repair_checks_every_content_whenever_that_was_done_last(world: World) -> None:
    world.build("base", "api")
    world.gc(**CHECKED)
    world.passes(minutes=5)
    lose(world, "api")

    report = world.gc(repair=True, **CHECKED)

    assert leads_to(world.newest()) == {blob_of("base")}
    assert report.verdict
    assert "cannot be downloaded" in report.verdict.message
    assert "without `--repair`" in report.verdict.advice
    world.passes(minutes=5)
    after = world.gc(**CHECKED)
    assert blob_of("api") not in world.blobs()
    assert after.verdict
    assert after.verdict.level == "good"


def test_without_use_by_builds_nothing_is_kept_alive_for_ever(world: World) -> None:
    world.build("base", "api")
    looked_up = []
    for _ in range(8):
        looked_up.append(world.gc(**CHECKED).requests.counts.get("look-up", 0))
        world.passes(days=3)

    assert all(looked_up[:5])
    assert looked_up[5:] == [0, 0, 0]


def test_a_use_by_a_build_goes_on_keeping_it_alive(world: World) -> None:
    world.build("base", "api")
    report = world.gc(**CHECKED)
    for _ in range(8):
        world.passes(days=1)
        use(world, "base", "api")
        world.passes(days=2)
        report = world.gc(**CHECKED)

    assert report.requests.counts["look-up"] >= 2


def test_keep_alive_0_checks_a_blob_once_and_never_again(world: World) -> None:
    world.build("base", "api")
    world.gc(keep_alive="0", **CHECKED)
    world.passes(days=5)

    assert world.gc(keep_alive="0", **CHECKED).requests.counts == {"list": 1}


def test_in_a_cache_that_is_nearly_full_only_new_blobs_are_checked(world: World) -> None:
    world.build("base", "api")
    world.gc(**CHECKED)
    world.passes(days=4)
    world.put("setup-node-1", size=9_000_000)
    world.build("base", "web")

    report = world.gc(quota=9_000_001, no_sweep=True, **CHECKED)

    # The new index, the one new blob, and what was written, which is read back.
    assert report.requests.counts["download"] == 3
    world.passes(days=4)
    assert "look-up" not in world.gc(quota=9_000_001, no_sweep=True, **CHECKED).requests.counts


@pytest.mark.parametrize("kind", ["status", "reset", "expired", "html", "truncated"])
def test_what_proves_nothing_changes_nothing(world: World, kind: FaultKind) -> None:
    world.build("base", "api")
    world.gc(verify_after="0")
    before = world.newest()
    world.running.inject(
        FaultPlan((Fault(kind=kind, request="download", key="buildkit-blob-1-", status=503),))
    )

    report = world.gc(**CHECKED)

    assert report.status == "done"
    assert world.newest() == before
    assert report.deletions == ()
    assert "2 blobs could not be checked" in report.notes[0].sentence
    world.running.inject()
    assert world.gc(**CHECKED).requests.counts["download"] == 2


def test_one_check_that_fails_does_not_keep_others_from_being_believed(world: World) -> None:
    world.build("base", "api")
    world.build("other")
    lose(world, "other")
    world.running.inject(
        FaultPlan((Fault(kind="status", request="download", key=key("api"), status=500),))
    )

    report = world.gc(**CHECKED)

    assert list(deleted(report)) == [key("other")]
    assert world.newest().blobs == {blob_of("base"), blob_of("api")}


def test_if_most_seems_to_be_gone_it_is_an_outage(world: World) -> None:
    steps = [f"step {number}" for number in range(7)]
    world.build(*steps)
    lose(world, *steps)

    report = world.gc(**CHECKED)

    assert report.deletions == ()
    assert world.newest().blobs == {blob_of(step) for step in steps}
    assert tuple(one.sentence for one in report.notes) == (
        (
            "7 of 7 checked blobs could not be downloaded: that looks like an outage of the "
            "storage, so none counts as gone"
        ),
    )
    accepted = world.gc(accept_loss=True, **CHECKED)
    assert accepted.entries_deleted == 7
    assert [one.sentence for one in accepted.notes] == [
        "only 0 of 7 contents of checked blobs were found, and --accept-loss let the run go on"
    ]


def test_where_the_newest_result_has_no_content_an_older_one_takes_its_place(world: World) -> None:
    """The generation that holds it was superseded, and takes part again."""
    older, newer = (
        built({3}, variant=variant, only_targets=False, at=world.now + timedelta(hours=variant))
        for variant in (0, 1)
    )
    for config in (older, newer):
        for layer in config.layers:
            if layer.blob not in world.blobs():
                world.put(str(BlobKey(layer.blob)), size=layer.size)
        world.export(config, scope="buildkit", ref=MAIN)
        world.gc(**CHECKED)
        world.passes(hours=1)
    world.passes(days=4)
    assert world.newest().blobs == newer.blobs
    [lost] = newer.blobs - older.blobs
    lose_entries(world, {str(BlobKey(lost))})

    world.gc(grace="7d", **CHECKED)

    assert world.newest().blobs == older.blobs


def test_without_rest_it_is_dropped_and_cannot_be_deleted(world: World) -> None:
    world.build("base", "api")
    lose(world, "api")

    report = world.gc(rest=False, **CHECKED)

    assert world.newest().blobs == {blob_of("base")}
    assert tuple(one.sentence for one in report.notes) == (
        (
            "1 blob cannot be downloaded, and without the REST API the entries cannot be deleted: "
            "the next export will reference them again"
        ),
    )
    world.passes(hours=1)
    world.build("base", "api")  # It finds the entry, and uploads nothing.
    world.gc(rest=False, **CHECKED)
    assert world.newest().blobs == {blob_of("base")}


def test_version_1_says_in_which_ref_the_broken_entry_is(world: World) -> None:
    world.build("base", "api")
    world.build("base", "api", ref=PULL)
    lose(world, "api", ref=PULL)

    report = world.gc(ref=PULL, readable=[MAIN], service="v1", **CHECKED)

    assert [(one.subject, one.ref) for one in report.deletions] == [(key("api"), PULL)]
    assert blob_of("api") in world.newest(ref=PULL).blobs
    assert world.blobs(MAIN) == {blob_of("base"), blob_of("api")}


def test_version_2_does_not_so_nothing_is_deleted(world: World) -> None:
    world.build("base", "api")
    world.build("base", "api", ref=PULL)
    lose(world, "api", ref=PULL)

    report = world.gc(ref=PULL, readable=[MAIN], **CHECKED)

    assert report.deletions == ()
    assert blob_of("api") in world.newest(ref=PULL).blobs
    assert "a run in another ref may find out" in report.notes[0].sentence


def test_checks_leave_half_of_the_budget_to_the_rest_of_the_run(world: World) -> None:
    world.build(*(f"step {number}" for number in range(20)))
    world.build("other")

    report = world.gc(max_requests=40, **CHECKED)

    assert report.indexes_written == 1
    assert "is deferred to the next run" in report.notes[-1].sentence
    for _ in range(4):
        report = world.gc(max_requests=40, **CHECKED)
    assert report.notes == ()


def test_a_run_that_does_not_sweep_leaves_the_entry_to_one_that_does(world: World) -> None:
    world.build("base", "api")
    lose(world, "api")
    world.gc(no_sweep=True, **CHECKED)
    assert world.newest().blobs == {blob_of("base")}
    assert blob_of("api") in world.blobs()

    report = world.gc(**CHECKED)

    assert deleted(report)[key("api")] == ("its content cannot be downloaded", "done")
    # The content may be there again. After a deletion the run asks what builds have written.
    look = {"look-up": 2, "download": 2}
    assert report.requests.counts == {"list": 1, **look, "delete": 1, "recheck": 1}


def test_what_had_no_content_when_a_run_looked_is_looked_up_again_before_it_is_deleted(
    world: World,
) -> None:
    world.build("base", "api")
    lose(world, "api")
    full = sum(entry.size for entry in world.entries())  # Then checks would cost others their use.
    world.gc(no_sweep=True, quota=full, **CHECKED)
    restore(world, "api")

    report = world.gc(quota=full, **CHECKED)

    assert deleted(report)[key("api")][1].endswith("its content is there again")
    assert blob_of("api") in world.blobs()
    assert not deleted(world.gc(quota=full, **CHECKED)).keys() & {key("api")}
    assert blob_of("api") in leads_to(world.newest())


@pytest.mark.parametrize("status", [503, 403, 404])
def test_content_about_which_the_storage_says_nothing_clear_stays_and_ends_no_sweep(
    world: World, status: int
) -> None:
    world.build("base", "api")
    world.build("base", "web")
    lose(world, "api")
    full = sum(entry.size for entry in world.entries())
    world.gc(no_sweep=True, quota=full, **CHECKED)
    world.passes(days=2)
    fault = Fault(kind="status", request="download", key=key("api"), status=status)
    world.running.inject(FaultPlan((fault,)))

    report = world.gc(quota=full, **CHECKED)

    assert report.status == "done"
    assert blob_of("api") in world.blobs()
    assert "index-buildkit-1-f921bd05#1" in {one.subject for one in report.deleted}


def test_our_own_look_ups_do_not_keep_the_sweep_from_its_work(world: World) -> None:
    """The hundred blobs used last are all ours, which says nothing of what builds use."""
    steps = [f"step {number}" for number in range(120)]
    world.build(*steps)
    world.put(key("dangling"), size=5)
    world.gc(**CHECKED)
    assert blob_of("dangling") in world.blobs()
    world.passes(days=4)

    report = world.gc(**CHECKED)

    assert report.requests.counts["download"] == 120 + 1  # The index is read again, too.
    assert next(iter(deleted(report).values()))[1] == "done"


def _hide(world: World, *steps: str) -> None:
    """Let no look-up find the layers of these steps, which stay listed."""
    world.running.inject(
        FaultPlan(tuple(Fault(kind="miss", request="look-up", key=key(step)) for step in steps))
    )


def test_blobs_that_no_look_up_finds_do_not_keep_others_from_being_checked(world: World) -> None:
    steps = [f"step {number}" for number in range(8)]
    world.build(*steps)
    world.passes(hours=2)
    world.build("base", "api")
    lose(world, "api")
    _hide(world, *steps)

    report = world.gc(**CHECKED)

    assert list(deleted(report)) == [key("api")]
    assert "8 blobs could not be checked" in report.notes[0].sentence
    assert "a look-up did not find it" in report.notes[0].sentence
    assert len(report.notes) == 1
    # That is an answer: they are asked for again when a check is due.
    assert "look-up" not in world.gc(**CHECKED).requests.counts
    world.passes(days=3)
    world.running.inject()
    assert world.gc(**CHECKED).notes == ()


def test_blobs_that_no_look_up_finds_do_not_use_up_every_budget(world: World) -> None:
    steps = [f"step {number}" for number in range(20)]
    world.build(*steps)
    world.passes(hours=2)
    world.build("base", "api")
    lose(world, "api")
    _hide(world, *steps)

    for _ in range(4):
        world.gc(max_requests=40, **CHECKED)

    assert blob_of("api") not in world.newest().blobs


def test_after_failures_in_a_row_the_storage_is_left_alone(world: World) -> None:
    for number in range(3):
        world.build(*(f"step {number}.{layer}" for layer in range(4)))
        world.passes(hours=2)
    world.gc(verify_after="0")
    world.running.inject(
        FaultPlan((Fault(kind="status", request="download", key="buildkit-blob-1-"),))
    )

    report = world.gc(**CHECKED)

    assert "8 blobs could not be checked" in report.notes[0].sentence
    assert report.notes[1].sentence == "the check of 4 blobs is deferred to the next run"


def test_failures_that_are_not_in_a_row_keep_nothing_from_being_checked(world: World) -> None:
    for number in range(3):
        world.build(*(f"step {number}.{layer}" for layer in range(4)))
        world.passes(hours=1)
        world.build(f"base {number}")
        world.passes(hours=1)
    world.gc(verify_after="0")
    world.running.inject(
        FaultPlan(
            tuple(
                Fault(kind="status", request="download", key=key(f"step {number}.{layer}"))
                for number in range(3)
                for layer in range(4)
            )
        )
    )

    report = world.gc(**CHECKED)

    assert len(report.notes) == 1
    assert "12 blobs could not be checked" in report.notes[0].sentence


@pytest.mark.parametrize("keep_alive", ["0", "14d"])
def test_without_rest_a_blob_that_a_build_uploads_again_counts_again(
    world: World, keep_alive: str
) -> None:
    how = {"rest": False, "keep_alive": keep_alive, **CHECKED}
    world.build("base", "api")
    lose(world, "api")
    world.gc(**how)
    assert world.newest().blobs == {blob_of("base")}
    world.passes(hours=1)
    world.evict("api")
    world.build("base", "api")

    world.gc(**how)

    assert world.newest().blobs == {blob_of("base"), blob_of("api")}
    world.passes(hours=1)
    assert world.gc(**how).contents.checked == 0


@pytest.mark.parametrize("keep_alive", ["0", "14d"])
def test_a_blob_whose_content_is_back_counts_again_once_a_build_names_it(
    world: World, keep_alive: str
) -> None:
    how = {"no_sweep": True, "keep_alive": keep_alive, **CHECKED}
    world.build("base", "api")
    world.running.inject(FaultPlan((Fault(kind="no-content", request="download", key=key("api")),)))
    world.gc(**how)
    assert world.newest().blobs == {blob_of("base")}
    world.running.inject()
    world.passes(hours=1)
    world.build("base", "api")

    world.gc(**how)

    assert world.newest().blobs == {blob_of("base"), blob_of("api")}


@pytest.mark.parametrize(("remaining", "deletions"), [(2, 0), (3, 1)])
def test_the_deletion_of_what_has_no_content_is_one_request_of_the_rest_api(
    world: World, remaining: int, deletions: int
) -> None:
    """The list was another one, and half of all may be used."""
    world.build("base", "api")
    world.gc(**CHECKED)
    world.passes(days=4)
    lose(world, "api")
    headers = {"x-ratelimit-remaining": str(remaining)}
    world.running.inject(FaultPlan((Fault(kind="headers", headers=headers),)))

    report = world.gc(**CHECKED)

    assert report.requests.counts.get("delete", 0) == deletions
    assert len(report.deleted) == deletions


@pytest.mark.parametrize(("remaining", "deletions"), [(8, 0), (9, 1)])
def test_a_share_of_the_rate_limit_must_reach_for_all_pages_of_a_check_and_the_deletion(
    world: World, remaining: int, deletions: int
) -> None:
    """Own look-ups may fill one more page, so a check may take three requests of the REST API."""
    world.build("base", "api")
    world.put(key("orphan"), size=10)
    world.passes(days=4)
    headers = {"x-ratelimit-remaining": str(remaining)}
    world.running.inject(FaultPlan((Fault(kind="headers", headers=headers),)))

    report = world.gc(**CHECKED)

    assert report.requests.counts["list"] == 1
    assert ("recheck" in report.requests.counts) is bool(deletions)
    assert report.requests.counts.get("delete", 0) == deletions
