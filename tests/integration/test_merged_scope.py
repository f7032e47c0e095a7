"""The merge of all scopes of a ref, in a scope of its own: what builds find there."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    Digest,
    IndexId,
    Link,
    Record,
    Ref,
    Result,
    Scope,
    Sink,
    decode_whole,
    encode,
)
from maintainer.emulator import Entry, Fault, FaultPlan
from maintainer.report import IndexReport, Report
from tests.empty_database import make_empty
from tests.importer import import_index
from tests.integration.world import MAIN, World, a_world, blob_of, built, leads_to

PULL = "refs/pull/7/merge"
MERGED = "maintained"
NO_GRACE = timedelta(0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _blobs(*steps: str) -> set[Digest]:
    return {blob_of(step) for step in steps}


def _gc(world: World, **settings: object) -> Report:
    return world.gc(**({"merged_scope": MERGED} | settings))  # type: ignore[arg-type]


def _content(world: World, scope: str = MERGED, ref: str = MAIN) -> bytes:
    prefix = IndexId(Ref(ref), Scope(scope)).prefix
    found = [e for e in world.entries() if e.key.startswith(prefix) and e.ref == ref]
    newest = max(found, key=lambda entry: (entry.created_at, entry.id))
    assert newest.content is not None
    return newest.content


def _step_ids(world: World, scope: str) -> set[str]:
    return import_index(_content(world, scope), Random(0)).step_ids()


def _report_of(report: Report, scope: str) -> IndexReport:
    (found,) = [one for one in report.indexes if one.scope == scope]
    return found


def _indexes(world: World) -> list[Entry]:
    return [entry for entry in world.entries() if entry.key.startswith("index-")]


def test_builds_find_what_any_scope_has_whoever_exports_afterwards(world: World) -> None:
    world.build("base", "api", scope="api")
    world.build("base", "web", scope="web")
    _gc(world)

    world.build("base", "api", "new", scope="api")

    assert leads_to(world.newest(MERGED)) == _blobs("base", "api", "web")
    assert leads_to(world.newest("api")) == _blobs("base", "api", "new")


def test_an_importer_finds_every_key_of_the_merge(world: World) -> None:
    world.build("base", "api", "test", scope="api")
    world.build("base", "web", "lint", scope="web")
    _gc(world)

    for seed in range(20):
        imported = import_index(_content(world), Random(seed))
        assert imported.found() == set(imported.items)


def test_of_indexes_that_a_run_has_written_none_hides_another_from_who_imports_both(
    world: World,
) -> None:
    for scope in ("main", "branch"):
        world.build("base", "api", scope=scope)
        world.build("base", scope, scope=scope)
    _gc(world)

    known = [_step_ids(world, scope) for scope in ("main", "branch", MERGED)]

    assert all(known)
    assert len(set[str]().union(*known)) == sum(map(len, known))


def test_a_forged_stamp_makes_no_run_write_again_and_leaves_no_index_without_its_own(
    world: World,
) -> None:
    """Once its result is lost, a record that has one looks like a stamp."""
    lost, run = built("lost"), built("run")
    created_at = run.records[0].results[0].created_at
    in_second_layer = Result((1,), with_parents=True, created_at=created_at)
    records = (
        Record("maintainer:forged", lost.records[0].results, ()),
        Record("base", (), ()),
        Record("run", (in_second_layer,), ((Link(0, ""), Link(1, "")),)),
    )
    world.put(str(BlobKey(blob_of("run"))))
    world.export(CacheConfig((*lost.layers, *run.layers), records), scope="evil", ref=MAIN)
    world.build("base", "api", scope="api")
    written = []

    for _ in range(3):
        written.append(_gc(world).indexes_written)
        world.passes(hours=1)

    assert written == [1, 0, 0]
    merge, export = _step_ids(world, MERGED), _step_ids(world, "evil")
    assert merge
    assert export
    assert not merge & export


def test_a_single_scope_is_merged_too_so_that_its_next_export_hides_nothing(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")

    report = _gc(world)

    assert report.indexes_written == 2
    assert world.newest(MERGED) == world.newest("buildkit")


def test_a_second_run_writes_nothing_and_only_lists(world: World) -> None:
    world.build("base", "api", scope="api")
    world.build("base", "web", scope="web")
    _gc(world)
    before = world.entries()
    world.passes(minutes=5)

    _gc(world)

    assert world.entries() == before
    assert world.requests == {"list": 1}


def test_each_ref_that_the_token_writes_has_a_merge_of_its_own(world: World) -> None:
    world.build("base", "api", scope="api")
    world.build("base", "api", "change", scope="api", ref=PULL)

    _gc(world, ref=PULL, readable=[MAIN])

    assert leads_to(world.newest(MERGED, PULL)) == _blobs("base", "api", "change")
    assert [entry.ref for entry in _indexes(world) if MERGED in entry.key] == [PULL]


def test_what_is_gone_is_dropped_from_the_merge(world: World) -> None:
    world.build("base", "api", scope="api")
    world.build("base", "web", scope="web")
    _gc(world)
    world.evict("api")
    world.passes(minutes=5)

    _gc(world)

    assert leads_to(world.newest(MERGED)) == _blobs("base", "web")


def test_a_merge_keeps_no_blob_alive_by_itself(world: World, tmp_path: Path) -> None:
    world.build("old", scope="api")
    _gc(world)
    world.evict_entries([e for e in _indexes(world) if e.key.startswith("index-api")])
    world.build("fresh", scope="web")
    world.passes(hours=2)
    no_memory = {"database": tmp_path / "new.db", "grace": timedelta(hours=1)}

    _gc(world, **no_memory)
    assert leads_to(world.newest(MERGED)) == _blobs("fresh")
    world.passes(hours=2)
    _gc(world, **no_memory)

    assert world.blobs() == _blobs("fresh")


def test_a_blob_goes_only_after_the_merge_that_named_it_was_replaced(world: World) -> None:
    world.build("base", "old", scope="api")
    _gc(world, grace=NO_GRACE)
    world.evict("base")
    world.passes(hours=1)

    report = _gc(world, grace=NO_GRACE)

    assert report.status == "done"
    assert world.blobs() == set()
    assert world.newest(MERGED) == CacheConfig()


def test_superseded_merges_go_after_their_grace_period(world: World) -> None:
    world.build("base", "api", scope="api")
    _gc(world, grace=timedelta(hours=1))
    world.passes(minutes=5)
    world.build("base", "web", scope="web")
    _gc(world, grace=timedelta(hours=1))
    assert world.generations(MERGED) == [1, 2]
    world.passes(hours=2)

    _gc(world, grace=timedelta(hours=1))

    assert world.generations(MERGED) == [2]


def test_what_a_build_exported_to_the_scope_is_reported_and_left_alone(world: World) -> None:
    world.build("base", "api", scope="api")
    _gc(world, grace=NO_GRACE)
    world.passes(minutes=5)
    theirs = world.build("base", "stray", scope=MERGED)
    world.passes(hours=1)

    report = _gc(world, grace=NO_GRACE)

    assert world.generations(MERGED) == [1, 2]
    assert _content(world) == theirs.content
    assert blob_of("stray") in world.blobs()
    assert _report_of(report, MERGED).used_by_builds == theirs.key
    assert report.verdict
    assert report.verdict.level == "attention"
    assert "A build exports to maintained" in report.verdict.message
    world.passes(hours=1)
    again = _gc(world, grace=NO_GRACE)
    assert again.indexes_written == again.entries_deleted == 0


def test_the_merge_is_written_again_once_the_export_of_a_build_is_gone(world: World) -> None:
    world.build("base", "api", scope="api")
    _gc(world)
    world.passes(minutes=5)
    theirs = world.build("base", "stray", scope=MERGED)
    _gc(world)
    world.evict_entries([theirs])
    world.passes(minutes=5)

    report = _gc(world)

    assert report.verdict
    assert report.verdict.level == "good"
    assert leads_to(world.newest(MERGED)) == _blobs("base", "api")


def test_a_scope_that_was_rewritten_in_place_is_not_taken_for_a_merge(world: World) -> None:
    world.build("base", "api", scope="api")
    world.build("base", "web", scope=MERGED)
    world.build("base", "lint", scope=MERGED)
    world.gc(grace=NO_GRACE, merged_scope="")
    world.passes(hours=1)
    assert decode_whole(_content(world)).sink is Sink.REWRITE

    report = _gc(world, grace=NO_GRACE)

    assert leads_to(world.newest(MERGED)) == _blobs("base", "web", "lint")
    assert _report_of(report, MERGED).used_by_builds


def test_turning_the_merge_off_and_on_again_takes_it_up_where_it_was(world: World) -> None:
    world.build("base", "api", scope="api")
    _gc(world)
    world.evict("api")
    world.passes(minutes=5)
    world.gc(merged_scope="")
    assert leads_to(world.newest(MERGED)) == _blobs("base")
    world.build("base", "web", scope="web")
    world.passes(minutes=5)

    _gc(world)

    assert leads_to(world.newest(MERGED)) == _blobs("base", "web")


def test_a_build_that_exports_to_the_scope_during_the_run_is_not_hidden(world: World) -> None:
    world.build("base", "api", scope="api")
    theirs: list[Entry] = []

    def export(kind: str) -> None:
        if kind == "look-up" and not theirs:
            theirs.append(world.cache.put(*_stray(), ref=MAIN))

    world.running.observe(before=lambda request: export(request.kind) if _late(request) else None)
    report = _gc(world)

    assert theirs
    assert world.generations(MERGED) == [1]
    assert _report_of(report, MERGED).outcome_sentence.startswith("deferred: a build has exported")


def _late(request: object) -> bool:
    return f"index-{MERGED}" in str(getattr(request, "key", ""))


def _stray() -> tuple[str, bytes]:
    return str(IndexId(Ref(MAIN), Scope(MERGED)).key(1)), encode(built("base", "stray"))


def test_without_a_list_the_merge_is_found_by_look_ups(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    _gc(world, rest=False)
    world.passes(minutes=5)

    report = _gc(world, rest=False)

    assert leads_to(world.newest(MERGED)) == _blobs("base", "api", "web")
    assert world.generations(MERGED) == [1]
    assert report.indexes_written == 0


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("scopes", [("buildkit",), ("mistyped",)])
def test_without_a_list_another_database_takes_nothing_from_the_merge_of_what_it_does_not_know(
    world: World, tmp_path: Path, scopes: tuple[str, ...], repair: bool
) -> None:
    world.build("base", "api", "gone")
    world.build("base", "web", scope="web")
    _gc(world)
    world.passes(hours=30)
    world.evict("gone")
    make_empty(tmp_path / "another.db")

    for _ in range(2):
        _gc(world, rest=False, scopes=scopes, repair=repair, database=tmp_path / "another.db")
        world.passes(minutes=5)

    assert leads_to(world.newest(MERGED)) == _blobs("base", "api", "web")


def test_an_empty_cache_gets_no_merge(world: World) -> None:
    report = _gc(world)

    assert world.entries() == []
    assert report.indexes == ()


def test_results_that_several_scopes_hold_count_once(world: World) -> None:
    world.build("base", "api", scope="api")
    world.build("base", "api", scope="web")

    report = _gc(world)

    assert report.results_usable == 2
    assert report.results.possible == 2


def test_a_scope_that_cannot_be_read_this_time_is_not_dropped_from_the_merge(
    world: World, tmp_path: Path
) -> None:
    world.build("base", "api", scope="api")
    lost = world.build("base", "web", scope="web")
    _gc(world)
    world.passes(minutes=5)
    fault = Fault(kind="status", request="download", key=lost.key, status=500)
    world.running.inject(FaultPlan((fault,)))

    _gc(world, database=tmp_path / "new.db")

    assert leads_to(world.newest(MERGED)) == _blobs("base", "api", "web")


def test_a_merge_under_a_former_name_keeps_no_blob_alive(world: World, tmp_path: Path) -> None:
    world.build("old", scope="api")
    _gc(world)
    world.evict_entries([e for e in _indexes(world) if e.key.startswith("index-api")])
    world.build("fresh", scope="web")
    world.passes(hours=2)
    renamed = {
        "database": tmp_path / "new.db",
        "grace": timedelta(hours=1),
        "merged_scope": "team",
    }

    _gc(world, **renamed)
    assert leads_to(world.newest("team")) == _blobs("fresh")
    assert world.newest(MERGED) == CacheConfig()
    world.passes(hours=2)
    _gc(world, **renamed)

    assert world.blobs() == _blobs("fresh")


def test_a_merge_under_a_former_name_is_not_restored_once_it_is_gone(world: World) -> None:
    world.build("base", "api", scope="api")
    _gc(world)
    world.passes(minutes=5)
    _gc(world, merged_scope="team")
    world.evict_entries([e for e in _indexes(world) if MERGED in e.key])
    world.passes(minutes=5)

    _gc(world, merged_scope="team")

    assert world.generations(MERGED) == []
    assert leads_to(world.newest("team")) == _blobs("base", "api")
