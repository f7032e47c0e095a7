"""What anybody may have put into a directory: links, strange names, strange content."""

import errno
import json
import os
import struct
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import Digest
from maintainer.errors import MaintainerError, StoreError, UsageError
from maintainer.report.terminal import render_report
from maintainer.settings import Settings
from maintainer.stores.kinds import connect
from maintainer.stores.local.files import Files, FileState
from maintainer.stores.local.tags import Replacement, read_tags, replace_tags
from tests.integration.directories import (
    CONFIG,
    INDEX,
    MANIFEST,
    World,
    a_directory,
    layer_of,
)
from tests.integration.world import START

NO_GRACE = timedelta(0)
_NAME = "org.opencontainers.image.ref.name"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return a_directory(tmp_path)


def test_links_are_never_followed_and_what_is_no_blob_is_left_alone_and_reported(
    world: World, tmp_path: Path
) -> None:
    world.build("base", "api")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / layer_of("precious")[7:]).write_bytes(b"precious")
    (world.blobs / layer_of("link")[7:]).symlink_to(outside / layer_of("precious")[7:])
    (world.blobs / layer_of("folder")[7:]).mkdir()
    (world.blobs / "README").write_text("mine")
    (world.blobs / layer_of("x")[7:].upper()).touch()
    (world.path / "blobs" / "sha512").symlink_to(outside)
    (world.path / "blobs" / "md5").mkdir()
    world.passes(days=9)
    before = sorted(str(path) for path in tmp_path.rglob("*") if "maintainer" not in path.name)

    report = world.gc(grace=NO_GRACE)

    after = sorted(str(path) for path in tmp_path.rglob("*") if "maintainer" not in path.name)
    assert after == before
    # A directory of blobs that is a link could hold anything, so nothing is done.
    assert report.status == "failed"
    assert "sha512 is a symbolic link or not a directory: not followed" in report.problems[0]
    (world.path / "blobs" / "sha512").unlink()
    report = world.gc(grace=NO_GRACE)
    assert report.status == "done", report.problems
    told = {a.subject: a.sentence for a in report.actions if "ignored" in a.sentence}
    assert told.keys() == {
        "blobs/md5",
        "blobs/sha256/README",
        f"blobs/sha256/{layer_of('link')[7:]}",
        f"blobs/sha256/{layer_of('folder')[7:]}",
        f"blobs/sha256/{layer_of('x')[7:].upper()}",
    }
    assert report.entries_deleted == 0


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_a_layout_file_that_is_a_link_is_not_read(world: World, tmp_path: Path, name: str) -> None:
    world.put("orphan")
    world.passes(days=9)
    (world.path / name).rename(tmp_path / "elsewhere")
    (world.path / name).symlink_to(tmp_path / "elsewhere")

    report = world.gc(grace=NO_GRACE)

    assert report.status == "failed"
    assert "symbolic link" in report.problems[0]
    assert world.steps("orphan")


def test_a_named_blob_that_is_a_link_counts_as_missing(world: World, tmp_path: Path) -> None:
    world.build("base", "api", "test")
    place = world.blobs / layer_of("test")[7:]
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")

    world.gc()

    assert world.leads_to() == {layer_of("base"), layer_of("api")}
    assert place.is_symlink()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"manifests": 7}',
        b'{"manifests": [7]}',
        b'{"manifests": [{"digest": 7}]}',
        b'{"manifests": [{"annotations": {"a": 7}}]}',
        b"[" * 50_000,
        b" " * (2**20 + 1),
    ],
)
def test_an_index_that_makes_no_sense_stops_a_run_in_one_line(world: World, content: bytes) -> None:
    world.put("orphan")
    world.passes(days=9)
    (world.path / "index.json").write_bytes(content)

    report = world.gc(grace=NO_GRACE)

    assert report.status == "failed"
    (problem,) = report.problems
    assert "index.json" in problem
    assert "\n" not in problem
    assert world.steps("orphan")


def test_a_directory_whose_index_was_cut_off_can_be_used_again_once_it_is_deleted(
    world: World,
) -> None:
    for tag in ("api", "web", "docs"):
        world.build("base", tag, tag=tag)
    world.gc()
    index = world.path / "index.json"
    os.truncate(index, 300)  # As builders leave it that write it to a full disk.
    (problem,) = world.gc().problems
    assert "restore it, or delete it and let each of them export again" in problem

    index.write_text('{"schemaVersion":2,"manifests":[]}')
    world.build("base", "web", tag="web")
    assert "--accept-loss" in world.gc().problems[0]
    assert world.gc(accept_loss=True).status == "done"

    assert world.leads_to("web") == {layer_of("base"), layer_of("web")}


def test_a_manifest_that_is_too_large_is_not_read_and_stops_the_sweep(world: World) -> None:
    world.put("orphan")
    world.name("large", b"{" + b" " * 2**20 + b"}")
    world.passes(days=9)

    report = world.gc(grace=NO_GRACE)

    assert world.steps("orphan")
    assert any("more than 1,048,576 bytes" in action.sentence for action in report.actions) or any(
        "large could not be read" in action.sentence for action in report.actions
    )


def test_tags_of_terrible_names_are_shown_escaped(world: World) -> None:
    terrible = "\x1b[31mred\r\n\u202e<script>"
    world.build("base", "api", tag=terrible)

    report = world.gc()

    assert report.status == "done"
    assert report.indexes[0].scope == terrible
    from rich.console import Console

    console = Console(record=True, width=200)
    console.print(render_report(report))
    assert "\x1b[31mred" not in console.export_text(styles=False)
    assert world.gc().status == "done"


def test_descriptors_that_name_nothing_and_second_ones_of_a_tag_are_left_as_they_are(
    world: World,
) -> None:
    world.build("base", "api")
    world.build("base", "web", tag="web")
    index = json.loads((world.path / "index.json").read_bytes())
    index["manifests"][1]["annotations"] = index["manifests"][0]["annotations"]
    index["manifests"].append({"digest": "sha256:../../../etc/passwd", "extra": 1.50})
    index["unknown"] = {"kept": [1, 2]}
    content = json.dumps(index)
    (world.path / "index.json").write_text(content)
    world.passes(days=9)

    report = world.gc(grace=NO_GRACE)

    assert report.status == "done", report.problems
    assert (world.path / "index.json").read_text() == content
    assert world.steps("web"), "a second descriptor may be read by somebody"


def test_replacing_a_tag_keeps_everything_else_byte_for_byte() -> None:
    old, new = layer_of("old"), layer_of("new")
    content = (
        b'{"a":1.50,"manifests":[{"x":1e2,"digest":"%b","size":1,"annotations":'
        b'{"org.opencontainers.image.ref.name":"t"}},{"digest":"%b"}]}' % ((old.encode(),) * 2)
    )

    replaced, changed = replace_tags(
        content, {"t": Replacement(old, new, 22), "gone": Replacement(old, new, 1)}
    )

    assert replaced == content.replace(old.encode(), new.encode(), 1).replace(
        b'"size":1', b'"size":22'
    )
    assert changed == {"gone"}
    assert [one.digest for one in read_tags(replaced)] == [new, old]
    assert replace_tags(replaced, {"t": Replacement(old, new, 22)}) == (
        replaced,
        frozenset({"t"}),
    )


def test_only_what_is_a_digest_ever_becomes_a_path(world: World) -> None:
    files = Files(world.path)
    for digest in ("sha256:../../oci-layout", "sha256:..", "md5:00", "x"):
        with pytest.raises(StoreError, match="is not a valid digest"):
            files.stat(Digest(digest))
        with pytest.raises(StoreError, match="is not a valid digest"):
            files.delete_blob(Digest(digest), FileState(0, START))
    files.close()


def test_an_index_of_another_user_is_not_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    stored = world.stored()
    monkeypatch.setattr(os, "geteuid", lambda: world.path.stat().st_uid + 1)

    report = world.gc()

    assert world.stored() == stored, "blobs that no tag would reference"
    assert report.status == "failed"
    assert "only that user can replace it" in report.problems[0]
    assert world.leads_to() == {layer_of("base"), layer_of("api")}


async def _open(settings: Settings) -> None:
    async with connect(settings).open():
        pass


def test_what_is_for_directories_only_is_refused_elsewhere() -> None:
    import anyio

    with pytest.raises(
        UsageError, match="setting verify is for local, and has no effect on github"
    ):
        anyio.run(_open, Settings(verify=True))


# What is not understood: it may need anything, so nothing is swept.


def _image(world: World) -> tuple[set[str], dict[str, object]]:
    """Store an image; give its blobs and its manifest, which is not stored."""
    layer = world.upload(b"layer of busybox")
    config = world.upload(b'{"of": "busybox"}')
    image: dict[str, object] = {
        "config": {"digest": config, "size": 1},
        "layers": [{"digest": layer, "size": 1}],
    }
    return {layer, config}, image


def _is_kept(world: World, needed: set[str]) -> bool:
    world.passes(days=9)
    world.gc(grace=NO_GRACE)
    return needed <= world.stored()


@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(lambda text: " " * 100_000 + text, id="behind much white space"),
        pytest.param(lambda text: "\ufeff" + text, id="behind a byte order mark"),
        pytest.param(lambda text: text.replace("sha256:", "sha256\\u003a"), id="escaped"),
        pytest.param(lambda text: "[" + text + "]", id="in a list"),
    ],
)
def test_a_foreign_manifest_keeps_what_it_names_however_it_is_spelt(
    world: World, spell: Callable[[str], str]
) -> None:
    needed, image = _image(world)
    manifest = world.name("image", spell(json.dumps(image)).encode())

    assert _is_kept(world, {manifest, *needed})


def test_many_escaped_quotes_take_no_time(world: World) -> None:
    manifest = world.name("image", b'{"' + b'\\"' * 400_000)
    started = time.process_time()

    assert _is_kept(world, {manifest})

    assert time.process_time() - started < 5


def _strange(world: World, image: dict[str, object]) -> str:
    """Store a manifest under a digest of an algorithm that we do not know."""
    place = world.path / "blobs" / "blake3" / ("a" * 64)
    place.parent.mkdir()
    place.write_text(json.dumps(image))
    return f"blake3:{place.name}"


def test_a_tag_that_leads_to_an_unknown_algorithm_stops_the_sweep(world: World) -> None:
    needed, image = _image(world)
    _rewrite_index(world, [{"digest": _strange(world, image), "size": 5}])

    assert _is_kept(world, needed)


def test_a_document_that_names_an_unknown_algorithm_stops_the_sweep(world: World) -> None:
    needed, image = _image(world)
    above = {"manifests": [{"digest": _strange(world, image), "size": 5}]}

    assert _is_kept(world, {world.name("image", json.dumps(above).encode()), *needed})


def test_a_document_that_is_a_link_is_not_followed_and_stops_the_sweep(
    world: World, tmp_path: Path
) -> None:
    needed, image = _image(world)
    inner = world.upload(json.dumps(image).encode())
    world.name("image", json.dumps({"manifests": [{"digest": inner}]}).encode())
    place = world.blobs / inner[7:]
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")

    assert _is_kept(world, needed)


@pytest.mark.parametrize("name", ["digest", "annotations"])
def test_a_descriptor_spelt_in_another_case_as_builders_read_it_stops_the_sweep(
    world: World, name: str
) -> None:
    needed, image = _image(world)
    manifest = world.name("image", json.dumps(image).encode())
    index = world.path / "index.json"
    index.write_text(index.read_text().replace(f'"{name}"', f'"{name.title()}"'))
    world.touch(index)

    assert _is_kept(world, {manifest, *needed})


@pytest.mark.parametrize(
    "content", ["{}", '{"Manifests": []}', '{"manifests": [], "MANIFESTS": 1}']
)
def test_an_index_that_may_list_what_we_do_not_see_stops_the_run(
    world: World, content: str
) -> None:
    world.put("orphan")
    world.passes(days=9)
    (world.path / "index.json").write_text(content)
    world.touch(world.path / "index.json")

    report = world.gc(grace=NO_GRACE)

    assert report.status == "failed"
    assert "index.json" in report.problems[0]
    assert world.steps("orphan")


def test_an_image_index_that_lists_a_cache_among_images_keeps_them_all(world: World) -> None:
    needed, image = _image(world)
    listed = world.upload(json.dumps(image).encode())
    cache = world.upload(b'{"layers":[],"records":[]}')
    manifests = [
        {"mediaType": MANIFEST, "digest": listed, "size": len(json.dumps(image))},
        {"mediaType": CONFIG, "digest": cache, "size": 26},
    ]
    whole = json.dumps({"mediaType": INDEX, "manifests": manifests}).encode()

    assert _is_kept(world, {world.name("both", whole, INDEX), listed, *needed})


def _rewrite_index(world: World, descriptors: list[object]) -> None:
    (world.path / "index.json").write_text(json.dumps({"manifests": descriptors}))
    world.touch(world.path / "index.json")


@pytest.mark.parametrize(
    "content",
    [
        '{"manifests": null}',
        '{"manifests": [null]}',
        '{"manifests": [{"digest": null, "annotations": null}]}',
        '{"manifests": [{"annotations": {"org.opencontainers.image.ref.name": null}}]}',
        '{"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "\\ud800"}}]}',
    ],
)
def test_what_builders_read_as_nothing_stops_no_run(world: World, content: str) -> None:
    (world.path / "index.json").write_text(content)

    report = world.gc()

    assert report.status == "done", report.problems


def test_more_descriptors_than_memory_holds_are_refused_in_one_line(world: World) -> None:
    for descriptors in (b"{}," * 100_001, b'{"a":{}},' * 200_001, b'{"b":1,"a":1},' * 1_000_001):
        with pytest.raises(StoreError, match=r"more (values )?than 100,000"):
            read_tags(b'{"manifests":[%b{}]}' % descriptors)


def test_of_many_tags_that_are_left_alone_some_are_told_and_how_many_there_are(
    world: World,
) -> None:
    _rewrite_index(world, [{}] * 300)

    report = world.gc()

    told = [a.subject for a in report.actions if a.kind == "keep"]
    assert len(told) == 101
    assert told[-1] == "200 other names"


def test_content_that_a_descriptor_holds_itself_goes_when_its_tag_is_replaced() -> None:
    old, new = layer_of("old"), layer_of("new")
    one = {"digest": old, "size": 1, "data": "e30=", "annotations": {_NAME: "t"}}
    content = json.dumps({"manifests": [one]}).encode()

    replaced, _ = replace_tags(content, {"t": Replacement(old, new, 22)})

    assert json.loads(replaced)["manifests"] == [
        {"digest": new, "size": 22, "annotations": {_NAME: "t"}}
    ]


def test_a_tag_with_half_a_character_leads_on_to_what_is_of_use(world: World) -> None:
    world.build("base", "api", "test", tag="half")
    world.evict("test")
    index = world.path / "index.json"
    index.write_text(index.read_text().replace('"half"', '"\\ud800 \\ud83d\\ude00"'))

    assert world.gc().status == "done"

    assert world.tags() == ["\ufffd \U0001f600"]
    assert world.leads_to("\ufffd \U0001f600") == {layer_of("base"), layer_of("api")}


def test_a_lock_that_is_a_pipe_holds_no_run_up(world: World) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    os.mkfifo(world.path / "index.json.lock")

    report = world.gc()

    assert report.problems == ("api was not written: index.json.lock is not a regular file",)


@pytest.mark.parametrize(
    ("name", "problem", "status"),
    [
        ("~no such user/cache", "is not a valid directory", 2),
        ("nul\0nul", "is not a valid directory", 2),
        ("loop", "cannot be opened: Too many levels of symbolic links", 1),
        ("long" * 1250, "File name too long", 1),
        ("missing", "there is no", 1),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, problem: str, status: int
) -> None:
    import anyio

    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")

    async def opened() -> None:
        async with connect(Settings(store=f"local:{name}")).open():
            pass

    with pytest.raises(MaintainerError, match=problem) as error:
        anyio.run(opened)
    assert error.value.exit_status == status
    assert "\n" not in str(error.value)


def test_times_and_sizes_beyond_belief_stop_no_run(world: World) -> None:
    for number in range(3):
        place = world.put(f"large {number}")
        place.chmod(0o644)
        os.truncate(place, _largest_file(place))
        os.utime(place, (253402300799, 253402300799))

    report = world.gc(grace=timedelta(days=400))

    assert report.status == "done", report.problems
    assert report.entries_deleted == 0


def _largest_file(place: Path) -> int:
    """Find out how many bytes a file with a hole may have here."""
    size = 2**63 - 1
    while True:
        try:
            os.truncate(place, size)
        except OSError:
            size //= 2
        else:
            return size


@pytest.mark.parametrize(("mode", "replaced"), [(0o644, True), (0o664, False)])
def test_an_index_of_a_group_that_we_are_not_in_is_replaced_if_that_makes_no_difference(
    world: World, monkeypatch: pytest.MonkeyPatch, mode: int, replaced: bool
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    index = world.path / "index.json"
    index.chmod(mode)
    os.chown(index, -1, os.getegid() + 1)

    def refuse(*_: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)

    stored = world.stored()

    report = world.gc()

    assert (world.stored() != stored) == replaced
    assert (report.status == "done") == replaced
    assert replaced or "which this user is not in" in report.problems[0]
    assert index.stat().st_mode & 0o777 == mode


@pytest.mark.skipif(sys.platform != "linux", reason="these access control lists are Linux's")
@pytest.mark.parametrize("permissions", [6, 4], ids=["may write", "may read"])
def test_a_builder_whom_an_access_control_list_names_keeps_its_access_to_the_index(
    world: World, permissions: int
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    index = world.path / "index.json"
    index.chmod(0o640)
    granted = _acl_of(builder=1234, permissions=permissions)
    os.setxattr(index, _ACL, granted)
    mode = index.stat().st_mode

    report = world.gc()

    assert report.status == "done", report.problems
    assert world.leads_to() == {layer_of("base"), layer_of("api")}
    assert os.getxattr(index, _ACL) == granted
    assert index.stat().st_mode == mode


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere these lists are other ones")
def test_an_index_without_a_list_gets_none_from_its_directory(world: World) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    index = world.path / "index.json"
    index.chmod(0o660)
    os.setxattr(world.path, "system.posix_acl_default", _acl_of(builder=1234, permissions=6))

    report = world.gc()

    assert report.status == "done", report.problems
    assert world.leads_to() == {layer_of("base"), layer_of("api")}
    assert index.stat().st_mode & 0o777 == 0o660
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(index, _ACL)


_ACL = "system.posix_acl_access"


def _acl_of(*, builder: int, permissions: int) -> bytes:
    """Return a list, as Linux stores it: the owner writes, a user may do more than the group."""
    owner, user, group, mask, other, nobody = 1, 2, 4, 16, 32, 2**32 - 1
    entries = [
        (owner, 6, nobody),
        (user, permissions, builder),
        (group, 0, nobody),
        (mask, permissions, nobody),
        (other, 0, nobody),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


@pytest.mark.parametrize("mode_of_all", [0o755, 0o600])
def test_a_file_system_with_one_mode_for_all_files_is_written_and_a_refused_mode_is_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch, mode_of_all: int
) -> None:
    world.build("base", "api")
    open_file = os.open

    def open_with_that_mode(name: str, flags: int, mode: int = 0, **where: int) -> int:
        del mode
        return open_file(name, flags, mode_of_all, **where)

    def refuse(number: int, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_with_that_mode)
        patch.setattr(os, "fchmod", refuse)
        report = world.gc(merged_tag="maintained")

    is_written = mode_of_all != 0o600
    assert ("maintained" in world.tags()) == is_written
    assert bool(report.problems) != is_written


@pytest.mark.parametrize("verify", [False, True])
def test_a_young_blob_that_the_disk_cannot_read_ends_no_run(
    world: World, monkeypatch: pytest.MonkeyPatch, verify: bool
) -> None:
    world.build("base", "api")
    world.gc()
    world.passes(hours=1)
    world.build("base", "api", "new")
    inode, read = (world.blobs / layer_of("new")[7:]).stat().st_ino, os.read

    def fail(number: int, size: int) -> bytes:
        if os.fstat(number).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(number, size)

    monkeypatch.setattr(os, "read", fail)

    assert world.gc(verify=verify).status == "done"


def test_a_young_manifest_that_the_disk_cannot_read_may_need_any_blob(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "old")
    world.gc()
    world.passes(days=2)
    world.build("base", "new")
    world.gc()
    world.passes(hours=20)
    world.gc()
    first = world.build("base", "old", "x")
    world.passes(minutes=5)
    world.build("base", "new")
    world.passes(hours=5)
    inode, read = (world.blobs / first[7:]).stat().st_ino, os.read

    def fail(number: int, size: int) -> bytes:
        if os.fstat(number).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(number, size)

    monkeypatch.setattr(os, "read", fail)

    report = world.gc()

    assert report.status == "done"
    assert world.steps("old")
    assert report.verdict
    assert "no unreferenced blob was deleted" in report.verdict.message


def test_a_tag_that_no_database_holds_keeps_what_it_needs(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web", tag="a\0b")
    world.passes(days=3)

    report = world.gc(grace=NO_GRACE)

    assert report.status == "done"
    assert world.steps("base", "api", "web") == {layer_of(one) for one in ("base", "api", "web")}


def test_an_upload_whose_time_is_far_ahead_stops_no_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api")
    world.put("orphan")
    world.gc()
    later = (world.now + timedelta(days=3650)).timestamp()
    os.utime(world.begin_upload("dead"), (later, later))
    monkeypatch.setattr(world, "settle", lambda: None)
    for _ in range(2):
        world.passes(days=40)
        world.gc()

    assert not world.steps("orphan")
