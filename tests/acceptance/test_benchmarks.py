"""The benchmarks run, on tiny caches: their own checks say whether both sides did the same."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from typer.testing import CliRunner

from benchmarks import directories, hosted, local
from benchmarks.lines import (
    directory,
    growth,
    latency,
    lists,
    memory,
    merging,
    million,
    recording,
    runs,
    start_up,
)
from benchmarks.table import Goal, Line, format_row
from maintainer.cli.app import app
from tests.empty_database import url_of

_CACHE = hosted.Size(10, 4)
_DIRECTORY = local.Size(blobs=200, tags=5)


def test_a_row_has_the_ratio_and_tells_whether_the_goal_is_met() -> None:
    line = Line("first run", "s", 10.0, 2.5, Goal(times=4))
    assert format_row(line.cells) == "| first run | 2.5 s | 10 s | 4.00 | ≤ 4 floors | met |"

    line = Line("memory", "MiB", 121.0, goal=Goal(most=120))
    assert format_row(line.cells) == "| memory |  | 121 MiB |  | ≤ 120 MiB | missed |"


@pytest.mark.soak
@pytest.mark.parametrize(
    "measure",
    [
        pytest.param(lambda: runs.lines(_CACHE, 1), id="runs"),
        pytest.param(lambda: directory.lines(_DIRECTORY, 1), id="directory"),
    ],
)
def test_both_sides_are_measured(measure: Callable[[], Iterable[Line]]) -> None:
    assert all(line.ratio for line in measure())


def _long(measure: Callable[[], Iterable[Line]], name: str) -> ParameterSet:
    return pytest.param(measure, id=name, marks=pytest.mark.soak)


@pytest.mark.parametrize(
    "measure",
    [
        pytest.param(lambda: merging.lines([10]), id="merging"),
        _long(lambda: latency.lines(_CACHE), "latency"),
        _long(lambda: lists.lines(_CACHE), "lists"),
        _long(lambda: start_up.lines(1), "start-up"),
        _long(lambda: memory.lines(_DIRECTORY), "memory"),
        _long(lambda: million.lines(300), "million"),
        _long(lambda: recording.lines(_CACHE, 1), "recording"),
        _long(lambda: growth.lines(_CACHE, 2), "growth"),
    ],
)
def test_a_line_is_measured(measure: Callable[[], Iterable[Line]]) -> None:
    # What a quiet run adds to a database may be nothing.
    assert all(line.measured > 0 for line in measure() if not line.what.endswith(" adds"))


def test_a_run_leaves_the_directory_of_the_benchmarks_as_it_is(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    directories.make(cache, _DIRECTORY.blobs, _DIRECTORY.tags)
    call = ["gc", "--json", "--store", f"local:{cache}", "--merged-tag", "", "--database"]

    outcome = CliRunner().invoke(app, [*call, url_of(tmp_path / "maintainer.db")])

    report = json.loads(outcome.stdout)
    assert report["status"] == "done"
    assert {one["reason"]["code"] for one in report["actions"]} == {"grace", "up_to_date"}
