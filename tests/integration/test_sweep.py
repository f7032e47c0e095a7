"""What a sweep does when something has changed, or goes wrong, since the plan was made."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.emulator import Fault, FaultPlan
from maintainer.emulator.requests import Request
from maintainer.model.outcome import Failed, Refused
from maintainer.report import ActionReport, Report
from tests.empty_database import query
from tests.integration.world import MAIN, World, a_world, blob_of, built

NO_GRACE = timedelta(0)
DEAD = "HTTP 500"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Two builds, and three blobs that nothing has needed for long."""
    with a_world(tmp_path) as world:
        world.build("base", "api")
        world.build("base", "web")
        for orphan in ("x", "y", "z"):
            world.put("buildkit-blob-1-" + blob_of(orphan), size=10)
        world.passes(days=3)
        yield world


def _deletes(report: Report) -> list[ActionReport]:
    return [action for action in report.actions if action.kind == "delete"]


def _outcomes(report: Report) -> list[str]:
    return [action.outcome_sentence for action in _deletes(report)]


def test_superseded_generations_go_first_then_blobs_the_oldest_first(world: World) -> None:
    kinds: list[str] = []
    world.running.observe(after=lambda request: kinds.append(request.kind))

    report = world.gc(grace=NO_GRACE)

    assert [a.subject.split("-")[0] for a in _deletes(report)] == ["index", "index"] + [
        "buildkit"
    ] * 3
    assert _outcomes(report) == ["done"] * 5
    # At the end it asks what builds have written meanwhile.
    asked = ["look-up", "list", "list"]
    assert kinds[-8:] == ["delete", *asked, "delete", "delete", "delete", "list"]


def test_what_builds_did_meanwhile_is_asked_once_and_only_for_blobs(
    world: World,
) -> None:
    report = world.gc(grace=NO_GRACE)
    assert report.requests.counts["recheck"] == 3

    world.build("base", "docs")
    world.passes(days=3)
    report = world.gc(grace=NO_GRACE)

    assert [a.subject.split("-")[0] for a in _deletes(report)] == ["index", "index"]
    assert "recheck" not in report.requests.counts


def test_nothing_is_deleted_of_an_index_that_could_not_be_rewritten(world: World) -> None:
    world.running.inject(FaultPlan((Fault(kind="status", request="upload"),)))

    report = world.gc(grace=NO_GRACE)

    assert report.status == "failed"
    assert world.generations() == [1, 2]
    assert (
        _outcomes(report)[:2]
        == ["skipped: index-buildkit-1-f921bd05 is not rewritten, so this may still be needed"] * 2
    )
    assert _outcomes(report)[2:] == ["done"] * 3


def test_a_blob_of_an_index_that_could_not_be_rewritten_stays(world: World) -> None:
    world.evict("base")
    world.running.inject(FaultPlan((Fault(kind="status", request="upload"),)))

    report = world.gc(grace=NO_GRACE)

    kept = next(a for a in _deletes(report) if a.subject.endswith(blob_of("web")))
    assert (
        kept.outcome_sentence
        == "skipped: index-buildkit-1-f921bd05 is not rewritten, so this may still be needed"
    )
    assert blob_of("web") in world.blobs()


def test_the_first_deletion_that_fails_ends_the_sweep(world: World) -> None:
    world.running.inject(FaultPlan((Fault(kind="status", request="delete", status=500),)))

    report = world.gc(grace=NO_GRACE)

    first, *others = _outcomes(report)
    assert first.startswith("failed: ")
    assert DEAD in first
    assert others == ["skipped: an earlier deletion failed"] * 4
    assert report.status == "failed"
    assert report.problems == (
        f"index-buildkit-1-f921bd05#1 was not deleted: {first.removeprefix('failed: ')}",
    )
    assert len(world.blobs()) == 6


@pytest.mark.parametrize("is_cut", [False, True], ids=["next run", "after one cut in its list"])
def test_a_deletion_whose_answer_is_lost_is_not_called_an_eviction(
    world: World, *, is_cut: bool
) -> None:
    for number in range(100):
        world.put(f"tool-{number:010x}", size=1)
    world.running.inject(FaultPlan((Fault(kind="lost-answer", request="delete"),)))
    failed = world.gc(grace=NO_GRACE)
    [lost] = [one for one in _deletes(failed) if isinstance(one.outcome, Failed)]
    world.running.inject()
    world.passes(hours=1)
    if is_cut:
        assert world.gc(max_requests=1).saw_nothing

    report = world.gc()

    assert lost.subject not in [entry.key for entry in world.entries()]
    assert report.changes.gone_entries == 0
    assert not report.trend.evictions
    asked = f"SELECT state, reason FROM entries WHERE store_id = {lost.store_id}"
    assert query(world.database, asked) == [("deleted", "deleted_by_unfinished_run")]


@pytest.mark.parametrize("status", [401, 403])
def test_what_the_service_refused_to_delete_and_then_evicted_is_called_an_eviction(
    world: World, status: int
) -> None:
    refusal = Fault(kind="status", request="delete", status=status)
    world.running.inject(FaultPlan((refusal,)))
    report = world.gc(grace=NO_GRACE)
    [refused] = [one for one in _deletes(report) if isinstance(one.outcome, Refused)]
    world.running.inject()
    assert refused.store_id is not None
    world.running.call(lambda cache: cache.evict(refused.store_id or 0))
    world.passes(hours=1)

    after = world.gc()

    assert report.verdict
    assert report.verdict.advice.endswith("; nothing was deleted.")
    assert after.changes.gone_entries == 1
    asked = f"SELECT state, reason FROM entries WHERE store_id = {refused.store_id}"
    assert query(world.database, asked) == [("evicted", "evicted")]


def test_a_refusal_after_a_lost_answer_proves_nothing(world: World) -> None:
    lost = Fault(kind="lost-answer", request="delete", times=1)
    world.running.inject(FaultPlan((lost, Fault(kind="status", request="delete", status=403))))

    report = world.gc(grace=NO_GRACE)

    assert [one for one in _deletes(report) if isinstance(one.outcome, Failed)]
    assert not [one for one in _deletes(report) if isinstance(one.outcome, Refused)]


def test_an_entry_that_is_gone_already_is_a_success(world: World) -> None:
    orphan = next(e for e in world.entries() if e.key.endswith(blob_of("y")))

    def evict(request: Request) -> None:
        if request.kind == "reserve":
            world.running.call(lambda cache: cache.evict(orphan.id))

    world.running.observe(before=evict)

    report = world.gc(grace=NO_GRACE)

    assert _outcomes(report) == ["done", "done", "done", "already gone", "done"]
    assert report.status == "done"
    assert blob_of("y") not in world.blobs()
    assert len(report.deleted) == 5
    assert report.entries_deleted == 4
    assert report.bytes_freed == sum(one.size or 0 for one in _deletes(report)) - orphan.size


def test_a_deletion_whose_first_answer_was_lost_is_one_of_the_run(world: World) -> None:
    lost = Fault(kind="lost-answer", request="delete", times=1)
    world.running.inject(FaultPlan((lost,)))

    report = world.gc(grace=NO_GRACE)

    assert _outcomes(report) == ["done"] * 5


def test_no_blob_goes_if_it_cannot_be_asked_what_was_written_meanwhile(world: World) -> None:
    # The list is one page; the second list request is the one before the first blob goes.
    world.running.inject(FaultPlan((Fault(kind="status", request="list", nth=2, times=99),)))

    report = world.gc(grace=NO_GRACE)

    reasons = _outcomes(report)[2:]
    assert all("could not be checked" in reason and DEAD in reason for reason in reasons)
    assert len(reasons) == 3
    assert {blob_of("x"), blob_of("y"), blob_of("z")} <= world.blobs()
    assert report.status == "done"


def test_a_blob_that_an_index_merged_in_meanwhile_names_stays_and_the_others_go(
    world: World,
) -> None:
    once = iter([True])

    def build(request: Request) -> None:
        if request.kind == "reserve" and next(once, False):
            world.export(built("x"), scope="buildkit", ref=MAIN)

    world.running.observe(before=build)

    report = world.gc(grace=NO_GRACE)

    outcomes = {a.subject[-64:]: a.outcome_sentence for a in _deletes(report)}
    assert (
        outcomes[blob_of("x")[-64:]]
        == "skipped: a build has written an index that references it since the run began"
    )
    assert outcomes[blob_of("y")[-64:]] == outcomes[blob_of("z")[-64:]] == "done"


def test_what_builds_did_meanwhile_is_asked_again_in_a_sweep_that_takes_long(world: World) -> None:
    for number in range(20):
        world.put("buildkit-blob-1-" + blob_of(f"late {number}"), size=10)
    world.passes(days=3)
    deletes = []

    def build(request: Request) -> None:
        if request.kind != "delete":
            return
        deletes.append(request)
        world.passes(seconds=20)
        if len(deletes) == 4:
            # It finds the layer stored, so it does not upload it.
            world.export(built("late 19"), scope="docs", ref=MAIN)

    world.running.observe(before=build)

    report = world.gc(grace=NO_GRACE)

    assert blob_of("late 19") in world.blobs()
    assert _outcomes(report)[:4] == ["done"] * 4
    assert "was written since the run began" in _outcomes(report)[-1]
    assert report.status == "done"


def test_no_generation_goes_whose_successor_the_host_has_evicted_meanwhile(world: World) -> None:
    world.gc(no_sweep=True)
    world.passes(days=3)
    successor = next(entry for entry in world.entries() if entry.key.endswith("#3"))

    def evict(request: Request) -> None:
        if request.kind == "look-up":
            world.running.call(lambda cache: cache.evict(successor.id))

    world.running.observe(before=evict)

    report = world.gc()

    assert world.generations() == [1, 2]
    reason = "skipped: index-buildkit-1-f921bd05#3 is gone, so builds read this one"
    assert _outcomes(report)[:2] == [reason, reason]


def test_no_generation_goes_if_it_cannot_be_asked_whether_its_successor_is_there(
    world: World,
) -> None:
    world.gc(no_sweep=True)
    world.passes(days=3)
    world.running.inject(FaultPlan((Fault(kind="status", request="look-up", times=99),)))

    report = world.gc()

    assert world.generations() == [1, 2, 3]
    assert all("could not be checked whether" in outcome for outcome in _outcomes(report)[:2])
    assert report.status == "done"


def test_no_blob_goes_if_a_build_has_written_an_index_meanwhile_that_cannot_be_read(
    world: World,
) -> None:
    once = iter([True])

    def build(request: Request) -> None:
        if request.kind == "reserve" and next(once, False):
            # It may need what nothing else does.
            world.put("index-buildkit-1-f921bd05#3", b"{")

    world.running.observe(before=build)

    report = world.gc(grace=NO_GRACE)

    assert {blob_of("x"), blob_of("y"), blob_of("z")} <= world.blobs()
    assert "was written since the run began" in _outcomes(report)[-1]


@pytest.fixture
def swept_but_for_blobs(world: World) -> World:
    """One index whose newest generation is all there is of it, and three blobs to be deleted."""
    world.gc(grace=NO_GRACE, no_sweep=True)
    world.evict_entries([e for e in world.entries() if e.key.endswith(("#1", "#2"))])
    world.passes(minutes=1)
    return world


# After the list; it takes two requests to ask what builds did, and one for each deletion.
@pytest.mark.parametrize(("budget", "requests"), [(3, 1), (4, 4), (5, 5), (6, 6)])
def test_nothing_is_asked_if_the_budget_does_not_reach_for_a_deletion_too(
    swept_but_for_blobs: World, budget: int, requests: int
) -> None:
    report = swept_but_for_blobs.gc(grace=NO_GRACE, max_requests=budget)

    assert report.requests.total == requests
    assert len(report.deleted) == max(0, requests - 3)


def test_a_generation_is_not_looked_up_if_the_budget_does_not_reach_for_its_deletion_too(
    world: World,
) -> None:
    world.gc(grace=NO_GRACE, no_sweep=True)
    world.passes(minutes=1)

    report = world.gc(grace=NO_GRACE, max_requests=2)

    assert world.requests == {"list": 1}
    assert [outcome.partition(":")[0] for outcome in _outcomes(report)] == ["deferred"] * 5


def test_a_look_up_that_uses_the_budget_up_leaves_the_rest(world: World) -> None:
    world.gc(grace=NO_GRACE, no_sweep=True)
    world.passes(minutes=1)
    world.running.inject(FaultPlan((Fault(kind="status", request="look-up", times=99),)))

    report = world.gc(grace=NO_GRACE, max_requests=4)

    assert world.requests == {"list": 1, "look-up": 3}
    reason = "deferred: the 4 requests of --max-requests are spent"
    assert _outcomes(report) == [reason] * 5
    assert (report.status, report.deleted) == ("done", ())


def test_what_the_budget_leaves_is_for_the_next_run(world: World) -> None:
    world.gc(no_sweep=True)

    # The list, a byte of the newest generation, two deletions.
    report = world.gc(grace=NO_GRACE, max_requests=5)

    reason = "deferred: the 5 requests of --max-requests are spent"
    assert _outcomes(report) == ["done", "done", reason, reason, reason]
    assert report.status == "done"
    assert tuple(one.sentence for one in report.notes) == (
        "the 5 requests of --max-requests are spent: deferred to the next run: 3 actions",
    )


def test_what_is_gone_is_remembered_with_its_reason_and_the_rest_is_not(world: World) -> None:
    world.running.inject(FaultPlan((Fault(kind="status", request="delete", nth=4, times=99),)))
    world.gc(grace=NO_GRACE)
    world.running.inject()

    report = world.gc(dry_run=True, grace=NO_GRACE)

    assert [a.subject[-64:] for a in _deletes(report)] == [
        blob_of(name)[-64:] for name in ("y", "z")
    ]
