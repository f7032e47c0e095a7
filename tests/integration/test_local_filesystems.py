"""What a run does in a directory on a file system that is not as others: FUSE, NFS, shares."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from maintainer.cacheconfig import content_digest
from maintainer.model.finding import Finding
from maintainer.stores.diagnose import diagnose
from maintainer.stores.local.files import Files
from tests.chosen import choose
from tests.integration.directories import World, a_directory, layer_of, layers_of
from tests.integration.world import built
from tests.privileges import bound_by_modes

NO_GRACE = timedelta(0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return a_directory(tmp_path)


def _fails(number: int) -> OSError:
    return OSError(number, os.strerror(number))


# Replacing a file that is open, as FUSE does it: two steps, of which the second may fail.


def _renames_in_two_steps(world: World, *, failures: int) -> Callable[..., None]:
    rename, left = os.rename, iter(range(failures))

    def rename_in_two_steps(old: str, new: str, **where: int) -> None:
        if new != "index.json":
            rename(old, new, **where)
            return
        if (world.path / new).exists():
            rename(world.path / new, world.path / ".fuse_hidden0000000100000001")
        if next(left, None) is not None:
            raise _fails(errno.EDQUOT)
        rename(old, new, **where)

    return rename_in_two_steps


def _a_tag_to_repair(world: World) -> None:
    world.build("base", "tools", "api")
    world.evict("api")


def test_an_index_that_is_gone_halfway_through_its_replacement_is_written_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_tag_to_repair(world)
    monkeypatch.setattr(os, "rename", _renames_in_two_steps(world, failures=1))

    report = world.gc()

    assert report.status == "done", report.problems
    assert world.leads_to() == layers_of("base", "tools")
    assert not list(world.path.glob(".maintainer-*"))


def test_an_index_that_stays_gone_is_kept_under_the_name_that_the_run_and_the_next_one_tell(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_tag_to_repair(world)
    world.put("orphan")
    world.passes(days=2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", _renames_in_two_steps(world, failures=2))
        report = world.gc(grace=NO_GRACE)

    (kept,) = world.path.glob(".maintainer-*.tmp")
    (problem,) = report.problems
    assert problem.startswith("api was not written: index.json is gone")
    assert "(Disk quota exceeded)" in problem
    assert problem.endswith(f"rename {kept.name} to index.json")
    assert world.steps("orphan"), "without an index nothing is known to be unreferenced"

    world.passes(days=9)
    (problem,) = world.gc(grace=NO_GRACE).problems
    assert f"{kept.name} may be it: if so, rename it to index.json" in problem

    kept.rename(world.path / "index.json")
    report = world.gc()
    assert report.status == "done", report.problems
    assert world.leads_to() == layers_of("base", "tools")


def test_an_index_that_only_the_file_system_still_has_is_named(world: World) -> None:
    world.build("base", "api")
    (world.path / ".maintainer-0123456789abcdef.tmp").write_text('{"a config": 1}')
    hidden = world.path / ".fuse_hidden0000000100000001"
    (world.path / "index.json").rename(hidden)
    before = world.files()

    (problem,) = world.gc().problems

    assert f"{hidden.name} may be it" in problem
    assert world.files() == before


# Files that cannot be deleted: immutable ones, and another user's in a sticky directory.


def _refuses_to_delete(*paths: Path, number: int = errno.EPERM) -> Callable[..., None]:
    unlink, places = os.unlink, {(path.name, path.parent.stat().st_ino) for path in paths}

    def refuse(name: str, **where: int) -> None:
        if where and (name, os.fstat(where["dir_fd"]).st_ino) in places:
            raise _fails(number)
        unlink(name, **where)

    return refuse


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_blob_that_cannot_be_deleted_does_not_keep_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    orphans = sorted((world.put(f"orphan {number}") for number in range(5)), key=str)
    world.passes(days=2)
    monkeypatch.setattr(os, "unlink", _refuses_to_delete(*orphans[:2], number=number))

    report = world.gc()

    assert report.status == "failed"
    assert [path for path in orphans if path.exists()] == orphans[:2]
    assert report.problems == tuple(
        f"sha256:{path.name} was not deleted: {os.strerror(number)}: "
        "only its owner may delete it, or it is immutable (`lsattr`)"
        for path in orphans[:2]
    )
    assert report.entries_deleted == 3


def test_an_upload_that_cannot_be_deleted_does_not_keep_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = sorted((world.begin_upload(str(number)).parent for number in range(3)), key=str)
    world.passes(days=3)
    monkeypatch.setattr(os, "unlink", _refuses_to_delete(uploads[0] / "data"))

    report = world.gc(grace=NO_GRACE)

    assert [path for path in uploads if path.exists()] == uploads[:1]
    (problem,) = report.problems
    assert problem.startswith(f"ingest/{uploads[0].name} was not deleted: Operation not permitted")


def test_a_directory_that_cannot_be_written_ends_the_sweep_at_its_first_blob(world: World) -> None:
    for number in range(5):
        world.put(f"orphan {number}")
    world.passes(days=2)
    world.blobs.chmod(0o555)
    try:
        with bound_by_modes():
            report = world.gc()
    finally:
        world.blobs.chmod(0o755)

    (problem,) = report.problems
    assert problem.endswith("was not deleted: blobs/sha256 cannot be written: Permission denied")
    assert len(world.stored()) == 5


def test_of_many_blobs_that_cannot_be_deleted_some_are_problems_and_the_others_are_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphans = [world.put(f"orphan {number}") for number in range(520)]
    world.passes(days=2)
    monkeypatch.setattr(os, "unlink", _refuses_to_delete(*orphans))

    report = world.gc()

    assert len(report.problems) == 11
    assert report.problems[-1].startswith("510 more entries were not deleted: ")
    deletions = [one for one in report.actions if one.kind == "delete"]
    assert all(one.outcome_sentence.startswith("refused: ") for one in deletions)


# What comes after a replacement.


def test_an_index_that_was_replaced_and_may_not_last_is_not_called_unwritten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_tag_to_repair(world)
    sync, root = os.fsync, world.path.stat()

    def refuse(number: int) -> None:
        if os.path.samestat(os.fstat(number), root):
            raise _fails(errno.EIO)
        sync(number)

    monkeypatch.setattr(os, "fsync", refuse)

    (problem,) = world.gc().problems

    assert problem == (
        "api could not be read back: index.json was replaced, and that may not last "
        f"({world.path}: Input/output error): check the disk, run again"
    )
    assert world.leads_to() == layers_of("base", "tools")


@pytest.mark.parametrize("exports", [False, True])
def test_what_is_cut_off_in_the_file_that_was_replaced_is_waited_for_and_no_reason_for_advice(
    world: World, monkeypatch: pytest.MonkeyPatch, *, exports: bool
) -> None:
    _a_tag_to_repair(world)
    index = world.path / "index.json"
    before = index.read_bytes()
    exported = world.export(built("base", "web", at=world.now), tag="web")
    after = index.read_bytes()
    index.write_bytes(before)
    rename, seek, reads = os.rename, os.lseek, iter(range(100))

    with index.open("r+b") as old:
        inode = os.fstat(old.fileno()).st_ino

        def cut_off(old_name: str, new: str, **where: int) -> None:
            rename(old_name, new, **where)
            if new == "index.json" and index.stat().st_ino != inode:
                os.truncate(old.fileno(), 10)

        def export_late(number: int, place: int, how: int) -> int:
            is_old = os.fstat(number).st_ino == inode
            if is_old and os.fstat(number).st_size == 10 and next(reads) == 5 and exports:
                os.pwrite(old.fileno(), after, 0)
            return seek(number, place, how)

        monkeypatch.setattr(os, "rename", cut_off)
        monkeypatch.setattr(os, "lseek", export_late)
        report = world.gc()

    assert report.status == "done", report.problems
    assert world.leads_to() == layers_of("base", "tools")
    assert [one for one in world.names() if one[0] == "web"] == [("web", exported)] * exports


def test_an_export_that_could_not_be_restored_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_tag_to_repair(world)
    index = world.path / "index.json"
    seek, sizes = os.lseek, iter(range(1_000))
    with index.open("r+b") as old:
        there = os.fstat(old.fileno())

        def never_end(number: int, place: int, how: int) -> int:
            if os.path.samestat(os.fstat(number), there) and not _is_at(there, index):
                os.pwrite(old.fileno(), b" " * next(sizes) + b'{"manifests":[]}', there.st_size)
                os.pwrite(old.fileno(), b" " * there.st_size, 0)
            return seek(number, place, how)

        monkeypatch.setattr(os, "lseek", never_end)
        (problem,) = world.gc().problems

    assert problem == (
        "api could not be read back: index.json was replaced, and if a build has exported to the "
        "old one at that moment, this could not be restored (it never stops changing): let it "
        "export again"
    )
    assert world.leads_to() == layers_of("base", "tools")


def _is_at(file: os.stat_result, path: Path) -> bool:
    return os.path.samestat(file, path.stat())


# Errors that say nothing about what was done.


def test_an_error_of_closing_what_was_only_read_is_no_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_tag_to_repair(world)
    upload = world.begin_upload("left").parent
    orphan = world.put("orphan")
    world.passes(days=3)
    close, failed = os.close, []

    def fail(number: int) -> None:
        there = os.fstat(number).st_ino
        close(number)
        if there in {path.lstat().st_ino for path in (world.path, *world.path.rglob("*"))}:
            failed.append(there)
            raise _fails(errno.EIO)

    monkeypatch.setattr(os, "close", fail)

    report = world.gc(grace=NO_GRACE)

    assert report.status == "done", report.problems
    assert world.leads_to() == layers_of("base", "tools")
    assert failed
    assert not upload.exists()
    assert not orphan.exists()


@pytest.mark.parametrize(("what", "status"), [("directory", "done"), ("file", "failed")])
def test_a_file_system_that_can_make_only_files_durable_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str, status: str
) -> None:
    _a_tag_to_repair(world)
    sync = os.fsync

    def refuse(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode) == (what == "directory"):
            raise _fails(errno.EINVAL)
        sync(number)

    monkeypatch.setattr(os, "fsync", refuse)

    assert world.gc().status == status


def test_a_new_directory_of_blobs_can_be_written_by_all_who_write_those_beside_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api")
    blobs = world.blobs.parent
    world.blobs.rename(blobs / "gone")
    blobs.chmod(0o2775)
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda number, *to: given.append(to))
    before = os.umask(0o077)
    try:
        with closing(Files(world.path)) as files:
            files.write_blob(content_digest(b"new"), b"new")
    finally:
        os.umask(before)

    assert world.blobs.stat().st_mode & 0o7777 == 0o2775
    assert given == [(blobs.stat().st_uid, blobs.stat().st_gid)]


# Disks that fail.


@pytest.mark.parametrize("operation", ["open", "read"])
def test_a_blob_that_the_disk_cannot_read_counts_as_damaged(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    operation: str,
) -> None:
    world.build("base", "tools", "api")
    bad = world.blobs / layer_of("api")[7:]
    inode, work = bad.stat().st_ino, getattr(os, operation)

    def fail(what: object, *how: int, **where: int) -> object:
        if what == bad.name or (isinstance(what, int) and os.fstat(what).st_ino == inode):
            raise _fails(errno.EIO)
        return work(what, *how, **where)

    monkeypatch.setattr(os, operation, fail)

    report = world.gc(verify=True)

    assert report.status == "done", report.problems
    assert world.leads_to() == layers_of("base", "tools")
    assert f"{layer_of('api')}: it cannot be read (Input/output error)" in caplog.messages


class _Unknown:
    """A file that is listed, and cannot be looked at."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        raise _fails(errno.EIO)


def test_a_file_that_cannot_be_looked_at_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api")
    look, there = os.scandir, world.blobs.stat()

    def list_one_more(where: int | str) -> object:
        if isinstance(where, int) and os.path.samestat(os.fstat(where), there):
            return nullcontext([*look(where), _Unknown("unknown")])
        return look(where)

    monkeypatch.setattr(os, "scandir", list_one_more)

    assert world.gc().problems == ("blobs/sha256/unknown: Input/output error",)


def test_a_run_says_that_a_directory_is_mounted_read_only_and_not_whose_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_tag_to_repair(world)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode, **how: path != world.path and access(path, mode, **how)
    )
    flags = os.statvfs_result((0, 0, 0, 0, 0, 0, 0, 0, os.ST_RDONLY, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda number: flags)

    (problem,) = world.gc().problems

    assert problem == (
        f"local:{world.path}: it is mounted read-only, so nothing was changed: "
        "mount it so that it can be written, or run with --dry-run"
    )
    settings = choose({"store": f"local:{world.path}"})

    async def find() -> list[Finding]:
        return [one async for one in diagnose(settings, None, lambda: world.now)]

    found = anyio.run(find)[-1]
    assert found.sentence == "it is mounted read-only"
    assert found.advice == "mount it so that it can be written"


# What must not stay.


def test_what_killed_runs_have_left_goes_even_if_nothing_is_to_be_written(world: World) -> None:
    world.build("base", "api")
    old, young = (world.path / f".maintainer-{digit * 16}.tmp" for digit in "01")
    old.touch()
    world.touch(old)
    world.passes(hours=2)
    young.touch()
    world.touch(young)

    world.gc(dry_run=True)
    assert old.exists()
    world.gc(grace=NO_GRACE)

    assert not old.exists()
    assert young.exists(), "its run may be alive"


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_lock_file_that_cannot_be_locked_stays_only_if_somebody_else_has_made_it(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_ours: bool
) -> None:
    _a_tag_to_repair(world)
    lock = world.path / "index.json.lock"
    if not is_ours:
        lock.touch()

    flock = fcntl.flock

    def refuse(number: int, how: int) -> None:
        if lock.exists() and os.path.samestat(os.fstat(number), lock.stat()):
            raise _fails(errno.ENOLCK)
        flock(number, how)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        (problem,) = world.gc().problems

    assert problem == "api was not written: index.json.lock: No locks available"
    assert lock.exists() != is_ours


# Words: what happened, to what, and what to do.


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_an_owner_who_cannot_be_kept_is_not_called_a_group(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_tag_to_repair(world)
    owner = os.geteuid() + 1
    os.chown(world.path / "index.json", owner, -1)

    def refuse(*_: int) -> None:
        raise _fails(errno.EPERM)  # As a server that takes root for nobody.

    monkeypatch.setattr(os, "fchown", refuse)

    (problem,) = world.gc().problems
    assert problem == (
        f"api was not written: the old file belongs to user {owner}, and this user cannot give "
        f"that user the new one: run as user {owner}"
    )


def test_blobs_on_another_file_system_are_an_error_that_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_tag_to_repair(world)
    rename = os.rename

    def refuse(old: str, new: str, **where: int) -> None:
        if len(new) == 64:
            raise _fails(errno.EXDEV)
        rename(old, new, **where)

    monkeypatch.setattr(os, "rename", refuse)

    (problem,) = world.gc().problems
    assert problem == (
        f"api was not written: blobs/sha256 is on another file system than {world.path}, and "
        "nothing can be renamed from one to the other: mount the whole directory as one"
    )


def test_a_manifest_that_cannot_be_read_is_named_as_everywhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = world.build("base", "api")
    open_file = os.open

    def refuse(name: str, *how: int, **where: int) -> int:
        if name == manifest[7:]:
            raise _fails(errno.EIO)
        return open_file(name, *how, **where)

    monkeypatch.setattr(os, "open", refuse)

    assert f"{manifest}: Input/output error" in "".join(world.gc().problems)
