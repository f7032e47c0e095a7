"""A clock is wrong for one run, or for one build; then all clocks are right again."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maintainer.errors import StoreError
from maintainer.report import Report
from maintainer.stores.local.directory import Directory
from tests.integration import world as github
from tests.integration.directories import World, a_directory, layer_of
from tests.integration.test_contents import CHECKED, lose, use

YEARS = timedelta(days=4 * 365)
MERGES: dict[str, Any] = {"remember_exports": "30d", "merged_tag": "maintained"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return a_directory(tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[github.World]:
    with github.a_world(tmp_path) as world:
        yield world


def _run_with_a_wrong_clock(world: World, by: timedelta, **settings: Any) -> Report:
    """Do a run; the files have the right times."""
    world.now += by
    report = world.gc(**settings)
    world.now -= by
    for path in world.path.rglob("*"):
        if by > timedelta(0) and path.stat().st_mtime > world.now.timestamp() + 1:
            world.touch(path)
    return report


def test_a_first_run_in_the_future_keeps_nothing_until_then(world: World) -> None:
    world.build("base", "x", tag="web")
    world.put("orphan")
    _run_with_a_wrong_clock(world, YEARS)
    world.build("base", "y", tag="web")
    for _ in range(12):
        world.passes(hours=6)
        world.gc()

    assert not world.steps("orphan", "x")


def test_after_a_run_in_the_past_what_was_needed_has_its_grace_period(world: World) -> None:
    world.build("base", "x", tag="web")
    world.gc()
    world.passes(days=100)
    world.gc()
    world.passes(hours=1)
    world.build("base", "y", tag="web")
    world.passes(minutes=5)
    _run_with_a_wrong_clock(world, -timedelta(days=2))
    world.passes(minutes=10)

    world.gc()

    assert world.steps("x")


def test_a_run_in_the_past_costs_no_export_that_is_remembered(world: World) -> None:
    world.build("base", "x", tag="web")
    world.gc(**MERGES)
    world.passes(days=1)
    world.build("base", "y", tag="web")
    world.gc(**MERGES)
    world.passes(hours=6)
    _run_with_a_wrong_clock(world, -timedelta(days=400), **MERGES)
    world.passes(minutes=10)

    world.gc(**MERGES)

    assert layer_of("x") in world.leads_to("web")


def test_a_run_in_the_past_costs_no_export_that_was_just_overwritten(world: World) -> None:
    world.build("base", "x", tag="web")
    world.gc(**MERGES)
    world.passes(days=100)
    world.gc(**MERGES)
    world.passes(hours=1)
    world.build("base", "y", tag="web")
    world.passes(minutes=5)
    _run_with_a_wrong_clock(world, -timedelta(days=40), **MERGES)
    world.passes(minutes=10)

    world.gc(**MERGES)

    assert layer_of("x") in world.leads_to("web")


def test_a_build_in_the_future_keeps_nothing_until_then(world: World) -> None:
    world.build("base", "x", tag="web")
    world.gc()
    world.put("orphan")
    world.passes(hours=1)
    world.now += YEARS
    world.build("base", "z")
    world.now -= YEARS
    world.gc()
    world.passes(minutes=5)
    world.build("base", "z2")
    for path in world.path.rglob("*"):
        if path.stat().st_mtime > world.now.timestamp():
            world.touch(path)
    for _ in range(12):
        world.passes(hours=6)
        world.gc()

    assert not world.steps("orphan")


def test_on_a_file_server_whose_clock_is_behind_an_export_that_was_replaced_is_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch(path: Path) -> None:
        at = (world.now - timedelta(hours=2)).timestamp()
        os.utime(path, (at, at), follow_symlinks=False)

    monkeypatch.setattr(world, "touch", touch)
    world.build("base", "y", tag="web")
    world.passes(days=1)
    world.gc(**MERGES)
    world.put("x")
    world.passes(minutes=30)
    world.gc(**MERGES)
    world.passes(minutes=10)
    world.build("base", "x", "q", tag="web")
    world.passes(hours=23, minutes=40)
    world.build("base", "z", tag="web")
    world.passes(minutes=20)

    world.gc(**MERGES)

    assert world.steps("x")


def test_after_a_first_run_that_failed_an_export_that_was_replaced_is_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "x", tag="web")
    world.passes(hours=30)
    world.build("base", "y", tag="web")
    world.passes(minutes=5)

    def is_full(*_: object) -> None:
        raise StoreError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Directory, "swap", is_full)
        assert world.gc(**MERGES).status == "failed"
    world.passes(hours=1)
    world.build("base", "x", "new", tag="web")
    world.passes(hours=23, minutes=30)
    world.build("base", "z", tag="web")
    world.passes(minutes=10)

    world.gc(**MERGES)

    assert world.steps("x")


def test_after_a_run_in_the_future_contents_are_checked_as_before(cache: github.World) -> None:
    cache.build("base", "api")
    cache.gc(**CHECKED)
    cache.passes(hours=6)
    cache.build("base", "web")
    right = cache.now
    cache.cache.clock = lambda: right
    cache.now += YEARS
    cache.gc(**CHECKED)
    cache.now = right
    cache.cache.clock = lambda: cache.now
    cache.passes(days=1)
    lose(cache, "web")
    for _ in range(4):
        cache.passes(days=1)
        use(cache, "base", "api", *(["web"] if github.blob_of("web") in cache.blobs() else []))
        cache.gc(**CHECKED)

    assert github.blob_of("web") not in cache.newest().blobs
