"""Headroom: what is expected to arrive until the next run, and what stays free for it."""

import html
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maintainer.graph.arrivals import load_arrivals
from maintainer.report import Report
from maintainer.report.html import render_html
from maintainer.report.markdown import render_markdown
from maintainer.report.model import Headroom
from maintainer.report.page.trend import format_headroom
from tests.integration.directories import a_directory
from tests.integration.world import World, a_world

KB = 1_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        world.build("base", "api")
        yield world


def _days(world: World, *kilobytes: int, **settings: Any) -> Report:
    """Let another tool store so much each day, and a run come after it."""
    report = world.gc(**settings)
    for size in kilobytes:
        world.passes(hours=23)
        world.put(f"tool-{world.now:%m-%d}", size=size * KB)
        world.passes(hours=1)
        report = world.gc(**settings)
    return report


def test_a_report_says_what_is_expected_and_what_became_of_the_last_forecast(
    world: World,
) -> None:
    report = _days(world, 1, 2, 3, 1, 1, 1, 1, 1, 9, 5, 7, quota=40 * KB)

    assert report.trend.headroom == Headroom(7 * KB, 11, 5 * KB, 7 * KB)
    line = (
        "Until the next run, 7.0 kB are expected: no more arrived in 9 of 10 of the last 11 "
        "intervals between two runs. The last forecast was 5.0 kB, and 7.0 kB arrived."
    )
    assert format_headroom(report).startswith(line)
    assert line in html.unescape(render_markdown(report))
    assert "are expected: no more" in render_html(report)


def test_the_report_warns_if_less_is_free_than_is_expected(world: World) -> None:
    report = _days(world, 1, 1, 1, 1, 1, 1, 1, 1, 9, 9, quota=34 * KB)

    assert report.trend.headroom == Headroom(9 * KB, 10, None, 9 * KB)
    assert report.space
    assert report.space.quota
    free = report.space.quota - report.space.used
    assert 0 < free < 9 * KB
    assert format_headroom(report).endswith(" are free, so GitHub may evict.")
    assert "The last forecast" not in format_headroom(report)


def test_what_a_run_without_a_plan_saw_belongs_to_the_interval_that_the_next_one_ends(
    world: World,
) -> None:
    _days(world, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
    world.passes(hours=12)
    world.put("tool-big", size=50 * KB)
    world.evict("api")
    cut = world.gc(max_requests=1)
    world.passes(hours=12)
    world.put("tool-small", size=KB)

    headroom = world.gc().trend.headroom

    assert cut.saw_nothing
    assert headroom == Headroom(KB, 11, KB, 51 * KB)


def test_nothing_is_expected_after_a_few_runs(world: World) -> None:
    report = _days(world, 1, 2, 3, 4, 5, 6, 7, 8, 9)

    assert report.trend.headroom is None
    assert format_headroom(report) == ""


def test_nothing_is_expected_where_entries_are_not_listed(world: World) -> None:
    report = _days(world, *[1] * 10, rest=False)

    assert report.trend.headroom is None


def test_dry_runs_end_no_interval_and_what_runs_write_does_not_count(world: World) -> None:
    _days(world, 1, 2, merged_scope="maintained")
    world.passes(hours=1)
    world.put("tool-x", size=3 * KB)
    world.gc(dry_run=True, merged_scope="maintained")
    world.passes(hours=1)
    world.put("tool-y", size=4 * KB)
    report = world.gc(merged_scope="maintained")

    with world.databases[world.database].reading() as connection:
        arrived = load_arrivals(connection, 1, report.run, world.now)
        before = load_arrivals(connection, 1, report.run - 1, world.now - timedelta(hours=1))

    assert arrived == (1 * KB, 2 * KB, 7 * KB)
    assert before == (1 * KB, 2 * KB, 3 * KB)


def test_what_is_expected_stays_free_where_that_is_more_than_keep_free(world: World) -> None:
    settings: dict[str, Any] = {"quota": 100 * KB, "room": {"keep_free": "10%"}}

    few = _days(world, 30, 1, 1, 1, 1, 1, 1, 1, **settings)
    more = _days(world, 1, **settings)
    large = _days(world, 30, **settings)

    reports = (few, more, large)
    assert [one.room and one.room.keep_free for one in reports] == [10 * KB, 10 * KB, 30 * KB]


def test_nothing_is_expected_in_a_directory_as_nobody_evicts(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    reports = []
    for day in range(12):
        directory.build("base", f"code {day}")
        reports.append(directory.gc(quota="1MB", room={"keep_free": "10%"}))
        directory.passes(days=1)

    assert reports[-1].trend.headroom is None
    assert reports[-1].room
    assert reports[-1].room.keep_free == 100 * KB
