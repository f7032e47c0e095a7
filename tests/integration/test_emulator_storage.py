"""The emulated storage serves Azure's own SDK, and nobody without a good URL."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx2
import pytest

from maintainer.emulator import ActionsCache, Running, serve_in_thread

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

MAIN = "refs/heads/main"
VERSION = "v"
CONTENT = bytes(range(256)) * 40  # ten blocks of a KiB


class World:
    """A cache, its clock, and a builder that talks to it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.cache = ActionsCache(clock=lambda: self.now)
        self.running: Running

    def upload_url(self, key: str) -> str:
        url: str = self._call("CreateCacheEntry", key)["signed_upload_url"]
        return url

    def download_url(self, key: str) -> str:
        url: str = self._call("GetCacheEntryDownloadURL", key)["signed_download_url"]
        return url

    def finalize(self, key: str, size: int) -> None:
        assert self._call("FinalizeCacheEntryUpload", key, size_bytes=size)["ok"]

    def put(self, content: bytes) -> str:
        """Place an entry, and give the URL to download it from."""
        self.cache.put("key", content, ref=MAIN, version=VERSION)
        return self.download_url("key")

    def _call(self, method: str, key: str, **more: object) -> dict[str, str]:
        token = self.running.environment(MAIN)["ACTIONS_RUNTIME_TOKEN"]
        answer = httpx2.post(
            f"{self.running.url}/twirp/github.actions.results.api.v1.CacheService/{method}",
            headers={"Authorization": f"Bearer {token}"},
            json={"key": key, "version": VERSION, **more},
        )
        found: dict[str, str] = answer.raise_for_status().json()
        return found


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    with serve_in_thread(world.cache) as world.running:
        yield world


@pytest.fixture(scope="module")
def open_blob() -> "Callable[..., BlobClient]":
    """Return what opens a URL; the SDK takes a second to import, so only these tests do."""
    from azure.storage.blob import BlobClient

    return BlobClient.from_blob_url


def test_azures_sdk_uploads_at_once_and_in_blocks_and_reads_ranges(
    world: World, open_blob: "Callable[..., BlobClient]"
) -> None:
    kinds: list[tuple[str, str]] = []
    world.running.observe(after=lambda r: kinds.append((r.kind, r.method)))
    for key, single in (("whole", len(CONTENT)), ("blocks", 1)):
        with open_blob(
            world.upload_url(key), max_single_put_size=single, max_block_size=1024
        ) as blob:
            blob.upload_blob(CONTENT)
        world.finalize(key, len(CONTENT))
        with open_blob(
            world.download_url(key), max_single_get_size=1000, max_chunk_get_size=1000
        ) as blob:
            assert blob.get_blob_properties().size == len(CONTENT)
            assert blob.download_blob().readall() == CONTENT
            assert blob.download_blob(offset=5_000, length=100).readall() == CONTENT[5_000:5_100]
    assert kinds.count(("upload", "PUT")) == 1 + 10 + 1
    assert kinds.count(("download", "HEAD")) == 2
    assert kinds.count(("download", "GET")) == 2 * (11 + 1)


def test_azures_sdk_reads_an_empty_blob(
    world: World, open_blob: "Callable[..., BlobClient]"
) -> None:
    with open_blob(world.put(b"")) as blob:
        assert blob.download_blob().readall() == b""


def test_azures_sdk_understands_the_errors(
    world: World, open_blob: "Callable[..., BlobClient]"
) -> None:
    from azure.core.exceptions import ClientAuthenticationError, ResourceNotFoundError

    url = world.put(CONTENT)
    with (
        open_blob(url.replace("sig=", "sig=0"), retry_total=0) as blob,
        pytest.raises(ClientAuthenticationError),
    ):
        blob.download_blob()
    world.running.call(ActionsCache.clear)
    with (
        open_blob(url, retry_total=0) as blob,
        pytest.raises(ResourceNotFoundError),
    ):
        blob.download_blob()


@pytest.mark.parametrize(
    ("header", "asked", "start", "stop"),
    [
        ("Range", "bytes=0-0", 0, 1),
        ("Range", "bytes=100-", 100, len(CONTENT)),
        ("x-ms-range", "bytes=100-199", 100, 200),
        ("x-ms-range", "bytes=100-999999999", 100, len(CONTENT)),
    ],
)
def test_a_range_is_answered_with_206_and_says_what_it_is(
    world: World, header: str, asked: str, start: int, stop: int
) -> None:
    answer = httpx2.get(world.put(CONTENT), headers={header: asked})
    assert answer.status_code == httpx2.codes.PARTIAL_CONTENT
    assert answer.content == CONTENT[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=10-9"])
def test_a_range_beyond_the_content_is_refused(world: World, asked: str) -> None:
    answer = httpx2.get(world.put(CONTENT), headers={"Range": asked})
    assert answer.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE


def test_content_of_which_only_the_size_is_known_reads_as_zeros(world: World) -> None:
    size = 3 * 1024**2 + 1
    world.cache.put("key", size=size, ref=MAIN, version=VERSION)
    assert httpx2.get(world.download_url("key")).content == bytes(size)


def test_every_answer_to_an_upload_has_what_buildkit_needs(world: World) -> None:
    url = world.upload_url("key")
    merged = httpx2.URL(url)
    answers = [
        httpx2.put(merged.copy_merge_params({"comp": "block", "blockid": "AA=="}), content=b"x"),
        httpx2.put(
            merged.copy_merge_params({"comp": "blocklist"}),
            content=b"<BlockList><Latest>AA==</Latest></BlockList>",
        ),
        httpx2.put(url, headers={"x-ms-blob-type": "BlockBlob"}, content=b"x"),
    ]
    for answer in answers:
        assert answer.status_code == httpx2.codes.CREATED
        assert {"x-ms-request-id", "x-ms-version", "etag", "last-modified", "date"} <= set(
            answer.headers
        )


def test_a_url_is_good_for_its_purpose_and_its_blob_and_a_while(world: World) -> None:
    download = world.put(CONTENT)
    upload = world.upload_url("other")
    headers = {"x-ms-blob-type": "BlockBlob"}
    assert httpx2.get(download).status_code == httpx2.codes.OK
    assert httpx2.put(download, content=b"", headers=headers).status_code == httpx2.codes.FORBIDDEN
    assert httpx2.get(upload).status_code == httpx2.codes.FORBIDDEN
    for forged in (
        download.replace("actions-cache/1?", "actions-cache/2?"),
        download.replace("sp=r", "sp=w"),
        download.split("?")[0],
        download.replace("se=2026", "se=2027"),
        download.replace("sig=", "sig=%C3%A9"),
    ):
        assert httpx2.get(forged).status_code == httpx2.codes.FORBIDDEN
    world.now += timedelta(hours=1)
    assert httpx2.get(download).status_code == httpx2.codes.FORBIDDEN
    assert httpx2.put(upload, content=b"", headers=headers).status_code == httpx2.codes.FORBIDDEN
    assert httpx2.get(world.download_url("key")).content == CONTENT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"<BlockList>",
        b"<BlockList><Latest>AA==</Uncommitted></BlockList>",
        b"<BlockList><Latest>BB==</Latest></BlockList>",
        b"<BlockList><Latest>&a;</Latest></BlockList>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><BlockList><Latest>AA==</Latest></BlockList>',
        b"<BlockList>" + b"<Latest>" * 100_000 + b"</BlockList>",
    ],
)
def test_a_block_list_that_is_none_is_refused(world: World, body: bytes) -> None:
    url = httpx2.URL(world.upload_url("key"))
    block = url.copy_merge_params({"comp": "block", "blockid": "AA=="})
    assert httpx2.put(block, content=b"x").status_code == httpx2.codes.CREATED
    answer = httpx2.put(url.copy_merge_params({"comp": "blocklist"}), content=body)
    assert answer.status_code == httpx2.codes.BAD_REQUEST
