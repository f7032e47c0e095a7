"""Doubt ends: an index that can never be read blocks the sweep for one grace period only."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import CacheConfig, IndexId, Ref, Scope
from maintainer.emulator import Fault, FaultPlan
from maintainer.report import Report
from tests.integration.world import MAIN, World, a_world, blob_of, leads_to

WEB = IndexId(Ref(MAIN), Scope("web"))
GRACE = timedelta(hours=24)
PULL = "refs/pull/7/merge"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _two_scopes(world: World) -> None:
    """Two generations each of `api` and `web`, and a layer that nothing needs, all a week old."""
    world.put(f"buildkit-blob-1-{blob_of('old')}")
    for scope in ("api", "web"):
        world.build("base", f"{scope} 1", scope=scope)
        world.build("base", f"{scope} 2", scope=scope)
    world.passes(days=7)


def _answers(status: int, number: int, of: IndexId = WEB) -> FaultPlan:
    key = str(of.key(number))
    return FaultPlan((Fault(kind="status", request="download", key=key, status=status),))


def _gives(content: str, number: int) -> FaultPlan:
    key = str(WEB.key(number))
    return FaultPlan((Fault(kind="wrong-shape", request="download", key=key, body=content),))


def _look_ups(world: World, action: Callable[[], Report], number: int) -> tuple[Report, int]:
    asked: list[str] = []

    def note(request: object) -> None:
        if getattr(request, "kind", "") == "look-up":
            asked.append(str(getattr(request, "key", "")))

    world.running.observe(before=note)
    report = action()
    world.running.observe()
    return report, asked.count(str(WEB.key(number)))


def _is_stored(world: World, number: int) -> bool:
    return number in world.generations("web")


def test_an_index_without_content_blocks_the_sweep_for_a_grace_period_and_no_longer(
    world: World,
) -> None:
    _two_scopes(world)
    world.running.inject(_answers(404, 1))

    first = world.gc(grace=GRACE)
    world.passes(hours=23)
    second = world.gc(grace=GRACE)
    assert blob_of("old") in world.blobs()
    assert first.status == second.status == "done"
    world.passes(hours=1)
    third = world.gc(grace=GRACE)

    assert blob_of("old") not in world.blobs()
    assert {blob_of(f"web {n}") for n in (2,)} <= world.blobs()
    assert third.verdict
    assert third.verdict.level == "good"
    _, asked = _look_ups(world, lambda: world.gc(grace=GRACE), 1)
    assert asked == 0
    world.passes(hours=25)
    world.gc(grace=GRACE)
    assert not _is_stored(world, 1)


def test_the_newest_index_that_can_never_be_read_is_replaced_from_memory(world: World) -> None:
    _two_scopes(world)
    world.gc(grace=GRACE)
    world.build("base", "web 3", scope="web")
    unread = max(world.generations("web"))
    world.running.inject(_answers(404, unread))
    world.gc(grace=GRACE)
    assert max(world.generations("web")) == unread
    world.passes(hours=25)

    world.gc(grace=GRACE)

    assert max(world.generations("web")) == unread + 1
    world.running.inject()
    assert leads_to(world.newest("web")) == {blob_of(s) for s in ("base", "web 1", "web 2")}


def test_an_outage_of_minutes_costs_no_export_whatever_the_grace_period(world: World) -> None:
    _two_scopes(world)
    world.gc(grace=GRACE)
    world.build("base", "web 3", scope="web")
    world.running.inject(_answers(404, max(world.generations("web"))))
    for _ in range(2):
        world.passes(minutes=1)
        world.gc(grace=timedelta(0))
    world.running.inject()

    world.gc(grace=GRACE)

    assert blob_of("web 3") in leads_to(world.newest("web"))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{}", id="shorter than listed"),
        pytest.param(" " * 5_001, id="larger than max_index_size"),
    ],
)
def test_an_index_that_is_not_what_is_listed_stays_in_doubt_for_a_grace_period_only(
    world: World, content: str
) -> None:
    _two_scopes(world)
    world.running.inject(_gives(content, 1))

    world.gc(grace=GRACE, max_index_size=5_000)
    assert blob_of("old") in world.blobs()
    world.passes(hours=24)
    world.gc(grace=GRACE, max_index_size=5_000)

    assert blob_of("old") not in world.blobs()
    _, asked = _look_ups(world, lambda: world.gc(grace=GRACE, max_index_size=5_000), 1)
    assert asked == 0


def test_trouble_of_the_server_proves_nothing_however_long_it_lasts(world: World) -> None:
    _two_scopes(world)
    world.running.inject(_answers(500, 1))

    for _ in range(9):
        world.gc(grace=GRACE)
        world.passes(days=1)
    report = world.gc(grace=GRACE)

    assert blob_of("old") in world.blobs()
    assert _is_stored(world, 1)
    assert report.verdict
    assert report.verdict.message.startswith(
        "No run has been able to delete an unreferenced blob for 9 days"
    )
    assert "index-web" in report.verdict.message


def test_an_index_that_can_be_read_in_between_is_read_and_needed(world: World) -> None:
    _two_scopes(world)
    world.running.inject(_answers(404, 1))
    world.gc(grace=GRACE)
    world.passes(hours=23)
    world.running.inject()

    world.gc(grace=GRACE)

    assert leads_to(world.newest("web")) >= {blob_of("web 1"), blob_of("web 2")}


def test_the_doubt_begins_again_when_another_answer_comes(world: World) -> None:
    _two_scopes(world)
    world.running.inject(_answers(404, 1))
    world.gc(grace=GRACE)
    world.passes(hours=23)
    world.running.inject(_gives("{", 1))
    world.gc(grace=GRACE)
    world.passes(hours=23)

    world.gc(grace=GRACE)

    assert blob_of("old") in world.blobs()


def test_without_a_list_an_index_that_can_never_be_read_is_replaced_too(world: World) -> None:
    world.build("base", "web 1")
    world.gc(rest=False, grace=GRACE)
    world.build("base", "web 2")
    newest = IndexId(Ref(MAIN), Scope("buildkit"))
    world.running.inject(_answers(404, 2, newest))

    world.gc(rest=False, grace=GRACE)
    assert world.generations() == [1, 2]
    world.passes(hours=24)
    world.gc(rest=False, grace=GRACE)

    assert world.generations() == [1, 2, 3]
    assert leads_to(world.newest()) == {blob_of("base"), blob_of("web 1")}
    world.passes(hours=1)
    again = world.gc(rest=False, grace=GRACE)
    assert again.indexes_written == 0


def test_a_pull_request_that_exports_each_day_does_not_keep_everything_for_ever(
    world: World,
) -> None:
    world.put(f"buildkit-blob-1-{blob_of('old')}")
    world.build("base", "web 1", scope="web")
    for _ in range(8):
        world.build("base", "change", scope="web", ref=PULL)
        world.gc(grace=GRACE)
        world.passes(days=1)

    assert blob_of("old") not in world.blobs()
    assert world.newest("web") != CacheConfig()


def test_the_owner_may_let_pull_requests_protect_nothing(world: World) -> None:
    world.put(f"buildkit-blob-1-{blob_of('old')}")
    world.passes(days=2)
    world.build("base", "change", scope="web", ref=PULL)

    world.gc(grace=GRACE, unreadable_refs="protect")
    assert blob_of("old") in world.blobs()
    world.gc(grace=GRACE, unreadable_refs="ignore")

    assert blob_of("old") not in world.blobs()


def test_a_run_that_does_not_read_a_ref_knows_nothing_of_its_doubts(world: World) -> None:
    _two_scopes(world)
    branch = "refs/heads/release"
    web = IndexId(Ref(branch), Scope("web"))
    world.build("base", "release", scope="web", ref=branch)
    world.running.inject(_answers(404, 1, web))
    world.passes(days=7)

    for _ in range(2):
        world.gc(ref=branch, readable=[MAIN], grace=GRACE)
        world.passes(hours=12)
        world.gc(grace=GRACE)
        world.passes(hours=13)
    report = world.gc(ref=branch, readable=[MAIN], grace=GRACE)

    assert report.blocked is None


@pytest.mark.parametrize("runs_between", [0, 1, 5])
@pytest.mark.each_database
def test_an_index_is_not_in_doubt_for_what_another_one_of_its_key_was(
    world: World, runs_between: int
) -> None:
    """It has been evicted, its ref may be forgotten, and a build has used its number again."""
    _two_scopes(world)
    branch = "refs/heads/release"
    web = IndexId(Ref(branch), Scope("web"))
    lost = world.build("base", "release 1", scope="web", ref=branch)
    world.running.inject(_answers(404, 1, web))
    world.gc(ref=branch, readable=[MAIN], grace=GRACE)
    world.evict_entries([lost])
    for _ in range(runs_between):
        world.passes(days=30)
        world.gc(grace=GRACE)
    world.passes(days=2)
    world.build("base", "release 2", scope="web", ref=branch)
    world.gc(ref=branch, readable=[MAIN], grace=GRACE)
    world.running.inject()

    world.gc(ref=branch, readable=[MAIN], grace=GRACE)

    assert world.generations("web", branch) == [1]
    assert blob_of("release 2") in leads_to(world.newest("web", branch))


def test_a_scope_that_version_1_cannot_look_up_blocks_the_sweep_for_a_grace_period_only(
    world: World,
) -> None:
    _two_scopes(world)
    world.build("base", "comma", scope="a,b")

    world.gc(service="v1", grace=GRACE)
    world.passes(hours=25)
    world.gc(service="v1", grace=GRACE)

    assert blob_of("old") not in world.blobs()
