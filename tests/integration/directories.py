"""A directory that builds export to, and what happens to it, told in words.

Exports do what BuildKit's client does: blobs are written in `ingest` and renamed, then the tag is
replaced in `index.json`, in place, under a lock that is not waited for.
"""

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from maintainer.cacheconfig import CacheConfig, Digest, encode
from maintainer.cacheconfig.model import Layer
from maintainer.cacheconfig.timestamps import format_time
from maintainer.collect import collect
from maintainer.graph.database import Database
from maintainer.report import Report
from maintainer.stages.run import Collector, Mode
from maintainer.stores.local.directory import open_directory
from tests.chosen import choose
from tests.empty_database import make_empty, url_of
from tests.integration.invariants import ReadIndex, RefusedIndexError, import_index
from tests.integration.world import START, blob_of, built

CONFIG = "application/vnd.buildkit.cacheconfig.v0"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
STORY: dict[str, object] = {"remember_exports": "0s"}
"""Most stories are about the newest exports, and what they drop is cleaned up."""
_NAME = "org.opencontainers.image.ref.name"


class LockTakenError(Exception):
    """A build fails, because somebody else holds the lock."""


@dataclass
class World:
    """A directory, a clock, and a database."""

    path: Path
    database: Path
    now: datetime = START
    patient: list[float] = field(default_factory=list)
    """How long runs have waited, in seconds."""

    @property
    def blobs(self) -> Path:
        """Where the blobs are."""
        return self.path / "blobs" / "sha256"

    def passes(self, **duration: float) -> None:
        """Let time pass."""
        self.now += timedelta(**duration)

    def build(self, *steps: str, tag: str = "api", form: str = MANIFEST) -> Digest:
        """Export a build of some steps, each on top of the one before."""
        config = built(*steps, at=self.now)
        for step in steps:
            self.upload(content_of(step))
        return self.export(config, tag=tag, form=form)

    def export(self, config: CacheConfig, *, tag: str, form: str = MANIFEST) -> Digest:
        """Write the config and the manifest of an index, and let the tag lead there."""
        manifest = manifest_of(config, form, self.upload, self._size)
        return self.name(tag, manifest, form)

    def _size(self, layer: Layer) -> int:
        place = self.blobs / layer.blob[7:]
        return place.stat().st_size if place.exists() else layer.size

    def name(self, tag: str | None, manifest: bytes, media_type: str = MANIFEST) -> Digest:
        """Write a manifest, and let a tag lead to it. Raises LockTakenError."""
        digest = self.upload(manifest)
        with locked(self.path):
            index = json.loads((self.path / "index.json").read_bytes())
            others = [one for one in index["manifests"] if tag is None or _tag(one) != tag]
            new: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": len(manifest)}
            if tag is not None:
                new["annotations"] = {_NAME: tag}
            index["manifests"] = [*others, new]
            (self.path / "index.json").write_text(json.dumps(index))
            self.touch(self.path / "index.json")
        return digest

    def image(self, name: str) -> set[Digest]:
        """Put an image of somebody else beside the tags; give its blobs. Raises LockTakenError."""
        layer = self.upload(f"layer of {name}".encode())
        config = self.upload(json.dumps({"of": name}).encode())
        image = json.dumps({"config": {"digest": config}, "layers": [{"digest": layer}]})
        return {layer, config, self.name(name, image.encode())}

    def upload(self, content: bytes) -> Digest:
        """Write a blob, unless it is there."""
        digest = Digest(f"sha256:{hashlib.sha256(content).hexdigest()}")
        place = self.blobs / digest[7:]
        if not place.exists():
            data = self.begin_upload(digest)
            data.write_bytes(content)
            data.chmod(0o444)
            self.end_upload(data, place)
        return digest

    def begin_upload(self, name: str) -> Path:
        """Begin to write a blob; give the file that grows."""
        upload = self.path / "ingest" / hashlib.sha256(name.encode()).hexdigest()
        upload.mkdir(parents=True)
        (upload / "data").touch()
        self.touch(upload / "data")
        self.touch(upload)
        self.touch(upload.parent)
        return upload / "data"

    def end_upload(self, data: Path, place: Path) -> None:
        """Put the file that has grown in its place."""
        data.rename(place)
        self.touch(place)
        data.parent.rmdir()
        self.touch(data.parent.parent)

    def put(self, step: str) -> Path:
        """Store the layer of a step that nothing names."""
        return self.blobs / self.upload(content_of(step))[7:]

    def evict(self, *steps: str) -> None:
        """Lose the layers of these steps."""
        for step in steps:
            (self.blobs / layer_of(step)[7:]).unlink()

    def reset(self) -> None:
        """Delete what BuildKit deletes after an export with `reset=true`.

        That is every blob that `index.json` does not lead to by descriptors.
        """
        index = json.loads((self.path / "index.json").read_bytes())
        reached: set[str] = set()
        waiting = [one["digest"] for one in index["manifests"]]
        while waiting:
            digest = waiting.pop()
            reached.add(digest)
            content = (self.blobs / digest[7:]).read_bytes()
            manifest = json.loads(content) if content.startswith(b'{"schemaVersion"') else {}
            described = [*manifest.get("layers", ()), *manifest.get("manifests", ())]
            described += [manifest["config"]] if "config" in manifest else []
            waiting += [one["digest"] for one in described if one["digest"] not in reached]
        for digest in self.stored() - reached:
            (self.blobs / digest[7:]).unlink()

    def touch(self, path: Path) -> None:
        """Let a file have been written now."""
        os.utime(path, (self.now.timestamp(), self.now.timestamp()), follow_symlinks=False)

    def gc(
        self,
        *,
        merged_tag: str = "",
        verify: bool = False,
        dry_run: bool = False,
        no_sweep: bool = False,
        accept_loss: bool = False,
        repair: bool = False,
        database: Path | None = None,
        **settings: object,
    ) -> Report:
        """Do a run."""

        async def run() -> Report:
            opened = Database(url_of(database or self.database))
            size = settings.get("max_index_size", 2**20)
            opening = open_directory(self.path, max_index_size=int(str(size)), verify=verify)
            try:
                opened.upgrade()
                with opening as directory, opened.lease(directory.name) as lease:
                    collector = Collector(
                        directory,
                        opened,
                        choose(STORY | settings | {"merged_tag": merged_tag}),
                        clock=lambda: self.now,
                        sleep=self._sleep,
                        lease=lease,
                    )
                    return await collect(collector, Mode(dry_run, no_sweep, accept_loss, repair))
            finally:
                opened.close()

        try:
            return anyio.run(run)
        finally:
            self.settle()

    async def _sleep(self, seconds: float) -> None:
        self.patient.append(seconds)

    def settle(self) -> None:
        """Let what a run has written have been written now: the file system has its own clock."""
        for path in self.path.rglob("*"):
            with suppress(FileNotFoundError):  # Another run has just renamed or deleted it.
                is_young = path.lstat().st_mtime > self.now.timestamp() + 1
                if is_young and (not path.is_dir() or path.name == "ingest"):
                    self.touch(path)

    def files(self) -> dict[str, bytes]:
        """Return every file with its content."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
        }

    def stored(self) -> set[Digest]:
        """Return which blobs are stored."""
        return {Digest(f"sha256:{path.name}") for path in self.blobs.iterdir()}

    def steps(self, *steps: str) -> set[Digest]:
        """Return which of the layers of these steps are stored."""
        return {layer_of(step) for step in steps} & self.stored()

    def leads_to(self, tag: str = "api") -> set[Digest]:
        """Return which layers a tag leads to, as an importer sees it."""
        return {
            Digest(blob)
            for result in import_tag(self.path, tag).results
            for blob in result
            if self.stored() >= result
        }

    def config_of(self, tag: str) -> bytes:
        """Return the config that a tag leads to, by an image manifest."""
        manifest = json.loads((self.blobs / dict(self.names())[tag][7:]).read_bytes())
        digest: str = manifest["config"]["digest"]
        return (self.blobs / digest[7:]).read_bytes()

    def tags(self) -> list[str]:
        """Return the tags in order."""
        return [tag for tag, _ in self.names()]

    def names(self) -> list[tuple[str, str]]:
        """Return the tags in order, with the manifests that they lead to."""
        index = json.loads((self.path / "index.json").read_bytes())
        return [(_tag(one), one["digest"]) for one in index["manifests"]]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock as a build does. Raises LockTakenError at once if it is taken."""
    lock = path / "index.json.lock"
    number = os.open(lock, os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise LockTakenError from None
    try:
        yield
    finally:
        os.close(number)
        lock.unlink(missing_ok=True)


def once_before_the_lock(monkeypatch: pytest.MonkeyPatch, export: Callable[[], object]) -> None:
    """Let a build export just before a run takes the lock for the first time."""
    open_file, once = os.open, iter([True])

    def export_first(name: str, *how: int, **where: int) -> int:
        if name == "index.json.lock" and where and next(once, False):
            export()
        return open_file(name, *how, **where)

    monkeypatch.setattr(os, "open", export_first)


def a_directory(tmp_path: Path) -> World:
    """Make an empty layout, and a database that knows nothing."""
    path = tmp_path / "cache"
    (path / "blobs" / "sha256").mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    world = World(path, tmp_path / "maintainer.db")
    world.touch(path / "index.json")
    make_empty(world.database)
    return world


def manifest_of(
    config: CacheConfig,
    form: str,
    upload: Callable[[bytes], Digest],
    size_of: Callable[[Layer], int],
) -> bytes:
    """Return the manifest of an index, as BuildKit writes it, after its config was uploaded."""
    content = json.loads(encode(config))
    descriptors = []
    for layer, described in zip(content.get("layers", []), config.layers, strict=True):
        del layer["annotations"]
        descriptors.append(
            {
                "mediaType": described.media_type,
                "digest": described.blob,
                "size": size_of(described),
                "annotations": {
                    "buildkit/createdat": format_time(described.created_at),
                    "containerd.io/uncompressed": described.diff_id,
                },
            }
        )
    written = json.dumps(content).encode()
    head = {"mediaType": CONFIG, "digest": upload(written), "size": len(written)}
    manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": form}
    if form == MANIFEST:
        manifest |= {"config": head, "layers": descriptors}
    else:
        manifest |= {"manifests": [*descriptors, head]}
    return json.dumps(manifest).encode()


def content_of(step: str) -> bytes:
    """Return the layer of a step: what `blob_of` is the digest of."""
    return step.encode()


def layer_of(step: str) -> Digest:
    """Return the digest of the layer of a step."""
    return blob_of(step)


def layers_of(*steps: str) -> set[str]:
    """Return the digests of the layers of some steps."""
    return {layer_of(step) for step in steps}


def import_tag(path: Path, tag: str) -> ReadIndex:
    """Read what a tag leads to as BuildKit's importer does. Raises RefusedIndexError."""
    index = json.loads((path / "index.json").read_bytes())
    named = next(one for one in index["manifests"] if _tag(one) == tag)
    manifest = json.loads(_blob(path, named["digest"], named["size"]))
    if manifest.get("config", {}).get("mediaType") == CONFIG:
        head, blobs = manifest["config"], manifest["layers"]
    else:
        (head,) = [one for one in manifest["manifests"] if one["mediaType"] == CONFIG]
        blobs = [one for one in manifest["manifests"] if one["mediaType"] != CONFIG]
    described = {one["digest"]: one["annotations"] for one in blobs}
    config = json.loads(_blob(path, head["digest"], head["size"]))
    for layer in config.get("layers", []):
        if "annotations" in layer:
            raise RefusedIndexError("a config describes its layers itself")
        layer["annotations"] = {"diffID": described[layer["blob"]]["containerd.io/uncompressed"]}
    return import_index(json.dumps(config).encode())


def _blob(path: Path, digest: str, size: int) -> bytes:
    place = path / "blobs" / digest.replace(":", "/")
    if not stat.S_ISREG(place.lstat().st_mode):
        raise RefusedIndexError(f"{digest} is no file")
    content = place.read_bytes()
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest or len(content) != size:
        raise RefusedIndexError(f"{digest} has another content")
    return content


def _tag(descriptor: dict[str, Any]) -> str:
    return str(descriptor.get("annotations", {}).get(_NAME, ""))
