"""What a run leaves can be read by others: skopeo, which nobody here wrote, copies it."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maintainer.cli.app import app
from tests.integration.directories import INDEX, World
from tests.integration.world import built
from tests.recorded import unpack_directory
from tests.stores.docker_registry import a_registry, sized

TAGS = ["api", "web", "worker", "tools"]

pytestmark = pytest.mark.skipif(
    shutil.which("skopeo") is None and os.environ.get("CI") != "true",
    reason="there is no skopeo: apt-get install skopeo",
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    now = datetime(2026, 11, 24, 8, 9, tzinfo=UTC)
    return World(unpack_directory(tmp_path), tmp_path / "maintainer.db", now)


def _put_an_image(world: World) -> None:
    """Put a small image of somebody else's beside the caches."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("hello"), io.BytesIO())
    layer = tar.getvalue()
    diff = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [diff]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _describe(world, config, "application/vnd.oci.image.config.v1+json"),
        "layers": [_describe(world, layer, "application/vnd.oci.image.layer.v1.tar")],
    }
    world.name("image", json.dumps(manifest).encode())


def _describe(world: World, content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": world.upload(content), "size": len(content)}


def _skopeo(*arguments: str) -> bytes:
    # Not everybody who has it has a policy, too: a package of its own in newer Debians.
    command = ["skopeo", "--insecure-policy", *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize("merged_tag", ["", "maintained"])
def test_skopeo_reads_every_tag_and_the_image_beside_them(
    world: World, tmp_path: Path, merged_tag: str
) -> None:
    _put_an_image(world)
    before = _skopeo("inspect", "--raw", f"oci:{world.path}:image")
    world.passes(days=9)

    report = world.gc(merged_tag=merged_tag, grace=timedelta(0))

    assert report.status == "done", report.problems
    assert report.entries_deleted
    for tag in (*TAGS, *([merged_tag] if merged_tag else [])):
        raw = _skopeo("inspect", "--raw", f"oci:{world.path}:{tag}")
        assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == dict(world.names())[tag]
    assert _skopeo("inspect", "--raw", f"oci:{world.path}:image") == before
    # All of the image is there: it can be copied.
    _skopeo("copy", "--quiet", f"oci:{world.path}:image", f"dir:{tmp_path / 'copied'}")


def test_skopeo_reads_an_index_that_lists_all(world: World) -> None:
    world.build("base", "api", tag="older", form=INDEX)
    world.evict("api")

    world.gc(accept_loss=True)

    raw = json.loads(_skopeo("inspect", "--raw", f"oci:{world.path}:older"))
    assert [one["mediaType"] for one in raw["manifests"]][-1].endswith("cacheconfig.v0")


def test_the_layout_keeps_the_rules_of_oci(world: World) -> None:
    _put_an_image(world)
    world.passes(days=9)

    world.gc(merged_tag="maintained", grace=timedelta(0))

    assert json.loads((world.path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((world.path / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    for descriptor in index["manifests"]:
        assert {"mediaType", "digest", "size"} <= descriptor.keys()
        content = (world.blobs / descriptor["digest"][7:]).read_bytes()
        assert len(content) == descriptor["size"]
    for path in world.blobs.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_skopeo_copies_the_merge_from_a_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with a_registry(tmp_path) as registry:
        for tag, steps in (("api", ("base", "api")), ("web", ("base", "web"))):
            sizes = {registry.put_blob(step.encode()): len(step) for step in steps}
            registry.export(tag, sized(built(*steps), sizes))
        place = f"{registry.host}/{registry.repository}"

        done = CliRunner().invoke(app, ["gc", "--store", f"registry://{place}?insecure=true"])

        assert done.exit_code == 0, done.output
        target = tmp_path / "copied"
        options = ("--quiet", "--src-tls-verify=false", "--preserve-digests")
        _skopeo("copy", *options, f"docker://{place}:maintained", f"dir:{target}")
        manifest = (target / "manifest.json").read_bytes()
        assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == registry.tags()["maintained"]
        assert {path.read_bytes() for path in target.iterdir()} >= {b"base", b"api", b"web"}
