"""Importers of directories refuse a manifest or config above 1 MiB: none is ever written."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import CacheConfig, Link, Record, Result
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.report import Report
from tests.integration.directories import (
    World,
    a_directory,
    content_of,
    import_tag,
    layer_of,
    once_before_the_lock,
)
from tests.integration.world import built

LIMIT = 1_048_576
MERGED = "maintained"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return a_directory(tmp_path)


def _export(world: World, name: str, results: int, *, tag: str = "api") -> None:
    """Export a build of so many steps with long names that all lead to one layer."""
    world.upload(content_of("base"))
    begun_at = int(world.now.timestamp()) * 10**9
    records = tuple(
        Record(
            f"{name} {number:01000}",
            (Result((0,), with_parents=True, created_at=Nanoseconds(begun_at + number)),),
            ((Link(number - 1, ""),),) if number else (),
        )
        for number in range(results)
    )
    world.export(CacheConfig(built("base", at=world.now).layers, records), tag=tag)


def _sizes(world: World, tag: str) -> tuple[int, int]:
    manifest = (world.blobs / dict(world.names())[tag][7:]).read_bytes()
    return len(manifest), json.loads(manifest)["config"]["size"]


def _written(report: Report) -> dict[str, str]:
    return {a.subject: a.sentence for a in report.actions if a.kind == "write"}


def test_an_export_that_importers_refuse_is_cut_to_what_they_read_once(world: World) -> None:
    _export(world, "step", 1_300)
    assert _sizes(world, "api")[1] > LIMIT

    report = world.gc(max_index_size=2**24)

    assert report.status == "done", report.problems
    assert "and importers read 1,048,576" in _written(report)["api"]
    assert "used longest ago: importers read" in _written(report)["api"]
    assert 0.99 * LIMIT < max(_sizes(world, "api")) <= LIMIT
    (index,) = report.indexes
    assert (index.usable_before, index.usable_after) == (0, 1_300 - index.omitted)
    assert index.results_lost == 0
    read = import_tag(world.path, "api")
    assert len(read.results) == index.usable_after
    files = world.files()
    assert not _written(world.gc(max_index_size=2**24))
    assert world.files() == files


def test_the_merged_tag_has_what_was_exported_last_and_no_tag_loses_anything(
    world: World,
) -> None:
    _export(world, "old", 600, tag="old")
    world.passes(days=1)
    _export(world, "new", 600, tag="new")
    before = world.names()

    report = world.gc(merged_tag=MERGED)

    assert world.names()[:2] == before
    assert "used longest ago: importers read" in _written(report)[MERGED]
    assert 0.99 * LIMIT < max(_sizes(world, MERGED)) <= LIMIT
    config = world.config_of(MERGED).decode()
    assert config.count('"new ') == 600
    assert 300 < config.count('"old ') < 600
    assert report.results_usable == 1_200
    assert report.results.dropped == 0
    files = world.files()
    again = world.gc(merged_tag=MERGED)
    assert not _written(again)
    assert world.files() == files
    assert any("importers read" in a.sentence for a in again.actions if a.subject == MERGED)


def test_an_export_whose_build_made_nothing_loses_nothing_to_newer_results(world: World) -> None:
    _export(world, "old", 600)
    exported = (world.blobs / dict(world.names())["api"][7:]).read_bytes()
    world.gc(remember_exports="30d")
    world.passes(hours=1)
    _export(world, "new", 600)
    world.gc(remember_exports="30d")
    world.passes(hours=1)
    world.name("api", exported)  # A change was taken back: all of that was found in the cache.

    report = world.gc(remember_exports="30d")

    assert max(_sizes(world, "api")) <= LIMIT
    config = world.config_of("api").decode()
    assert config.count('"old ') == 600
    assert 300 < config.count('"new ') < 600
    assert report.results.dropped == 0
    assert not _written(world.gc(remember_exports="30d"))


def test_an_export_loses_nothing_to_another_database_that_never_saw_it(
    world: World, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    _export(world, "old", 600)
    exported = (world.blobs / dict(world.names())["api"][7:]).read_bytes()
    world.gc(remember_exports="30d")
    world.passes(hours=1)
    _export(world, "new", 600)
    world.gc(remember_exports="30d", database=other)
    world.gc(remember_exports="30d")
    world.passes(hours=1)
    world.name("api", exported)
    world.gc(remember_exports="30d")

    world.gc(remember_exports="30d", database=other)

    config = world.config_of("api").decode()
    assert config.count('"old ') == 600
    assert 300 < config.count('"new ') < 600
    for database in (world.database, other):
        assert not _written(world.gc(remember_exports="30d", database=database))


def test_an_export_while_its_tag_is_written_loses_nothing_to_older_results(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _export(world, "old", 600)
    world.build("base", "api", tag="web")
    world.gc(remember_exports="30d")
    world.passes(hours=1)
    _export(world, "middle", 600)
    world.passes(hours=1)
    once_before_the_lock(monkeypatch, lambda: _export(world, "new", 600))

    report = world.gc(remember_exports="30d")

    assert report.status == "done", report.problems
    assert max(_sizes(world, "api")) <= LIMIT
    config = world.config_of("api").decode()
    assert config.count('"new ') == 600


def test_a_manifest_that_is_too_large_is_written_without_what_importers_do_not_need(
    world: World,
) -> None:
    world.build("base", "api")
    place = world.blobs / dict(world.names())["api"][7:]
    manifest = json.loads(place.read_bytes())
    manifest["layers"][0]["annotations"]["note"] = "x" * LIMIT
    world.name("api", json.dumps(manifest).encode())

    report = world.gc(max_index_size=2**24)

    assert "its manifest has" in _written(report)["api"]
    assert max(_sizes(world, "api")) < 10_000
    assert report.results_usable == 2
    assert not _written(world.gc(max_index_size=2**24))


@pytest.mark.parametrize("more", [0, 1])
def test_what_importers_just_read_stays_as_it_is(world: World, more: int) -> None:
    world.build("base", "api")
    place = world.blobs / dict(world.names())["api"][7:]
    manifest = json.loads(place.read_bytes())
    config = (world.blobs / manifest["config"]["digest"][7:]).read_bytes()
    config += b" " * (LIMIT - len(config) + more)
    manifest["config"] |= {"digest": world.upload(config), "size": len(config)}
    world.name("api", json.dumps(manifest).encode())

    report = world.gc(max_index_size=2**24)

    assert len(_written(report)) == more
    assert world.gc(grace=timedelta(0)).results_usable == 2


def _export_filled(world: World, room: int) -> None:
    """Export an index with many leaves, which leaves so many bytes of what importers read."""
    _export(world, "step", 100)
    place = world.blobs / dict(world.names())["api"][7:]
    manifest = json.loads(place.read_bytes())
    config = json.loads((world.blobs / manifest["config"]["digest"][7:]).read_bytes())
    lost = world.upload(b"lost")
    manifest["layers"].append(manifest["layers"][0] | {"digest": lost})
    config["layers"].append({"blob": lost, "parent": -1})
    result = config["records"][0]["layers"][0]
    config["records"].append({"digest": "", "layers": [result | {"layer": 1}]})
    config["records"] += [{"digest": f"leaf {number}", "layers": [result]} for number in range(30)]
    compact = {"separators": (",", ":")}
    short = len(json.dumps(config, **compact))  # type: ignore[arg-type]
    config["records"][0]["digest"] += "x" * (LIMIT - room - short)
    content = json.dumps(config, **compact).encode()  # type: ignore[arg-type]
    manifest["config"] |= {"digest": world.upload(content), "size": len(content)}
    world.name("api", json.dumps(manifest).encode())


def test_no_result_is_left_out_only_to_make_room_for_a_sink(world: World) -> None:
    _export_filled(world, 20)
    before = world.names()

    report = world.gc(max_index_size=2**24)

    assert world.names() == before
    assert report.results_usable == 131
    assert report.verdict
    assert report.verdict.level == "good"


@pytest.mark.parametrize("is_whole", [True, False])
def test_no_result_of_an_export_meanwhile_is_left_out_only_to_make_room_for_a_sink(
    world: World, monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    world.build("base", "api")
    world.evict("api")
    exported = []

    def export() -> None:
        _export_filled(world, 20)
        exported.append(dict(world.names())["api"])
        if not is_whole:
            world.evict("lost")

    once_before_the_lock(monkeypatch, export)

    report = world.gc(max_index_size=2**24)

    assert report.status == "done", report.problems
    assert exported
    assert (dict(world.names())["api"] == exported[0]) == is_whole
    assert max(_sizes(world, "api")) <= LIMIT
    if not is_whole:
        assert 0 < len(import_tag(world.path, "api").results) < 130


def test_a_run_that_leaves_out_what_builders_could_use_before_says_so(world: World) -> None:
    _export_filled(world, 20)
    (world.blobs / layer_of("lost")[7:]).unlink()

    report = world.gc(max_index_size=2**24)

    reason = _written(report)["api"]
    assert "drop 1 blob" in reason
    assert "used longest ago: importers read" in reason
    assert max(_sizes(world, "api")) <= LIMIT
    assert report.results.dropped > 0
    assert report.verdict
    assert report.verdict.level == "attention"
    assert "fewer than before this run" in report.verdict.message
