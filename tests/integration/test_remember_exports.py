"""What builds have overwritten in a directory takes part for a while: `remember_exports`."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.report import Report
from maintainer.settings import Settings
from tests.integration.directories import (
    World,
    a_directory,
    import_tag,
    layer_of,
    layers_of,
)
from tests.integration.watching import Watcher

GRACE = timedelta(hours=24)
DEFAULT = Settings.defaults().remember_exports


@pytest.fixture
def world(tmp_path: Path) -> World:
    return a_directory(tmp_path)


def _gc(world: World, **how: object) -> Report:
    watcher = Watcher(world)
    with watcher.run(GRACE):
        report = world.gc(**({"remember_exports": DEFAULT} | how))  # type: ignore[arg-type]
    assert report.status == "done", report.problems
    assert not watcher.problems
    world.passes(minutes=1)
    return report


def _edit_tags(world: World, *, without: str) -> None:
    """Delete a tag, as a person does."""
    place = world.path / "index.json"
    index = json.loads(place.read_bytes())
    names = world.tags()
    index["manifests"] = [
        one for one, name in zip(index["manifests"], names, strict=True) if name != without
    ]
    place.write_text(json.dumps(index))
    world.touch(place)


def test_the_default_is_a_month() -> None:
    assert timedelta(days=30) == DEFAULT


@pytest.mark.parametrize("how", [{"dry_run": True}, {"repair": True}], ids=str)
def test_what_a_deleted_tag_held_is_forgotten_only_by_a_run_that_carries_its_plan_out(
    world: World, how: dict[str, object]
) -> None:
    world.build("base", tag="other")
    for step in ("web 1", "web 2"):
        world.build("base", step, tag="web")
        _gc(world)
    _edit_tags(world, without="web")
    _gc(world, **how)
    world.build("base", "web 3", tag="web")

    _gc(world)

    assert world.leads_to("web") == layers_of("base", "web 1", "web 2", "web 3")
    _edit_tags(world, without="web")
    _gc(world)
    world.build("base", "web 4", tag="web")
    _gc(world)
    assert world.leads_to("web") == layers_of("base", "web 4")


def test_a_repair_that_remembers_for_less_long_takes_nothing_from_the_next_run(
    world: World,
) -> None:
    for step in ("web 1", "web 2"):
        world.build("base", step, tag="web")
        _gc(world, remember_exports=3 * DEFAULT)
    world.passes(days=45)
    _gc(world, remember_exports=3 * DEFAULT)
    assert not _gc(world, repair=True).indexes_written

    _gc(world, remember_exports=3 * DEFAULT)

    assert world.leads_to("web") == layers_of("base", "web 1", "web 2")


def test_two_branches_that_export_in_turn_to_one_tag_find_each_others_results(world: World) -> None:
    for number in range(4):
        world.build("base", f"main {number}")
        _gc(world, merged_tag="maintained")
        world.build("base", f"fix {number}")
        _gc(world, merged_tag="maintained")

    steps = [f"{branch} {number}" for branch in ("main", "fix") for number in range(4)]
    for tag in ("api", "maintained"):
        assert world.leads_to(tag) == layers_of("base", *steps)
    files = world.files()
    _gc(world, merged_tag="maintained")
    assert world.files() == files


def test_what_no_export_has_held_for_a_month_goes_and_its_blobs_after_the_grace_period(
    world: World,
) -> None:
    world.build("base", "old")
    _gc(world)
    world.passes(days=1)
    for _ in range(30):
        world.build("base", "new")
        _gc(world)
        assert world.leads_to() == layers_of("base", "old", "new")
        world.passes(days=1)
    world.passes(days=1)
    assert _gc(world).indexes_written == 1
    assert world.leads_to() == layers_of("base", "new")
    assert world.steps("old")
    world.passes(hours=25)

    _gc(world)

    assert not world.steps("old")
    assert world.steps("base", "new") == layers_of("base", "new")


def test_what_an_export_holds_again_is_remembered_from_then_on(world: World) -> None:
    for days, steps in [(0, ("a",)), (20, ("b",)), (20, ("a",)), (20, ("c",)), (20, ("d",))]:
        world.passes(days=days)
        world.build("base", *steps)
        _gc(world)

    assert world.leads_to() == layers_of("base", "a", "c", "d")


def test_the_newest_export_stays_however_old_it_is(world: World) -> None:
    world.build("base", "old")
    _gc(world)
    world.build("base", "new")
    _gc(world)
    world.passes(days=300)

    report = _gc(world)

    assert world.leads_to() == layers_of("base", "new")
    assert world.steps("base", "new") == layers_of("base", "new")
    # To run again would not bring back what was overwritten long ago.
    assert report.verdict
    assert report.verdict.level == "good"


def test_a_result_whose_blob_is_gone_is_dropped_and_comes_back_with_it(world: World) -> None:
    world.build("base", "a")
    _gc(world)
    world.build("base", "b")
    _gc(world)
    world.evict("a")
    _gc(world)
    assert world.leads_to() == import_tag(world.path, "api").blobs == layers_of("base", "b")
    world.passes(days=20)
    world.put("a")

    _gc(world)

    assert world.leads_to() == layers_of("base", "a", "b")


def test_a_result_whose_blob_has_been_gone_for_a_month_does_not_come_back(world: World) -> None:
    world.build("base", "a")
    _gc(world)
    world.evict("a")
    _gc(world)
    world.passes(days=31)
    _gc(world)
    world.put("a")

    _gc(world)

    assert world.leads_to() == layers_of("base")


def test_what_a_build_with_reset_has_deleted_is_dropped(world: World) -> None:
    world.build("base", "a")
    _gc(world)
    world.build("base", "b")
    world.reset()

    _gc(world)

    assert import_tag(world.path, "api").blobs == layers_of("base", "b")


def test_a_tag_that_a_person_has_deleted_is_not_written_again_and_its_memory_goes(
    world: World,
) -> None:
    world.build("base", "a")
    _gc(world)
    world.build("base", "b")
    world.build("base", "web", tag="web")
    _gc(world)
    _edit_tags(world, without="api")
    _gc(world)
    assert world.tags() == ["web"]
    world.build("base", "c")

    _gc(world)

    assert world.leads_to() == layers_of("base", "c")
    assert world.leads_to("web") == layers_of("base", "web")


def test_an_image_over_the_tag_is_left_alone_and_what_the_tag_held_is_forgotten(
    world: World,
) -> None:
    world.build("base", "a")
    world.build("base", "web", tag="web")
    _gc(world)
    image = world.image("api")
    before = world.names()
    _gc(world)
    assert world.names() == before
    assert image <= world.stored()
    world.build("base", "b")

    _gc(world)

    assert world.leads_to() == layers_of("base", "b")


def test_without_its_database_a_run_keeps_what_the_tag_holds(world: World, tmp_path: Path) -> None:
    world.build("base", "a")
    _gc(world)
    world.build("base", "b")
    _gc(world)

    report = _gc(world, database=tmp_path / "other.db")

    assert report.indexes_written == 0
    assert world.leads_to() == layers_of("base", "a", "b")


def test_what_another_run_has_merged_in_is_not_dropped(world: World, tmp_path: Path) -> None:
    world.build("base", "a")
    _gc(world)
    for step in ("b", "c"):
        world.build("base", step)
        _gc(world, database=tmp_path / "other.db")

    _gc(world)

    assert world.leads_to() == layers_of("base", "a", "b", "c")


def test_0_keeps_the_newest_export_only(world: World) -> None:
    world.build("base", "a")
    _gc(world, remember_exports="0")
    world.build("base", "b")

    report = _gc(world, remember_exports="0")

    assert report.indexes_written == 0
    assert world.leads_to() == layers_of("base", "b")


@pytest.mark.parametrize("merged_tag", ["", "maintained"])
def test_a_dry_run_that_would_forget_exports_forgets_none(world: World, merged_tag: str) -> None:
    world.build("base", "one")
    _gc(world, merged_tag=merged_tag)
    world.build("base", "two")

    shown = _gc(world, merged_tag=merged_tag, remember_exports=timedelta(0), dry_run=True)
    done = _gc(world, merged_tag=merged_tag)

    assert [one.subject for one in shown.actions if one.kind == "write"] != ["api"]
    assert [one.subject for one in done.actions if one.kind == "write"][:1] == ["api"]
    assert layer_of("one") in world.leads_to("api")


def test_importers_have_room_for_what_was_exported_last(world: World) -> None:
    for name in ("old", "new"):
        world.build(*(f"{name} {number}" for number in range(1_200)))
        # Not watched: that would take a look at thousands of layers at each of thousands of steps.
        assert world.gc(remember_exports=DEFAULT).status == "done"
        world.passes(days=1)

    read = import_tag(world.path, "api")

    assert {layer_of(f"new {number}") for number in range(1_200)} <= read.blobs
    assert len(read.blobs & {layer_of(f"old {number}") for number in range(1_200)}) > 0
