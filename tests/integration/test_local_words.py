"""Nothing evicts from a directory, and nothing that is said of one says so."""

import json
import re
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from sqlalchemy import text

from maintainer.graph.compare import compare
from maintainer.graph.database import Database
from maintainer.graph.explain import explain
from maintainer.graph.reports import load_report
from maintainer.report.diff import render_diff
from maintainer.report.html import render_html
from maintainer.report.json import to_json
from maintainer.report.markdown import render_markdown
from maintainer.report.terminal import render_report
from maintainer.report.why import render_why
from tests.empty_database import url_of
from tests.integration.directories import World, a_directory, layer_of

_FORBIDDEN = re.compile(r"evict|the host", re.IGNORECASE)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Make a directory from which others have deleted blobs between runs."""
    world = a_directory(tmp_path)
    world.build("base", "api", "test")
    world.build("base", "web", tag="web")
    world.gc(merged_tag="maintained")
    world.passes(hours=1)
    world.build("base", "newer", tag="web")
    world.evict("web", "test")
    world.gc(merged_tag="maintained")
    world.passes(hours=1)
    world.gc(merged_tag="maintained")
    return world


def _printed(what: RenderableType) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_no_form_of_a_report_on_a_directory_says_that_anything_was_evicted(world: World) -> None:
    database = Database(url_of(world.database))
    try:
        with database.reading() as connection:
            for run in (1, 2, 3):
                report = load_report(connection, run)
                # The names of JSON and the page's own script are the same for all stores.
                page = re.sub(r"<(script|style).*?</\1>", "", render_html(report), flags=re.DOTALL)
                page = re.sub(r'data-chart="evictions"|id="evictions[^"]*"', "", page)
                told = [_printed(render_report(report)), render_markdown(report), page]
                told += [_values(json.loads(to_json(report)))]
                assert not [_FORBIDDEN.search(one) for one in told if _FORBIDDEN.search(one)]
            assert load_report(connection, 2).changes.gone_entries == 2
            diff = compare(connection, 1, 3)
            whys = [
                render_why(explain(connection, layer_of(step)))
                for step in ("base", "web", "test", "newer")
            ]
    finally:
        database.close()
    assert "deleted by others" in _printed(render_diff(diff))
    answers: list[RenderableType] = [render_diff(diff), *whys]
    for one in answers:
        assert not _FORBIDDEN.search(_printed(one))


def _values(value: object) -> str:
    """Return all that a document says, without the names of its fields."""
    if isinstance(value, dict):
        return "\n".join(map(_values, value.values()))
    if isinstance(value, list):
        return "\n".join(map(_values, value))
    return str(value)


def test_the_database_says_that_what_others_have_deleted_was_removed(
    world: World,
) -> None:
    database = Database(url_of(world.database))
    try:
        with database.reading() as connection:
            rows = connection.execute(text("SELECT key, state, reason FROM entry")).all()
    finally:
        database.close()
    removed = {row.key for row in rows if row.state == "removed"}
    assert removed == {layer_of("web"), layer_of("test")}
    assert not [row for row in rows if _FORBIDDEN.search(f"{row.state} {row.reason}")]


def test_a_directory_with_a_quota_is_measured_by_it(tmp_path: Path) -> None:
    world = a_directory(tmp_path)
    world.build("base", "api")

    limited = world.gc(quota=50_000_000)
    unlimited = world.gc(quota=None)

    assert limited.space
    assert limited.space.used > 0
    assert " of 50.0 MB are used." in render_markdown(limited)
    assert "A directory has no quota." in render_markdown(unlimited)
