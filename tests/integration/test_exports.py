"""Exports that look nothing up: a sweep waits for them, or is deferred, or its harm is healed."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maintainer.cacheconfig import CacheConfig, IndexId, Ref, Scope, merge
from maintainer.emulator import Fault, FaultPlan
from maintainer.emulator.requests import Request
from maintainer.report import ActionReport, Report
from maintainer.report.done import format_done
from tests.integration.simulated_builds import Build
from tests.integration.world import MAIN, World, a_world, blob_of, built, leads_to

GRACE = timedelta(days=1)
NO_WAIT = timedelta(0)
NO_GRACE = timedelta(0)
PULL = "refs/pull/7/merge"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Serve a cache whose newest index does not reference `reverted`, last used six days ago."""
    with a_world(tmp_path) as world:
        world.put(f"buildkit-blob-1-{blob_of('reverted')}", size=10)
        world.build("base", "app")
        world.passes(days=6)
        yield world


def _export(
    world: World, config: CacheConfig, *, scope: str = "buildkit", ref: str = MAIN
) -> Build:
    """Begin an export that has listed the stored blobs, and looks none of them up."""
    refs = tuple(dict.fromkeys((ref, MAIN)))
    export = Build(config, IndexId(Ref(ref), Scope(scope)), refs, world.cache, lists=True)
    world.running.call(lambda _: export.proceed())
    return export


def _upload_one(world: World, export: Build) -> None:
    """Let an export go on until it has uploaded a blob."""
    while not export.uploaded:
        world.running.call(lambda _: export.proceed())


def _finish(world: World, export: Build) -> None:
    world.running.call(lambda _: export.finish())


def _deletions(report: Report) -> dict[str, ActionReport]:
    return {action.subject: action for action in report.actions if action.kind == "delete"}


def _kept(report: Report, step: str) -> str:
    (action,) = (
        action
        for action in report.actions
        if action.kind == "keep" and action.subject.endswith(blob_of(step))
    )
    return action.sentence


def _references_all(world: World, *, scope: str = "buildkit", ref: str = MAIN) -> bool:
    return world.newest(scope, ref).blobs <= world.blobs()


def test_the_story_begins_with_a_layer_that_is_due(world: World) -> None:
    report = world.gc(grace=GRACE)

    assert blob_of("reverted") not in world.blobs()
    assert report.requests.counts["recheck"] == 3


def test_no_layer_goes_while_an_export_has_uploaded_one_and_not_written_its_index(
    world: World,
) -> None:
    export = _export(world, built("reverted", "new"))
    _upload_one(world, export)
    world.passes(minutes=1)

    report = world.gc(grace=GRACE, export_wait=NO_WAIT)

    reason = "deferred to the next run: an export seems to be in progress in refs/heads/main since "
    assert _kept(report, "reverted") == f"{reason}2026-01-07 00:00 UTC"
    assert (report.status, report.notes, report.entries_deleted) == ("done", (), 0)
    assert report.verdict
    assert report.verdict.level == "good"
    assert format_done(report) == f"nothing was deleted; {_kept(report, 'reverted')}"

    _finish(world, export)
    assert _references_all(world)
    report = world.gc(grace=GRACE)
    assert leads_to(world.newest()) == {blob_of(s) for s in ("base", "app", "reverted", "new")}
    assert report.blocked is None


def test_a_run_waits_for_the_index_of_an_export_and_looks_again(world: World) -> None:
    world.put(f"buildkit-blob-1-{blob_of('orphan')}", size=10, ref=MAIN)
    world.passes(days=2)
    export = _export(world, built("reverted", "new"))
    _upload_one(world, export)
    lists = []

    def finish(request: Request) -> None:
        lists.extend([request] if request.kind == "list" else [])
        if len(lists) == 3 and not export.done:
            export.finish()

    world.running.observe(before=finish)

    report = world.gc(grace=GRACE)

    assert _deletions(report).keys() == {f"buildkit-blob-1-{blob_of('orphan')}"}
    assert leads_to(world.newest()) == {blob_of(s) for s in ("base", "app", "reverted", "new")}
    assert report.indexes_written == 1
    assert report.changes.new_entries == 0  # It is the first run.
    # Two looks while it waits, three for the sweep.
    assert report.requests.counts["recheck"] == 5
    assert report.requests.counts["list"] == 2


def test_a_run_waits_no_longer_than_it_is_told(world: World) -> None:
    _upload_one(world, _export(world, built("reverted", "new")))

    report = world.gc(grace=GRACE, export_wait="40s")

    assert "deferred to the next run: " in _kept(report, "reverted")
    assert report.requests.counts["recheck"] == 3
    assert report.requests.counts["list"] == 1


@pytest.mark.parametrize("how", [{"max_requests": 50}, {"deadline": "1h"}, {"dry_run": True}])
def test_a_run_with_limits_and_one_that_deletes_nothing_wait_for_no_export(
    world: World, how: dict[str, Any]
) -> None:
    _upload_one(world, _export(world, built("reverted", "new")))

    report = world.gc(grace=GRACE, **how)

    assert "deferred to the next run: " in _kept(report, "reverted")
    assert "recheck" not in report.requests.counts
    assert report.status == "done"


def test_nobody_waits_for_an_export_if_nothing_is_due(world: World) -> None:
    _upload_one(world, _export(world, built("reverted", "new")))

    report = world.gc(grace="30d")

    assert "kept until" in _kept(report, "reverted")
    assert report.blocked is None
    assert "recheck" not in report.requests.counts


def test_a_killed_build_defers_the_sweep_for_an_hour(world: World) -> None:
    _upload_one(world, _export(world, built("reverted", "new")))
    world.passes(minutes=59)
    assert "deferred to the next run: " in _kept(world.gc(grace=GRACE), "reverted")
    world.passes(minutes=1)

    world.gc(grace=GRACE)

    assert blob_of("reverted") not in world.blobs()


def test_an_index_of_another_build_or_of_a_run_does_not_end_an_export(world: World) -> None:
    _upload_one(world, _export(world, built("reverted", "new"), scope="web"))
    world.passes(minutes=1)
    world.build("base", "other")
    world.gc(grace=GRACE, export_wait=NO_WAIT)
    world.passes(minutes=1)

    report = world.gc(grace=GRACE, export_wait=NO_WAIT)

    assert world.generations() == [1, 2, 3]
    assert "since 2026-01-07 00:00" in _kept(report, "reverted")


def test_what_an_index_referenced_that_a_run_replaced_is_of_no_export(world: World) -> None:
    world.build("base", "app", "first")
    world.gc(grace=NO_GRACE, export_wait=NO_WAIT, no_sweep=True)
    world.evict("app")
    # Nothing needs what stands on a lost layer, but an index has referenced it.
    world.gc(grace=NO_GRACE, export_wait=NO_WAIT, no_sweep=True)
    world.passes(minutes=1)

    report = world.gc(grace=GRACE, export_wait=NO_WAIT)

    assert report.blocked is None
    assert blob_of("reverted") not in world.blobs()


def test_an_export_in_a_ref_that_the_token_cannot_read_defers_the_sweep_too(world: World) -> None:
    world.build("base", "pull", ref=PULL)
    world.passes(minutes=1)
    export = _export(world, built("reverted", "new"), ref=PULL)
    _upload_one(world, export)

    report = world.gc(grace=GRACE, export_wait=NO_WAIT)
    assert f"in progress in {PULL} since" in _kept(report, "reverted")

    report = world.gc(grace=GRACE, export_wait=NO_WAIT, unreadable_refs="ignore", dry_run=True)
    assert report.blocked is None

    _finish(world, export)
    report = world.gc(grace=GRACE, export_wait=NO_WAIT)
    assert report.blocked is None


def test_a_signature_without_its_index_is_of_an_export_in_progress(world: World) -> None:
    world.put(f"buildkit-blob-1-{blob_of('bytes of an index')}-sig", b"bundle")

    report = world.gc(grace=GRACE, export_wait=NO_WAIT)

    assert "deferred to the next run: " in _kept(report, "reverted")


@pytest.mark.parametrize(
    "between",
    [{}, {"repair": True}, {"no_sweep": True}, {"dry_run": True, "grace": timedelta(days=60)}],
    ids=str,
)
def test_a_sweep_that_is_deferred_for_a_week_needs_attention(
    world: World, between: dict[str, Any]
) -> None:
    reports = []
    for _ in range(8):
        _upload_one(world, _export(world, built("reverted", f"new on {world.now}")))
        reports.append(world.gc(grace=GRACE, export_wait=NO_WAIT))
        world.passes(hours=12)
        if between:  # It would not delete anything, whatever builds do.
            world.gc(**between)
        world.passes(hours=12)

    report = reports[-1]
    assert report.verdict
    assert report.verdict.level == "attention"
    assert (
        "for 7 days: deferred to the next run: an export seems to be in progress"
        in report.verdict.message
    )
    assert "when no build exports" in report.verdict.advice


@pytest.mark.parametrize("ref", [MAIN, PULL])
def test_no_layer_goes_if_an_export_has_begun_to_upload_since_the_run_began(
    world: World, ref: str
) -> None:
    export = _export(world, built("reverted", "new"), ref=ref)

    def upload(request: Request) -> None:
        if request.kind == "list" and not export.uploaded:
            while not export.uploaded:
                export.proceed()

    world.running.observe(after=upload)

    report = world.gc(grace=GRACE)

    (deletion,) = _deletions(report).values()
    assert deletion.outcome_sentence == (
        f"skipped: deferred to the next run: an export seems to be in progress in {ref} since "
        "2026-01-07 00:00 UTC"
    )
    assert report.status == "done"
    _finish(world, export)
    assert _references_all(world, ref=ref)


def _finish_when(world: World, export: Build, kind: str = "delete") -> None:
    def finish(request: Request) -> None:
        if request.kind == kind and not export.done:
            export.finish()

    world.running.observe(before=finish)


@pytest.mark.parametrize("scope", ["buildkit", "new"])
def test_an_index_that_references_what_was_deleted_meanwhile_is_rewritten_at_once(
    world: World, scope: str
) -> None:
    world.gc(grace="30d", merged_scope="maintained")
    # It lists all that it needs, so it has nothing to upload.
    _finish_when(world, _export(world, merge([built("reverted"), built("base")]), scope=scope))

    report = world.gc(grace=GRACE, merged_scope="maintained")

    assert blob_of("reverted") not in world.blobs()
    assert _references_all(world, scope=scope)
    assert _references_all(world, scope="maintained")
    assert blob_of("base") in leads_to(world.newest(scope))
    (heal,) = (action for action in report.actions if "during the sweep" in action.sentence)
    damaged = {"buildkit": 2, "new": 1}[scope]
    prefix = f"index-{scope}-1-f921bd05"
    assert (heal.kind, heal.outcome_sentence) == ("write", "done")
    assert heal.subject == f"{prefix}#{damaged + 1}"
    assert heal.sentence == (
        f"{prefix}#{damaged} was written during the sweep and references 1 blob that it had deleted"
    )
    assert (report.status, report.notes) == ("done", ())

    world.passes(minutes=1)
    world.gc(grace=GRACE, merged_scope="maintained")
    assert _references_all(world, scope=scope)


def test_nothing_that_an_index_held_is_lost_when_it_is_healed(world: World) -> None:
    world.build("base", "more")
    _finish_when(world, _export(world, merge([built("reverted"), built("base")])))

    world.gc(grace=GRACE)

    assert leads_to(world.newest()) == {blob_of(step) for step in ("base", "app", "more")}


def test_an_index_in_a_ref_that_the_token_cannot_write_is_reported(world: World) -> None:
    _finish_when(world, _export(world, built("reverted"), ref=MAIN))

    report = world.gc(grace=GRACE, ref=PULL, readable=[MAIN])

    (kept,) = (action for action in report.actions if "during the sweep" in action.sentence)
    assert kept.kind == "keep"
    assert kept.sentence.endswith("; the token cannot write refs/heads/main")
    assert report.status == "done"
    world.passes(minutes=1)
    world.gc(grace=GRACE)
    assert _references_all(world)


def test_an_index_of_which_nothing_was_deleted_is_left_to_the_next_run(world: World) -> None:
    _finish_when(world, _export(world, built("base", "app")))

    report = world.gc(grace=GRACE)

    assert world.generations() == [1, 2]
    assert report.indexes_written == 0


def test_what_the_budget_does_not_allow_to_heal_is_for_the_next_run(world: World) -> None:
    _finish_when(world, _export(world, built("reverted")))

    # The list, a generation to look up and read, two questions, a deletion.
    report = world.gc(grace=GRACE, max_requests=6)

    (note,) = (one.sentence for one in report.notes)
    assert note == (
        "the 6 requests of --max-requests are spent: deferred to the next run: a check of what "
        "builds have written during the sweep"
    )
    world.passes(minutes=1)
    world.gc(grace=GRACE)
    assert _references_all(world)


def test_if_it_cannot_be_asked_what_builds_have_written_the_report_says_so(world: World) -> None:
    fault = Fault(kind="status", status=500, request="list", nth=4, times=99)
    world.running.inject(FaultPlan((fault,)))

    report = world.gc(grace=GRACE)

    assert report.status == "done"
    (note,) = (one.sentence for one in report.notes)
    assert note.startswith("it could not be checked whether builds reference what was deleted: ")
    assert blob_of("reverted") not in world.blobs()


def test_an_index_that_cannot_be_healed_is_a_problem(world: World) -> None:
    _finish_when(world, _export(world, built("reverted")))
    world.running.inject(FaultPlan((Fault(kind="status", status=400, request="upload"),)))

    report = world.gc(grace=GRACE)

    assert report.status == "failed"
    (problem,) = report.problems
    assert "was written during the sweep and references 1 blob" in problem
    assert report.verdict
    assert report.verdict.advice == "Fix this and run it again."
    world.running.inject()
    world.passes(minutes=1)
    world.gc(grace=GRACE)
    assert _references_all(world)


def test_a_run_stops_waiting_when_it_may_ask_no_more_and_writes_indexes_all_the_same(
    world: World,
) -> None:
    _upload_one(world, _export(world, built("reverted", "new")))
    world.build("base", "other")
    fault = Fault(kind="headers", request="list", headers={"x-ratelimit-remaining": "0"})
    world.running.inject(FaultPlan((fault,)))

    report = world.gc(grace=GRACE)

    assert "recheck" not in report.requests.counts
    assert (report.status, report.indexes_written, report.notes) == ("done", 1, ())
    assert leads_to(world.newest()) == {blob_of(step) for step in ("base", "app", "other")}


def test_an_index_that_cannot_be_read_does_not_keep_others_from_being_healed(world: World) -> None:
    export = _export(world, built("reverted"), scope="web")

    def finish(request: Request) -> None:
        if request.kind == "delete" and not export.done:
            index = IndexId(Ref(MAIN), Scope("aaa"))
            entry = world.cache.put(str(index.key(1)), b"lost", ref=MAIN)
            world.cache.lose(entry.id)
            export.finish()

    world.running.observe(before=finish)

    report = world.gc(grace=GRACE)

    assert blob_of("reverted") not in world.blobs()
    assert _references_all(world, scope="web")
    assert report.status == "done"
    (note,) = (one.sentence for one in report.notes)
    assert note.startswith(
        "it could not be checked whether builds reference what was deleted: index-aaa-1-"
    )
    assert "#1 in refs/heads/main: " in note


@pytest.mark.parametrize("ref", [MAIN, PULL])
def test_an_upload_whose_time_is_far_ahead_is_no_export_in_progress(world: World, ref: str) -> None:
    world.put(f"buildkit-blob-1-{blob_of('unused')}", size=10)
    odd, ahead = f"buildkit-blob-1-{blob_of('odd')}", world.now + timedelta(days=400)
    world.running.call(lambda cache: cache.put(odd, b"x", ref=ref, created_at=ahead))
    for _ in range(3):
        world.gc(grace=GRACE, export_wait=NO_WAIT)
        world.passes(days=1)

    assert blob_of("unused") not in world.blobs()
