"""What `maintainer why` says of a name, and of what a directory or a bucket stores."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maintainer.cacheconfig import encode
from maintainer.cli.app import app
from maintainer.graph.database import Database
from maintainer.graph.explain import explain
from maintainer.report.why import render_why
from tests.empty_database import url_of
from tests.integration.directories import World, a_directory, layer_of
from tests.integration.world import START, a_world, blob_of, built
from tests.integration.world import World as Cache
from tests.stores.s3 import BLOBS, MANIFESTS, Moto, a_server


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = a_directory(tmp_path)
    world.build("base", "api")
    world.build("base", "web", tag="web")
    return world


@pytest.fixture
def moto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moto]:
    monkeypatch.chdir(tmp_path)
    with a_server() as moto:
        moto.now = START
        yield moto


def _why(world: World | Cache, subject: str) -> str:
    database = Database(url_of(world.database))
    try:
        with database.reading() as connection:
            return render_why(explain(connection, subject)).plain
    finally:
        database.close()


def test_the_name_of_a_directory_is_stored_and_its_usable_results_are_counted(
    world: World,
) -> None:
    world.evict("web")
    world.gc(merged_tag="maintained", dry_run=True)

    assert "api (an index) on " in _why(world, "api")
    assert "  stored, " in _why(world, "api")
    assert "last written at 2026-01-01 00:00 UTC: 2 of 2 results can be used" in _why(world, "api")
    assert ": 1 of 2 results can be used" in _why(world, "web")
    assert "What would free it: another export to its name, or " in _why(world, "web")


def test_the_merge_of_a_directory_was_written_by_a_run(world: World) -> None:
    world.gc(merged_tag="maintained")

    assert "last written by a run at 2026-01-01 00:00 UTC: 3 of 3" in _why(world, "maintained")


def test_a_generation_that_is_gone_is_not_stored(tmp_path: Path) -> None:
    with a_world(tmp_path) as cache:
        key = str(cache.build("base", "api").key)
        cache.gc(rest=False)
        cache.evict_entries([one for one in cache.entries() if one.key == key])
        cache.passes(hours=1)
        cache.gc(rest=False)

        shown = _why(cache, key)

    assert "not stored, noticed at 2026-01-01 01:00 UTC; last written before 2026" in shown
    assert "What would free it: it is gone already." in shown


def test_the_manifest_of_a_directory_is_not_a_layer(world: World) -> None:
    world.gc(merged_tag="")
    manifests = json.loads((world.path / "index.json").read_text())["manifests"]

    shown = _why(world, manifests[0]["digest"])

    assert f"{manifests[0]['digest']} (the manifest of api) on " in shown
    assert "No remembered index references it" not in shown
    assert "What would free it: another export to its name" in shown
    assert f"{layer_of('api')} (a layer) on " in _why(world, layer_of("api"))


def test_a_name_of_a_bucket_is_stored_and_a_lost_blob_is_not_blamed_on_a_build(
    moto: Moto,
) -> None:
    moto.now = datetime.now(UTC)
    for step in ("base", "api"):
        moto.put(BLOBS + blob_of(step), step.encode())
    moto.put(MANIFESTS + "api", encode(built("base", "api", at=moto.now)))
    place = f"s3://cache/app/?region=us-east-1&endpoint_url={moto.url}&path_style=true"
    done = CliRunner().invoke(app, ["gc", "--store", place])
    assert done.exit_code == 0, done.output
    del moto.keys[BLOBS + blob_of("api")]
    done = CliRunner().invoke(app, ["gc", "--store", place, "--dry-run"])
    assert done.exit_code == 0, done.output

    name = CliRunner().invoke(app, ["why", "api"]).output
    blob = CliRunner().invoke(app, ["why", blob_of("api")]).output

    assert "  stored, " in name
    assert ": 1 of 2 results can be used" in name
    assert "removed, noticed at" in blob
    assert "reset=true" not in blob
    assert "something other than a run deleted it" in blob


def test_a_generation_that_a_run_has_just_written_is_stored(tmp_path: Path) -> None:
    with a_world(tmp_path) as cache:
        cache.build("base", "api")
        cache.build("base", "web")
        cache.gc()

        shown = _why(cache, "index-buildkit-1-f921bd05#3")

    assert "  stored, never listed, " in shown
    assert "last written by a run at 2026-01-01 00:00 UTC: 3 of 3 results can be used" in shown
    assert "it is not stored" not in shown
