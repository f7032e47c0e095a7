"""What leaves a full directory, where an export that stores nothing new leaves hardly a trace."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from maintainer.graph.database import Database
from maintainer.report import Report
from maintainer.settings import Settings
from maintainer.stages.run import Collector
from maintainer.stores.base import Store
from tests.empty_database import need_sqlite
from tests.integration import directories
from tests.integration.directories import World, a_directory, layers_of
from tests.integration.world import built

MERGES: dict[str, Any] = {"remember_exports": "30d", "merged_tag": "maintained"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return a_directory(tmp_path)


def _one_byte_less(world: World, **settings: Any) -> Report:
    """Do a run where one byte more is stored than may be, without what leaves anyway."""
    room = {"keep_free": "0B"}
    stored = sum(path.stat().st_size for path in world.blobs.iterdir())
    stays = world.gc(dry_run=True, quota=f"{stored - 1}B", room=room, **settings).room
    assert stays
    limit = stays.remaining + stays.freed - 1
    report = world.gc(quota=f"{limit}B", room=room, **settings)
    assert report.room
    assert report.room.departures
    return report


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


def test_what_a_run_writes_is_no_export_that_keeps_all_that_it_took_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settle() -> None:
        """Let what a run has written be a little later than its start, as on a disk."""
        at = (world.now + timedelta(seconds=5)).timestamp()
        for path in world.path.rglob("*"):
            if path.is_file() and path.stat().st_mtime > at:
                os.utime(path, (at, at))

    monkeypatch.setattr(world, "settle", settle)
    for day in range(12):
        world.passes(days=1)
        world.build("base", f"step of {day}", tag="web")
        for hours in (1, 6):
            world.passes(hours=hours)
            world.gc(**MERGES)

    _one_byte_less(world, **MERGES)

    assert world.leads_to("web") >= layers_of("base", "step of 11")


def test_what_a_run_writes_to_other_tags_is_no_export_to_the_last_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run lasts some seconds, and writes in between."""

    def lasting(
        store: Store,
        database: Database,
        settings: Settings,
        clock: Callable[[], datetime],
        **more: Any,
    ) -> Collector:
        seconds = count(step=10)

        def later() -> datetime:
            return clock() + timedelta(seconds=next(seconds))

        return Collector(store, database, settings, later, **more)

    def settle() -> None:
        at = (world.now + timedelta(seconds=5)).timestamp()
        for path in world.path.rglob("*"):
            if path.is_file() and path.stat().st_mtime > at:
                os.utime(path, (at, at))

    monkeypatch.setattr(directories, "Collector", lasting)
    monkeypatch.setattr(world, "settle", settle)
    settings = MERGES | {"remember_exports": "12d"}
    for day in range(12):
        world.build("base", f"step of {day}", tag="web")
        world.passes(hours=1)
        world.gc(**settings)
        world.passes(hours=23)
    world.build("base", "last", tag="last")
    for _ in range(11):
        world.passes(days=1)
        assert world.gc(**settings).indexes_written

    report = world.gc(dry_run=True, quota="1B", room={"keep_free": "0B"}, **settings)

    assert "what is protected (0 B)" in report.notes[-1].sentence


def _copy(world: World) -> Path:
    """Copy the database, as a backup or a job of CI does."""
    need_sqlite()
    with closing(sqlite3.connect(world.database)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = world.database.with_suffix(".copy")
    shutil.copy(world.database, copy)
    return copy


def test_what_was_exported_while_another_database_was_in_use_stays_in_a_full_directory(
    world: World,
) -> None:
    world.put("new")
    world.passes(hours=1)
    world.build("base", "old", tag="web")
    world.build("base", "api")
    world.gc(**MERGES)
    backup = _copy(world)
    world.passes(days=9)
    world.build("base", "new", tag="web")
    world.gc(**MERGES)
    world.passes(days=2)
    shutil.copy(backup, world.database)

    _one_byte_less(world, **MERGES)

    assert world.leads_to("web") >= layers_of("base", "new")


def test_what_runs_without_this_database_have_taken_over_stays_in_a_full_directory(
    world: World,
) -> None:
    for tag, step in (("web", "new"), ("api", "api"), ("web", "old")):
        world.build("base", step, tag=tag)
        world.gc(**MERGES)
        world.passes(days=1)
    world.passes(days=19)
    world.gc(**MERGES)
    world.build("base", "new", tag="web")
    world.gc(no_sweep=True, database=_copy(world), **MERGES)
    world.passes(days=2)
    world.gc(**MERGES)

    _one_byte_less(world, **MERGES)

    assert world.leads_to("web") >= layers_of("base", "new")


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


def test_a_repair_without_this_policy_ends_no_grace_period_of_what_left(world: World) -> None:
    world.build("base", "web 1", tag="web")
    world.gc(remember_exports="30d")
    world.passes(days=8)
    world.build("base", "web 2", tag="web")
    world.gc(remember_exports="30d")
    _one_byte_less(world, remember_exports="30d")
    assert world.leads_to("web") == layers_of("base", "web 2")
    stays: dict[str, Any] = {"quota": "1B", "room": {"keep_free": "0B"}, "remember_exports": "30d"}

    for _ in range(3):
        world.passes(hours=12)
        world.gc(repair=True, remember_exports="30d")
        world.passes(hours=1)
        world.gc(**stays)

    assert world.steps("base", "web 1", "web 2") == layers_of("base", "web 2")


def test_what_left_a_directory_comes_back_where_there_is_no_quota_any_more(world: World) -> None:
    world.build("base", "api", tag="api")
    world.build("base", "web", tag="web")
    world.gc(remember_exports="30d")
    world.passes(days=10)
    world.build("base", "new", tag="web")
    world.gc(remember_exports="30d")
    _one_byte_less(world, remember_exports="30d")
    without_quota: dict[str, Any] = {"room": {"keep_free": "0B"}, "remember_exports": "30d"}
    left = layers_of("base", "api", "web") - world.leads_to("api") - world.leads_to("web")

    world.gc(**without_quota)
    world.passes(hours=30)
    report = world.gc(**without_quota)

    assert left
    assert left <= world.stored()
    assert left <= world.leads_to("api") | world.leads_to("web")
    assert any("set `quota`" in note.sentence for note in report.notes)
