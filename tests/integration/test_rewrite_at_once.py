"""Indexes that are written at once: each for itself, and reported in the order of the plan."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from maintainer.emulator import Fault, FaultPlan, Request
from maintainer.report import Report
from tests.integration.world import MAIN, World, a_world, built

SCOPES = ("api", "docs", "tools", "web", "worker")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Several scopes, in each of which two builds have hidden each other's results."""
    with a_world(tmp_path) as world:
        for scope in SCOPES:
            world.build("base", f"{scope} 1", scope=scope)
            world.build("base", f"{scope} 2", scope=scope)
        world.passes(days=2)
        yield world


def _gc(world: World, **how: object) -> tuple[Report, list[str]]:
    """Do a run; return its report, and the kinds of its requests."""
    kinds: list[str] = []
    world.running.observe(before=lambda request: kinds.append(request.kind))
    return world.gc(no_sweep=True, **how), kinds  # type: ignore[arg-type]


def _writes(report: Report) -> list[tuple[str, str]]:
    return [(a.subject, a.outcome_sentence) for a in report.actions if a.kind == "write"]


def test_several_indexes_are_under_way_and_reported_in_order(world: World) -> None:
    report, kinds = _gc(world)

    # None waits for the others: before the first is finished, all have begun.
    assert kinds[: kinds.index("finalize")].count("reserve") > 1
    assert kinds.count("finalize") == len(SCOPES)
    assert [outcome for _, outcome in _writes(report)] == ["done"] * len(SCOPES)
    subjects = [subject for subject, _ in _writes(report)]
    assert subjects == sorted(subjects)
    for scope in SCOPES:
        assert world.generations(scope) == [1, 2, 3]


def test_within_a_budget_they_are_written_one_after_the_other(world: World) -> None:
    report, kinds = _gc(world, max_requests=10_000)

    writing = [kind for kind in kinds if kind in ("reserve", "finalize")]
    assert writing == ["reserve", "finalize"] * len(SCOPES)
    assert [outcome for _, outcome in _writes(report)] == ["done"] * len(SCOPES)


def test_one_that_fails_does_not_end_the_others(world: World) -> None:
    key = "index-docs-1-f921bd05#3"
    world.running.inject(FaultPlan((Fault(kind="status", request="reserve", key=key),)))

    report, _ = _gc(world)

    assert report.status == "failed"
    assert [problem.partition(" ")[0] for problem in report.problems] == [key]
    outcomes = [outcome.partition(":")[0] for _, outcome in _writes(report)]
    assert outcomes == ["done", "failed", "done", "done", "done"]


def test_builds_that_write_some_of_them_meanwhile_are_merged_in(world: World) -> None:
    exported: list[str] = []

    def build(request: Request) -> None:
        scope = (request.key or "").split("-")[1] if request.kind == "reserve" else ""
        if scope in ("api", "web") and scope not in exported:
            exported.append(scope)
            world.export(built("base", f"{scope} new"), scope=scope, ref=MAIN)

    world.running.observe(before=build)

    report = world.gc(no_sweep=True)

    assert sorted(exported) == ["api", "web"]
    assert [outcome for _, outcome in _writes(report)] == ["done"] * len(SCOPES)
    assert world.generations("api") == world.generations("web") == [1, 2, 3, 4]
    assert world.generations("docs") == [1, 2, 3]
