"""What a run does to tags of a directory that importers refuse, or that lead nowhere."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maintainer.cacheconfig import Digest
from tests.integration.directories import (
    LockTakenError,
    World,
    a_directory,
    layer_of,
)
from tests.integration.watching import Watcher
from tests.samples import once_each

NO_GRACE = timedelta(0)
Config = dict[str, Any]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return a_directory(tmp_path)


def _manifest(world: World, tag: str = "api") -> Config:
    content: Config = json.loads((world.blobs / dict(world.names())[tag][7:]).read_bytes())
    return content


def _config_file(world: World, tag: str = "api") -> Path:
    digest: str = _manifest(world, tag)["config"]["digest"]
    return world.blobs / digest[7:]


def _write(world: World, path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)
    world.touch(path)


def _lose(world: World) -> None:
    _config_file(world).unlink()


def _cut_off(world: World) -> None:
    path = _config_file(world)
    _write(world, path, path.read_bytes()[:-20])


def _empty(world: World) -> None:
    _write(world, _config_file(world), b"")


def _other_content(world: World) -> None:
    path = _config_file(world)
    _write(world, path, path.read_bytes().replace(b'"link": 0', b'"link": 1'))


def _too_large(world: World) -> None:
    path = _config_file(world)
    _write(world, path, path.read_bytes() + b" " * 2**20)


def _export_changed(change: Callable[[Config], object]) -> Callable[[World], None]:
    """Let a builder have exported a config that says something else, under its own digest."""

    def export(world: World) -> None:
        manifest, config = _manifest(world), json.loads(_config_file(world).read_bytes())
        _config_file(world).unlink()
        change(config)
        content = json.dumps(config).encode()
        manifest["config"] |= {"digest": world.upload(content), "size": len(content)}
        world.name("api", json.dumps(manifest).encode())

    return export


def _set(value: object, *place: str | int) -> Callable[[World], None]:
    def change(config: Config) -> None:
        where: Any = config
        for step in place[:-1]:
            where = where[step]
        where[place[-1]] = value

    return _export_changed(change)


BROKEN: dict[str, Callable[[World], None]] = {
    "config gone": _lose,
    "config cut off": _cut_off,
    "config empty": _empty,
    "config has another content": _other_content,
    "config larger than any run reads": _too_large,
    "no object": _export_changed(lambda config: config.update(layers={}, records=7)),
    "links loop": _set([[{"link": 2}]], "records", 1, "inputs"),
    "a link to itself": _set([[{"link": 1}]], "records", 1, "inputs"),
    "a link out of range": _set([[{"link": 3}]], "records", 1, "inputs"),
    "a negative link": _set([[{"link": -1}]], "records", 1, "inputs"),
    "an empty input": _set([[]], "records", 1, "inputs"),
    "a layer out of range": _set([{"layer": 3}], "records", 1, "layers"),
    "a chain out of range": _set([{"layers": [0, 3]}], "records", 1, "chains"),
    "parents loop": _set(2, "layers", 1, "parent"),
    "a parent out of range": _set(3, "layers", 1, "parent"),
    "a blob without a digest": _set("sha256:x", "layers", 1, "blob"),
    "a time that is none": _set("yesterday", "records", 1, "layers", 0, "createdAt"),
}


@pytest.mark.parametrize(("how", "known_before"), once_each(BROKEN, [False, True]))
def test_an_index_that_importers_refuse_is_replaced_once(
    world: World, how: str, known_before: bool
) -> None:
    world.build("base", "api", "test")
    if known_before:
        world.gc()
    BROKEN[how](world)
    before = world.stored()
    watcher = Watcher(world)

    with watcher.run(timedelta(hours=24)):
        report = world.gc()

    assert report.status == "done", report.problems
    assert [(a.subject, a.outcome_sentence) for a in report.actions if a.kind == "write"] == [
        ("api", "done")
    ]
    # What a tag held comes back, if a run has read it before it broke.
    layers = set(map(layer_of, ("base", "api", "test"))) if known_before else set()
    assert world.leads_to("api") == layers
    manifest = dict(world.names())["api"]
    assert world.stored() - before == {manifest, _manifest(world)["config"]["digest"]}
    files = world.files()
    again = world.gc()
    assert not [a for a in again.actions if a.kind != "keep"]
    assert world.files() == files
    assert not watcher.problems
    world.passes(hours=25)
    world.gc()
    assert world.stored() == layers | {manifest, _manifest(world)["config"]["digest"]}


def test_a_manifest_that_describes_more_than_its_config_names_is_replaced_once(
    world: World,
) -> None:
    world.build("base", "api")
    manifest = _manifest(world)
    world.put("described only")
    described = manifest["layers"][0] | {"digest": layer_of("described only")}
    manifest["layers"].append(described)
    world.name("api", json.dumps(manifest).encode())
    world.evict("api")

    report = world.gc()

    assert [a.outcome_sentence for a in report.actions if a.kind == "write"] == ["done"]
    assert world.leads_to() == {layer_of("base")}
    assert not [a for a in world.gc().actions if a.kind == "write"]


@pytest.mark.parametrize(
    ("step", "how"), once_each(range(5, 60, 5), ["config gone", "config cut off"], of=2)
)
def test_an_export_meanwhile_that_brings_a_lost_config_back_is_not_hidden(
    world: World, step: int, how: str
) -> None:
    world.build("base", "api")
    path = _config_file(world)
    content = path.read_bytes()
    BROKEN[how](world)
    again: list[Digest] = []

    def build(number: int) -> None:
        if number == step:
            path.unlink(missing_ok=True)
            world.upload(content)
            with suppress(LockTakenError):
                again.append(world.build("base", "api"))

    with Watcher(world).run(timedelta(hours=24), build):
        world.gc()
    world.gc()

    assert world.leads_to() == ({layer_of("base"), layer_of("api")} if again else set())


def test_a_config_that_was_put_back_is_read_again(world: World) -> None:
    world.build("base", "api")
    path = _config_file(world)
    content = path.read_bytes()
    _cut_off(world)
    world.gc(dry_run=True)
    _write(world, path, content)

    report = world.gc()

    assert not [a for a in report.actions if a.kind == "write"]
    assert world.leads_to() == {layer_of("base"), layer_of("api")}


def test_an_index_that_is_replaced_leaves_the_other_tags_as_they_are(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web", tag="web")
    web = dict(world.names())["web"]
    _lose(world)

    world.gc(grace=NO_GRACE)

    assert dict(world.names())["web"] == web
    assert world.leads_to("web") == {layer_of("base"), layer_of("web")}
    assert not world.steps("api")


@pytest.mark.parametrize("how", ["gone", "damaged", "names nothing"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_tag_that_leads_nowhere_is_named_in_the_verdict(
    world: World, how: str, dry_run: bool
) -> None:
    for tag in ("api", "web", "docs"):
        world.build("base", tag, tag=tag)
    manifest = world.blobs / dict(world.names())["web"][7:]
    if how == "gone":
        manifest.unlink()
    elif how == "damaged":
        _write(world, manifest, manifest.read_bytes()[:-1])
    else:
        index = json.loads((world.path / "index.json").read_bytes())
        del index["manifests"][1]["digest"]
        (world.path / "index.json").write_text(json.dumps(index))

    verdict = world.gc(dry_run=dry_run).verdict

    assert verdict
    assert verdict.level == "attention"
    assert "cannot import 1 tag: web (" in verdict.message


def test_a_tag_that_a_run_has_repaired_needs_no_attention(world: World) -> None:
    world.build("base", "web", tag="web")
    world.build("base", "api")
    _lose(world)

    verdict = world.gc().verdict

    assert verdict
    assert verdict.level == "good"


def test_an_invalid_tag_of_a_directory_that_cannot_be_written_is_an_error_but_for_a_dry_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api")
    _lose(world)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode, **how: path != world.path and access(path, mode, **how)
    )

    report, planned = world.gc().verdict, world.gc(dry_run=True).verdict

    assert report
    assert report.level == "bad"
    assert "this user may not write it" in report.message
    assert planned
    assert planned.level == "attention"
    assert "cannot import 1 tag: api (its config sha256:" in planned.message


def test_a_tag_that_cannot_be_read_needs_attention_because_it_blocks_the_sweep(
    world: World,
) -> None:
    world.build("base", "api")
    world.build("base", "web", tag="web")
    manifest = world.blobs / dict(world.names())["web"][7:]
    manifest.unlink()
    manifest.symlink_to("/dev/null")

    verdict = world.gc().verdict

    assert verdict
    assert verdict.level == "attention"
    assert "1 tag could not be read, so no unreferenced blob was deleted: web (" in verdict.message


# The manifest of a tag is lost, or the merge.

MERGED = "maintained"


def _lose_manifest(world: World, tag: str = "api") -> None:
    (world.blobs / dict(world.names())[tag][7:]).unlink()


def _damage_manifest(world: World, tag: str = "api") -> None:
    _write(world, world.blobs / dict(world.names())[tag][7:], b"{}")


def _merged(world: World) -> None:
    """Do runs until there is a merge of what builds have exported to two tags, one of it twice."""
    world.build("base", "old")
    world.build("base", "web", tag="web")
    assert world.gc(merged_tag=MERGED, remember_exports="30d").status == "done"
    world.passes(hours=1)
    world.build("base", "new")
    assert world.gc(merged_tag=MERGED, remember_exports="30d").status == "done"
    assert world.leads_to(MERGED) == set(map(layer_of, ("base", "old", "new", "web")))


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("damage", [_lose_manifest, _damage_manifest])
def test_a_lost_manifest_of_a_known_tag_is_made_again_and_no_merge_loses_anything(
    world: World, damage: Callable[[World], None], repair: bool
) -> None:
    _merged(world)
    merge = world.leads_to(MERGED)
    damage(world)

    planned = world.gc(merged_tag=MERGED, remember_exports="30d", dry_run=True)
    report = world.gc(merged_tag=MERGED, remember_exports="30d", repair=repair)

    assert [one.subject for one in planned.actions if one.kind == "write"] == ["api"]
    assert report.status == "done", report.problems
    assert report.indexes_broken == 1
    assert not report.broken_tags
    assert world.leads_to("api") == set(map(layer_of, ("base", "old", "new")))
    assert world.leads_to(MERGED) == merge
    world.passes(days=3)
    assert world.gc(merged_tag=MERGED, remember_exports="30d", grace=NO_GRACE).status == "done"
    assert world.leads_to(MERGED) == merge
    assert not world.gc(merged_tag=MERGED, remember_exports="30d", repair=True).indexes_broken


def test_a_lost_manifest_of_an_unknown_tag_is_reported_and_no_merge_loses_anything(
    world: World, tmp_path: Path
) -> None:
    _merged(world)
    merge = world.leads_to(MERGED)
    _lose_manifest(world)

    report = world.gc(
        merged_tag=MERGED, remember_exports="30d", database=tmp_path / "new.db", grace=NO_GRACE
    )

    assert report.status == "done", report.problems
    assert [one.name for one in report.broken_tags] == ["api"]
    assert world.leads_to(MERGED) == merge


@pytest.mark.parametrize(
    "lose", [_lose_manifest, lambda world, tag: _config_file(world, tag).unlink()]
)
def test_a_repair_makes_a_lost_merge_again_from_all_that_is_known(
    world: World, lose: Callable[[World, str], None]
) -> None:
    _merged(world)
    merge = world.leads_to(MERGED)
    lose(world, MERGED)

    report = world.gc(merged_tag=MERGED, remember_exports="30d", repair=True)

    assert report.status == "done", report.problems
    assert report.indexes_broken == report.indexes_written == 1
    assert world.leads_to(MERGED) == merge


@pytest.mark.parametrize("damage", [_lose, _cut_off, _lose_manifest, _damage_manifest])
def test_a_repair_that_writes_the_same_manifest_again_is_done(
    world: World, damage: Callable[[World], None]
) -> None:
    _merged(world)
    world.evict("new")
    assert world.gc(merged_tag=MERGED, remember_exports="30d").indexes_written
    before = world.leads_to("api")
    damage(world)

    report = world.gc(merged_tag=MERGED, remember_exports="30d", repair=True)

    assert report.verdict
    lost = "1 result was lost with blobs that are gone or damaged."
    assert report.verdict.message == f"1 index repaired; {lost}"
    assert report.indexes_written == 1
    assert world.leads_to("api") == before
