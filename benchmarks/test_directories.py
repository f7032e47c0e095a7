"""Runs over a directory of 100,000 blobs with 2,000 manifests, and what it takes only to look."""

import hashlib
import json
import os
import time
from pathlib import Path

import anyio
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import Tables
from maintainer.cacheconfig import CacheConfig, Digest, Layer, Link, Record, Result, content_digest
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.oci import encode_oci
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.collect import collect
from maintainer.graph.database import Database
from maintainer.report import Report
from maintainer.settings import Settings
from maintainer.stages.run import Collector
from maintainer.stores.local.directory import open_directory

MANIFESTS = 2_000
BLOBS = 100_000
_LAYERS = 40
_OLD = 1_600_000_000


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one in which nothing is left to do: what dangles is younger than the grace period."""
    path = tmp_path_factory.mktemp("benchmark") / "cache"
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    descriptors, stored = [], 0
    for number in range(MANIFESTS):
        config = _index(number)
        encoded = encode_oci(config)
        for content in (encoded.config, encoded.manifest):
            (blobs / content_digest(content)[7:]).write_bytes(content)
        for layer in config.layers:
            (blobs / layer.blob[7:]).touch()
        stored += 2 + len(config.layers)
        descriptors.append(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": content_digest(encoded.manifest),
                "size": len(encoded.manifest),
                "annotations": {"org.opencontainers.image.ref.name": f"tag{number}"},
            }
        )
    for number in range(stored, BLOBS):
        (blobs / _digest(f"orphan {number}")[7:]).touch()
    index = {"schemaVersion": 2, "manifests": descriptors}
    (path / "index.json").write_text(json.dumps(index))
    return path


def _index(number: int) -> CacheConfig:
    layers = tuple(
        Layer(
            blob=_digest(f"layer {number} {place}"),
            parent=place - 1 if place else NO_PARENT,
            diff_id=_digest(f"diff {number} {place}"),
            media_type="application/vnd.oci.image.layer.v1.tar+gzip",
            size=1000,
            created_at=Nanoseconds(_OLD * 10**9),
        )
        for place in range(_LAYERS)
    )
    records = tuple(
        Record(
            digest=_digest(f"key {number} {place}"),
            results=(Result((place,), with_parents=True, created_at=Nanoseconds(_OLD * 10**9)),),
            inputs=((Link(place - 1, ""),),) if place else (),
        )
        for place in range(_LAYERS)
    )
    return CacheConfig(layers, records)


def _digest(name: str) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(name.encode()).hexdigest()}")


def _floor(path: Path) -> int:
    """Stat every file, and read every manifest that a tag names; no more."""
    blobs = path / "blobs" / "sha256"
    with os.scandir(blobs) as found:
        total = sum(entry.stat(follow_symlinks=False).st_size for entry in found)
    index = json.loads((path / "index.json").read_bytes())
    for descriptor in index["manifests"]:
        total += len((blobs / descriptor["digest"][7:]).read_bytes())
    return total


def _gc(path: Path, database: Path) -> Report:
    async def run() -> Report:
        opened = Database(f"sqlite:///{database}")
        opened.upgrade()
        try:
            with open_directory(path, max_index_size=2**28) as directory, opened.lock():
                return await collect(Collector(directory, opened, Settings()))
        finally:
            opened.close()

    return anyio.run(run)


def test_the_floor(benchmark: BenchmarkFixture, tables: Tables, directory: Path) -> None:
    began = time.process_time()
    benchmark.pedantic(_floor, args=(directory,), rounds=1)  # type: ignore[no-untyped-call]
    _tell(tables, "only look: stat every file, read every manifest", time.process_time() - began)


@pytest.mark.timeout(1_800)
def test_a_first_and_a_second_run(
    benchmark: BenchmarkFixture, tables: Tables, directory: Path, tmp_path: Path
) -> None:
    began = time.process_time()
    first = _gc(directory, tmp_path / "a.db")
    _tell(tables, "a first run, which reads and records all", time.process_time() - began)

    began = time.process_time()
    second = benchmark.pedantic(  # type: ignore[no-untyped-call]
        _gc, args=(directory, tmp_path / "a.db"), rounds=1
    )
    _tell(tables, "a second run, with nothing to do", time.process_time() - began)

    assert first.status == second.status == "done"
    assert sum(total.entries for total in second.entries) == BLOBS


def _tell(tables: Tables, what: str, seconds: float) -> None:
    row = {"blobs": f"{BLOBS:,}", "manifests": f"{MANIFESTS:,}"}
    row |= {"what": what, "processor seconds": f"{seconds:.1f}"}
    tables.add("a directory", row)
