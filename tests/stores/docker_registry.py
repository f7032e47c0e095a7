"""Debian's `docker-registry`, a process of its own, and what builders and others store in it.

They write into its folder, in the layout of its driver for file systems, which it reads each time.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from maintainer.cacheconfig import CacheConfig, Digest
from maintainer.stores.registry.address import Address
from tests.integration.directories import CONFIG, MANIFEST, manifest_of
from tests.integration.invariants import ReadIndex, RefusedIndexError, import_index
from tests.integration.world import built
from tests.ports import free_port

REPOSITORY = "octo/app-cache"
_PATIENCE = 30.0
_CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {folder}}}
  delete: {{enabled: {deletes}}}
http: {{addr: "{host}"}}
"""


@dataclass
class DockerRegistry:
    """The server, and its storage."""

    host: str
    folder: Path
    repository: str = REPOSITORY

    @property
    def _root(self) -> Path:
        return self.folder / "docker" / "registry" / "v2"

    @property
    def _place(self) -> Path:
        return self._root / "repositories" / self.repository

    def address(self, **more: Any) -> Address:
        """Return where the cache is."""
        return Address(self.host, self.repository, insecure=True, **more)

    def empty(self) -> None:
        """Begin without any repository."""
        shutil.rmtree(self._root, ignore_errors=True)

    def create(self) -> None:
        """Create the repository, without a tag."""
        (self._place / "_manifests" / "tags").mkdir(parents=True)

    def put_blob(self, content: bytes) -> Digest:
        """Store a blob in the repository."""
        digest = hashlib.sha256(content).hexdigest()
        data = self._root / "blobs" / "sha256" / digest[:2] / digest / "data"
        _write(data, content)
        _write(self._place / "_layers" / "sha256" / digest / "link", f"sha256:{digest}".encode())
        return Digest(f"sha256:{digest}")

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        return (self._place / "_layers" / "sha256" / digest[7:] / "link").exists()

    def blobs(self) -> set[str]:
        """Return the blobs of the repository."""
        return {f"sha256:{path.name}" for path in self._place.glob("_layers/sha256/*")}

    def delete_blob(self, digest: str) -> None:
        """Lose a blob, as by a collection of the registry's own."""
        shutil.rmtree(self._place / "_layers" / "sha256" / digest[7:], ignore_errors=True)

    def spoil(self, digest: str) -> None:
        """Cut the content of a blob off."""
        data = self._root / "blobs" / "sha256" / digest[7:9] / digest[7:] / "data"
        data.write_bytes(data.read_bytes()[:-10])

    def empty_blob(self, digest: str) -> None:
        """Cut all of the content of a blob off."""
        data = self._root / "blobs" / "sha256" / digest[7:9] / digest[7:] / "data"
        data.write_bytes(b"")

    def put_manifest(self, content: bytes, tag: str | None = None) -> Digest:
        """Store a manifest, and let a tag point to it."""
        digest = hashlib.sha256(content).hexdigest()
        _write(self._root / "blobs" / "sha256" / digest[:2] / digest / "data", content)
        link = f"sha256:{digest}".encode()
        _write(self._place / "_manifests" / "revisions" / "sha256" / digest / "link", link)
        if tag is not None:
            place = self._place / "_manifests" / "tags" / tag
            _write(place / "index" / "sha256" / digest / "link", link)
            _write(place / "current" / "link", link)
        return Digest(link.decode())

    def manifests(self) -> set[str]:
        """Return the manifests of the repository, with tags and without."""
        return {f"sha256:{one.parent.name}" for one in self._revisions.glob("*/link")}

    @property
    def _revisions(self) -> Path:
        return self._place / "_manifests" / "revisions" / "sha256"

    def delete_manifest(self, digest: str) -> None:
        """Delete a manifest without a tag."""
        shutil.rmtree(self._revisions / digest[7:])

    def tags(self) -> dict[str, str]:
        """Return what the tags point to."""
        found = self._place.glob("_manifests/tags/*/current/link")
        return {path.parts[-3]: path.read_text() for path in found}

    def untag(self, tag: str) -> None:
        """Delete a tag only."""
        shutil.rmtree(self._place / "_manifests" / "tags" / tag, ignore_errors=True)

    def content(self, digest: str) -> bytes:
        """Return the content of a manifest or blob."""
        return (self._root / "blobs" / "sha256" / digest[7:9] / digest[7:] / "data").read_bytes()

    def export(self, tag: str, config: CacheConfig, form: str = MANIFEST) -> Digest:
        """Write the config and the manifest of an index, as BuildKit does."""
        manifest = manifest_of(config, form, self.put_blob, lambda layer: layer.size)
        return self.put_manifest(manifest, tag)

    def build(self, tag: str, *steps: str, form: str = MANIFEST) -> Digest:
        """Store the blobs of a build, and then its index, at a tag."""
        for step in steps:
            self.put_blob(step.encode())
        return self.export(tag, built(*steps), form)

    def blobs_of(self, tag: str) -> set[str]:
        """Return the blobs that an importer finds by a tag."""
        return set(self.read(tag).blobs)

    def read(self, tag: str) -> ReadIndex:
        """Read what a tag leads to as BuildKit's importer does. Raises RefusedIndexError."""
        return import_index(self.index(tag))

    def index(self, tag: str) -> bytes:
        """Return the index of a tag with what its manifest says. Raises RefusedIndexError."""
        try:
            manifest = json.loads(self.content(self.tags()[tag]))
            if manifest.get("config", {}).get("mediaType") == CONFIG:
                head, blobs = manifest["config"], manifest["layers"]
            else:
                (head,) = [one for one in manifest["manifests"] if one["mediaType"] == CONFIG]
                blobs = [one for one in manifest["manifests"] if one["mediaType"] != CONFIG]
            described = {one["digest"]: one["annotations"] for one in blobs}
            config = json.loads(self.content(head["digest"]))
        except (ValueError, KeyError, OSError) as error:
            raise RefusedIndexError(str(error)) from None
        for layer in config.get("layers", []):
            layer["annotations"] = {
                "diffID": described[layer["blob"]]["containerd.io/uncompressed"]
            }
        return json.dumps(config).encode()

    def referenced_by(self, digest: str) -> set[str]:
        """Return the blobs that a manifest references."""
        try:
            manifest = json.loads(self.content(digest))
        except ValueError:
            return set()
        listed = [*manifest.get("layers", []), *manifest.get("manifests", [])]
        listed += [manifest["config"]] if "config" in manifest else []
        return {one["digest"] for one in listed}


def sized(config: CacheConfig, sizes: Mapping[Digest, int]) -> CacheConfig:
    """Return an index whose layers have their real sizes."""
    layers = [msgspec.structs.replace(one, size=sizes[one.blob]) for one in config.layers]
    return msgspec.structs.replace(config, layers=tuple(layers))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@contextmanager
def a_registry(folder: Path, *, deletes: bool = True, more: str = "") -> Iterator[DockerRegistry]:
    """Serve an empty registry, with more in its configuration."""
    program = shutil.which("docker-registry")
    if program is None:
        assert os.environ.get("CI") != "true", ".ci/run installs docker-registry"
        pytest.skip("there is no docker-registry: apt-get install docker-registry")
    port = free_port()
    host, data = f"127.0.0.1:{port}", folder / "data"
    path = folder / "config.yml"
    config = _CONFIG.format(folder=data, deletes=str(deletes).lower(), host=host)
    path.write_text(config + more)
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([program, "serve", str(path)], stdout=log, stderr=log) as process,
    ):
        try:
            _wait_for(port)
            yield DockerRegistry(host, data)
        finally:
            process.kill()


def _wait_for(port: int) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    pytest.fail("docker-registry does not start")
