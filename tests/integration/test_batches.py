"""A cache may hold more entries than a run can hold at once: they are taken in batches."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.report.page.changes import next_table
from maintainer.stores.local.files import Files
from maintainer.stores.local.recent import read_recent_roots
from tests.empty_database import query
from tests.integration.directories import World, a_directory, layer_of

_ORPHANS = 23


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Make one that is taken in batches of four, of which five actions are listed."""
    monkeypatch.setattr("maintainer.graph.entries._BATCH", 4)
    monkeypatch.setattr("maintainer.graph.entries._MAX_IN_QUERY", 2)
    monkeypatch.setattr("maintainer.stages.acting._DELETIONS", 4)
    monkeypatch.setattr("maintainer.stores.local.directory._BATCH", 3)
    monkeypatch.setattr("maintainer.stores.local.recent._BATCH", 3)
    monkeypatch.setattr("maintainer.stages.planning.LISTED", 5)
    monkeypatch.setattr("maintainer.graph.reports.LISTED", 5)
    world = a_directory(tmp_path)
    world.build("base", "api")
    for number in range(_ORPHANS):
        world.put(f"orphan {number}")
    return world


def _outcomes(world: World) -> list[tuple[str, int]]:
    return query(
        world.database,
        "SELECT substr(outcome, 1, 4), count(*) FROM action WHERE kind = 'delete' "
        "AND run_id = (SELECT max(id) FROM run) GROUP BY 1 ORDER BY 1",
    )


def test_a_run_can_be_ended_while_it_looks_for_former_exports(world: World) -> None:
    files = Files(world.path)
    try:
        found = list(read_recent_roots(files, world.now + timedelta(days=1), {}))
    finally:
        files.close()

    assert found == [frozenset()] * ((_ORPHANS + 4) // 3)


@pytest.mark.each_database
def test_some_deletions_are_told_one_by_one_and_all_are_counted(world: World) -> None:
    world.passes(days=2)

    report = world.gc()

    assert world.stored() >= {layer_of("base"), layer_of("api")}
    assert len(world.stored()) == 4
    assert len(report.deleted) == 5
    assert report.entries_deleted == report.planned_deletions.actions == _ORPHANS
    assert report.bytes_freed == sum(len(f"orphan {number}") for number in range(_ORPHANS))
    assert {total.state: total.entries for total in report.entries} == {
        "newest": 2,
        "reachable": 2,
    }
    assert _outcomes(world) == [("done", _ORPHANS)]


def test_a_dry_run_counts_all_that_would_go(world: World) -> None:
    world.passes(days=2)

    report = world.gc(dry_run=True)

    assert report.planned_deletions.actions == _ORPHANS
    assert report.entries_deleted == 0
    assert _outcomes(world) == [("plan", _ORPHANS)]


@pytest.mark.each_database
def test_what_is_left_alone_is_counted_but_does_not_fill_the_database(world: World) -> None:
    report = world.gc()

    kept = [total for total in report.more_actions if total.kind == "keep"]
    assert [total.actions for total in kept] == [_ORPHANS - 5]
    rows = query(world.database, "SELECT count(*) FROM actions WHERE kind = 'keep'")
    reasons = query(world.database, "SELECT count(*) FROM entry WHERE reason = 'grace'")
    assert rows == [(6,)]
    assert reasons == [(_ORPHANS,)]
    listed, others = next_table(report, 10).rows
    assert [listed[2].text, others[2].text] == ["5", str(_ORPHANS - 5)]


def test_a_deadline_ends_between_two_files_and_the_next_run_does_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.passes(days=2)
    unlink, times = os.unlink, iter(range(_ORPHANS))

    def unlink_slowly(name: str, **where: int) -> None:
        unlink(name, **where)
        if next(times) == 9:
            world.passes(hours=1)

    monkeypatch.setattr(os, "unlink", unlink_slowly)

    report = world.gc(deadline=timedelta(minutes=10))

    assert report.status == "done"
    assert report.entries_deleted == 10
    assert tuple(one.sentence for one in report.notes) == (
        f"the --deadline has passed: deferred to the next run: {_ORPHANS - 10} actions",
    )
    monkeypatch.undo()
    assert world.gc().entries_deleted == _ORPHANS - 10
    assert len(world.stored()) == 4
