"""The tag of a directory that holds the merge of all others."""

import errno
import json
import os
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from maintainer.graph.compare import compare
from maintainer.graph.database import Database
from maintainer.graph.forget import forget
from maintainer.model.reason import MergeOverwritten, MergeTakenOver
from maintainer.report import Report
from tests.empty_database import url_of
from tests.importer import import_index
from tests.integration.directories import (
    INDEX,
    LockTakenError,
    World,
    a_directory,
    import_tag,
    layer_of,
    layers_of,
)
from tests.integration.watching import Watcher
from tests.samples import once_each

NO_GRACE = timedelta(0)
MERGED = "maintained"
MONTH = timedelta(days=30)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return a_directory(tmp_path)


def _gc(world: World, **how: object) -> Report:
    report = world.gc(merged_tag=MERGED, **how)  # type: ignore[arg-type]
    assert report.status == "done", report.problems
    return report


def _written(report: Report) -> dict[str, str]:
    return {a.subject: a.sentence for a in report.actions if a.kind == "write"}


def _step_ids(world: World) -> set[str]:
    """Return by which IDs builders know the steps of the merge."""
    return import_index(world.config_of(MERGED), Random(0)).step_ids()


def test_it_is_created_and_holds_all_that_other_tags_lead_to_which_stay_as_they_are(
    world: World,
) -> None:
    world.build("base", "api")
    world.build("base", "web", tag="web", form=INDEX)
    before = world.names()

    report = _gc(world)

    assert _written(report) == {MERGED: "merge the 2 other indexes"}
    assert world.names()[:2] == before
    assert world.tags() == ["api", "web", MERGED]
    assert world.leads_to(MERGED) == layers_of("base", "api", "web")
    files = world.files()
    assert not _written(_gc(world))
    assert world.files() == files


def test_the_merges_of_two_caches_hide_nothing_of_each_other_from_who_imports_both(
    tmp_path: Path,
) -> None:
    worlds = [a_directory(tmp_path / name) for name in ("one", "two")]
    for world in worlds:
        world.build("base", "api")
        _gc(world)

    one, two = map(_step_ids, worlds)

    assert one
    assert not one & two


def test_it_follows_the_exports_of_builds_and_forgets_what_they_replace(world: World) -> None:
    world.build("base", "api")
    world.build("base", "old", tag="web")
    _gc(world, grace=NO_GRACE)
    world.passes(minutes=1)  # What is written while a run is under way may be the run's.
    world.build("base", "new", tag="web")

    report = _gc(world, grace=NO_GRACE)

    assert _written(report) == {MERGED: "follow the 2 other indexes: 1 blob more, 1 blob less"}
    assert world.leads_to(MERGED) == layers_of("base", "api", "new")
    assert not world.steps("old")


def test_what_a_run_has_written_is_not_taken_for_what_others_stored(world: World) -> None:
    reports = []
    for build in ("web", "web again", "web once more"):
        world.build("base", build, tag="web")
        reports.append(world.gc(merged_tag=MERGED))
        world.passes(hours=1)
    assert [one.indexes_written for one in reports] == [1, 1, 1]
    # A build adds its last layer, its config and its manifest.
    assert [one.changes.new_entries for one in reports] == [0, 3, 3]

    assert world.gc(merged_tag=MERGED).changes.new_entries == 0
    with closing(Database(url_of(world.database))) as database, database.reading() as connection:
        happened = {tally.what: tally.entries for tally in compare(connection, 3, 4).happened}
    assert happened["new"] == 0


@pytest.mark.parametrize("reset", [False, True], ids=["without reset", "with reset"])
def test_builds_in_turn_find_five_layers_however_many_runs_come_between(
    world: World, reset: bool
) -> None:
    watcher = Watcher(world)
    for number in range(8):
        tag = ("web", "api")[number % 2]
        world.build("base", "lib", "tools", f"{tag} {number}", tag=tag)
        if reset:
            world.reset()
        world.passes(minutes=1)
        with watcher.run(timedelta(hours=24)):
            report = _gc(world)
        if number == 0:
            continue
        other = ("api", "web")[number % 2]
        assert world.leads_to(MERGED) == layers_of(
            "base", "lib", "tools", f"{tag} {number}", f"{other} {number - 1}"
        )
        assert len(import_tag(world.path, MERGED).results) == 5
        assert report.results_usable == 5
        world.passes(minutes=1)
    assert not watcher.problems
    # With reset, what the last export has replaced is kept until the next one; as is its manifest.
    layers = {path for step in range(8) for path in world.steps(f"web {step}", f"api {step}")}
    assert len(layers) == (3 if reset else 8)


def test_it_keeps_no_blob_alive_by_itself(world: World) -> None:
    world.build("base", "old")
    _gc(world)
    world.build("base", "new")
    _gc(world)
    world.passes(hours=25)

    _gc(world)

    assert not world.steps("old")
    assert world.leads_to(MERGED) == layers_of("base", "new")


def test_what_is_lost_goes_from_it_too(world: World) -> None:
    world.build("base", "api", "test")
    world.build("base", "web", tag="web")
    _gc(world)
    world.evict("test")

    report = _gc(world)

    assert set(_written(report)) == {"api", MERGED}
    assert import_tag(world.path, MERGED).blobs == layers_of("base", "api", "web")
    assert not _written(_gc(world))


@pytest.mark.parametrize("form", ["a cache", "an image"])
def test_a_tag_of_its_name_that_somebody_else_has_written_is_left_alone_and_reported(
    world: World, form: str
) -> None:
    world.build("base", "api")
    others = world.image(MERGED) if form == "an image" else set()
    if form == "a cache":
        world.build("base", "web", tag=MERGED)
    before = world.files()
    world.passes(days=9)

    report = _gc(world, grace=NO_GRACE)

    assert world.files() == before
    assert others <= world.stored()
    assert report.verdict
    assert report.verdict.level == "attention"
    assert f"Somebody else has written to {MERGED}" in report.verdict.message


def test_an_export_to_it_after_it_was_written_is_left_alone(world: World) -> None:
    world.build("base", "api")
    _gc(world)
    exported = world.build("base", "web", tag=MERGED)

    report = _gc(world)

    assert dict(world.names())[MERGED] == exported
    assert report.verdict
    assert report.verdict.level == "attention"


@pytest.mark.parametrize(("step", "there"), once_each(range(5, 80, 5), [False, True], of=2))
def test_an_export_to_it_meanwhile_is_not_hidden(world: World, step: int, there: bool) -> None:
    world.build("base", "api")
    if there:
        _gc(world)
    world.build("base", "web", tag="web")
    exported: list[str] = []

    def build(number: int) -> None:
        if number >= step and not exported:
            with suppress(LockTakenError):  # A builder waits for the lock.
                exported.append(world.build("base", "mine", tag=MERGED))

    watcher = Watcher(world)
    with watcher.run(timedelta(hours=24), build):
        _gc(world)
    _gc(world)

    if exported:
        assert dict(world.names())[MERGED] == exported[0]
    else:
        assert world.leads_to(MERGED) == layers_of("base", "api", "web")
    assert not watcher.problems


@pytest.mark.parametrize("how", ["lost", "cut off"])
@pytest.mark.parametrize("what", ["manifest", "config"])
def test_it_is_written_anew_when_it_was_lost(world: World, what: str, how: str) -> None:
    world.build("base", "api")
    world.build("base", "web", tag="web")
    _gc(world)
    lost = world.blobs / dict(world.names())[MERGED][7:]
    if what == "config":
        lost = world.blobs / json.loads(lost.read_bytes())["config"]["digest"][7:]
    content = lost.read_bytes()
    lost.unlink()
    if how == "cut off":
        lost.write_bytes(content[: len(content) // 2])
        world.touch(lost)

    report = _gc(world)

    assert world.leads_to(MERGED) == layers_of("base", "api", "web")
    assert report.verdict
    assert report.verdict.level == "good"
    assert not _written(_gc(world))


def test_a_dry_run_says_that_it_would_be_created_and_creates_nothing(world: World) -> None:
    world.build("base", "api")
    before = world.files()

    report = _gc(world, dry_run=True)

    assert _written(report) == {MERGED: "merge the other index"}
    assert world.files() == before


def test_nothing_is_created_where_there_is_nothing_to_merge(world: World) -> None:
    _gc(world)
    assert world.tags() == []
    world.image("busybox")

    _gc(world)

    assert world.tags() == ["busybox"]


def test_without_a_name_none_is_written(world: World) -> None:
    world.build("base", "api")

    world.gc(merged_tag="")

    assert world.tags() == ["api"]


def test_what_several_tags_lead_to_counts_once(world: World) -> None:
    for tag in ("a", "b", "c", "d"):
        world.build("base", "lib", tag=tag)

    report = _gc(world)

    assert report.results_usable == 2
    assert report.verdict
    assert "2 results" in report.verdict.message


@pytest.mark.parametrize("what", ["manifest", "config"])
def test_it_loses_nothing_when_a_tag_cannot_be_read_once(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    world.build("base", "api")
    web = world.build("base", "web", tag="web")
    world.passes(days=2)
    _gc(world)
    if what == "config":
        web = json.loads((world.blobs / web[7:]).read_bytes())["config"]["digest"]
    before = world.names()
    world.build("base", "new")
    with monkeypatch.context() as patch:
        _refuse_to_open(patch, web)
        report = _gc(world)

    assert any("could not be read this time" in action.sentence for action in report.actions)
    assert world.leads_to(MERGED) >= layers_of("base", "web")
    assert dict(world.names())["web"] == dict(before)["web"]
    _gc(world)
    assert world.leads_to(MERGED) == layers_of("base", "new", "web")


def _refuse_to_open(patch: pytest.MonkeyPatch, digest: str) -> None:
    """Let a blob be on a part of the disk that cannot be read."""
    open_file = os.open

    def refuse(name: str, *how: int, **where: int) -> int:
        if name == digest[7:]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return open_file(name, *how, **where)

    patch.setattr(os, "open", refuse)


def test_what_only_it_contains_stays_for_a_month_if_the_database_is_lost(world: World) -> None:
    world.build("base", "old")
    _gc(world, remember_exports=MONTH)
    world.build("base", "new")
    world.passes(days=2)
    later: dict[str, object] = {"remember_exports": MONTH, "database": world.path / "../new.db"}

    report = _gc(world, **later)

    assert world.leads_to(MERGED) == layers_of("base", "old", "new")
    assert [note.reason for note in report.notes] == [MergeTakenOver(MERGED, 1)]
    assert report.verdict
    assert report.verdict.level == "good"
    for days in (8, 7, 5, 4, 3, 2, 1):
        world.passes(days=days)
        assert not _gc(world, **later).notes
        assert world.leads_to(MERGED) == layers_of("base", "old", "new")
    world.passes(days=1)
    _gc(world, **later)
    assert world.leads_to(MERGED) == layers_of("base", "new")
    world.passes(hours=25)
    _gc(world, **later)
    assert not world.steps("old")


def test_of_results_that_lack_a_blob_nothing_is_said_and_they_are_found_when_it_is_back(
    world: World,
) -> None:
    world.build("base", "old")
    _gc(world, remember_exports=MONTH)
    world.build("base", "new")
    later: dict[str, object] = {"remember_exports": MONTH, "database": world.path / "../new.db"}
    away = world.blobs / layer_of("old").removeprefix("sha256:")
    content = away.read_bytes()
    away.unlink()

    assert not _gc(world, **later).notes
    assert world.leads_to(MERGED) == layers_of("base", "new")

    away.write_bytes(content)
    world.passes(days=1)
    _gc(world, **later)
    assert world.leads_to(MERGED) == layers_of("base", "old", "new")


def test_another_configuration_that_writes_it_hides_nothing_and_is_reported(world: World) -> None:
    other: dict[str, object] = {"remember_exports": MONTH, "database": world.path / "../other.db"}
    world.build("base", "first")
    _gc(world, remember_exports=MONTH)
    world.build("base", "second")
    _gc(world, remember_exports=MONTH)
    world.build("base", "third")
    _gc(world, **other)
    world.build("base", "fourth")

    report = _gc(world, remember_exports=MONTH)

    assert world.leads_to(MERGED) == layers_of("base", "first", "second", "third", "fourth")
    assert [note.reason for note in report.notes] == [MergeOverwritten(MERGED, 1)]
    assert report.verdict
    assert report.verdict.level == "attention"


@pytest.mark.parametrize("how", [{"repair": True}, {"dry_run": True}], ids=["repair", "dry run"])
def test_a_repair_or_a_dry_run_before_lets_nothing_of_it_go(
    world: World, how: dict[str, bool]
) -> None:
    world.build("base", "old")
    _gc(world, remember_exports=MONTH)
    world.build("base", "new")
    later: dict[str, object] = {"remember_exports": MONTH, "database": world.path / "../new.db"}
    _gc(world, **how, **later)

    _gc(world, **later)

    assert world.leads_to(MERGED) == layers_of("base", "old", "new")


def test_under_a_new_name_the_old_one_keeps_what_was_taken_over(world: World) -> None:
    world.build("base", "old")
    _gc(world, remember_exports=MONTH)
    world.build("base", "new")
    later: dict[str, object] = {"remember_exports": MONTH, "database": world.path / "../new.db"}
    _gc(world, **later)

    world.gc(merged_tag="all", **later)  # type: ignore[arg-type]

    assert world.leads_to(MERGED) == layers_of("base", "old", "new")
    assert world.leads_to("all") == layers_of("base", "old", "new")


def test_what_was_taken_over_is_forgotten_with_the_tag_that_has_it_or_with_the_merge(
    world: World,
) -> None:
    how: dict[str, object] = {"remember_exports": MONTH}
    world.build("base", "web", tag="web")
    for step in ("old", "older"):
        world.build("base", step)
        _gc(world, **how)
    world.build("base", "new")
    how["database"] = world.path / "../new.db"
    _gc(world, **how)
    world.build("base", "old")
    _gc(world, **how)
    assert world.leads_to(MERGED) == layers_of("base", "old", "older", "new", "web")

    _forget("api", world.path / "../new.db", world)
    world.passes(days=1)
    _gc(world, **how)
    assert world.leads_to(MERGED) == layers_of("base", "older", "web")

    _forget(MERGED, world.path / "../new.db", world)
    world.passes(days=1)
    _gc(world, **how)
    assert world.leads_to(MERGED) == layers_of("base", "web")


def _forget(name: str, path: Path, world: World) -> None:
    database = Database(url_of(path))
    try:
        with database.lock(), database.begin() as connection:
            forget(connection, name, world.now, dry_run=False)
    finally:
        database.close()


def test_two_databases_that_write_it_in_turn_do_not_have_it_from_each_other_for_ever(
    world: World,
) -> None:
    databases = [world.database, world.path / "../other.db"]
    world.build("base", "old")
    for database in databases:
        _gc(world, remember_exports=MONTH, database=database)
    world.build("base", "new")
    world.passes(days=1)
    _gc(world, remember_exports=MONTH, database=databases[0])
    assert "old" in _held(world)

    for number in range(20):
        world.passes(days=7)
        world.build("base", "new")
        _gc(world, remember_exports=MONTH, database=databases[number % 2])

    assert _held(world) == {"base", "new"}
    assert not world.steps("old")


def test_two_databases_in_turn_rest_once_each_has_read_what_the_other_wrote(world: World) -> None:
    databases = [world.database, world.path / "../other.db"]
    for number in range(3):
        for database in databases:
            world.build("base", f"step{number} for {database.stem}")
            world.passes(hours=6)
            _gc(world, remember_exports=MONTH, database=database)
    world.passes(days=30)
    for database in databases * 3:
        world.passes(hours=24)
        _gc(world, remember_exports=MONTH, database=database)

    last = _gc(world, remember_exports=MONTH)
    assert not [action for action in last.actions if action.kind in ("write", "delete")]


def _held(world: World) -> set[str]:
    """Return the steps of which the merge has a layer."""
    return {step for step in ("base", "old", "new") if layer_of(step) in world.leads_to(MERGED)}
