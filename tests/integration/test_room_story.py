"""A full cache, as people report it: eight closed pull requests hold 8.3 of 10 GB."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from maintainer.model.reason import BeyondNewest, PullRequestClosed, Unused
from maintainer.report import Report
from maintainer.report.verdict import judge
from tests.integration.test_closed_refs import close
from tests.integration.test_idle import is_idle, settle
from tests.integration.world import MAIN, World, a_world, blob_of, is_ours

MB = 10**6
CLOSED = range(11, 19)
OPEN = range(21, 23)
NODE, RUST, GO = "setup-node-Linux-x64-npm-", "v0-rust-test-Linux-x64-", "setup-go-Linux-x64-"
ROOM = {
    "closed_refs": True,
    "rules": [
        {"prefix": NODE, "keep_newest": 2},
        {"prefix": RUST, "unused_for": "5d"},
    ],
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Let a week pass in a repository: builds, pull requests, and three other tools."""
    with a_world(tmp_path) as world:
        world.put(f"{RUST}0", size=60 * MB)
        for day in range(7):
            world.put(f"{NODE}{day}", size=50 * MB)
            world.passes(days=1)
        world.put(f"{RUST}1", size=60 * MB)
        world.put(f"{GO}1", size=80 * MB)
        world.build("base", "api")
        for number in (*CLOSED, *OPEN):
            pull = f"refs/pull/{number}/merge"
            world.build(f"of {number}", ref=pull)
            size = 950 * MB if number in CLOSED else 300 * MB
            world.put(f"buildkit-blob-1-{blob_of(f'big {number}')}", ref=pull, size=size)
            world.put(f"{NODE}pull-{number}", ref=pull, size=87 * MB)
        for number in CLOSED:
            close(world, number)
        world.passes(days=2)
        yield world


def used_by(report: Report) -> dict[str, int]:
    """Return how much each kind of entries takes, in MB."""
    assert report.space
    parts = ((part.name, part.size) for part in report.space.parts[:-1])
    return {name: round(size / MB) for name, size in parts}


@pytest.mark.each_database
def test_a_full_cache_gets_room(world: World) -> None:
    # Before: nothing is turned on.
    before = world.gc()

    assert used_by(before) == {
        "reachable": 0,
        "in refs that the token cannot read": 8200,
        "setup-node-": 1220,
        "v0-rust-": 120,
        "setup-go-": 80,
    }
    assert before.deletions == ()
    verdict = judge(before)
    assert verdict.message == "The cache is 96.2 % full."
    assert verdict.advice.startswith("Delete the caches of closed pull requests")
    stored = {entry.id for entry in world.entries()}

    # The plan: everything is shown, and nothing is done.
    plan = world.gc(dry_run=True, room=ROOM)

    assert {entry.id for entry in world.entries()} == stored
    assert {action.outcome_sentence for action in plan.deletions} == {"planned"}
    kinds = [type(action.reason) for action in plan.deletions]
    assert kinds[:32] == [PullRequestClosed] * 32
    assert sorted(kinds[32:], key=str) == [*[BeyondNewest] * 5, Unused]
    assert "would write nothing and delete 38 entries" in judge(plan).message

    # Why: one entry of each kind.
    soon = "the next run that may delete."
    assert world.why(f"{NODE}pull-11") == (
        "pull request 11 was closed on 2026-01-08 00:00 UTC, so no build reads it: the next run "
        "that may delete, unless the ref is in use again by then."
    )
    assert world.why(blob_of("big 11")) == world.why(f"{NODE}pull-11")
    assert world.why(f"{NODE}0") == (
        f"its ref has 2 newer entries {NODE}…, and a rule keeps no more: {soon}"
    )
    assert world.why(f"{RUST}0") == (
        f"last used on 2026-01-01 00:00 UTC, and a rule keeps entries {RUST}… for 5 days after "
        f"their last use: {soon}"
    )
    assert world.why(f"{RUST}1") == (
        "unused since 2026-01-08 00:00 UTC, kept until 2026-01-13 00:00 UTC: the first run after "
        "2026-01-13 00:00 UTC, if nobody uses it before."
    )
    others = "no run: it belongs to another tool, or does not follow BuildKit's rules."
    for key in (f"{NODE}6", f"{GO}1", f"{NODE}pull-21"):
        assert world.why(key) == f"it belongs to another tool: {others}"
    assert world.why(blob_of("big 21")).startswith("the token cannot read refs/pull/21/merge")
    assert world.why(blob_of("base")).startswith("index-buildkit-1-")

    # After: exactly that is done.
    after = world.gc(room=ROOM)

    assert [a.subject for a in after.deletions] == [a.subject for a in plan.deletions]
    assert {action.outcome_sentence for action in after.deletions} == {"done"}
    assert used_by(after) == {
        "reachable": 0,
        "in refs that the token cannot read": 600,
        "setup-node-": 274,
        "setup-go-": 80,
        "v0-rust-": 60,
    }
    assert judge(after).level == "good"
    assert {entry.ref for entry in world.entries()} == {
        MAIN,
        *(f"refs/pull/{number}/merge" for number in OPEN),
    }
    tools = {e.key for e in world.entries() if e.ref == MAIN and not is_ours(e)}
    assert tools == {f"{NODE}5", f"{NODE}6", f"{RUST}1", f"{GO}1"}
    assert world.why(f"{NODE}0").startswith("its ref has 2 newer entries")

    # And then there is nothing to do, until something is due.
    settle(world, room=ROOM)
    world.passes(hours=12)
    assert is_idle(world.gc(room=ROOM))
