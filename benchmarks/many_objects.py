"""A bucket or container with any number of blobs, which it makes up page by page and does not hold.

    python -m benchmarks.many_objects s3 1000000
    python -m benchmarks.many_objects azblob 1000000

list so many blobs, first by the SDK alone and then as a run does, each in a process of its own, and
print the CPU seconds and the peak of memory of both.

    python -m benchmarks.many_objects s3 1000000 10000

adds so many manifests, each of which references 20 blobs, 10 of which no other does. It prints the
same of the SDK, which reads and decodes them, too; of a first run of `maintainer gc`; and of a
second one that has nothing to do. The blobs are so young that nothing is deleted.
"""

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import anyio

from benchmarks.databases import last_run
from benchmarks.handlers import serving
from benchmarks.hosted import GC
from benchmarks.processes import empty_folder, expect, run
from maintainer.budget import Budget
from maintainer.cacheconfig import decode_whole, encode
from maintainer.concurrency import for_each
from maintainer.progress import Unwatched
from maintainer.settings import Settings
from maintainer.stores.base import RunContext
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.objects.requests import Objects
from maintainer.stores.objects.store import ObjectStore
from tests.integration.world import built

_S3_PAGE, _AZURE_PAGE = 1_000, 5_000
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AZURE_STORAGE_KEY": "YmVuY2htYXJr",
}
_TIME = "2026-01-01T00:00:00.000Z"
_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
_BLOBS, _MANIFESTS = "app/blobs/", "app/manifests/"


class _Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    count = 0
    manifests = 0
    time = _TIME
    written: Mapping[str, bytes] = MappingProxyType({})
    """What runs have written, by key; of one that serves manifests, it is a dictionary."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name upstream
        """Say nothing."""

    def do_GET(self) -> None:
        """List a page, or send a manifest."""
        url = urlsplit(self.path)
        asked = {name: some[0] for name, some in parse_qs(url.query).items()}
        if "comp" in asked:
            count = self.count if asked.get("prefix", "").endswith("blobs/") else 0
            self._answer(_azure_page(asked, count))
        elif "list-type" in asked and asked["prefix"].endswith("manifests/"):
            self._answer(_s3_page(asked, self.manifests, "{:06}".format, self.time, self.written))
        elif "list-type" in asked:
            self._answer(_s3_page(asked, self.count, _digest, self.time, {}))
        elif url.query:
            self._answer("", 403)  # What the owner should change at the bucket.
        else:
            self._send_object(unquote(url.path))

    def do_HEAD(self) -> None:
        """Show a manifest."""
        self._send_object(unquote(self.path))

    def do_PUT(self) -> None:
        """Write a manifest, on condition."""
        key = unquote(self.path).removeprefix("/cache/")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        found = self._find(key)
        expected = self.headers["If-Match"]
        if (expected is None) == bool(found) or (found and expected != found[1]):
            self._answer("", 412)
        else:
            assert isinstance(self.written, dict)
            self.written[key] = content
            self._answer("", more={"ETag": _tag(content)})

    def do_POST(self) -> None:
        """Delete objects; only throw-away ones are."""
        self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.written, dict)
        probes = [key for key in self.written if "probe" in key]
        for key in probes:
            del self.written[key]
        gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in probes)
        self._answer(f"<DeleteResult>{gone}</DeleteResult>")

    def _find(self, key: str) -> tuple[bytes, str] | None:
        """Return an object and its tag."""
        name = key.removeprefix(_MANIFESTS)
        if written := self.written.get(key):
            return written, _tag(written)
        if not name.isdigit() or int(name) >= self.manifests:
            return None
        return _manifest(int(name), self.count), f'"{int(name):032x}"'

    def _send_object(self, path: str) -> None:
        found = self._find(path.removeprefix("/cache/"))
        if found is None:
            self._answer("<Error><Code>NoSuchKey</Code></Error>", 404)
        else:
            at = format_datetime(datetime.fromisoformat(self.time), usegmt=True)
            self._answer(found[0], more={"ETag": found[1], "Last-Modified": at})

    def _answer(
        self, body: str | bytes, status: int = 200, more: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        headers = {"Content-Type": "application/xml", "Content-Length": str(len(content)), **more}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _manifest(number: int, blobs: int) -> bytes:
    """Make a manifest up: layers of all images, of a group of them, and of this one."""
    own = range(1_000 + number * 10, 1_010 + number * 10)
    group = range(100 + number % 100 * 6, 106 + number % 100 * 6)
    steps = (str(one % blobs) for one in (*range(4), *group, *own))
    return encode(built(*steps))


def _tag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def _s3_page(
    asked: Mapping[str, str],
    count: int,
    name: Callable[[int], str],
    time: str,
    written: Mapping[str, bytes],
) -> str:
    prefix = asked["prefix"]
    first = int(asked.get("continuation-token", "0"))
    last = min(first + _S3_PAGE, count)
    made_up = [
        (f"{prefix}{name(number)}", f"{number:032x}", number) for number in range(first, last)
    ]
    if last == count:
        kept = [(key, one) for key, one in sorted(written.items()) if key.startswith(prefix)]
        made_up += [(key, _tag(one)[1:-1], len(one)) for key, one in kept]
    objects = "".join(
        f"<Contents><Key>{key}</Key><LastModified>{time}</LastModified>"
        f"<ETag>&quot;{tag}&quot;</ETag><Size>{size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for key, tag, size in made_up
    )
    more = f"<NextContinuationToken>{last}</NextContinuationToken>" if last < count else ""
    truncated = f"<IsTruncated>{str(last < count).lower()}</IsTruncated>"
    return f"<ListBucketResult>{objects}{truncated}{more}</ListBucketResult>"


def _azure_page(asked: Mapping[str, str], count: int) -> str:
    prefix = asked.get("prefix", "")
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
    with serving(_Service, count=count) as url:
        return {way: _measure_in_a_process(kind, way, url, count) for way in ("sdk", "run")}


def _measure_in_a_process(kind: str, way: str, url: str, count: int) -> tuple[float, int]:
    command = [sys.executable, "-m", "benchmarks.many_objects", kind, way, url, str(count)]
    environment = os.environ | _ENVIRONMENT
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, size = done.stdout.split()
    return float(seconds), int(size)


def measure_runs(count: int, manifests: int) -> Iterator[tuple[str, float, int]]:
    """Read all manifests by the SDK, and do two runs; yield CPU seconds and bytes of each."""
    time = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%S.000Z}"
    known = {"count": count, "manifests": manifests, "time": time, "written": {}}
    with serving(_Service, **known) as url, empty_folder() as folder:
        yield "sdk, with manifests", *_measure_in_a_process("s3", "read", url, count)
        place = f"s3://cache/app/?region=us-east-1&path_style=true&endpoint_url={url}"
        for name in ("first run", "second run"):
            used = run((*GC, "--store", place), folder, _ENVIRONMENT)
            ended = last_run(folder)
            expect(ended.status == "done" and not ended.entries_deleted, f"the run: {ended}")
            yield name, used.user, used.peak


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


@asynccontextmanager
async def _bare(kind: str, url: str) -> AsyncIterator[Any]:
    """Return a client of the SDK as it is."""
    if kind == "azblob":
        opened, _ = _open(kind, url)
        async with opened as objects:
            yield objects._client  # type: ignore[attr-defined]  # noqa: SLF001
        return
    from aiobotocore.config import AioConfig  # noqa: PLC0415
    from aiobotocore.session import get_session  # noqa: PLC0415

    config = AioConfig(s3={"addressing_style": "path"})
    connecting = get_session().create_client(
        "s3", region_name="us-east-1", endpoint_url=url, config=config
    )
    async with connecting as client:
        yield client


async def _pages(client: Any, prefix: str) -> AsyncIterator[Any]:  # noqa: ANN401
    found = client.get_paginator("list_objects_v2").paginate(Bucket="cache", Prefix=prefix)
    async for page in found:
        yield page["Contents"]


async def _list_by_sdk(kind: str, url: str) -> int:
    """List by nothing but the SDK; return how many there are."""
    async with _bare(kind, url) as client:
        if kind == "s3":
            return sum([len(page) async for page in _pages(client, _BLOBS)])
        listed = client.list_blobs(_BLOBS, results_per_page=_AZURE_PAGE)
        found = 0
        async for _ in listed:
            found += 1
        return found


async def _read_by_sdk(kind: str, url: str) -> int:
    """List by nothing but the SDK, and read and decode all manifests; return how many blobs are."""
    async with _bare(kind, url) as client:

        async def read(key: str) -> None:
            answer = await client.get_object(Bucket="cache", Key=key)
            async with answer["Body"] as body:
                decode_whole(await body.read())

        async for page in _pages(client, _MANIFESTS):
            await for_each(read, [one["Key"] for one in page])
    return await _list_by_sdk(kind, url)


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


_WAYS = {"sdk": _list_by_sdk, "run": _list_as_run, "read": _read_by_sdk}


def main() -> None:
    """Measure, or do one thing in this process."""
    if len(sys.argv) == 5:
        _, kind, way, url, count = sys.argv
        found = anyio.run(_WAYS[way], kind, url)
        assert found == int(count), found
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
        return
    _, kind, count, *manifests = sys.argv
    for way, (seconds, size) in measure(kind, int(count)).items():
        print(f"{way}: {seconds:.1f} s, {size / 1e6:.0f} MB", flush=True)
    if manifests:
        for way, seconds, size in measure_runs(int(count), int(manifests[0])):
            print(
                f"{manifests[0]} manifests, {way}: {seconds:.1f} s, {size / 1e6:.0f} MB", flush=True
            )


if __name__ == "__main__":
    main()
