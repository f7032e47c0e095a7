"""A run that may not do everything leaves a valid state and says what is left; others finish it."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from maintainer.emulator import Fault, FaultPlan, Kind, Request
from maintainer.report import Report
from tests.integration.small import NO_GRACE, Arrival, Stage, a_small_world, a_stage
from tests.integration.world import blob_of
from tests.samples import one_in

REQUESTS = 20
"""What a run over the small world takes; a test holds it."""
READING = 6
"""The list, two generations to look up and read, and a blob in doubt."""
ENDING: tuple[Kind, ...] = ("reserve", "upload", "finalize")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with a_stage(tmp_path_factory.mktemp("budgets"), a_small_world) as stage:
        yield stage


@pytest.fixture(scope="module")
def undisturbed(shared: Stage) -> Arrival:
    shared.set_up()
    assert shared.gc().status == "done"
    assert len(shared.requests) == REQUESTS
    return shared.arrival()


@pytest.fixture
def stage(shared: Stage, undisturbed: Arrival) -> Stage:
    shared.set_up()
    return shared


def _left(report: Report) -> list[str]:
    return [a.subject for a in report.actions if a.outcome_sentence.startswith("deferred: ")]


@pytest.mark.parametrize(
    "limit", one_in(4, range(1, REQUESTS + 1), but={READING - 1, READING, REQUESTS})
)
def test_no_more_requests_are_sent_than_allowed_and_the_report_says_what_is_left(
    stage: Stage, undisturbed: Arrival, limit: int
) -> None:
    report = stage.gc(max_requests=limit)

    assert len(stage.requests) == report.requests.total <= limit
    assert stage.watcher.problems == []
    assert report.status == "done", report.problems
    if limit == REQUESTS:
        assert report.notes == ()
        assert stage.arrival() == undisturbed
        return
    (note,) = (one.sentence for one in report.notes)
    assert note.startswith(
        f"the {limit} requests of --max-requests are spent: deferred to the next"
    )
    if limit < READING:
        assert report.requests.total in (limit, limit - 1)
        assert "to read" in note or "1 blob to look for" in note
        assert not _left(report)
    else:
        count = len(_left(report))
        left = f"{count} action{'s' if count > 1 else ''}"
        assert note.endswith(left if count else "what builds have written during the sweep")
    assert stage.gc().status == "done"
    assert stage.arrival() == undisturbed


@pytest.mark.parametrize("limit", [3, 5, 8])
def test_small_budgets_finish_the_work_in_the_end(
    stage: Stage, undisturbed: Arrival, limit: int
) -> None:
    # Without reading a generation, deciding and writing it takes the list and seven requests.
    limits = [limit] * 3 + [8] * 9
    while limits:
        report = stage.gc(max_requests=limits.pop(0))
        assert report.status == "done", report.problems
        assert stage.watcher.problems == []
        stage.world.passes(minutes=1)
        if not report.notes:
            break

    assert limits
    assert stage.arrival() == undisturbed


def test_what_was_read_before_the_budget_ended_is_not_read_again(stage: Stage) -> None:
    stage.gc(max_requests=3)
    stage.world.passes(minutes=1)

    stage.gc(max_requests=5)

    assert [request.kind for request in stage.requests] == [
        "list",
        "look-up",
        "download",
        "look-up",
    ]
    assert stage.requests[-1].key == f"buildkit-blob-1-{blob_of('gone')}"


def test_a_begun_write_is_brought_to_its_end_whatever_that_takes(
    stage: Stage, undisturbed: Arrival
) -> None:
    # Each of the three steps of the write has to be tried three times.
    faults = [Fault(kind="status", status=503, request=kind, times=2) for kind in ENDING]

    report = stage.gc(max_requests=13, faults=FaultPlan(tuple(faults)))

    kinds = [request.kind for request in stage.requests]
    assert kinds[8:17] == ["reserve"] * 3 + ["upload"] * 3 + ["finalize"] * 3
    assert len(kinds) == 17
    assert report.status == "done", report.problems
    assert stage.watcher.problems == []
    assert len(report.notes) == 1
    assert stage.world.generations() == [1, 2, 3]
    stage.world.passes(minutes=1)
    assert stage.gc().status == "done"
    assert stage.arrival() == undisturbed


def test_a_budget_that_is_smaller_than_the_list_changes_nothing_and_is_no_failure(
    stage: Stage,
) -> None:
    for number in range(250):
        stage.world.put(f"node-modules-{number}", b"x")
    stage.gc(no_sweep=True)
    before = stage.world.entries()
    stage.world.passes(days=1)

    report = stage.gc(max_requests=2)

    assert report.status == "done", report.problems
    (note,) = (one.sentence for one in report.notes)
    assert note.startswith("the 2 requests of --max-requests are spent: deferred to the next run: ")
    assert note.endswith(": the list of entries, and everything else")
    assert stage.world.entries() == before
    assert {total.state for total in stage.gc(dry_run=True).entries} >= {"foreign", "reachable"}


@pytest.mark.parametrize("kind", ["look-up", "list", "delete"])
def test_attempts_count_and_a_budget_that_they_use_up_is_no_failure(
    stage: Stage, undisturbed: Arrival, kind: Kind
) -> None:
    nth = {"look-up": 3, "list": 2, "delete": 1}[kind]
    fault = Fault(kind="status", status=503, request=kind, nth=nth, times=3)

    report = stage.gc(max_requests=REQUESTS, faults=FaultPlan((fault,)))

    # The last deletion, with the questions before it, may be too much.
    assert REQUESTS - 2 <= len(stage.requests) <= REQUESTS
    assert report.status == "done", report.problems
    assert len(report.notes) == 1
    assert stage.watcher.problems == []
    stage.world.passes(minutes=1)
    assert stage.gc().status == "done"
    assert stage.arrival() == undisturbed


def _minute_by_minute(stage: Stage, report: Callable[[], Report]) -> Report:
    """Let each request take a minute."""
    stage.begin()

    def after(request: Request) -> None:
        stage.after(request)
        stage.world.passes(minutes=1)

    stage.world.running.observe(before=stage.watcher.before, after=after)
    try:
        return report()
    finally:
        stage.world.running.observe()


@pytest.mark.parametrize("minutes", [1, 3, 5, 6, 10, 14, 15])
def test_behind_the_deadline_nothing_is_begun(
    stage: Stage, undisturbed: Arrival, minutes: int
) -> None:
    deadline = timedelta(minutes=minutes)

    report = _minute_by_minute(stage, lambda: stage.world.gc(grace=NO_GRACE, deadline=deadline))

    assert report.status == "done", report.problems
    assert report.notes[0].sentence.startswith(
        "the --deadline has passed: deferred to the next run: "
    )
    assert stage.watcher.problems == []
    # A step under way is ended: at the most the writing of an index, with its two look-ups.
    assert minutes <= len(stage.requests) <= minutes + 7
    assert stage.gc().status == "done"
    assert stage.arrival() == undisturbed


def test_before_the_deadline_all_is_done(stage: Stage, undisturbed: Arrival) -> None:
    deadline = timedelta(minutes=REQUESTS)

    report = _minute_by_minute(stage, lambda: stage.world.gc(grace=NO_GRACE, deadline=deadline))

    assert report.notes == ()
    assert stage.arrival() == undisturbed


def _remaining(number: int) -> FaultPlan:
    return FaultPlan((Fault(kind="headers", headers={"x-ratelimit-remaining": str(number)}),))


@pytest.mark.parametrize(
    ("remaining", "share", "deletions"),
    [(1000, 0.5, 3), (6, 0.5, 2), (3, 0.5, 1), (1, 0.5, 0), (0, 0.5, 0), (5, 1, 3), (19, 0.05, 0)],
)
def test_a_share_of_the_rate_limit_is_left_to_other_workflows(
    stage: Stage, undisturbed: Arrival, remaining: int, share: float, deletions: int
) -> None:
    """The list is answered by how many requests remain, and so is each deletion: always as many."""
    report = stage.gc(rest_share=share, faults=_remaining(remaining))

    assert report.status == "done", report.problems
    assert sum(request.kind == "delete" for request in stage.requests) == deletions
    assert stage.watcher.problems == []
    assert len(_left(report)) == 3 - deletions
    if deletions < 3:
        assert report.notes[0].sentence.startswith(
            f"the run has spent its share, {share:.0%}, of the REST API's remaining"
        )
    assert stage.gc().status == "done"
    assert stage.arrival() == undisturbed
