"""What a run does to a directory, story by story."""

import errno
import hashlib
import json
import os
import shutil
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maintainer.report import ActionReport, Report
from maintainer.stores.local.files import Files
from maintainer.stores.local.look import Tags
from maintainer.stores.local.tags import read_tags
from tests.empty_database import query
from tests.integration.directories import (
    INDEX,
    MANIFEST,
    LockTakenError,
    World,
    a_directory,
    import_tag,
    layer_of,
    layers_of,
    locked,
    once_before_the_lock,
)
from tests.integration.watching import Watcher
from tests.integration.world import built
from tests.privileges import bound_by_modes

NO_GRACE = timedelta(0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return a_directory(tmp_path)


def _is(number: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(number), path.stat())


def _kept(report: Report, subject: str) -> list[ActionReport]:
    return [a for a in report.actions if a.kind == "keep" and a.subject == subject]


def _written(report: Report) -> list[str]:
    return [a.subject for a in report.actions if a.kind == "write" and a.outcome_sentence == "done"]


def test_what_was_read_of_tags_is_held_by_its_reader_alone(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web", tag="web")
    with closing(Files(world.path)) as files:
        tags = Tags(
            files,
            {},
            written_at=world.now,
            probed_at=None,
            ended_at=None,
            limit=2**20,
            with_sizes=False,
        )
        for named in read_tags((world.path / "index.json").read_bytes()):
            tags.add(named, is_last=False)

    assert {one.index.scope for one in tags.take_read()} == {"api", "web"}
    assert not tags.read


@pytest.mark.each_database
def test_every_tag_keeps_its_own_index_and_orphans_go_after_the_grace_period(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web", tag="web")
    world.put("orphan")
    index = (world.path / "index.json").read_bytes()
    world.passes(hours=23)
    world.gc()
    assert world.steps("orphan")
    world.passes(hours=2)

    report = world.gc()

    assert report.status == "done", report.problems
    assert world.steps("orphan", "base", "api", "web") == layers_of("base", "api", "web")
    assert world.leads_to("api") == layers_of("base", "api")
    assert world.leads_to("web") == layers_of("base", "web")
    assert (world.path / "index.json").read_bytes() == index
    assert [action.subject for action in report.deleted] == [layer_of("orphan")]


def test_what_an_export_has_replaced_goes_once_the_graph_has_seen_it_unneeded_for_long(
    world: World,
) -> None:
    world.build("base", "old")
    world.passes(days=9)
    world.gc()
    world.build("base", "new")
    world.passes(minutes=1)
    world.gc()
    assert world.steps("old")
    world.passes(hours=23)
    world.gc()
    assert world.steps("old")
    world.passes(hours=2)

    world.gc()

    assert not world.steps("old")
    assert len(world.stored()) == 2 + 2
    assert world.leads_to() == layers_of("base", "new")


@pytest.mark.parametrize("days", [0, 8])
@pytest.mark.each_database
def test_what_tags_have_needed_between_two_runs_only_has_a_grace_period(
    world: World, days: int
) -> None:
    world.build("base", "old")
    world.passes(minutes=1)
    world.build("base", "new")
    world.passes(minutes=1)
    world.gc()
    world.passes(days=5)
    # An export finds it stored, and after a while another one does without it.
    world.build("base", "old", "more")
    world.passes(days=days, minutes=1)
    world.build("base", "newer")
    world.passes(minutes=1)

    world.gc()

    assert world.steps("old", "more") == layers_of("old", "more")
    world.passes(hours=25)
    world.gc()
    world.passes(hours=25)
    world.gc()
    assert not world.steps("old", "more")


def test_without_memory_what_an_export_may_have_replaced_lately_has_a_grace_period(
    world: World, tmp_path: Path
) -> None:
    world.build("base", "old")
    world.passes(days=9)
    world.build("base", "new")
    world.passes(hours=1)

    world.gc(database=tmp_path / "lost.db")
    assert world.steps("old")
    world.passes(hours=24)
    world.gc(database=tmp_path / "lost again.db")

    assert not world.steps("old")


@pytest.mark.parametrize("form", [MANIFEST, INDEX])
def test_an_index_is_pruned_and_written_back_in_the_form_that_was_found(
    world: World, form: str
) -> None:
    world.build("base", "api", "test", form=form)
    world.build("base", "web", tag="web")
    world.evict("test")

    report = world.gc()

    assert _written(report) == ["api"]
    assert import_tag(world.path, "api").blobs == layers_of("base", "api")
    named = json.loads((world.path / "index.json").read_bytes())["manifests"]
    manifest = json.loads((world.blobs / named[0]["digest"][7:]).read_bytes())
    assert manifest["mediaType"] == named[0]["mediaType"] == form
    assert ("layers" in manifest, "manifests" in manifest) == (form == MANIFEST, form == INDEX)


def test_a_second_run_changes_no_byte(world: World) -> None:
    world.build("base", "api", "test")
    world.build("base", "web", tag="web")
    world.evict("test")
    world.put("orphan")
    world.passes(days=2)
    world.gc()
    before = world.files()
    world.passes(minutes=5)

    report = world.gc()

    assert world.files() == before
    assert not [a for a in report.actions if a.kind != "keep"]


def test_with_no_grace_what_a_run_replaces_goes_in_the_same_run(world: World) -> None:
    world.build("base", "api", "test")
    world.build("base", "web", tag="web")
    world.evict("api")

    report = world.gc(grace=NO_GRACE)

    assert world.stored() == layers_of("base", "web") | _manifests(world)
    assert len(world.stored()) == 2 + 2 * 2
    assert {total.state: total.entries for total in report.entries} == {
        "newest": 4,
        "reachable": 2,
    }
    before = world.files()
    assert world.gc(grace=NO_GRACE).entries_deleted == 0
    assert world.files() == before


def test_with_no_grace_what_a_run_replaces_goes_whatever_else_it_replaces(world: World) -> None:
    world.build("base", "api", "test")
    world.build("base", "web", "docs", tag="web")
    world.evict("api", "web")

    world.gc(grace=NO_GRACE)

    assert world.stored() == layers_of("base") | _manifests(world)


def _manifests(world: World) -> set[str]:
    index = json.loads((world.path / "index.json").read_bytes())
    found = {one["digest"] for one in index["manifests"]}
    for digest in list(found):
        found.add(json.loads((world.blobs / digest[7:]).read_bytes())["config"]["digest"])
    return found


def test_a_tag_is_told_to_be_as_old_as_its_newest_result(world: World) -> None:
    built_at = world.now
    world.build("base", "api")
    world.passes(days=3)

    assert [index.newest_at for index in world.gc().indexes] == [built_at]


def test_a_foreign_image_is_kept_with_all_that_it_references_however_deep(world: World) -> None:
    world.build("base", "api")
    config = world.upload(b'{"architecture":"amd64"}')
    layer = world.upload(b"\x1f\x8b a layer")
    missing = layer_of("never stored")
    image = {"config": {"digest": config}, "layers": [{"digest": layer}, {"digest": missing}]}
    inner = world.upload(json.dumps(image).encode())
    middle = world.upload(json.dumps({"manifests": [{"digest": inner}]}).encode())
    world.name("image", json.dumps({"manifests": [{"digest": middle}]}).encode(), INDEX)
    world.name(None, b'{"a manifest": "without a tag"}')
    before = world.files()
    world.passes(days=9)

    report = world.gc(grace=NO_GRACE)

    assert report.status == "done", report.problems
    assert world.files() == before
    assert report.entries_deleted == 0


def test_documents_that_name_each_other_do_not_hold_a_run_up(world: World) -> None:
    # No digest can name itself; a name that was never checked can.
    one, other = layer_of("one"), layer_of("other")
    (world.blobs / one[7:]).write_text(json.dumps({"digest": other}))
    (world.blobs / other[7:]).write_text(json.dumps({"digest": one}))
    world.name("loop", json.dumps({"digest": one}).encode())
    world.passes(days=9)

    assert world.gc(grace=NO_GRACE).status == "done"

    assert {one, other} <= world.stored()


def test_a_document_that_leads_too_deep_stops_the_sweep(world: World) -> None:
    world.put("orphan")
    below = world.upload(b"{}")
    for _ in range(40):
        below = world.upload(json.dumps({"digest": below}).encode())
    world.name("deep", json.dumps({"digest": below}).encode())
    world.passes(days=9)

    report = world.gc(grace=NO_GRACE)

    assert world.steps("orphan")
    assert "deep could not be read this time" in _kept(report, layer_of("orphan"))[0].sentence


def test_an_index_that_is_not_valid_keeps_nothing_alive_after_the_grace_period(
    world: World,
) -> None:
    layer = {"layers": [{"blob": layer_of("x"), "parent": 5}]}
    config = world.upload(json.dumps(layer).encode())
    described = {
        "mediaType": "x",
        "digest": layer_of("x"),
        "size": 1,
        "annotations": {"containerd.io/uncompressed": layer_of("y")},
    }
    head = {"mediaType": "application/vnd.buildkit.cacheconfig.v0", "digest": config, "size": 1}
    world.put("maybe")
    world.name("api", json.dumps({"config": head, "layers": [described]}).encode())

    report = world.gc()

    assert _written(report) == ["api"]
    assert "is invalid: layer 0: its parent is out of range" in report.actions[0].sentence
    assert world.leads_to("api") == set()
    assert world.steps("maybe")
    world.passes(hours=25)
    world.gc()
    assert not world.steps("maybe")


def test_a_tag_whose_manifest_is_missing_is_reported_and_holds_nothing_up(world: World) -> None:
    world.build("base", "api")
    gone = world.build("base", "web", tag="web")
    (world.blobs / gone[7:]).unlink()
    world.put("orphan")
    world.passes(days=2)

    report = world.gc()

    assert not world.steps("orphan")
    assert world.tags() == ["api", "web"]
    assert "is missing" in _kept(report, "web")[0].sentence


def test_damaged_blobs_count_as_missing_if_they_are_looked_for(world: World) -> None:
    world.build("base", "api", "test")
    damaged = world.blobs / layer_of("api")[7:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"xyz")
    world.touch(damaged)
    assert not _written(world.gc())

    report = world.gc(verify=True)

    assert world.leads_to() == layers_of("base")
    assert "does not match its digest" in _kept(report, layer_of("api"))[0].sentence
    world.passes(hours=25)
    world.gc(verify=True)
    assert not damaged.exists(), "the next export stores it anew"


def test_a_damaged_blob_counts_as_missing_until_its_content_is_right_again(
    world: World,
) -> None:
    below = "base", "tools", "packages"
    world.build(*below, "api")
    world.build(*below, "web", tag="web")
    contents = {}
    for step in ("api", "web"):
        damaged = world.blobs / layer_of(step)[7:]
        contents[damaged] = damaged.read_bytes()
        damaged.chmod(0o644)
        damaged.write_bytes(b"xyz")
        world.touch(damaged)
    world.passes(hours=1)
    world.gc(verify=True)

    world.passes(hours=1)
    report = world.gc()

    assert world.leads_to() == world.leads_to("web") == layers_of(*below)
    assert "does not match its digest" in _kept(report, layer_of("api"))[0].sentence

    api, web = contents
    api.write_bytes(contents[api])
    world.touch(api)
    world.gc()
    assert world.leads_to() == layers_of(*below, "api")

    before = web.stat()
    web.write_bytes(contents[web])
    os.utime(web, ns=(before.st_atime_ns, before.st_mtime_ns))
    world.gc()
    assert world.leads_to("web") == layers_of(*below, "web"), "as a backup restores it"


def test_a_blob_that_was_written_anew_and_is_damaged_again_counts_as_missing(world: World) -> None:
    world.build("base", "tools", "packages", "api")
    damaged = world.blobs / layer_of("api")[7:]
    damaged.chmod(0o644)
    for content in (b"xyz", b"zyx"):
        world.passes(hours=1)
        damaged.write_bytes(content)
        world.touch(damaged)
        world.passes(hours=1)
        world.gc(verify=True)

    world.gc()

    assert world.leads_to() == layers_of("base", "tools", "packages")


def test_a_blob_that_is_empty_after_a_power_cut_counts_as_missing_unless_nothing_is_its_content(
    world: World,
) -> None:
    world.build("base", "tools", "packages", "api")
    world.build("base", "tools", "packages", "", tag="web")
    world.gc()
    cut = world.blobs / layer_of("api")[7:]
    cut.chmod(0o644)
    os.truncate(cut, 0)

    report = world.gc()

    assert world.leads_to() == layers_of("base", "tools", "packages")
    assert world.leads_to("web") == layers_of("base", "tools", "packages", "")
    assert "does not match its digest" in _kept(report, layer_of("api"))[0].sentence
    world.passes(hours=25)
    world.gc()
    assert not cut.exists(), "the next export stores it anew"


def test_of_many_damaged_blobs_a_few_are_logged_and_the_report_has_all(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"step {number}" for number in range(15)]
    world.build(*names)
    for name in names:
        cut = world.blobs / layer_of(name)[7:]
        cut.chmod(0o644)
        os.truncate(cut, 0)

    report = world.gc(accept_loss=True)

    logged = [one.getMessage() for one in caplog.records if "digest" in one.getMessage()]
    assert len(logged) == len(set(logged)) == 10
    assert all(_kept(report, layer_of(name)) for name in names)


@pytest.mark.parametrize("how", [{"repair": True}, {"no_sweep": True}, {}], ids=str)
def test_what_cannot_be_done_in_a_directory_that_is_read_only_is_an_error(
    world: World, how: dict[str, Any]
) -> None:
    world.build("base", "tools", "api")
    world.gc()
    assert not world.gc(**how).problems
    (world.blobs / layer_of("api")[7:]).unlink()
    world.path.chmod(0o555)
    try:
        with bound_by_modes():
            planned = world.gc(dry_run=True, **how)
            report = world.gc(**how)
    finally:
        world.path.chmod(0o755)

    assert planned.status == "done"
    assert report.status == "failed"
    assert "this user may not write it, so nothing was changed" in report.problems[0]


def test_damaged_blobs_of_another_size_are_told_without_reading_them(world: World) -> None:
    world.build("base", "api")
    damaged = world.blobs / layer_of("api")[7:]
    damaged.chmod(0o644)
    os.truncate(damaged, 2**41)

    world.gc(verify=True)

    assert world.leads_to() == layers_of("base")


def test_a_large_blob_is_not_read_beyond_the_deadline(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api")
    # No manifest that is read says how large it is.
    place = world.blobs / world.build("base", "api")[7:]
    manifest = json.loads(place.read_bytes())
    for layer in manifest["layers"]:
        layer["size"] = 0
    world.name("api", json.dumps(manifest).encode())
    large = world.blobs / layer_of("api")[7:]
    large.chmod(0o644)
    os.truncate(large, 2**41)
    read, size = os.read, 0

    def takes_time(number: int, most: int) -> bytes:
        nonlocal size
        piece = read(number, most)
        if _is(number, large):
            world.passes(seconds=1)
            size += len(piece)
        return piece

    monkeypatch.setattr(os, "read", takes_time)

    report = world.gc(verify=True, deadline=timedelta(seconds=9))

    assert "--deadline has passed" in report.problems[0]
    assert 0 < size <= 10 * 2**20


def test_a_dry_run_changes_nothing_and_tells_the_plan_that_is_then_carried_out(
    world: World,
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    world.put("orphan")
    world.passes(days=2)
    before = world.files()

    planned = world.gc(dry_run=True)

    assert world.files() == before
    done = world.gc()
    assert [(a.kind, a.subject, a.sentence) for a in planned.actions] == [
        (a.kind, a.subject, a.sentence) for a in done.actions
    ]
    assert {a.outcome_sentence for a in planned.actions} == {"planned", "kept"}
    assert {a.outcome_sentence for a in done.actions} == {"done", "kept"}


def test_the_database_calls_no_manifest_newest_that_a_run_has_replaced(world: World) -> None:
    """Whoever looks into it after a run need not wait for the next one."""
    world.build("base", "api", "test")
    (replaced,) = (digest for _, digest in world.names())
    world.gc()
    world.evict("test")
    states = f"SELECT state, reason FROM blobs WHERE digest = '{replaced}'"
    assert query(world.database, states) == [("newest", "read_by_builds")]

    report = world.gc()

    assert replaced not in dict(world.names()).values()
    assert query(world.database, states) == [("superseded", "grace")]
    assert sum(one.entries for one in report.entries if one.state == "superseded") == 2


def test_a_replaced_manifest_that_something_else_needs_is_not_called_superseded(
    world: World,
) -> None:
    shared = world.build("base", "test")
    world.name(None, (world.blobs / shared.removeprefix("sha256:")).read_bytes())
    world.evict("test")

    world.gc()

    assert ("api", shared) not in world.names()
    states = f"SELECT state, reason FROM blobs WHERE digest = '{shared}'"
    assert query(world.database, states) == [("reachable", "needed_by_other_tag")]


def test_without_a_sweep_nothing_is_deleted(world: World) -> None:
    world.put("orphan")
    world.passes(days=2)

    world.gc(no_sweep=True, grace=NO_GRACE)

    assert world.steps("orphan")


# Builds that export meanwhile.


def test_an_export_between_looking_and_replacing_is_not_hidden(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api", "test")
    world.build("base", "web", tag="web")
    world.evict("test")
    once_before_the_lock(monkeypatch, lambda: world.build("base", "newer"))

    report = world.gc()

    assert report.status == "done", report.problems
    assert world.leads_to("api") == layers_of("base", "newer")


def test_a_manifest_that_a_build_brings_back_during_a_run_has_its_grace_period_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = timedelta(days=1)
    manifest = world.build("base", "one")
    world.gc(grace=day, remember_exports=30 * day)
    built_then = world.now
    for step in ("two", "three"):
        world.passes(hours=20)
        world.build("base", step)
        if step == "two":
            world.gc(grace=day, remember_exports=30 * day)

    def bring_it_back() -> None:
        assert world.export(built("base", "one", at=built_then), tag="api") == manifest

    once_before_the_lock(monkeypatch, bring_it_back)
    world.gc(grace=day, remember_exports=30 * day)
    monkeypatch.undo()
    world.passes(hours=5)
    world.gc(grace=day, remember_exports=30 * day)

    assert manifest in world.stored()


@pytest.mark.parametrize("step", range(5, 60, 5))
def test_an_export_meanwhile_that_brings_back_what_was_missing_is_not_hidden(
    world: World, step: int
) -> None:
    export = world.build("base", "api")
    world.evict("base")
    again: list[str] = []

    def build(number: int) -> None:
        if number >= step and not again:
            with suppress(LockTakenError):  # A builder waits for the lock.
                again.append(world.build("base", "api"))

    with Watcher(world).run(NO_GRACE, build):
        world.gc(grace=timedelta(days=1))
    world.gc(grace=timedelta(days=1))

    assert again in ([], [export])
    assert world.leads_to() == (layers_of("base", "api") if again else set())


def test_an_export_to_another_tag_meanwhile_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    once_before_the_lock(monkeypatch, lambda: world.build("base", "web", tag="web"))

    assert _written(world.gc()) == ["api"]

    assert world.leads_to("api") == layers_of("base", "api")
    assert world.leads_to("web") == layers_of("base", "web")


@pytest.mark.parametrize("tag", ["web", "api"])
def test_an_export_into_the_file_that_was_just_replaced_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    # A build has let go of the lock, another one has taken it, and the first one removes it.
    before = (world.path / "index.json").read_bytes()
    exported = world.export(built("base", "api", "new", at=world.now), tag=tag)
    after = (world.path / "index.json").read_bytes()
    (world.path / "index.json").write_bytes(before)
    rename = os.rename

    def write_late(old: str, new: str, **where: int) -> None:
        if new != "index.json":
            rename(old, new, **where)
            return
        monkeypatch.setattr(os, "rename", rename)
        with (world.path / "index.json").open("r+b") as opened:
            rename(old, new, **where)
            opened.write(after)
            opened.truncate()

    monkeypatch.setattr(os, "rename", write_late)

    report = world.gc(grace=NO_GRACE)

    assert report.status == "done", report.problems
    assert dict(world.names())[tag] == exported
    assert world.leads_to("api") == layers_of("base", "api")
    assert report.entries_deleted == 0


def test_a_lock_that_a_build_holds_is_waited_for_politely_and_then_left(world: World) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    before = world.files()

    with locked(world.path):
        report = world.gc()

    assert report.status == "done"
    assert report.actions[0].outcome_sentence == "deferred: a build holds index.json.lock"
    assert 5 < sum(world.patient) < 30
    assert world.files()["index.json"] == before["index.json"]
    assert _written(world.gc()) == ["api"]


def test_the_lock_is_gone_afterwards_and_no_temporary_file_is_left(world: World) -> None:
    world.build("base", "api", "test")
    world.evict("test")

    world.gc()

    assert {path.name for path in world.path.iterdir()} == {
        "blobs",
        "index.json",
        "ingest",
        "oci-layout",
    }


def test_the_lock_is_held_at_one_step_only(world: World) -> None:
    world.build("base", "api", "gone")
    world.build("base", "web", tag="web")
    world.evict("gone")
    failed = []

    def build(step: int) -> None:
        try:
            with locked(world.path):
                pass
        except LockTakenError:
            failed.append(step)

    with Watcher(world).run(NO_GRACE, build):
        world.gc(grace=NO_GRACE)

    assert len(failed) == 1


def test_a_lock_file_that_somebody_has_left_is_no_lock(world: World) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    (world.path / "index.json.lock").touch()

    assert _written(world.gc()) == ["api"]

    assert (world.path / "index.json.lock").exists(), "it is not ours"


def test_no_blob_is_swept_that_an_export_meanwhile_may_need(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api")
    orphans = sorted(world.put(f"orphan {number}") for number in range(9))
    world.passes(days=2)
    unlink = os.unlink
    last = orphans[-1].name

    def export(name: str, **where: int) -> None:
        monkeypatch.setattr(os, "unlink", unlink)
        unlink(name, **where)
        # It has found the blob stored, and names it.
        content = next(f"orphan {n}" for n in range(9) if layer_of(f"orphan {n}")[7:] == last)
        world.export(built(content), tag="new")

    monkeypatch.setattr(os, "unlink", export)

    report = world.gc()

    outcomes = [a.outcome_sentence for a in report.actions if a.kind == "delete"]
    assert outcomes == [
        "done",
        *["skipped: a build has exported since the run began and may need it"] * 8,
    ]
    assert orphans[-1].exists()
    assert world.leads_to("new")


def test_no_blob_is_swept_while_a_build_uploads_and_a_dead_upload_holds_nothing_up(
    world: World,
) -> None:
    world.put("orphan")
    world.passes(days=2)
    world.begin_upload("something")
    world.passes(minutes=50)

    report = world.gc()

    assert world.steps("orphan")
    assert (
        "a build is uploading"
        in next(a for a in report.actions if a.kind == "delete").outcome_sentence
    )
    world.passes(minutes=20)
    world.gc()
    assert not world.steps("orphan")


def test_between_two_uploads_of_a_build_nothing_that_it_has_found_is_swept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        world.put(f"orphan {number}")
    world.passes(days=2)
    uploading = world.begin_upload(layer_of("lib"))
    look, looks = os.scandir, iter(range(100))

    def end_the_upload(where: object) -> object:
        # One look is for uploads that were left. The next one sees it; at the one after that, the
        # build would be between two uploads.
        ingest = uploading.parent.parent
        if isinstance(where, int) and _is(where, ingest) and next(looks) == 2:
            world.end_upload(uploading, world.blobs / layer_of("lib")[7:])
            os.utime(ingest, (0, 0))  # so that nothing of it is to be seen
        return look(where)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", end_the_upload)

    report = world.gc()

    assert report.entries_deleted == 0
    assert len(world.stored()) == 9


def test_a_build_that_has_uploaded_and_not_exported_stops_the_sweep_for_an_hour(
    world: World,
) -> None:
    world.put("orphan")
    world.passes(days=2)
    world.put("lib")

    report = world.gc()

    assert world.steps("orphan")
    deletion = next(a for a in report.actions if a.kind == "delete")
    assert "has uploaded but not exported yet" in deletion.outcome_sentence
    world.passes(hours=1)
    world.gc()
    assert not world.steps("orphan")


@pytest.mark.parametrize("cut_off", [0, 1.5], ids=["exact times", "coarse times"])
def test_what_a_run_writes_is_no_export_of_the_build_that_has_uploaded(
    world: World, cut_off: float
) -> None:
    world.build("base", "api", "test")
    world.put("orphan")
    world.gc()
    world.passes(days=2)
    world.evict("test")
    world.put("lib")
    world.passes(minutes=1)
    assert _written(world.gc()) == ["api"]
    at = world.now.timestamp() - cut_off
    os.utime(world.path / "index.json", (at, at))
    world.passes(minutes=10)

    world.gc()

    assert world.steps("orphan")
    world.passes(hours=1)
    world.gc()
    assert not world.steps("orphan")


@pytest.mark.parametrize("grace", [NO_GRACE, timedelta(minutes=10)])
def test_an_upload_stops_the_sweep_for_an_hour_however_short_the_grace_period_is(
    world: World, grace: timedelta
) -> None:
    world.put("orphan")
    world.passes(days=2)
    world.begin_upload("something")
    world.passes(minutes=59)

    assert world.gc(grace=grace).entries_deleted == 0

    world.passes(minutes=1)
    assert world.gc(grace=grace).entries_deleted == 1


@pytest.mark.parametrize("name", ["ingest", "blobs/sha256"])
def test_a_directory_that_is_replaced_while_a_run_works_stops_the_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for number in range(5):
        world.put(f"orphan {number}")
    world.passes(days=2)
    unlink = os.unlink

    def replace_it(path: str, **where: int) -> None:
        monkeypatch.setattr(os, "unlink", unlink)
        unlink(path, **where)
        (world.path / name).rename(world.path / "old")
        (world.path / name).mkdir()

    monkeypatch.setattr(os, "unlink", replace_it)

    report = world.gc()

    assert report.entries_deleted == 1
    skipped = [a.outcome_sentence for a in report.actions if "skipped" in a.outcome_sentence]
    assert len(skipped) == 4
    assert all(f"{name} was replaced since the run began" in outcome for outcome in skipped)


def test_no_tag_is_led_to_blobs_in_a_directory_that_was_replaced_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    index = (world.path / "index.json").read_bytes()
    rename, once = os.rename, iter([True])

    def replace_first(old: str, new: str, **where: int) -> None:
        rename(old, new, **where)
        if len(new) == 64 and next(once, False):
            shutil.copytree(world.blobs, world.path / "copy")
            rename(world.blobs, world.path / "old")
            rename(world.path / "copy", world.blobs)

    monkeypatch.setattr(os, "rename", replace_first)

    report = world.gc()

    assert "was replaced since the run began" in report.problems[0]
    assert (world.path / "index.json").read_bytes() == index
    assert world.leads_to() == layers_of("base", "api")


def test_a_file_that_was_written_anew_since_it_was_seen_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = world.put("orphan")
    world.passes(days=2)
    look = os.stat

    def write_first(name: object, **how: object) -> os.stat_result:
        if name == orphan.name and orphan.exists():
            os.utime(orphan)
        return look(name, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", write_first)

    report = world.gc()

    assert orphan.exists()
    assert [a.outcome_sentence for a in report.actions if a.kind == "delete"] == [
        "skipped: it was rewritten since the run began"
    ]


def test_a_layout_file_that_a_build_is_writing_is_read_once_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api")
    layout = world.path / "oci-layout"
    content = layout.read_text()
    layout.write_text("")
    close, once = os.close, iter([True])

    def write_then(number: int) -> None:
        if _is(number, layout) and next(once, False):
            layout.write_text(content)
        close(number)

    monkeypatch.setattr(os, "close", write_then)

    assert world.gc().status == "done"


def test_the_lock_can_be_opened_by_builders_of_other_users_whatever_the_umask_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    lock, rename, modes = world.path / "index.json.lock", os.rename, []

    def look_first(old: str, new: str, **where: int) -> None:
        if new == "index.json":
            modes.append(lock.stat().st_mode & 0o777)
        rename(old, new, **where)

    monkeypatch.setattr(os, "rename", look_first)
    before = os.umask(0o077)
    try:
        world.gc()
    finally:
        os.umask(before)

    assert modes == [0o644]


def test_a_temporary_file_of_another_run_that_goes_meanwhile_holds_nothing_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    other = world.path / ".maintainer-0123456789abcdef.tmp"
    other.touch()
    look = os.stat

    def take_away(name: object, **how: object) -> os.stat_result:
        if name == other.name:
            other.unlink(missing_ok=True)
        return look(name, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", take_away)

    assert _written(world.gc()) == ["api"]


@pytest.mark.parametrize("merged_tag", ["", "maintained"])
def test_a_manifest_that_another_run_has_replaced_meanwhile_is_left_for_the_next_run(
    world: World, monkeypatch: pytest.MonkeyPatch, merged_tag: str
) -> None:
    manifest = world.build("base", "api", "test")
    world.build("base", "web", tag="web")
    world.evict("test")
    open_file, opened = os.open, iter(range(100))

    def take_away(name: str, *how: int, **where: int) -> int:
        if name == manifest[7:] and next(opened) == 2 + bool(merged_tag):
            (world.blobs / name).unlink()
        return open_file(name, *how, **where)

    monkeypatch.setattr(os, "open", take_away)

    report = world.gc(merged_tag=merged_tag)

    assert report.status == "done", report.problems
    assert any(a.outcome_sentence.startswith("deferred: the manifest") for a in report.actions)


def test_a_blob_that_is_lost_after_the_look_is_in_no_index_that_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    rename = os.rename

    def lose_first(old: str, new: str, **where: int) -> None:
        if new != "index.json" and world.steps("api"):
            world.evict("api")
        rename(old, new, **where)

    monkeypatch.setattr(os, "rename", lose_first)

    [write] = [a for a in world.gc().actions if a.kind == "write"]

    assert write.outcome_sentence == (
        f"deferred: {layer_of('api')}, which it would reference, is gone since the run looked"
    )
    world.gc()
    assert world.leads_to("api") == layers_of("base")


@pytest.mark.parametrize("hours", [25, 24 * 7])
def test_what_a_copy_with_its_times_has_brought_so_far_stays(
    world: World, tmp_path: Path, hours: int
) -> None:
    world.build("base", "api")
    original = World(tmp_path / "original", tmp_path / "other.db", world.now)
    shutil.copytree(world.path, original.path)
    world.gc()
    original.now += timedelta(minutes=5)
    original.build("base", "api", "new")
    world.passes(hours=hours)
    for source in sorted(path for path in original.blobs.iterdir()):
        if not (world.blobs / source.name).exists():
            shutil.copy2(source, world.blobs)

    world.gc()
    shutil.copy2(original.path / "index.json", world.path / "index.json")

    assert layers_of("base", "api", "new") <= world.stored()
    assert world.leads_to() == layers_of("base", "api", "new")


@pytest.mark.parametrize("moment", ["waiting for the lock", "after the replacement"])
def test_what_another_run_deletes_before_a_tag_leads_to_it_is_written_again(
    world: World, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    before = world.stored()

    def sweep() -> None:
        for blob in world.stored() - before:
            (world.blobs / blob[7:]).unlink()

    rename = os.rename

    def sweep_late(old: str, new: str, **where: int) -> None:
        rename(old, new, **where)
        if new == "index.json":
            sweep()

    if moment == "waiting for the lock":
        # The other run read `index.json` before that was replaced, so it notices nothing.
        once_before_the_lock(monkeypatch, sweep)
    else:
        monkeypatch.setattr(os, "rename", sweep_late)

    report = world.gc(grace=NO_GRACE)

    assert report.status == "done", report.problems
    assert world.leads_to("api") == layers_of("base", "api")


def test_what_a_killed_run_had_left_is_not_deleted_once_a_tag_leads_to_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    before = world.files()
    world.gc(grace=NO_GRACE)
    written, whole = world.files(), world.stored()
    for name in before.keys() - written.keys():
        (world.path / name).write_bytes(before[name])
    (world.path / "index.json").write_bytes(before["index.json"])
    world.settle()
    # The clock of a file system may be so coarse that a file that is written again looks the same.
    once_before_the_lock(monkeypatch, world.settle)

    report = world.gc(grace=NO_GRACE)

    assert report.status == "done", report.problems
    assert world.leads_to("api") == layers_of("base", "api")
    assert whole <= world.stored()


def test_a_run_on_a_full_disk_frees_what_is_unreferenced_and_the_next_one_repairs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "tools", "api")
    world.put("orphan")
    world.evict("api")
    world.passes(hours=25)
    index = (world.path / "index.json").read_bytes()
    open_file = os.open

    def open_on_a_full_disk(name: str, *how: int, **where: int) -> int:
        if str(name).startswith(".maintainer-"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open_file(name, *how, **where)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_on_a_full_disk)
        report = world.gc(grace=NO_GRACE)

    assert "No space left on device" in report.problems[0]
    assert not world.steps("orphan")
    assert world.steps("base", "tools") == layers_of("base", "tools")
    assert (world.path / "index.json").read_bytes() == index

    assert world.gc(grace=NO_GRACE).status == "done"
    assert world.leads_to() == layers_of("base", "tools")


def test_a_layout_without_blobs_of_our_algorithm_gets_a_directory_for_them(world: World) -> None:
    world.build("base", "api", "test")
    names = {}
    for path in world.blobs.iterdir():
        names[path.name] = path.read_bytes()
    place = world.path / "blobs" / "sha512"
    place.mkdir()
    index = json.loads((world.path / "index.json").read_bytes())["manifests"][0]
    manifest = json.loads(names[index["digest"][7:]])
    config = names[manifest["config"]["digest"][7:]]
    for old in {layer_of(step)[7:] for step in ("base", "api", "test")}:
        new = hashlib.sha512(names[old]).hexdigest()
        (place / new).write_bytes(names[old])
        config = config.replace(f"sha256:{old}".encode(), f"sha512:{new}".encode())
        manifest = json.loads(json.dumps(manifest).replace(f"sha256:{old}", f"sha512:{new}"))
    manifest["config"] |= {"digest": _put_sha512(place, config), "size": len(config)}
    content = json.dumps(manifest).encode()
    index |= {"digest": _put_sha512(place, content), "size": len(content)}
    (world.path / "index.json").write_text(json.dumps({"manifests": [index]}))
    (place / hashlib.sha512(b"test").hexdigest()).unlink()
    shutil.rmtree(world.blobs)

    report = world.gc()

    assert report.status == "done", report.problems
    assert len(list(world.blobs.iterdir())) == 2


def _put_sha512(place: Path, content: bytes) -> str:
    digits = hashlib.sha512(content).hexdigest()
    (place / digits).write_bytes(content)
    return f"sha512:{digits}"


# Accidents.


@pytest.mark.parametrize("what", ["oci-layout", "index.json"])
def test_a_directory_that_is_no_layout_any_more_is_left_alone(world: World, what: str) -> None:
    world.build("base", "api")
    world.gc()
    (world.path / what).unlink()
    before = world.files()

    report = world.gc(grace=NO_GRACE)

    assert report.status == "failed"
    assert len(report.problems) == 1
    assert world.files() == before


def test_blobs_that_are_gone_all_at_once_are_taken_for_an_accident(world: World) -> None:
    world.build("base", "api", "test")
    world.put("orphan")
    world.gc()
    world.evict("base", "api")
    world.passes(days=2)
    before = world.files()

    report = world.gc()

    assert report.status == "failed"
    assert "only 1 of 3 blobs that the indexes need were found" in report.problems[0]
    assert world.files() == before
    assert world.gc(accept_loss=True).status == "done"
    assert world.leads_to() == set()
    assert not world.steps("orphan")


def test_tags_that_are_gone_all_at_once_are_taken_for_an_accident(world: World) -> None:
    for tag in ("a", "b", "c"):
        world.build("base", tag, tag=tag)
    world.gc()
    (world.path / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    world.passes(days=9)

    report = world.gc(grace=NO_GRACE)

    assert report.status == "failed"
    assert "only 0 of 3 known indexes" in report.problems[0]
    assert world.steps("base", "a", "b", "c") == layers_of("base", "a", "b", "c")


def test_what_builders_delete_themselves_with_reset_is_no_accident(world: World) -> None:
    world.build(*(f"old {number}" for number in range(9)))
    world.gc()
    world.build("base", "new")
    world.evict(*(f"old {number}" for number in range(9)))

    report = world.gc()

    assert report.status == "done", report.problems


def test_a_blob_that_is_written_again_and_is_still_stored_counts_once(world: World) -> None:
    """What a run writes may have the config of before."""
    world.build("a", "b")
    world.passes(hours=1)
    world.evict("b")
    world.gc()
    world.passes(hours=1)
    (world.blobs / dict(world.names())["api"][7:]).unlink()

    report = world.gc()

    sizes = [path.stat().st_size for path in world.blobs.iterdir()]
    assert report.indexes_written == 1
    assert sum(one.size for one in report.entries) == sum(sizes)
    assert sum(one.entries for one in report.entries) == len(sizes)
