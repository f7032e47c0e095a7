"""Rules of other tools, in whole runs: from the settings to the report and to `why`."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest

from maintainer.cacheconfig import ENTRY_VERSION
from maintainer.emulator.faults import Fault, FaultPlan
from maintainer.emulator.requests import Request
from maintainer.model.outcome import Done
from tests.integration.test_closed_refs import outside_of_a_workflow
from tests.integration.test_idle import is_idle, settle
from tests.integration.world import MAIN, World, a_world, is_ours

NODE = "setup-node-Linux-x64-npm-"
PULL = "refs/pull/7/merge"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        world.build("base", "api")
        yield world


def a_rule(prefix: str = NODE, **limits: object) -> dict[str, object]:
    sizes = {key: f"{size}B" for key, size in limits.items() if key == "max_bytes"}
    return {"rules": [{"prefix": prefix, **limits, **sizes}]}


def put(world: World, keys: Sequence[str], *, ref: str = MAIN, size: int = 100) -> None:
    """Store one entry an hour."""
    for key in keys:
        world.put(key, ref=ref, size=size)
        world.passes(hours=1)


def others(world: World) -> list[str]:
    return [entry.key for entry in world.entries() if not is_ours(entry)]


def test_the_newest_of_a_tool_stay_and_the_report_says_why_others_left(world: World) -> None:
    put(world, [f"{NODE}{number}" for number in range(4)])
    put(world, ["v0-rust-0", "v0-rust-1"])
    put(world, [f"{NODE}pull"], ref=PULL)

    plan = world.gc(dry_run=True, room=a_rule(keep_newest=2))
    assert len(others(world)) == 7
    assert plan.space
    assert {part.kind: part.size for part in plan.space.parts}["due"] == 200
    assert world.why(f"{NODE}0") == (
        f"its ref has 2 newer entries {NODE}…, and a rule keeps no more: "
        "the next run that may delete."
    )
    report = world.gc(room=a_rule(keep_newest=2))

    assert others(world) == [f"{NODE}2", f"{NODE}3", "v0-rust-0", "v0-rust-1", f"{NODE}pull"]
    assert [a.subject for a in report.deletions] == [f"{NODE}0", f"{NODE}1"]
    assert [a.subject for a in plan.deletions] == [a.subject for a in report.deletions]
    assert {type(a.outcome) for a in report.deletions} == {Done}
    assert report.bytes_freed == 200
    assert report.space
    assert "due" not in {part.kind for part in report.space.parts}
    assert sum(part.size for part in report.space.parts[:-1]) == report.space.used


def test_databases_that_the_action_saved_before_go_in_the_ref_of_the_run_only(world: World) -> None:
    put(world, [f"maintainer-db#{number}-1-maintain" for number in range(4)])
    put(world, ["maintainer-db#9-1-maintain"], ref=PULL)

    report = world.gc(database_key="maintainer-db")

    kept = [f"maintainer-db#{number}-1-maintain" for number in (2, 3, 9)]
    assert others(world) == kept
    world.passes(hours=1)
    assert world.gc(database_key="maintainer-db").changes.gone_entries == 0
    assert report.entries_deleted == 2


def test_the_space_is_that_of_all_entries(world: World) -> None:
    put(world, [f"{NODE}{number}" for number in range(4)])
    stored = sum(entry.size for entry in world.entries())

    plan = world.gc(dry_run=True, room=a_rule(keep_newest=1))

    assert plan.space
    assert plan.space.used == stored


def test_it_works_with_a_plain_token_outside_of_a_workflow(world: World) -> None:
    put(world, [f"{NODE}{number}" for number in range(4)])

    report = world.gc_in(outside_of_a_workflow(world.running), room=a_rule(max_bytes=150))

    assert others(world) == [f"{NODE}3"]
    assert report.status == "done"


def test_entries_that_nobody_uses_leave_when_it_is_time_although_nothing_changes(
    world: World,
) -> None:
    room = a_rule(unused_for="10h")
    put(world, [f"{NODE}0"])
    settle(world, room=room)
    assert world.why(f"{NODE}0").endswith(
        "the first run after 2026-01-01 10:00 UTC, if nobody uses it before."
    )
    world.passes(hours=8, minutes=50)
    assert is_idle(world.gc(room=room))

    world.passes(minutes=10)
    report = world.gc(room=room)

    assert not is_idle(report)
    assert others(world) == []
    assert report.deletions[0].sentence == (
        f"last used on 2026-01-01 00:00 UTC, and a rule keeps entries {NODE}… for 10 hours after "
        "their last use"
    )


@pytest.mark.parametrize("prefix", ["a_b%-", "A_B%-", "a-b%-", "a_b"])
def test_a_prefix_is_taken_to_the_letter(world: World, prefix: str) -> None:
    keys = ["a_b%-1", "A_B%-1", "a-b%-1", "axb-1"]
    put(world, keys)

    world.gc(room=a_rule(prefix, max_bytes=1))

    assert others(world) == [key for key in keys if not key.startswith(prefix)]


def test_an_entry_that_is_gone_already_is_no_problem(world: World) -> None:
    put(world, [f"{NODE}{number}" for number in range(3)])

    def evict(request: Request) -> None:
        if request.kind == "delete":
            for entry in world.cache.entries():
                if not is_ours(entry):
                    world.cache.evict(entry.id)

    world.running.observe(before=evict)
    report = world.gc(room=a_rule(keep_newest=1))

    assert report.status == "done"
    assert {a.outcome_sentence for a in report.deletions} == {"already gone"}


def after_the_list(world: World, do: Callable[[], object], *, pages: int = 1) -> None:
    """Do something once the run has listed all entries, when it asks which were used since."""
    lists = count()

    def watch(request: Request) -> None:
        if request.kind == "list" and next(lists) == pages:
            do()

    world.running.observe(before=watch)


def use(world: World, keys: Sequence[str]) -> None:
    for key in keys:
        world.cache.look_up([MAIN], key, [], ENTRY_VERSION)


def test_an_entry_that_was_used_since_the_run_began_stays(world: World) -> None:
    put(world, [f"{NODE}{number}" for number in range(4)])
    after_the_list(world, lambda: use(world, [f"{NODE}1"]))

    report = world.gc(room=a_rule(keep_newest=1))

    assert others(world) == [f"{NODE}1", f"{NODE}3"]
    assert {a.subject[-1]: a.outcome_sentence for a in report.deletions} == {
        "0": "done",
        "1": "skipped: somebody has looked it up since the run began",
        "2": "done",
    }
    assert report.requests.counts["recheck"] == 1


def test_all_stay_if_so_many_were_used_that_the_list_does_not_show_it(world: World) -> None:
    keys = [f"{NODE}{number}" for number in range(102)]
    put(world, keys)
    after_the_list(world, lambda: use(world, keys[2:]), pages=2)

    report = world.gc(room=a_rule(keep_newest=100))

    assert others(world) == keys
    sentences = {one.outcome_sentence for one in report.deletions}
    assert sentences == {
        "skipped: too many entries were used since the run began to tell whether it was one of them"
    }


def test_an_entry_stays_if_nobody_can_say_whether_it_was_used(world: World) -> None:
    put(world, [f"{NODE}{number}" for number in range(2)])
    world.running.inject(FaultPlan((Fault(kind="status", request="list", nth=2, times=99),)))

    report = world.gc(room=a_rule(keep_newest=1))

    assert others(world) == [f"{NODE}0", f"{NODE}1"]
    assert report.deletions[0].outcome_sentence.startswith(
        "skipped: it could not be checked whether anybody has used it since the run began ("
    )


def test_a_clock_that_is_far_ahead_lets_nothing_expire(world: World) -> None:
    put(world, [f"{NODE}{number}" for number in range(4)])
    world.passes(days=10_000)  # The emulator's answers have the date of today.

    report = world.gc(room=a_rule(unused_for="5d"))

    assert report.status == "failed"
    assert report.problems[0].endswith(" ahead of the service's: set it")
    assert len(others(world)) == 4
