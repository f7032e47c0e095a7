"""What a report tells after a story, and that it tells the same when it is read again."""

from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import event

from maintainer.cacheconfig import BlobKey
from maintainer.errors import MaintainerError
from maintainer.graph import trends
from maintainer.graph.compare import compare
from maintainer.graph.database import Database
from maintainer.graph.reports import load_report
from maintainer.graph.trends import compare_with_previous
from maintainer.report import IndexReport, Report
from maintainer.report.model import Space
from maintainer.report.page.changes import format_changes
from maintainer.report.page.scopes import format_scopes
from maintainer.report.page.trend import format_trend
from tests.empty_database import need_sqlite, query, url_of
from tests.integration.world import MAIN, World, a_world, blob_of, built

PULL = "refs/pull/7/merge"

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _stored(world: World, run: int | None = None) -> Report:
    database = Database(url_of(world.database))
    try:
        with database.begin() as connection:
            return load_report(connection, run)
    finally:
        database.close()


def _space(report: Report) -> Space:
    assert report.space
    return report.space


def _only_index(report: Report) -> IndexReport:
    [index] = report.indexes
    return index


@pytest.mark.each_database
def test_what_a_run_reports_is_what_is_read_again(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    world.gc()
    world.passes(days=2)

    report = world.gc()

    assert _stored(world) == report
    assert len(report.trend.points) == 2


def test_an_older_run_is_told_as_of_its_own_time(world: World) -> None:
    world.build("base", "api")
    first = world.gc()
    world.evict("api")
    world.passes(days=1)
    world.gc()

    assert _stored(world, 1) == first
    assert not _stored(world, 1).trend.evictions


def test_the_quota_is_divided_into_all_that_is_stored(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    world.build("pull", ref=PULL)
    world.put(f"buildkit-blob-1-{blob_of('orphan')}", size=70)
    world.put("setup-node-Linux-0123456789", size=500)
    world.put("v0-rust-0123456789", size=300)

    space = _space(world.gc(quota=100_000))

    stored = world.entries()
    assert space.used == sum(entry.size for entry in stored)
    assert sum(part.entries for part in space.parts) == len(stored)
    sizes = {(part.kind, part.name): part.size for part in space.parts}
    assert sizes["foreign", "setup-node-"] == 500
    assert sizes["foreign", "v0-rust-"] == 300
    assert {part.size for part in space.parts if part.kind == "dangling"} == {70}
    assert space.parts[-1].size == 100_000 - space.used


def test_what_is_stored_adds_up_after_a_run_that_replaced_an_index_at_once(world: World) -> None:
    """Another index keeps a superseded generation of another size."""
    feature = "refs/heads/feature"
    world.build("a", scope="web")
    world.passes(hours=1)
    world.build("x", "y", scope="web")
    world.build("c", "d", "e", scope="web", ref=feature)
    world.passes(hours=1)
    world.evict("e")

    report = world.gc(ref=feature, readable=[MAIN], grace="0s")

    sizes = [entry.size for entry in world.entries()]
    assert report.entries_deleted == report.indexes_written == 1
    assert _space(report).used == sum(sizes) == sum(one.size for one in report.entries)
    assert sum(one.entries for one in report.entries) == len(sizes)


def test_the_divisions_of_the_space_include_what_the_run_has_written(world: World) -> None:
    world.build("a", "b")
    world.build("x", scope="web")
    world.passes(days=2)

    report = world.gc(merged_scope="maintained")

    space = _space(report)
    assert report.indexes_written == 1
    for division in (space.refs, space.used_days):
        assert sum(one.size for one in division) == space.used
        assert sum(one.entries for one in division) == len(world.entries())
    assert {one.name for one in space.scopes} == {"buildkit", "web", "maintained"}
    assert space.used_days[0].day == world.now.date()


def test_a_plan_tells_what_it_would_free_and_the_run_frees_it(world: World) -> None:
    world.build("base", "api")
    world.put(f"buildkit-blob-1-{blob_of('orphan')}", size=7_000)
    world.passes(days=2)

    def due(report: Report) -> int:
        return sum(part.size for part in _space(report).parts if part.kind == "due")

    planned, done = world.gc(dry_run=True), world.gc()

    assert due(planned) == 7_000 == _space(planned).used - _space(done).used
    assert due(done) == 0


def test_a_service_that_cannot_list_has_no_quota_bar(world: World) -> None:
    world.build("base", "api")

    assert world.gc(rest=False).space is None


def test_lost_results_are_put_down_to_the_blob_that_is_gone(world: World) -> None:
    world.build("base", "api", "test")
    world.build("base", "web")
    world.evict("api")

    report = world.gc()

    index = _only_index(report)
    assert index.results_lost == 2
    assert [(blob.digest, blob.results) for blob in index.lost] == [(blob_of("api"), 2)]
    assert (index.usable_before, index.usable_after, index.usable_possible) == (2, 2, 2)
    assert "2 results were lost" in " ".join(format_changes(report))


def test_what_several_indexes_lose_counts_once(world: World) -> None:
    for scope, last in (("api", "test"), ("web", "page"), ("cli", "run")):
        world.build("base", "common", last, scope=scope)
    world.evict("common")

    report = world.gc()

    assert [index.results_lost for index in report.indexes] == [2, 2, 2]
    assert report.results.lost == 4
    assert "4 results were lost" in " ".join(format_changes(report))


def test_what_one_index_lost_and_another_has_is_not_lost(world: World) -> None:
    world.build("base", "api", scope="api")
    again = built("base", "api", at=world.now)
    base, layer = again.layers
    layers = (base, msgspec.structs.replace(layer, blob=blob_of("api again")))
    world.put(str(BlobKey(blob_of("api again"))), size=layer.size)
    world.export(msgspec.structs.replace(again, layers=layers), scope="web", ref=MAIN)
    world.evict("api")

    report = world.gc()

    assert [index.results_lost for index in report.indexes] == [1, 0]
    assert report.results.lost == 0


def test_what_is_lost_is_told_once(world: World) -> None:
    world.build("base", "api")
    world.evict("api")
    world.gc()
    world.passes(hours=1)

    assert _only_index(world.gc()).results_lost == 0


def test_the_largest_chain_is_drawn_from_the_bottom_up(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web step")

    index = _only_index(world.gc())

    assert [(row.depth, row.digest) for row in index.chains] == [
        (0, blob_of("base")),
        (1, blob_of("web step")),
        (1, blob_of("api")),
    ]
    assert sum(row.size for row in index.chains) == index.bytes_usable


def test_layers_that_several_images_need_are_told_apart_from_those_of_one(world: World) -> None:
    world.build("base", "api", scope="api")
    world.build("base", "web step", scope="web")

    report = world.gc(merged_scope="maintained")

    own = {index.scope: index.bytes_own for index in report.indexes}
    sizes = {index.scope: index.bytes_usable for index in report.indexes}
    base = sizes["api"] - own["api"]
    assert base == sizes["web"] - own["web"] > 0
    assert report.results.size == sizes["maintained"] == base + own["api"] + own["web"]
    assert own["maintained"] == 0
    (web,) = (index for index in report.indexes if index.scope == "web")
    assert web.chains[0].needed_by in (("web",), ("api", "web"))
    assert report.space
    assert [day.day for day in report.space.used_days] == [world.now.date()]
    assert format_scopes(report).startswith("Together they have 3 results that builds can use, in")


@pytest.mark.each_database
def test_what_others_did_since_the_run_before_is_told(world: World) -> None:
    world.build("base", "api")
    assert world.gc().changes.previous_run is None
    world.passes(hours=1)
    world.build("base", "web")
    world.evict("api")

    changes = world.gc().changes

    assert (changes.previous_run, changes.new_entries, changes.gone_entries) == (1, 2, 1)
    [evicted] = changes.gone_largest
    assert evicted.key == f"buildkit-blob-1-{blob_of('api')}"
    assert evicted.ref == MAIN


def test_to_look_back_no_query_goes_through_all_entries(world: World) -> None:
    need_sqlite()
    world.build("base", "api")
    world.gc()
    report = world.gc()
    database = Database(url_of(world.database))
    asked: list[tuple[str, Any]] = []

    with database.reading() as connection:

        @event.listens_for(connection, "before_cursor_execute")
        def note(_c: Any, _cursor: Any, query: str, values: Any, *_: Any) -> None:
            asked.append((query, values))

        compare_with_previous(connection, 1, report.run, report.started_at)
        load_report(connection, report.run)
        plans = [
            (query, step.detail)
            for query, values in tuple(asked)
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values)
        ]
    database.close()

    assert any("entry" in query for query, _ in plans)
    through_all = ("SCAN entry", "(target_id=?)")  # all that there is of a target
    slow = [step for _, step in plans if step.startswith(through_all[0]) or through_all[1] in step]
    assert [step for step in slow if " entry " in f"{step} "] == []


def test_what_a_run_wrote_is_not_taken_for_what_others_stored(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    assert world.gc().indexes_written == 1
    world.passes(hours=1)

    report = world.gc()

    assert report.changes.previous_run == 1
    assert report.changes.new_entries == 0


def test_what_a_run_wrote_is_forgotten_with_the_entry(world: World) -> None:
    def written() -> set[str]:
        return {key for (key,) in query(world.database, "SELECT key FROM written")}

    world.build("base", "api")
    world.build("base", "web")
    world.gc()
    before = written()
    assert len(before) == 1
    for _ in range(2):  # It is deleted, and its entry is forgotten 90 days later.
        world.passes(days=91)
        assert before <= written()
        world.build("base", "new")
        world.gc(accept_loss=True, grace=timedelta(0))

    world.passes(days=91)
    world.build("base", "newer")
    world.gc(accept_loss=True, grace=timedelta(0))

    assert not before & written()


def test_what_a_dry_run_only_planned_to_write_is_counted_when_a_build_stores_it(
    world: World,
) -> None:
    world.build("base", "api")
    world.build("base", "web")
    (planned,) = (one.subject for one in world.gc(dry_run=True).actions if one.kind == "write")
    world.passes(hours=1)
    world.build("base", "tools")
    assert planned in {one.key for one in world.entries()}

    report = world.gc(dry_run=True)

    assert report.changes.new_entries == 2  # The layer and the index.
    with closing(Database(url_of(world.database))) as database, database.reading() as connection:
        happened = {tally.what: tally.entries for tally in compare(connection, 1, 2).happened}
    assert happened["new"] == 2


def test_an_evicted_index_counts_as_evicted(world: World) -> None:
    world.build("base", "api")
    world.gc()
    world.passes(hours=1)
    newest = world.build("base", "api", "more")
    world.gc()
    world.passes(hours=1)
    world.evict_entries([newest])

    changes = world.gc().changes

    assert [one.key for one in changes.gone_largest] == [newest.key]


def test_what_a_run_deleted_is_not_taken_for_evicted(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    world.passes(days=2)
    world.gc()
    world.passes(days=2)
    report = world.gc()

    assert report.changes.gone_entries == 0
    assert report.trend.evictions == ()


@pytest.mark.each_database
def test_evictions_are_counted_by_the_day_on_which_they_were_noticed(world: World) -> None:
    world.build("base", "api", "test", "docs")
    world.gc()
    for hours, step in ((1, "docs"), (2, "test"), (24, "api")):
        world.passes(hours=hours)
        world.evict(step)
        world.gc(grace="9d")

    days = _stored(world).trend.evictions

    assert [(day.day, day.entries) for day in days] == [
        (date(2026, 1, 1), 2),
        (date(2026, 1, 2), 1),
    ]


@pytest.mark.each_database
def test_a_trend_of_many_runs_is_thinned_and_keeps_the_newest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trends, "_POINTS", 4)
    world.build("base", "api")

    for _ in range(9):
        world.passes(minutes=1)
        world.gc()

    report = _stored(world)
    assert [point.run for point in report.trend.points] == [3, 6, 9]
    assert format_trend(report).startswith("Over 9 runs in 6 minutes: ")


def test_a_target_whose_indexes_cannot_be_read_has_a_trend_of_what_is_stored(world: World) -> None:
    environment = world.running.environment(MAIN)
    for name in [name for name in environment if name.startswith("ACTIONS_")]:
        del environment[name]
    for _ in range(2):
        world.build("base", "api")
        world.gc_in(environment)
        world.passes(hours=1)

    report = _stored(world)

    assert [point.usable for point in report.trend.points] == [None, None]
    assert format_trend(report) == "Over 2 runs in 1 hour: 2.9 kB → 3.8 kB stored."


def test_a_cache_that_is_empty_was_looked_at(world: World) -> None:
    world.gc()
    world.passes(hours=1)

    assert world.gc().changes.previous_run == 1
    assert format_trend(_stored(world)).startswith("Over 2 runs in 1 hour: 0 → 0 usable results")


def test_a_run_that_could_not_look_is_no_point_of_the_trend(world: World) -> None:
    world.build("base", "api")
    world.gc()
    world.passes(hours=1)
    environment = world.running.environment(MAIN)
    environment |= dict.fromkeys(("GITHUB_API_URL", "ACTIONS_RESULTS_URL"), NOWHERE)
    failed = world.gc_in(environment)
    world.passes(hours=1)

    report = world.gc()

    assert failed.status == "failed"
    assert failed.verdict
    assert failed.verdict.level == "bad"
    assert [point.run for point in report.trend.points] == [1, 3]
    assert report.changes.previous_run == 1


@pytest.mark.each_database
def test_a_run_without_a_plan_because_of_its_budget_is_no_look_at_the_cache(world: World) -> None:
    """It is done, and looks for blobs that are not in the list, but knows nothing of the rest."""
    world.build("a", "b", "c")
    first = world.gc()
    world.passes(hours=1)
    world.evict("b", "c")

    cut = world.gc(max_requests=2)
    used = query(world.database, "SELECT used FROM summary")
    world.passes(hours=1)
    report = world.gc()

    assert cut.status == "done"
    assert format_changes(cut) == [
        "The run ended before it had a plan, so nothing was written or deleted."
    ]
    assert used == [(_space(first).used,)]
    assert [point.run for point in report.trend.points] == [first.run, report.run]
    assert (report.changes.previous_run, report.changes.gone_entries) == (first.run, 2)
    with (
        closing(Database(url_of(world.database))) as database,
        database.reading() as connection,
        pytest.raises(MaintainerError, match="run 2 ended before it knew what is stored"),
    ):
        compare(connection, first.run, cut.run)


def test_what_existed_before_the_first_list_was_not_added_since(world: World) -> None:
    world.build("a", "b")
    for number in range(150):
        world.put(f"setup-node-Linux-{number:010x}", size=10)
    cut = world.gc(max_requests=1)
    world.passes(hours=1)

    report = world.gc()

    assert cut.status == "done"
    assert report.changes.previous_run is None
    assert format_changes(report)[0].startswith("This is the first run")


def test_refs_that_cannot_be_written_need_a_workflow_there(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")

    report = world.gc(ref=PULL, readable=[MAIN])

    assert report.verdict
    assert report.verdict.level == "attention"
    assert report.verdict.advice.startswith(f"Run `maintainer gc` in a workflow on {MAIN}")
