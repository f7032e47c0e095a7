"""A directory that a real BuildKit has exported to, after 22 exports and with 4 tags."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.integration.directories import World, import_tag
from tests.recorded import unpack_directory

TAGS = ["api", "web", "worker", "tools"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    now = datetime(2026, 11, 24, 8, 9, tzinfo=UTC)
    return World(unpack_directory(tmp_path), tmp_path / "maintainer.db", now)


def _size(world: World) -> int:
    return sum(path.stat().st_size for path in world.blobs.iterdir())


def test_what_is_orphaned_goes_and_every_tag_is_what_it_was(world: World) -> None:
    indexes = [import_tag(world.path, tag) for tag in TAGS]
    assert (len(world.stored()), _size(world)) == (97, 4_020_062)
    world.passes(hours=25)

    report = world.gc()

    assert report.status == "done", report.problems
    assert (len(world.stored()), _size(world)) == (40, 3_580_018)
    assert (report.entries_deleted, report.bytes_freed) == (57, 440_044)
    assert [import_tag(world.path, tag) for tag in TAGS] == indexes
    assert world.tags() == TAGS


@pytest.mark.parametrize("merged_tag", ["", "maintained"])
def test_every_index_passes_and_names_existing_blobs_and_a_second_run_changes_no_byte(
    world: World, merged_tag: str
) -> None:
    world.passes(hours=25)
    world.gc(merged_tag=merged_tag, grace=timedelta(0), verify=True)
    before = world.files()

    for tag in world.tags():
        read = import_tag(world.path, tag)
        assert read.results
        assert read.blobs <= world.stored()
    world.gc(merged_tag=merged_tag, grace=timedelta(0), verify=True)

    assert world.files() == before


def test_the_merged_tag_leads_to_all_that_any_tag_leads_to(world: World) -> None:
    before = [world.leads_to(tag) for tag in TAGS]

    world.gc(merged_tag="maintained")

    assert world.leads_to("maintained") == set().union(*before)
    assert [world.leads_to(tag) for tag in TAGS] == before
