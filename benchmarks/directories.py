"""Makes a directory of blobs that leaves a run nothing to do: dangling blobs are new.

python -m benchmarks.directories PATH BLOBS TAGS
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from maintainer.cacheconfig import CacheConfig, Digest, Layer, Link, Record, Result, content_digest
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.oci import encode_oci
from maintainer.cacheconfig.timestamps import Nanoseconds

_OLD = Nanoseconds(1_600_000_000 * 10**9)
_DOCUMENTS = 2
"""Of a tag: its manifest and its config."""
_LAYER = 1000
"""Bytes of a layer."""
_DANGLING = 20
"""One blob in so many is dangling."""


def make(path: Path, blobs: int, tags: int) -> None:
    """Make it; each tag has layers of its own."""
    folder = path / "blobs" / "sha256"
    folder.mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    layers = (blobs - blobs // _DANGLING) // tags - _DOCUMENTS
    descriptors = [_tag(folder, number, layers) for number in range(tags)]
    for number in range(tags * (layers + _DOCUMENTS), blobs):
        _write_layer(folder / _digest(f"dangling {number}")[7:])
    index = {"schemaVersion": 2, "manifests": descriptors}
    (path / "index.json").write_text(json.dumps(index))


def _tag(folder: Path, number: int, layers: int) -> dict[str, object]:
    """Store the blobs of a tag; return its descriptor."""
    config = CacheConfig(tuple(_layers(number, layers)), tuple(_records(number, layers)))
    encoded = encode_oci(config)
    for content in (encoded.config, encoded.manifest):
        (folder / content_digest(content)[7:]).write_bytes(content)
    for layer in config.layers:
        _write_layer(folder / layer.blob[7:])
    return {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": content_digest(encoded.manifest),
        "size": len(encoded.manifest),
        "annotations": {"org.opencontainers.image.ref.name": f"tag{number}"},
    }


def _write_layer(path: Path) -> None:
    """Write a file without its content: an empty one would count as missing."""
    path.touch()
    os.truncate(path, _LAYER)


def _layers(number: int, count: int) -> Iterator[Layer]:
    for place in range(count):
        yield Layer(
            blob=_digest(f"layer {number} {place}"),
            parent=place - 1 if place else NO_PARENT,
            diff_id=_digest(f"diff {number} {place}"),
            media_type="application/vnd.oci.image.layer.v1.tar+gzip",
            size=_LAYER,
            created_at=_OLD,
        )


def _records(number: int, count: int) -> Iterator[Record]:
    for place in range(count):
        yield Record(
            digest=_digest(f"key {number} {place}"),
            results=(Result((place,), with_parents=True, created_at=_OLD),),
            inputs=((Link(place - 1, ""),),) if place else (),
        )


def _digest(name: str) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(name.encode()).hexdigest()}")


if __name__ == "__main__":
    make(Path(sys.argv[1]), *map(int, sys.argv[2:]))
