"""Entries of closed pull requests, deleted branches and tags go, on positive evidence only."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import ENTRY_VERSION, decode
from maintainer.emulator.requests import Request
from maintainer.emulator.server import Running
from maintainer.model import reason as reasons
from maintainer.model.outcome import Done, Skipped
from maintainer.report import Report
from tests.empty_database import need_sqlite
from tests.integration.test_idle import is_idle, settle
from tests.integration.world import MAIN, World, a_world, blob_of

CLOSED, OPEN = "refs/pull/7/merge", "refs/pull/8/merge"
TOPIC, TAG = "refs/heads/topic/one", "refs/tags/v1.0"
ROOM = {"closed_refs": True}
NODE = "setup-node-Linux-x64-npm-0123456789abcdef"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Build on the default branch, in two pull requests, on a branch and on a tag."""
    with a_world(tmp_path) as world:
        for ref in (MAIN, CLOSED, OPEN, TOPIC, TAG):
            world.build("base", ref.rpartition("/")[0], ref=ref)
            world.put(NODE, ref=ref, size=100)
        world.passes(hours=2)
        yield world


def refs_of(world: World) -> set[str]:
    return {entry.ref for entry in world.entries()}


def close(world: World, number: int = 7, **ago: float) -> None:
    at = world.now - timedelta(**ago)
    world.running.call(lambda cache: cache.repository.close(number, at))


def delete(world: World, ref: str) -> None:
    world.running.call(lambda cache: cache.repository.delete(ref))


def outside_of_a_workflow(running: Running) -> dict[str, str]:
    """Return the variables that are set where there is no runtime token."""
    environment = running.environment(MAIN)
    return {name: text for name, text in environment.items() if not name.startswith("ACTIONS_")}


def notes_of(report: Report) -> list[reasons.Note]:
    return [note.reason for note in report.notes]


def test_all_entries_of_a_closed_pull_request_go_whatever_the_tool(world: World) -> None:
    close(world, hours=1)

    plan = world.gc(room=ROOM, dry_run=True)
    assert len(refs_of(world)) == 5
    report = world.gc(room=ROOM)

    assert refs_of(world) == {MAIN, OPEN, TOPIC, TAG}
    assert [a.subject for a in plan.deletions] == [a.subject for a in report.deletions]
    assert {type(action.outcome) for action in report.deletions} == {Done}
    [sentence] = {action.sentence for action in report.deletions}
    assert sentence == ("pull request 7 was closed on 2026-01-01 01:00 UTC, so no build reads it")
    assert report.entries_deleted == 4
    assert {blob_of("base")} <= world.blobs(MAIN)


def test_what_is_not_turned_on_asks_nothing(world: World) -> None:
    close(world, hours=1)
    delete(world, TOPIC)

    world.gc()

    assert len(refs_of(world)) == 5
    assert world.requests["refs"] == 0


def test_deleted_branches_and_tags_go(world: World) -> None:
    delete(world, TOPIC)
    delete(world, TAG)

    report = world.gc(room=ROOM)

    assert refs_of(world) == {MAIN, CLOSED, OPEN}
    assert {action.sentence for action in report.deletions} == {
        f"{ref} does not exist any more, so no build reads it" for ref in (TOPIC, TAG)
    }


def test_a_tag_that_is_listed_below_heads_goes_if_there_is_no_such_branch_either(
    world: World,
) -> None:
    world.cache.lists_tags_below_heads = True
    delete(world, TAG)
    world.gc(room=ROOM)
    assert TAG in refs_of(world)

    delete(world, f"refs/heads/{TAG}")
    world.passes(minutes=1)
    world.gc(room=ROOM)
    assert TAG not in refs_of(world)


def test_it_works_with_a_plain_token_outside_of_a_workflow(world: World) -> None:
    close(world, hours=1)
    delete(world, TOPIC)

    report = world.gc_in(outside_of_a_workflow(world.running), room=ROOM)

    assert refs_of(world) == {MAIN, OPEN, TAG}
    assert report.status == "done"
    assert report.entries_deleted == 8
    assert report.verdict
    assert report.verdict.message == (
        "Without a runtime token this run could only list entries: it merged nothing and deleted "
        "8 entries (6.1 kB)."
    )
    assert world.requests["look-up"] == 0


@pytest.mark.parametrize(
    ("missing", "left", "permission"),
    [
        ({"pull-requests"}, {MAIN, CLOSED, OPEN, TAG}, "pull-requests: read"),
        ({"contents"}, {MAIN, OPEN, TOPIC, TAG}, "contents: read"),
        ({"contents", "pull-requests"}, {MAIN, CLOSED, OPEN, TOPIC, TAG}, "pull-requests: read"),
    ],
)
def test_without_a_permission_nothing_is_deleted_and_the_report_says_so(
    world: World, missing: set[str], left: set[str], permission: str
) -> None:
    close(world, hours=1)
    delete(world, TOPIC)
    world.running.call(lambda cache: cache.repository.permissions.difference_update(missing))

    report = world.gc(room=ROOM)

    assert refs_of(world) == left
    assert report.status == "done"
    [note] = notes_of(report)
    assert isinstance(note, reasons.ClosedRefsUnknown)
    assert permission in note.problem
    assert report.verdict
    assert report.verdict.level == "attention"
    assert "pull-requests: read" in report.verdict.advice


def test_a_repository_whose_default_branch_is_not_found_proves_nothing(world: World) -> None:
    delete(world, TOPIC)
    delete(world, MAIN)

    report = world.gc(room=ROOM)

    assert len(refs_of(world)) == 5
    assert isinstance(notes_of(report)[0], reasons.ClosedRefsUnknown)


def test_an_entry_stays_for_an_hour_after_its_pull_request_was_closed(world: World) -> None:
    close(world, minutes=59)

    report = world.gc(room=ROOM)
    assert CLOSED in refs_of(world)
    [sentence] = {a.sentence for a in report.actions if a.ref == CLOSED}
    assert sentence == "closed ref since 2026-01-01 01:01 UTC, kept until 2026-01-01 02:01 UTC"

    world.passes(minutes=1)
    world.gc(room=ROOM)
    assert CLOSED not in refs_of(world)


def test_an_entry_stays_for_an_hour_after_its_last_use(world: World) -> None:
    close(world, hours=2)
    delete(world, TOPIC)
    for ref in (CLOSED, TOPIC):
        world.put("late", ref=ref, size=1)
    world.passes(minutes=59)

    world.gc(room=ROOM)
    assert [e.key for e in world.entries() if e.ref in (CLOSED, TOPIC)] == ["late", "late"]

    world.passes(minutes=1)
    world.gc(room=ROOM)
    assert not refs_of(world) & {CLOSED, TOPIC}


@pytest.mark.parametrize("ref", [CLOSED, TOPIC])
def test_a_ref_that_is_in_use_again_is_left_alone_whenever_that_happens(
    world: World, ref: str
) -> None:
    """Each question is answered as before; the world changes before the next one."""
    close(world, hours=1)
    delete(world, TOPIC)
    entries = sorted(entry.key for entry in world.entries() if entry.ref == ref)
    asked: list[str] = []

    def use_again(request: Request) -> None:
        if request.kind == "refs" and request.path.endswith(("pulls/7", "topic/one")):
            asked.append(request.path)
            world.cache.repository.reopen(7)
            world.cache.repository.create(TOPIC)

    world.running.observe(after=use_again)
    report = world.gc(room=ROOM)

    assert sorted(entry.key for entry in world.entries() if entry.ref == ref) == entries
    outcomes = [action.outcome for action in report.deletions if action.ref == ref]
    assert set(outcomes) <= {Skipped(reasons.RefInUse(ref))}
    assert asked


def test_a_pull_request_that_was_closed_again_since_is_left_alone(world: World) -> None:
    close(world, hours=3)
    world.passes(hours=2)
    entries = [entry.key for entry in world.entries() if entry.ref == CLOSED]
    asked: list[str] = []

    def build_once_more(request: Request) -> None:
        if request.path.endswith("pulls/7") and not asked:
            asked.append(request.path)
            close(world)

    world.running.observe(after=build_once_more)
    report = world.gc(room=ROOM)

    assert [entry.key for entry in world.entries() if entry.ref == CLOSED] == entries
    assert {one.outcome for one in report.deletions if one.ref == CLOSED} == {
        Skipped(reasons.RefInUse(CLOSED))
    }


def test_what_was_used_in_a_closed_ref_since_the_list_stays(world: World) -> None:
    close(world, hours=3)
    world.passes(hours=2)
    entries = [entry.key for entry in world.entries() if entry.ref == CLOSED]
    used: list[str] = []

    def use(request: Request) -> None:
        if request.kind == "list" and not used:
            world.passes(seconds=5)
            used.extend(entries[1:])
            for key in used:
                world.cache.look_up([CLOSED], key, [], ENTRY_VERSION)

    world.running.observe(after=use)
    report = world.gc(room=ROOM)

    assert [entry.key for entry in world.entries() if entry.ref == CLOSED] == used
    assert {one.outcome for one in report.deletions if one.ref == CLOSED} == {
        Done(),
        Skipped(reasons.LookedUp()),
    }


@pytest.mark.parametrize("deleted", [1, 2, 3])
def test_a_ref_that_is_in_use_again_between_two_deletions_keeps_no_index_of_what_is_deleted(
    world: World, deleted: int
) -> None:
    world.build("base", "newer", ref=CLOSED)
    close(world, hours=1)
    world.passes(hours=2)
    left = [deleted]

    def use_again(request: Request) -> None:
        if request.kind == "delete":
            left[0] -= 1
            world.passes(seconds=31)
        if left[0] == 0:
            world.cache.repository.reopen(7)

    world.running.observe(after=use_again)
    report = world.gc(room=ROOM)

    kept = [entry for entry in world.entries() if entry.ref == CLOSED]
    indexes = [decode(entry.content or b"") for entry in kept if entry.key.startswith("index-")]
    assert all(index.blobs <= world.blobs(CLOSED) for index in indexes)
    assert len(kept) == 6 - deleted
    assert {type(a.outcome) for a in report.deletions} == {Done, Skipped}


def test_a_ref_that_is_in_use_again_is_not_asked_for_with_each_of_its_entries(
    world: World,
) -> None:
    for number in range(20):
        world.put(f"tool-{number}", ref=CLOSED, size=1)
    close(world, hours=3)
    world.passes(hours=2)
    asked: list[str] = []

    def use_again(request: Request) -> None:
        if request.path.endswith("pulls/7"):
            asked.append(request.path)
            world.cache.repository.reopen(7)

    world.running.observe(after=use_again)
    report = world.gc(room=ROOM)

    assert {one.outcome for one in report.deletions} == {Skipped(reasons.RefInUse(CLOSED))}
    assert len(asked) == 2


@pytest.mark.parametrize("questions", range(1, 6))
def test_a_branch_counts_as_deleted_only_while_the_default_branch_is_found(
    world: World, questions: int
) -> None:
    """A token that loses its permission is told that nothing exists."""
    left = [questions]

    def lose(request: Request) -> None:
        left[0] -= request.kind == "refs"
        if left[0] == 0:
            for ref in (MAIN, TOPIC, TAG):
                world.cache.repository.delete(ref)

    world.running.observe(after=lose)
    world.gc(room=ROOM)

    assert {MAIN, TOPIC, TAG} <= refs_of(world)


def test_a_ref_that_cannot_be_asked_for_again_is_left_alone(world: World) -> None:
    close(world, hours=1)
    asked: list[str] = []

    def refuse(request: Request) -> None:
        if request.path.endswith("pulls/7"):
            asked.append(request.path)
            world.cache.repository.permissions.clear()

    world.running.observe(after=refuse)
    report = world.gc(room=ROOM)

    assert CLOSED in refs_of(world)
    assert len(asked) > 1
    assert {type(a.outcome) for a in report.deletions} == {Skipped}
    assert "could not be checked" in report.deletions[0].outcome_sentence


def test_a_run_asks_about_many_pull_requests_at_once(world: World) -> None:
    for number in range(20, 60):
        world.put("cache", ref=f"refs/pull/{number}/merge", size=1)
        if number % 2:
            close(world, number, hours=2)
    world.passes(hours=1)

    world.gc(room=ROOM, dry_run=True)
    # The list, the repository, its default branch, a branch and a tag.
    assert world.requests["refs"] == 5

    report = world.gc(room=ROOM)
    assert report.entries_deleted == 20


def test_what_the_budget_does_not_allow_to_ask_is_left_to_the_next_run(world: World) -> None:
    for number in range(20, 25):
        world.put("cache", ref=f"refs/pull/{number}/merge", size=1)
        close(world, number, hours=2)

    report = world.gc(room=ROOM, max_requests=9)

    assert any(isinstance(note, reasons.ClosedRefsDeferred) for note in notes_of(report))
    assert report.status == "done"


@pytest.mark.parametrize(
    "ref",
    ["refs/pull/7/head", "refs/pull/07/merge", "refs/notes/x", "refs/heads/a..b", "unknown", "-"],
)
def test_a_ref_of_another_form_is_left_alone(world: World, ref: str) -> None:
    close(world, hours=1)
    delete(world, ref)
    world.put("cache", ref=ref, size=1)
    world.passes(hours=2)

    world.gc(room=ROOM)

    assert ref in refs_of(world)


def test_the_refs_that_a_run_reads_are_never_closed(world: World) -> None:
    delete(world, TOPIC)

    world.gc(ref=TOPIC, readable=[MAIN], room=ROOM)

    assert TOPIC in refs_of(world)


def test_a_run_is_not_idle_once_a_pull_request_is_closed(world: World) -> None:
    settle(world, room=ROOM)
    close(world, minutes=10)
    world.passes(minutes=1)

    assert not is_idle(world.gc(room=ROOM))
    settle(world, room=ROOM)
    world.passes(minutes=40)
    assert is_idle(world.gc(room=ROOM))
    world.passes(minutes=10)
    report = world.gc(room=ROOM)

    assert not is_idle(report)
    assert CLOSED not in refs_of(world)


def test_a_repair_and_a_run_without_a_sweep_delete_nothing(world: World) -> None:
    close(world, hours=1)

    world.gc(room=ROOM, repair=True)
    world.gc(room=ROOM, no_sweep=True)

    assert CLOSED in refs_of(world)


def test_what_is_gone_does_not_look_like_an_outage_to_the_next_run(world: World) -> None:
    for number in range(20, 60):
        world.build(*"abcdef", ref=f"refs/pull/{number}/merge")
        close(world, number, hours=2)
    world.passes(hours=2)
    environment = outside_of_a_workflow(world.running)

    assert world.gc_in(environment, room=ROOM).entries_deleted == 40 * 7
    world.passes(hours=1)
    assert world.gc_in(environment, room=ROOM).status == "done"
    assert world.gc(room=ROOM).status == "done"


@pytest.mark.parametrize("step", ["UPDATE ON entry", "UPDATE ON action"])
def test_what_was_deleted_and_could_not_be_recorded_is_no_eviction(world: World, step: str) -> None:
    need_sqlite()
    for ref in (OPEN, TOPIC, TAG):
        world.evict_entries([entry for entry in world.entries() if entry.ref == ref])
    world.put("more-of-another-tool", ref=CLOSED, size=100)
    world.gc(room=ROOM)
    world.passes(days=1)
    close(world, hours=1)
    column = "state = 'deleted'" if step.endswith("entry") else "outcome = 'done'"
    fails = f"CREATE TRIGGER fails BEFORE {step} WHEN NEW.{column}"
    with closing(sqlite3.connect(world.database)) as connection, connection:
        connection.execute(f"{fails} BEGIN SELECT RAISE(ABORT, 'no room'); END")
    failed = world.gc(room=ROOM)
    with closing(sqlite3.connect(world.database)) as connection, connection:
        connection.execute("DROP TRIGGER fails")

    later = world.gc(room=ROOM)

    assert failed.status == "failed"
    assert refs_of(world) == {MAIN}
    assert (later.status, later.problems) == ("done", ())
    with closing(sqlite3.connect(world.database)) as connection:
        gone = connection.execute("SELECT DISTINCT state FROM entry WHERE state = 'evicted'")
        assert gone.fetchall() == []


@pytest.mark.parametrize("kind", ["pull requests", "branches"])
def test_two_hundred_open_refs_hide_no_closed_one_for_long(world: World, kind: str) -> None:
    for number in range(200):
        is_pull = kind == "pull requests"
        ref = f"refs/pull/{1000 + number}/merge" if is_pull else f"refs/heads/open-{number}"
        world.put("tool", ref=ref, size=1_000)
    world.put("tool", ref="refs/heads/gone", size=999)
    delete(world, "refs/heads/gone")

    for _ in range(6):
        world.passes(days=1)
        world.gc(room=ROOM)

    assert "refs/heads/gone" not in refs_of(world)
