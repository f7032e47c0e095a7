"""A bucket or container with any number of blobs, which it makes up page by page and does not hold.

    python -m benchmarks.many_objects s3 1000000
    python -m benchmarks.many_objects azblob 1000000

list so many blobs, first by the SDK alone and then as a run does, each in a process of its own, and
print the user CPU seconds and the peak of memory of both.
"""

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio

from benchmarks.handlers import serving
from maintainer.budget import Budget
from maintainer.progress import Unwatched
from maintainer.settings import Settings
from maintainer.stores.base import RunContext
from maintainer.stores.object_requests import Objects
from maintainer.stores.objects import ObjectStore
from maintainer.stores.requests import RequestLog

_S3_PAGE, _AZURE_PAGE = 1_000, 5_000
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AZURE_STORAGE_KEY": "YmVuY2htYXJr",
}
_TIME = "2026-01-01T00:00:00.000Z"
_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class _Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    count = 0

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name upstream
        """Say nothing."""

    def do_GET(self) -> None:
        """List a page of blobs; there is no manifest."""
        asked = {name: some[0] for name, some in parse_qs(urlsplit(self.path).query).items()}
        prefix = asked.get("prefix", "")
        count = self.count if prefix.endswith("blobs/") else 0
        body = (_azure_page if "comp" in asked else _s3_page)(asked, prefix, count).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _s3_page(asked: Mapping[str, str], prefix: str, count: int) -> str:
    first = int(asked.get("continuation-token", "0"))
    last = min(first + _S3_PAGE, count)
    objects = "".join(
        f"<Contents><Key>{prefix}{_digest(number)}</Key><LastModified>{_TIME}</LastModified>"
        f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{number}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for number in range(first, last)
    )
    more = f"<NextContinuationToken>{last}</NextContinuationToken>" if last < count else ""
    truncated = f"<IsTruncated>{str(last < count).lower()}</IsTruncated>"
    return f"<ListBucketResult>{objects}{truncated}{more}</ListBucketResult>"


def _azure_page(asked: Mapping[str, str], prefix: str, count: int) -> str:
    first = int(asked.get("marker", "0"))
    last = min(first + _AZURE_PAGE, count)
    blobs = "".join(
        f"<Blob><Name>{prefix}{_digest(number)}</Name><Properties>"
        f"<Creation-Time>{_DATE}</Creation-Time><Last-Modified>{_DATE}</Last-Modified>"
        f"<Etag>0x{number:015X}</Etag><Content-Length>{number}</Content-Length>"
        "<Content-Type>application/octet-stream</Content-Type><Content-Encoding />"
        "<BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier>"
        "<AccessTierInferred>true</AccessTierInferred><LeaseStatus>unlocked</LeaseStatus>"
        "<LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted>"
        "</Properties><OrMetadata /></Blob>"
        for number in range(first, last)
    )
    more = f"<NextMarker>{last if last < count else ''}</NextMarker>"
    # The SDK repeats in the next request what is said here.
    found = f"<Prefix>{prefix}</Prefix><Blobs>{blobs}</Blobs>{more}"
    return f"<EnumerationResults>{found}</EnumerationResults>"


def _digest(number: int) -> str:
    return f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}"


def measure(kind: str, count: int) -> Mapping[str, tuple[float, int]]:
    """List so many blobs in both ways; return CPU seconds and bytes of memory of each."""
    measured = {}
    with serving(_Service, count=count) as url:
        for way in ("sdk", "run"):
            command = [sys.executable, "-m", "benchmarks.many_objects", kind, way, url, str(count)]
            environment = os.environ | _ENVIRONMENT
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            seconds, size = done.stdout.split()
            measured[way] = (float(seconds), int(size))
    return measured


def _open(kind: str, url: str) -> tuple[AbstractAsyncContextManager[Objects], Any]:
    if kind == "s3":
        from maintainer.stores.s3.address import Address  # noqa: PLC0415
        from maintainer.stores.s3.client import open_bucket  # noqa: PLC0415

        address = Address("cache", "app/", "us-east-1", url, path_style=True)
        return open_bucket(address), address.layout
    from maintainer.stores.azblob.address import Address as Account  # noqa: PLC0415
    from maintainer.stores.azblob.client import open_container  # noqa: PLC0415

    account = Account("account", "cache", "app", f"{url}/account")
    return open_container(account), account.layout


async def _list_by_sdk(kind: str, url: str) -> int:
    """List by nothing but the SDK; return how many there are."""
    opened, layout = _open(kind, url)
    found = 0
    async with opened as objects:
        client: Any = objects._client  # type: ignore[attr-defined]  # noqa: SLF001
        if kind == "s3":
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket="cache", Prefix=layout.blobs
            )
            async for page in pages:
                found += len(page["Contents"])
        else:
            async for _ in client.list_blobs(layout.blobs, results_per_page=_AZURE_PAGE):
                found += 1
    return found


async def _list_as_run(kind: str, url: str) -> int:
    """List as a run does, and read the entries once; return how many there are."""
    opened, layout = _open(kind, url)
    settings = Settings()
    now = datetime.now(UTC)
    async with opened as objects:
        store = ObjectStore(objects, layout, max_index_size=2**20)
        budget = Budget(RequestLog(), settings, lambda: now)
        context = RunContext(settings, budget, Unwatched(), lambda: now, anyio.sleep)
        listing = await store.entries(now, context)
        return sum(1 for _ in listing.entries)


def main() -> None:
    """Measure, or list in one way."""
    if len(sys.argv) == 5:
        _, kind, way, url, count = sys.argv
        found = anyio.run(_list_as_run if way == "run" else _list_by_sdk, kind, url)
        assert found == int(count), found
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
        return
    _, kind, count = sys.argv
    for way, (seconds, size) in measure(kind, int(count)).items():
        print(f"{way}: {seconds:.1f} s, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
