"""What anybody may have put into a directory: links, strange names, strange content."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.cacheconfig import Digest
from maintainer.errors import StoreError, UsageError
from maintainer.opening import open_cache
from maintainer.report.terminal import render_report
from maintainer.settings import GitHubSettings, Settings
from maintainer.stores.local.files import Files, Seen
from maintainer.stores.local.tags import Replacement, read_tags, replace_tags
from tests.integration.directories import World, a_directory, layer_of, template
from tests.integration.world import START

NO_GRACE = timedelta(0)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def world(tmp_path: Path, known: Path) -> World:
    return a_directory(tmp_path, known)


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
    assert "sha512 is a symbolic link, or no directory: not followed" in report.problems[0]
    (world.path / "blobs" / "sha512").unlink()
    report = world.gc(grace=NO_GRACE)
    assert report.status == "done", report.problems
    told = {a.subject: a.reason for a in report.actions if "left alone" in a.reason}
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


def test_a_manifest_that_is_too_large_is_not_read_and_stops_the_sweep(world: World) -> None:
    world.put("orphan")
    world.name("large", b"{" + b" " * 2**20 + b"}")
    world.passes(days=9)

    report = world.gc(grace=NO_GRACE)

    assert world.steps("orphan")
    assert any("more than 1,048,576 bytes" in action.reason for action in report.actions) or any(
        "large could not be read" in action.reason for action in report.actions
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
        with pytest.raises(StoreError, match="is no digest"):
            files.look(Digest(digest))
        with pytest.raises(StoreError, match="is no digest"):
            files.delete_blob(Digest(digest), Seen(0, START))
    files.close()


def test_an_index_of_another_user_is_not_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build("base", "api", "test")
    world.evict("test")
    monkeypatch.setattr(os, "geteuid", lambda: world.path.stat().st_uid + 1)

    report = world.gc()

    assert report.status == "failed"
    assert "only that user can replace it" in report.problems[0]
    assert world.leads_to() == {layer_of("base"), layer_of("api")}


async def _open(settings: Settings) -> None:
    async with open_cache(settings, GitHubSettings()):
        pass


def test_what_is_for_directories_only_is_refused_elsewhere() -> None:
    import anyio

    with pytest.raises(UsageError, match="merge_tags is for directories only"):
        anyio.run(_open, Settings(merge_tags=True))
