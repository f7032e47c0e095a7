"""The quota and the retention are asked from GitHub, and what they say counts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from maintainer.emulator.faults import Fault, FaultPlan
from maintainer.report import Report
from maintainer.report.markdown import render_markdown
from tests.integration.test_report import _space
from tests.integration.world import World, a_world, blob_of

GB = 10**9
PULL = "refs/pull/7/merge"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as started:
        yield started


def _refuse(world: World, times: int | None = None, status: int = 403) -> None:
    fault = Fault(kind="status", request="limit", status=status, times=times)
    world.running.inject(FaultPlan((fault,)))


def _gc(world: World, **how: object) -> Report:
    """Do a run that asks, as one does by default."""
    return world.gc(**{"quota": None, **how})  # type: ignore[arg-type]


def test_the_report_divides_the_quota_that_github_reports(world: World) -> None:
    world.cache.quota = 25 * GB
    world.build("base", "api")

    report = _gc(world)

    assert (_space(report).quota, _space(report).quota_is_assumed) == (25 * GB, False)
    assert report.requests.counts["limits"] == 2
    assert "of 25.0 GB are used." in render_markdown(report)


def test_a_token_that_may_not_ask_gets_a_report_that_says_assumed(world: World) -> None:
    world.build("base", "api")
    _refuse(world)

    report = _gc(world)

    assert report.status == "done", report.problems
    assert (_space(report).quota, _space(report).quota_is_assumed) == (10 * GB, True)
    assert "of an assumed 10.0 GB are used." in render_markdown(report)
    assert report.requests.counts["limits"] == 3


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_no_answer_about_limits_fails_a_run(world: World, status: int) -> None:
    world.build("base", "api")
    _refuse(world, status=status)

    report = _gc(world)

    assert report.status == "done", report.problems
    assert _space(report).quota_is_assumed


def test_the_policy_of_enterprise_server_is_the_next_choice(world: World) -> None:
    world.cache.quota = 14 * GB
    world.build("base", "api")
    _refuse(world, times=1, status=404)

    assert _space(_gc(world)).quota == 14 * GB


def test_a_quota_that_is_set_wins_and_nothing_is_asked(world: World) -> None:
    world.cache.quota = 25 * GB
    world.build("base", "api")

    report = world.gc(quota=3 * GB)

    assert (_space(report).quota, _space(report).quota_is_assumed) == (3 * GB, False)
    assert "limits" not in report.requests.counts


def test_no_limits_are_asked_for_without_the_rest_api(world: World) -> None:
    world.build("base", "api")

    assert "limits" not in _gc(world, rest=False).requests.counts


def test_limits_are_left_out_where_max_requests_has_no_room_for_them(world: World) -> None:
    world.build("base", "api")
    world.gc()

    report = _gc(world, max_requests=2)

    assert report.requests.counts == {"list": 1}
    assert report.notes == ()
    assert _space(report).quota_is_assumed


def test_a_second_look_does_not_ask_for_the_limits_again(world: World) -> None:
    for number in range(4):
        world.build("base", f"step {number}", scope=f"scope {number}")
    world.gc()
    world.evict_entries(world.entries())

    report = _gc(world)

    assert report.status == "failed"
    assert (report.requests.counts["list"], report.requests.counts["limits"]) == (2, 2)


def test_what_the_reported_quota_had_no_room_for_is_no_outage(world: World) -> None:
    world.build("base", *(f"step {number}" for number in range(9)))
    world.gc()
    world.evict_entries(world.entries())
    world.put("setup-node-Linux", size=5 * GB)
    world.cache.quota = 5 * GB

    assert _gc(world).status == "done"


def test_the_same_is_an_outage_where_github_reports_a_larger_quota(world: World) -> None:
    world.build("base", *(f"step {number}" for number in range(9)))
    world.gc()
    world.evict_entries(world.entries())
    world.put("setup-node-Linux", size=5 * GB)
    world.cache.quota = 25 * GB

    assert _gc(world).status == "failed"


def test_what_was_idle_for_a_week_is_an_outage_where_retention_is_longer(world: World) -> None:
    world.build("base", *(f"step {number}" for number in range(9)))
    world.gc()
    world.evict_entries(world.entries())
    world.passes(days=8)
    world.cache.retention_days = 30

    assert _gc(world).status == "failed"

    world.cache.retention_days = 7
    assert _gc(world).status == "done"


def test_a_longer_retention_protects_what_unreadable_refs_may_need_for_longer(world: World) -> None:
    world.build("base", "api")
    orphan = blob_of("orphan")
    world.put(f"buildkit-blob-1-{orphan}", size=7)
    _gc(world)
    world.passes(days=8)
    world.build("pull", ref=PULL)
    world.cache.retention_days = 30

    _gc(world)
    assert orphan in world.blobs()

    world.cache.retention_days = 7
    _gc(world)
    assert orphan not in world.blobs()
