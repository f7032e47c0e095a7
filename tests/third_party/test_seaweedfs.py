"""Runs on a bucket of SeaweedFS: a second server that speaks S3, written by other people."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from maintainer.cacheconfig import encode
from maintainer.report import Report
from maintainer.stores.objects.store import ObjectStore
from maintainer.stores.s3.address import Address
from maintainer.stores.s3.client import Bucket, open_bucket
from tests.integration.invariants import import_index
from tests.integration.simulated_runs import Memory
from tests.integration.world import blob_of, built
from tests.stores.contract import NO_GRACE
from tests.stores.runs import run_on
from tests.stores.seaweedfs import a_server

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Serve an empty bucket."""
    with a_server(tmp_path_factory.mktemp("weed")) as place:
        yield place


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
            assert await bucket.head(blobs + blob_of("orphan"))

            # The clock of the server cannot be set, and no blob is older than that says.
            at_once = replace(address, touch_refresh=timedelta(0), longest_export=timedelta(0))
            await _gc(bucket, at_once, memory, datetime.now(UTC) + timedelta(hours=27))

            assert await bucket.head(blobs + blob_of("orphan")) is None
            assert await bucket.head(blobs + blob_of("base"))
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
