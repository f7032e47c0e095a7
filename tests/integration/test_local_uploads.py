"""Uploads that killed builds have left: reported, and deleted after a day and the grace period."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.report import ActionReport, Report
from tests.integration.directories import World, a_directory, layer_of
from tests.integration.watching import Watcher

NO_GRACE = timedelta(0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = a_directory(tmp_path)
    world.build("base", "api")
    return world


def _left(world: World, name: str = "layer", size: int = 1_000) -> Path:
    """Let a build be killed while it uploads; return the folder of the upload."""
    data = world.begin_upload(name)
    data.write_bytes(b"x" * size)
    (data.parent / "ref").write_text(name)
    for path in (data, data.parent / "ref", data.parent, data.parent.parent):
        world.touch(path)
    return data.parent


def _told(report: Report, kind: str) -> list[ActionReport]:
    assert report.status == "done", report.problems
    return [a for a in report.actions if a.kind == kind and a.subject.startswith("ingest/")]


def test_what_a_killed_build_has_left_is_reported_and_goes_after_a_day(world: World) -> None:
    uploads = [_left(world), _left(world, "another")]
    world.passes(hours=23)
    report = world.gc(grace=NO_GRACE)
    assert not _told(report, "keep") + _told(report, "delete")
    world.passes(hours=2)
    watcher = Watcher(world)

    with watcher.run(NO_GRACE):
        report = world.gc(grace=NO_GRACE)

    assert {a.outcome_sentence for a in _told(report, "delete")} == {"done"}
    assert {a.subject for a in _told(report, "delete")} == {f"ingest/{one.name}" for one in uploads}
    assert report.bytes_freed == 2 * (1_000 + len("layer")) + len("another") - len("layer")
    assert not any(upload.exists() for upload in uploads)
    assert world.leads_to() == {layer_of("base"), layer_of("api")}
    assert not watcher.problems


def test_it_is_kept_for_a_grace_period_of_more_than_a_day(world: World) -> None:
    upload = _left(world)
    world.passes(hours=30)

    report = world.gc(grace=timedelta(days=3))

    assert upload.exists()
    (kept,) = _told(report, "keep")
    assert kept.size == 1_005
    assert kept.sentence.startswith("dangling since 2026-01-01 00:00 UTC, kept until 2026-01-04")
    world.passes(hours=43)
    world.gc(grace=timedelta(days=3))
    assert not upload.exists()


def test_a_dry_run_and_a_run_without_a_sweep_only_report_it(world: World) -> None:
    upload = _left(world)
    world.passes(days=2)

    for how in ("dry_run", "no_sweep"):
        report = world.gc(**{how: True})  # type: ignore[arg-type]
        assert [a.outcome_sentence for a in _told(report, "delete")] == ["planned"]
        assert upload.exists()


def test_an_upload_that_goes_on_is_kept(world: World) -> None:
    upload = _left(world)
    world.passes(hours=30)
    world.touch(upload / "data")
    world.passes(hours=2)

    world.gc(grace=NO_GRACE)

    assert upload.exists()


def test_an_upload_that_a_build_goes_on_with_meanwhile_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = _left(world)
    world.passes(days=2)
    look, looks = os.scandir, iter(range(100))

    def go_on(where: object) -> object:
        is_upload = isinstance(where, int) and os.path.samestat(os.fstat(where), upload.stat())
        if is_upload and next(looks) == 1:
            (upload / "data").write_bytes(b"more")
        return look(where)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", go_on)

    report = world.gc()

    assert (upload / "data").read_bytes() == b"more"
    assert [a.outcome_sentence for a in _told(report, "delete")] == [
        "skipped: a build has continued it"
    ]


def test_blobs_that_are_overdue_go_in_the_same_run(world: World) -> None:
    world.put("orphan")
    _left(world)
    world.put("another orphan")
    world.passes(days=2)

    report = world.gc()

    assert report.entries_deleted == 3
    assert not world.steps("orphan", "another orphan")


@pytest.mark.parametrize("what", ["a link", "a link in it", "a folder in it", "a file", "a name"])
def test_what_is_no_upload_is_left_alone(world: World, tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "data").write_text("precious")
    upload = _left(world)
    if what == "a link":
        for path in upload.iterdir():
            path.unlink()
        upload.rmdir()
        upload.symlink_to(outside)
    elif what == "a link in it":
        (upload / "data").unlink()
        (upload / "data").symlink_to(outside / "data")
    elif what == "a folder in it":
        (upload / "total").mkdir()
    elif what == "a file":
        for path in upload.iterdir():
            path.unlink()
        upload.rmdir()
        upload.write_text("a file")
    else:
        upload.rename(upload.with_name("not an upload"))
    for path in world.path.rglob("ingest/**/*"):
        world.touch(path)
    before = sorted(str(path) for path in world.path.rglob("*"))
    world.passes(days=9)

    report = world.gc(grace=NO_GRACE)

    assert not _told(report, "delete")
    assert sorted(str(path) for path in world.path.rglob("*")) == before
    assert (outside / "data").read_text() == "precious"
