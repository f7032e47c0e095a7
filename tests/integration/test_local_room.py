"""What leaves a full directory, where an export that stores nothing new leaves hardly a trace."""

from pathlib import Path
from typing import Any

import pytest

from maintainer.report import Report
from tests.integration.directories import World, a_directory, layers_of
from tests.integration.world import built


@pytest.fixture
def world(tmp_path: Path) -> World:
    return a_directory(tmp_path)


def _one_byte_less(world: World, **settings: Any) -> Report:
    """Do a run where one byte more is stored than may be, without what leaves anyway."""
    room = {"keep_free": "0B"}
    stays = world.gc(dry_run=True, quota="40GB", room=room, **settings).room
    assert stays
    return world.gc(quota=f"{stays.remaining - 1}B", room=room, **settings)


@pytest.mark.parametrize("merged_tag", ["", "maintained"])
def test_what_builds_export_again_and_again_without_a_change_stays_in_a_full_directory(
    merged_tag: str, world: World
) -> None:
    unchanged = built("base", "api", at=world.now)
    world.build("base", "api")
    for day in range(12):
        world.passes(days=1)
        if day == 2:
            world.build("base", "web", tag="web")
        world.export(unchanged, tag="api")
        world.gc(merged_tag=merged_tag)

    _one_byte_less(world, merged_tag=merged_tag)

    assert world.leads_to("api") == layers_of("base", "api")
    assert world.leads_to("web") == layers_of("base")


def test_an_export_that_leads_back_to_an_old_manifest_is_as_new_as_any_other(world: World) -> None:
    before = built("base", "api", at=world.now)
    world.build("base", "api")
    world.passes(days=1)
    world.build("base", "web", tag="web")
    world.gc()
    world.passes(days=12)
    world.build("base", "other")
    world.gc()
    world.passes(hours=1)
    world.export(before, tag="api")
    world.export(built("docs", at=world.now), tag="docs")
    for _ in range(3):
        world.gc()
        world.passes(hours=25)

    _one_byte_less(world)

    assert world.leads_to("api") >= layers_of("base", "api")
    assert world.leads_to("web") == layers_of("base")
