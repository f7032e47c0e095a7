"""Whatever goes wrong at whichever request: a run completes, or stops with a clear line, and the
cache is no worse than before.
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from maintainer.emulator import Fault, FaultPlan, Kind, Request
from maintainer.emulator.server import Service
from maintainer.errors import UnknownCacheError
from maintainer.model.outcome import AlreadyGone, Deferred, Failed, Refused, Skipped
from maintainer.report import Report
from maintainer.stores.http.retry import RetryPolicy
from tests.integration.invariants import watched
from tests.integration.small import NO_GRACE, Arrival, Stage, a_small_world, a_stage, arrival
from tests.integration.test_gc_recorded_history import _seed as seed_history
from tests.integration.world import AT_ONCE, MAIN, a_world, blob_of, leads_to

FOREVER = 10**9
IMPATIENT = RetryPolicy(first_wait=timedelta(0), longest_asked_wait=timedelta(0))
HURRIED = replace(IMPATIENT, total=timedelta(seconds=1))
"""For what never ends; on a busy machine, what is only slow might be given up too."""

STEPS: dict[str, tuple[Kind, int]] = {
    "list": ("list", 1),
    "look-up of a generation": ("look-up", 1),
    "download of a generation": ("download", 2),
    "look-up of a blob in doubt": ("look-up", 3),
    "look-up of the newest": ("look-up", 4),
    "look-up of the next": ("look-up", 5),
    "reserve": ("reserve", 1),
    "upload": ("upload", 1),
    "finalize": ("finalize", 1),
    "look-up to read back": ("look-up", 6),
    "download to read back": ("download", 3),
    "delete of a generation": ("delete", 1),
    "recheck of the indexes": ("list", 2),
    "recheck of the blobs": ("list", 3),
    "delete of a blob": ("delete", 3),
}
"""What a run over the small world does, in order: which request of its kind each step is."""

PASSING = {
    "429": Fault(kind="status", status=429),
    "429 with Retry-After": Fault(kind="status", status=429, retry_after=0),
    "secondary limit": Fault(kind="status", status=403, retry_after=0),
    "500": Fault(kind="status", status=500),
    "502": Fault(kind="status", status=502),
    "503 with Retry-After": Fault(kind="status", status=503, retry_after=0),
    "reset": Fault(kind="reset"),
    "stall": Fault(kind="stall", seconds=0.01),
    "stored but failed": Fault(kind="stored-but-failed", status=500),
    "lost answer": Fault(kind="lost-answer"),
}
"""What may be another answer the next time, whatever was asked."""

LASTING = {
    "stall": Fault(kind="stall"),
    "html": Fault(kind="html"),
    "wrong shape": Fault(kind="wrong-shape"),
    "a list": Fault(kind="wrong-shape", body="[1]"),
    "truncated": Fault(kind="truncated"),
    "miss": Fault(kind="miss"),
    "expired": Fault(kind="expired"),
    "gone": Fault(kind="gone"),
    "not found": Fault(kind="status", status=404),
    "not allowed": Fault(kind="status", status=403),
    "no such token": Fault(kind="status", status=401),
    "429 for an hour": Fault(kind="status", status=429, retry_after=3600),
}
"""What may be tried again or not, and what takes longer than a run waits."""

LISTS = {
    "repeats": Fault(kind="repeat"),
    "omits": Fault(kind="omit"),
    "counts too many": Fault(kind="total"),
    "counts too few": Fault(kind="total", delta=-1),
}


def _cases(faults: dict[str, Fault]) -> list[Any]:
    """Cross faults with steps. `make test` takes the smallest sample that has each of both."""
    one_in = min(len(faults), len(STEPS))
    return [
        pytest.param(
            fault,
            step,
            id=f"{name} at {step}",
            marks=() if (row + column) % one_in == 0 else pytest.mark.soak,
        )
        for row, (name, fault) in enumerate(faults.items())
        for column, step in enumerate(STEPS)
    ]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with a_stage(tmp_path_factory.mktemp("faults"), a_small_world) as stage:
        yield stage


@dataclass(frozen=True)
class Undisturbed:
    """What a run does when nothing goes wrong."""

    requests: list[tuple[Kind, str]]
    arrival: Arrival


@pytest.fixture(scope="module")
def undisturbed(shared: Stage) -> Undisturbed:
    shared.set_up()
    assert shared.gc().status == "done"
    return Undisturbed([(r.kind, r.key or "") for r in shared.requests], shared.arrival())


@pytest.fixture
def stage(shared: Stage, undisturbed: Undisturbed) -> Stage:
    shared.set_up()
    shared.world.patience = AT_ONCE
    return shared


def _at(step: str, fault: Fault, *, times: int = 1) -> FaultPlan:
    kind, nth = STEPS[step]
    return FaultPlan((msgspec.structs.replace(fault, request=kind, nth=nth, times=times),))


def _gc(stage: Stage, faults: FaultPlan) -> Report | None:
    """Run where something goes wrong; None if no such cache was found, which is not recorded."""
    try:
        return stage.gc(faults=faults)
    except UnknownCacheError:
        return None


def _check_end(stage: Stage, report: Report | None, undisturbed: Undisturbed) -> None:
    """Check that a run ended as it says, kept every promise, and that another run arrives."""
    assert any(request.fault for request in stage.requests)
    assert stage.watcher.problems == []
    if report:
        _check_report(stage, report, undisturbed)
    stage.world.patience = AT_ONCE
    stage.world.passes(minutes=5)
    if stage.arrival() != undisturbed.arrival:
        assert stage.gc().status == "done"
    assert stage.watcher.problems == []
    assert stage.arrival() == undisturbed.arrival


def _check_report(stage: Stage, report: Report, undisturbed: Undisturbed) -> None:
    assert report.status == ("failed" if report.problems else "done")
    assert len(report.problems) <= 1
    for line in report.problems:
        assert line.isprintable()
        assert "sig=" not in line
    if report.status == "done" and stage.arrival() != undisturbed.arrival:
        unread = "could not be"
        assert any(
            isinstance(action.outcome, AlreadyGone | Deferred | Failed | Refused | Skipped)
            or unread in action.sentence
            for action in report.actions
        )


def test_a_run_over_the_small_world_has_every_step(undisturbed: Undisturbed) -> None:
    keys: dict[tuple[Kind, int], str] = {}
    for kind, key in undisturbed.requests:
        keys[kind, 1 + sum(other == kind for other, _ in keys)] = key
    stored = {key[-71:] for _, key in undisturbed.arrival.others}

    assert set(STEPS.values()) <= keys.keys()
    assert keys["look-up", 3] == f"buildkit-blob-1-{blob_of('gone')}"
    assert keys["look-up", 4].endswith("#")
    assert keys["look-up", 5] == keys["look-up", 6] == keys["reserve", 1]
    assert keys["delete", 3] == f"buildkit-blob-1-{blob_of('orphan')}"
    assert {blob_of("base"), blob_of("api"), blob_of("web")} <= stored
    assert blob_of("orphan") not in stored


@pytest.mark.parametrize(("fault", "step"), _cases(PASSING))
def test_what_passes_is_tried_again_and_the_run_arrives(
    stage: Stage, undisturbed: Undisturbed, fault: Fault, step: str
) -> None:
    report = stage.gc(faults=_at(step, fault))

    assert report.status == "done"
    assert report.requests.retries >= 1
    assert stage.arrival() == undisturbed.arrival
    _check_end(stage, report, undisturbed)


@pytest.mark.parametrize(("fault", "step"), _cases(LASTING))
def test_a_fault_that_comes_once_harms_nothing(
    stage: Stage, undisturbed: Undisturbed, fault: Fault, step: str
) -> None:
    stage.world.patience = HURRIED if fault.kind == "stall" else IMPATIENT

    report = _gc(stage, _at(step, fault))

    _check_end(stage, report, undisturbed)


@pytest.mark.parametrize(("fault", "step"), _cases(PASSING | LASTING))
def test_a_fault_that_stays_harms_nothing(
    stage: Stage, undisturbed: Undisturbed, fault: Fault, step: str
) -> None:
    stage.world.patience = HURRIED if fault.kind == "stall" else IMPATIENT

    report = _gc(stage, _at(step, fault, times=FOREVER))

    _check_end(stage, report, undisturbed)


@pytest.mark.parametrize("times", [1, FOREVER], ids=["once", "always"])
@pytest.mark.parametrize("fault", LISTS.values(), ids=LISTS)
def test_a_list_that_is_wrong_is_read_again_or_not_relied_upon(
    stage: Stage, undisturbed: Undisturbed, fault: Fault, times: int
) -> None:
    report = stage.gc(faults=_at("list", fault, times=times))

    assert report.status == "done"
    assert leads_to(stage.world.newest()) == {blob_of(s) for s in ("base", "api", "web")}
    if stage.arrival() != undisturbed.arrival:
        assert times == FOREVER
        assert blob_of("orphan") in stage.world.blobs()
        assert any(
            "the list of entries was incomplete" in action.sentence for action in report.actions
        )
    stage.world.passes(minutes=5)
    assert stage.gc().status == "done"
    assert stage.arrival() == undisturbed.arrival


@pytest.mark.parametrize("times", [1, FOREVER], ids=["once", "always"])
@pytest.mark.parametrize("nth", range(1, 7))
def test_what_is_listed_survives_a_look_up_that_misses_it(
    stage: Stage, nth: int, times: int
) -> None:
    missed = Fault(kind="miss", request="look-up", nth=nth, times=times)

    report = stage.gc(faults=FaultPlan((missed,)))

    assert stage.watcher.problems == []
    kept = {blob_of(step) for step in ("base", "api", "web")}
    assert kept <= stage.world.blobs()
    if nth > 2:  # Both generations were read.
        assert leads_to(stage.world.newest()) == kept
    else:
        assert blob_of("orphan") in stage.world.blobs()
        assert any("could not be read this time" in action.sentence for action in report.actions)


@pytest.mark.parametrize(
    "moved", [("ACTIONS_RESULTS_URL",), ("ACTIONS_RESULTS_URL", "GITHUB_API_URL")]
)
def test_a_service_that_refuses_connections_is_one_line_and_nothing_is_done(
    stage: Stage, undisturbed: Undisturbed, moved: tuple[str, ...]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        environment = stage.world.running.environment(MAIN)
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        environment |= dict.fromkeys(moved, nowhere)
        before = stage.world.entries()
        stage.begin()

        report = stage.world.gc_in(environment, grace=NO_GRACE)

    assert report.status == "failed"
    assert len(report.problems) == 1
    assert report.problems[0].endswith(" failed: Connection refused")
    assert stage.world.entries() == before
    stage.world.passes(minutes=5)
    assert stage.gc().status == "done"
    assert stage.arrival() == undisturbed.arrival


@pytest.mark.parametrize("service", ["v1", pytest.param("v2", marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", ["look-up", "download", "reserve", "upload", "finalize"])
@pytest.mark.parametrize("fault", [PASSING["lost answer"], LASTING["html"]], ids=["lost", "html"])
def test_without_the_rest_api_a_fault_harms_nothing_either(
    stage: Stage, fault: Fault, kind: Kind, service: Service
) -> None:
    spoiled = msgspec.structs.replace(fault, request=kind, nth=1)

    stage.gc(rest=False, service=service, faults=FaultPlan((spoiled,)))

    assert any(request.fault for request in stage.requests)
    assert stage.watcher.problems == []
    report = stage.gc(rest=False, service=service)
    assert report.status == "done", report.problems
    assert leads_to(stage.world.newest()) == {blob_of(s) for s in ("base", "api", "web")}


RETRYABLE = (
    Fault(kind="status", status=429, retry_after=0, probability=0.04),
    Fault(kind="status", status=500, probability=0.03),
    Fault(kind="status", status=502, probability=0.03),
    Fault(kind="status", status=503, probability=0.03),
    Fault(kind="reset", probability=0.03),
    Fault(kind="lost-answer", probability=0.03),
    Fault(kind="truncated", probability=0.03),
)
"""One answer in five, near enough."""


@pytest.fixture(scope="module", params=[110, pytest.param(None, marks=pytest.mark.soak)])
def builds(request: pytest.FixtureRequest) -> int | None:
    """Return how many builds of the recorded history there are; all, if none."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, builds: int | None) -> Arrival:
    with a_world(tmp_path_factory.mktemp("recorded")) as world:
        seed_history(world, builds)
        assert world.gc(grace=NO_GRACE).status == "done"
        return arrival(world.entries())


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.soak) for n in (2, 3, 4))])
def test_with_a_fifth_of_the_answers_faulty_a_run_over_the_recorded_history_completes(
    tmp_path: Path, recorded: Arrival, builds: int | None, seed: int
) -> None:
    faulty: list[Request] = []
    with a_world(tmp_path) as world, watched(world, grace=NO_GRACE, readable=[MAIN]) as watcher:
        seed_history(world, builds)
        watcher.begin(grace=NO_GRACE, readable=[MAIN])

        def after(request: Request) -> None:
            world.requests[request.kind] += 1
            watcher.after(request)
            faulty.extend([request] if request.fault else [])

        world.running.observe(before=watcher.before, after=after)
        world.running.inject(FaultPlan(RETRYABLE, seed))
        # Of a thousand requests, one in twenty runs would lose one to six faults in a row.
        world.patience = RetryPolicy(first_wait=timedelta(0), attempts=10)
        report = world.gc(grace=NO_GRACE)

        assert report.status == "done", report.problems
        assert arrival(world.entries()) == recorded
    # A request on a connection that the server has just closed does not arrive.
    assert report.requests.total >= world.requests.total()
    assert 0.15 < len(faulty) / report.requests.total < 0.25
    # What is cut off behind the part that a run has asked for is not missed.
    assert report.requests.retries > 0.75 * len(faulty)
