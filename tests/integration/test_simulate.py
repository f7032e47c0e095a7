"""`maintainer simulate`: what would a cache of another size have kept, by past builds?"""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from maintainer.cacheconfig import BlobKey
from maintainer.cli.app import app
from maintainer.errors import MaintainerError, UsageError
from maintainer.graph.history import load_history
from maintainer.graph.reports import find_neighbours, load_report
from maintainer.model.history import History
from maintainer.serve.web.simulations import Simulations
from tests.empty_database import url_of
from tests.integration.directories import a_directory
from tests.integration.world import MAIN, World, a_world, blob_of, built


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


@pytest.fixture(scope="module")
def six_days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Build every day; a step changes every second day. The tests only read it."""
    with a_world(tmp_path_factory.mktemp("six")) as world:
        world.put("setup-node-1", size=500)
        for day in range(6):
            world.build("base", "api", f"code {day // 2}", scope="api")
            world.build("base", "web", scope="web")
            world.gc(merged_scope="maintained")
            world.passes(days=1)
        yield world


def _history(world: World) -> History:
    with world.databases[world.database].reading() as connection:
        return load_history(connection, "github:example/app")


def _simulate(world: World, *options: str) -> Result:
    return CliRunner().invoke(app, ["simulate", "--database", url_of(world.database), *options])


def test_the_history_consists_of_the_exports_of_builds_whose_content_is_forgotten(
    six_days: World,
) -> None:
    history = _history(six_days)

    assert [len(build.keys) for build in history.builds] == [3, 2] * 6
    assert history.builds[-1].at - history.builds[0].at == timedelta(days=5)
    assert history.findable == 30 - 6
    stacks = sorted(history.stacks.values(), key=len)
    assert stacks[0] == (blob_of("base"),)
    assert stacks[-1] == (blob_of("base"), blob_of("api"), blob_of("code 2"))
    assert history.sizes[blob_of("code 2")] == 1_006


@pytest.mark.each_database
def test_a_layer_that_was_made_again_counts_once(world: World) -> None:
    world.build("base", "api")
    world.gc()
    world.passes(days=2)
    world.evict("api")
    again = built("base", "api", at=world.now)
    layers = again.layers[0], msgspec.structs.replace(again.layers[1], blob=blob_of("api again"))
    world.put(str(BlobKey(blob_of("api again"))), size=70)
    world.export(msgspec.structs.replace(again, layers=layers), scope="buildkit", ref=MAIN)
    world.gc()

    history = _history(world)

    assert history.findable == 2
    assert set(history.stacks.values()) == {
        (blob_of("base"),),
        (blob_of("base"), blob_of("api")),
    }


def test_it_shows_what_builds_would_have_found(six_days: World) -> None:
    shown = _simulate(six_days, "--quota", "2kB,1MB,2kB")
    one = json.loads(_simulate(six_days, "--quota", "1MB", "--policy", "room", "--json").output)

    lines = shown.output.splitlines()
    assert lines[0] == "github:example/app: what would be kept?"
    assert lines[1].startswith("12 exports from 2026-01-01 00:00 UTC to 2026-01-06 00:00 UTC ")
    assert "Everything else takes 500 B now, which comes on top." in lines
    assert [line.split()[:5] for line in lines if line.strip().startswith(("2.0", "1.0"))] == [
        ["2.0", "kB", "github", "0", "0.0"],
        ["2.0", "kB", "daily", "0", "0.0"],
        ["2.0", "kB", "room", "11", "45.8"],
        ["1.0", "MB", "github", "24", "100.0"],
        ["1.0", "MB", "daily", "24", "100.0"],
        ["1.0", "MB", "room", "24", "100.0"],
    ]
    (cache,) = one["caches"]
    assert (cache["policy"], cache["found"], len(cache["points"])) == ("room", 24, 12)
    assert one["findable"] == one["results"] - 6 == 24
    assert one["notes"][0].startswith("room: After each build")


def test_without_sizes_it_takes_some_around_what_was_written(six_days: World) -> None:
    found = json.loads(_simulate(six_days, "--policy", "github", "--json").output)

    written = found["written"]
    assert [one["quota"] for one in found["caches"]] == [
        written * share // 100 for share in (10, 25, 50, 100)
    ]


def test_the_html_report_draws_it(six_days: World) -> None:
    page = six_days.database.with_suffix(".html")

    CliRunner().invoke(
        app, ["report", "--database", url_of(six_days.database), "--html", str(page)]
    )

    text = page.read_text()
    assert "What would a cache of another size keep?" in text
    assert '<figure data-chart="found"></figure>' in text
    assert '<table class="wide stored uncaptioned">' in text


def test_a_service_simulates_once_for_each_cache_and_nothing_for_an_old_report(
    six_days: World,
) -> None:
    simulations = Simulations()
    with six_days.databases[six_days.database].reading() as connection:
        last, old = load_report(connection), load_report(connection, 3)
        found = simulations.of(connection, last)

        assert found is not None
        assert simulations.of(connection, old) is None
        assert simulations.of(connection, last) is found
        assert find_neighbours(connection, old) == (2, 4)
        assert find_neighbours(connection, last) == (5, None)


def test_the_page_of_a_workflow_shows_it(world: World, tmp_path: Path) -> None:
    world.passes(hours=-1)
    world.build("base", "api")
    world.passes(hours=1)
    world.build("base", "web")
    environment = world.running.environment(MAIN) | {"RUNNER_TEMP": str(tmp_path)}

    call = ["gc", "--github", "--database", url_of(world.database)]
    result = CliRunner().invoke(app, call, env=environment)

    assert result.exit_code == 0, result.output
    assert "of another size" in (tmp_path / "maintainer-report.html").read_text()


def test_a_report_without_builds_has_nothing_to_simulate(world: World) -> None:
    world.gc()
    page = world.database.with_suffix(".html")

    report = ["report", "--database", url_of(world.database), "--html", str(page)]
    assert CliRunner().invoke(app, report).exit_code == 0

    assert "of another size" not in page.read_text()
    error = _simulate(world).exception
    assert isinstance(error, MaintainerError)
    assert str(error).startswith("the database remembers no export")


@pytest.mark.parametrize("sizes", ["", "much", "5GB,-1GB", "0", "[", "\udcff", "99999EB"])
def test_sizes_that_are_none_are_refused(world: World, sizes: str) -> None:
    error = _simulate(world, "--quota", sizes).exception

    assert isinstance(error, UsageError)
    assert str(error).startswith("--quota: ")


def test_the_first_report_on_a_directory_does_not_draw_days_of_which_it_knows_nothing(
    tmp_path: Path,
) -> None:
    directory = a_directory(tmp_path)
    directory.build("base", "api", tag="api")
    directory.build("base", "web", tag="web")
    directory.gc()
    page = directory.database.with_suffix(".html")

    report = ["report", "--database", url_of(directory.database), "--html", str(page)]
    assert CliRunner().invoke(app, report).exit_code == 0

    assert "of another size" not in page.read_text()
    said = CliRunner().invoke(app, ["simulate", "--database", url_of(directory.database)]).output
    assert re.search(r"2 exports at \S+ \S+ UTC needed", said)
    assert "found at one time, which says little: simulate again after more builds" in said


def test_nothing_evicts_from_a_directory(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.build("base", "api")
    directory.gc()

    call = ["simulate", "--database", url_of(directory.database), "--policy", "github"]
    error = CliRunner().invoke(app, call).exception

    assert isinstance(error, MaintainerError)
    assert str(error) == "nothing evicts from a directory: use daily or room"
