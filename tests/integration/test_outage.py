"""If most known entries are gone at once, the run assumes an outage, not an eviction."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import BlobKey, parse_key
from maintainer.emulator import Entry, Fault, FaultPlan, Request
from maintainer.model.reason import LossAccepted
from maintainer.report import Report
from maintainer.report.verdict import judge
from tests.integration.small import NO_GRACE, Stage, a_stage
from tests.integration.world import World, blob_of, leads_to

ALL = {blob_of(step) for step in ("base", "api", "web", "docs")}


def _known_world(world: World) -> None:
    """Build a cache that a run has put right, and remembers: four blobs, two indexes."""
    world.build("base", "api")
    world.build("base", "web")
    world.build("base", "docs", scope="docs")
    world.passes(days=1)
    assert world.gc(grace=NO_GRACE).status == "done"
    assert world.gc(grace=NO_GRACE).indexes_written == 0
    world.passes(hours=1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with a_stage(tmp_path_factory.mktemp("outage"), _known_world) as stage:
        yield stage


@pytest.fixture
def stage(shared: Stage) -> Stage:
    shared.set_up()
    return shared


@pytest.fixture
def world(stage: Stage) -> World:
    return stage.world


def _blobs(world: World) -> list[Entry]:
    return [entry for entry in world.entries() if isinstance(parse_key(entry.key), BlobKey)]


def _check_stopped(stage: Stage, report: Report, before: list[Entry], looks: int = 2) -> None:
    assert report.status == "failed"
    assert len(report.problems) == 1
    assert "probably an outage, not an eviction" in report.problems[0]
    assert "--accept-loss" in report.problems[0]
    assert report.problems[0].isprintable()
    assert report.indexes_written == 0
    assert report.deleted == ()
    assert report.requests.counts.get("list") == looks
    assert not {"reserve", "upload", "finalize", "delete"} & report.requests.counts.keys()
    assert [entry.id for entry in stage.world.entries()] == [entry.id for entry in before]


def test_a_cache_that_seems_empty_is_looked_at_twice_and_then_left_alone(stage: Stage) -> None:
    kept = stage.world.entries()
    stage.world.running.call(lambda cache: [cache.evict(entry.id) for entry in kept])
    build = stage.world.build("base", "new")

    _check_stopped(stage, stage.gc(), stage.world.entries())

    assert build.key in {entry.key for entry in stage.world.entries()}


def test_the_next_run_says_it_again_and_an_outage_that_ends_has_cost_nothing(stage: Stage) -> None:
    kept = stage.world.entries()
    stage.world.evict_entries(kept)
    for _ in range(2):
        _check_stopped(stage, stage.gc(), [])
        stage.world.passes(hours=1)
    _restore(stage.world, kept)

    report = stage.gc()

    assert report.status == "done"
    assert {action.kind for action in report.actions} == {"keep"}
    assert leads_to(stage.world.newest()) | leads_to(stage.world.newest("docs")) == ALL


def _restore(world: World, entries: list[Entry]) -> None:
    """Let entries be there again as they were, with the ids that they had."""

    def restore(cache: object) -> None:
        for entry in entries:
            cache._add(entry)  # type: ignore[attr-defined]

    world.running.call(restore)


def test_an_outage_that_ends_before_the_second_look_is_none(stage: Stage) -> None:
    kept = stage.world.entries()
    lists = 0

    def before(request: Request) -> None:
        nonlocal lists
        lists += request.kind == "list"
        if lists == 2:
            _restore(stage.world, [entry for entry in kept if not _has(stage.world, entry)])

    stage.world.evict_entries(kept)
    stage.world.running.observe(before=before)
    report = stage.world.gc(grace=NO_GRACE)

    assert report.status == "done"
    assert lists == 2
    assert stage.world.entries() == kept


def _has(world: World, entry: Entry) -> bool:
    return any(other.id == entry.id for other in world.entries())


def test_who_accepts_the_loss_goes_on_and_remembers_it(stage: Stage) -> None:
    stage.world.evict_entries(_blobs(stage.world))

    report = stage.gc(accept_loss=True)

    assert report.status == "done", report.problems
    (note,) = (one.sentence for one in report.notes if isinstance(one.reason, LossAccepted))
    assert note.endswith(", and --accept-loss let the run go on")
    assert "accept-loss" not in (report.verdict or judge(report)).message, "its owner knows"
    assert stage.world.newest().blobs == frozenset()
    assert stage.world.newest("docs").blobs == frozenset()
    assert report.requests.counts["list"] <= 2  # One is the look before the sweep.
    stage.world.passes(hours=1)
    after = stage.gc()
    assert after.status == "done"
    assert not [one for one in after.notes if isinstance(one.reason, LossAccepted)]


def test_what_is_at_least_half_there_is_an_eviction(stage: Stage) -> None:
    stage.world.evict_entries(_blobs(stage.world)[:3])

    assert stage.gc().status == "done"
    assert stage.watcher.problems == []


def test_what_is_less_than_half_there_is_not(stage: Stage) -> None:
    stage.world.evict_entries(_blobs(stage.world))

    _check_stopped(stage, stage.gc(), stage.world.entries())


def test_our_own_deletions_are_no_outage(stage: Stage) -> None:
    for number in range(20):
        stage.world.put("buildkit-blob-1-" + blob_of(f"orphan {number}"), size=10)
    stage.world.passes(hours=1)
    assert len(stage.gc().deleted) == 20
    stage.world.passes(minutes=1)

    assert stage.gc().status == "done"


def test_what_a_later_run_has_deleted_is_no_outage_for_an_older_database(stage: Stage) -> None:
    world = stage.world
    for number in range(12):
        world.put(f"buildkit-blob-1-{blob_of(str(number))}", size=10)
    world.gc()
    kept = world.database.read_bytes()
    world.passes(days=2)
    assert len(world.gc().deleted) == 12
    # That run's machine was lost, and with it what the run remembered.
    world.database.write_bytes(kept)
    world.passes(hours=1)

    assert world.gc().status == "done"


def test_what_the_quota_had_no_room_for_is_no_outage(stage: Stage) -> None:
    sizes = sum(entry.size for entry in stage.world.entries())
    stage.world.evict_entries(stage.world.entries())
    stage.world.put("setup-node-Linux", size=sizes)

    report = stage.gc(quota=sizes)

    assert report.status == "done", report.problems


def test_a_quota_that_is_much_too_small_does_not_hide_an_outage(stage: Stage) -> None:
    kept = [entry for entry in stage.world.entries() if entry.key.startswith("index-docs")]
    stage.world.evict_entries(e for e in stage.world.entries() if e not in kept)

    _check_stopped(stage, stage.gc(quota=1), kept)


def test_if_the_quota_is_assumed_the_run_says_that_it_may_be_less(stage: Stage) -> None:
    stage.world.evict_entries(stage.world.entries())

    report = stage.gc(
        quota=None, faults=FaultPlan((Fault(kind="status", request="limit", times=99),))
    )

    assert report.problems[0].endswith(
        "; if its quota is less than 10.0 GB, which is assumed, set `quota`"
    )


def test_what_was_idle_for_a_week_is_no_outage(stage: Stage) -> None:
    stage.world.evict_entries(stage.world.entries())
    stage.world.passes(days=8)

    assert stage.gc().status == "done"


def test_a_scope_that_vanished_is_written_again_from_memory(stage: Stage) -> None:
    indexes = [entry for entry in stage.world.entries() if entry.key.startswith("index-docs")]
    stage.world.evict_entries(indexes)

    report = stage.gc()

    assert report.status == "done"
    assert leads_to(stage.world.newest("docs")) == {blob_of("base"), blob_of("docs")}
    assert leads_to(stage.world.newest()) == {blob_of(step) for step in ("base", "api", "web")}
    assert stage.watcher.problems == []


def test_all_indexes_that_vanished_are_written_again_as_far_as_their_blobs_exist(
    stage: Stage,
) -> None:
    stage.world.evict_entries([e for e in stage.world.entries() if e.key.startswith("index-")])
    stage.world.evict("api")

    report = stage.gc()

    assert report.status == "done"
    assert leads_to(stage.world.newest()) == {blob_of("base"), blob_of("web")}
    assert leads_to(stage.world.newest("docs")) == {blob_of("base"), blob_of("docs")}


def test_without_the_rest_api_missing_blobs_are_an_outage_too(stage: Stage, tmp_path: Path) -> None:
    database = tmp_path / "without-rest.db"
    first = stage.gc(rest=False, database=database, scopes=("buildkit", "docs"))
    assert first.status == "done"
    stage.world.passes(hours=1)
    indexes = [entry for entry in stage.world.entries() if entry.key.startswith("index-")]
    stage.world.evict_entries(_blobs(stage.world))

    report = stage.gc(rest=False, database=database, scopes=("buildkit", "docs"))

    assert report.status == "failed"
    assert "only 0 of 4 known blobs" in report.problems[0]
    assert [e.id for e in stage.world.entries()] == [entry.id for entry in indexes]
    assert stage.gc(rest=False, database=database, scopes=("docs",), accept_loss=True).status == (
        "done"
    )
    assert stage.world.newest("docs").blobs == frozenset()


def test_the_first_run_of_all_can_miss_nothing(stage: Stage, tmp_path: Path) -> None:
    stage.world.evict_entries(_blobs(stage.world))

    report = stage.gc(database=tmp_path / "new.db")

    assert report.status == "done"
    assert report.requests.counts["list"] <= 2
    stage.world.passes(hours=1)
    assert stage.gc(database=tmp_path / "new.db", grace=timedelta(hours=1)).status == "done"
