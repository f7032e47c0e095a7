"""What counts as found, as missing, as written: both versions of the cache service."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
import msgspec
import pytest

from maintainer.cacheconfig import Ref
from maintainer.errors import (
    AlreadyExistsError,
    StoreError,
    TokenRefusedError,
    UsageError,
    WriteRefusedError,
)
from maintainer.stores.github.client import ActionsCacheClient, open_client
from maintainer.stores.github.keyed import CacheHit
from maintainer.stores.github.rest import ASSUMED
from maintainer.stores.github.service_v1 import CHUNK
from tests.integration.connecting import (
    API_TOKEN,
    AT_ONCE,
    RUNTIME_TOKEN,
    in_environment,
    store_rest,
    store_v1,
    store_v2,
)
from tests.integration.scripted import RESET, Reply, Request, Server, html, json, serve

pytestmark = pytest.mark.anyio

KEY = "index-x-1-49c8f7d5#1"
CONTENT = b'{"layers":[]}'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as started:
        yield started


class _Opens(Protocol):
    def __call__(self, url: str) -> AbstractAsyncContextManager[ActionsCacheClient]: ...


@dataclass(frozen=True)
class Version:
    """How one version spells the same things."""

    opens: _Opens
    look_up: str
    reserve: str
    finalize: str
    miss: Reply
    upload: str = "upload"
    upload_methods: tuple[str, ...] = ("PUT",)

    def hit(self, key: str, url: str) -> Reply:
        if self.look_up == "cache":
            return json({"cacheKey": key, "archiveLocation": url, "scope": "refs/heads/main"})
        return json({"ok": True, "matched_key": key, "signed_download_url": url})

    def reserved(self, url: str) -> Reply:
        if self.look_up == "cache":
            return json({"cacheId": 12})
        return json({"ok": True, "signed_upload_url": f"{url}/upload?sig=s"})

    def taken(self) -> Reply:
        if self.look_up == "cache":
            return json({"typeKey": "ArtifactCacheItemAlreadyExistsException"}, 409)
        return json({"code": "already_exists", "msg": "cache entry exists"}, 409)

    def refusal(self) -> Reply:
        if self.look_up == "cache":
            return json({"message": "read only"}, 403)
        return json({"code": "permission_denied", "msg": "read only"}, 403)


V1 = Version(store_v1, "cache", "caches", "12", Reply(204), upload="12")
V2 = Version(
    store_v2,
    "GetCacheEntryDownloadURL",
    "CreateCacheEntry",
    "FinalizeCacheEntryUpload",
    json({"ok": False}),
)


@pytest.fixture(params=[V1, V2], ids=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> Version:
    chosen: Version = request.param
    return chosen


@pytest.fixture
async def store(server: Server, version: Version) -> AsyncIterator[ActionsCacheClient]:
    async with version.opens(server.url) as opened:
        yield opened


async def test_an_entry_is_found_whatever_the_case(
    server: Server, version: Version, store: ActionsCacheClient
) -> None:
    server.on(version.look_up, version.hit(KEY.lower(), f"{server.url}/blob"))

    found = await store.look_up(KEY.upper())

    # Only version 1 says in which ref.
    ref = Ref("refs/heads/main") if version is V1 else None
    assert found == CacheHit(KEY.lower(), httpx2.URL(f"{server.url}/blob"), ref)
    [request] = server.requests
    assert request.headers["authorization"] == f"Bearer {RUNTIME_TOKEN}"


@pytest.mark.parametrize(
    ("asked", "matched"),
    [
        (KEY, f"{KEY}2"),
        (KEY, "index-x-1-49c8f7d5"),
        (KEY, "index-x-1-49c8f7d5-sig#1"),
        ("buildkit-blob-1-sha256:ab", "buildkit-blob-1-sha256:ab-sig"),
        ("index-straße-1-49c8f7d5#1", "index-strasse-1-49c8f7d5#1"),
    ],
)
async def test_a_loose_match_is_a_miss(
    server: Server, version: Version, store: ActionsCacheClient, asked: str, matched: str
) -> None:
    server.on(version.look_up, version.hit(matched, f"{server.url}/blob"))

    assert await store.look_up(asked) is None


async def test_the_newest_must_have_the_prefix(
    server: Server, version: Version, store: ActionsCacheClient
) -> None:
    server.on(
        version.look_up,
        version.hit("Index-X-1-49c8f7d5#12", f"{server.url}/blob"),
        version.hit("index-x-1-49c8f7d5-sig#3", f"{server.url}/blob"),
        version.miss,
    )

    found = await store.look_up_newest("index-x-1-49c8f7d5#")
    assert found is not None
    assert found.key == "Index-X-1-49c8f7d5#12"
    assert await store.look_up_newest("index-x-1-49c8f7d5#") is None
    assert await store.look_up_newest("index-x-1-49c8f7d5#") is None


MISSES = {
    "v1: no content": (V1, Reply(204)),
    "v1: nothing": (V1, Reply(200)),
    "v2: false": (V2, json({"ok": False})),
    "v2: false, and more": (V2, json({"ok": False, "matched_key": "", "message": "none"})),
    "v2: left out": (V2, json({})),
    "v2: not found": (V2, json({"code": "not_found", "msg": "cache entry not found"}, 404)),
}


@pytest.mark.parametrize(("version_", "reply"), MISSES.values(), ids=MISSES.keys())
async def test_what_is_missing(server: Server, version_: Version, reply: Reply) -> None:
    server.on(version_.look_up, reply)

    async with version_.opens(server.url) as store:
        assert await store.look_up(KEY) is None
        assert await store.look_up_newest(KEY) is None

    assert store.requests.counts == {"look-up": 2}


URL = "http://127.0.0.1:1/blob"
NO_MISSES = {
    "v1: not found": (V1, json({"message": "no such thing"}, 404)),
    "v1: not found by a proxy": (V1, html(404)),
    "v1: HTML": (V1, html()),
    "v1: no key": (V1, json({"archiveLocation": URL})),
    "v1: empty key": (V1, json({"cacheKey": "", "archiveLocation": URL})),
    "v1: no place": (V1, json({"cacheKey": KEY})),
    "v1: empty place": (V1, json({"cacheKey": KEY, "archiveLocation": ""})),
    "v1: an object of nothing": (V1, json({})),
    "v1: null": (V1, json(None)),
    "v1: white space": (V1, Reply(200, b" \n")),
    "v1: created": (V1, Reply(201)),
    "v1: unauthorized": (V1, json({}, 401)),
    "v1: forbidden": (V1, json({}, 403)),
    "v2: not found by a proxy": (V2, html(404)),
    "v2: no such route": (V2, json({"code": "bad_route", "msg": "no handler"}, 404)),
    "v2: not found, by its status only": (V2, json({"message": "Not CacheHit"}, 404)),
    "v2: not found, with another status": (V2, json({"code": "not_found"}, 400)),
    "v2: HTML": (V2, html()),
    "v2: nothing": (V2, Reply(200)),
    "v2: no content": (V2, Reply(204)),
    "v2: null": (V2, json(None)),
    "v2: a list": (V2, json([])),
    "v2: something else": (V2, json({"error": "try later"})),
    "v2: ok is a word": (V2, json({"ok": "false"})),
    "v2: ok is null": (V2, json({"ok": None})),
    "v2: ok is a number": (V2, json({"ok": 0})),
    "v2: no key": (V2, json({"ok": True, "signed_download_url": URL})),
    "v2: no place": (V2, json({"ok": True, "matched_key": KEY})),
    "v2: unauthorized": (V2, json({"code": "unauthenticated"}, 401)),
    "v2: forbidden": (V2, json({"code": "permission_denied", "msg": "no\x1b[2J"}, 403)),
}


@pytest.mark.parametrize(("version_", "reply"), NO_MISSES.values(), ids=NO_MISSES.keys())
async def test_what_is_no_miss_is_an_error(server: Server, version_: Version, reply: Reply) -> None:
    server.on(version_.look_up, reply)

    async with version_.opens(server.url) as store:
        with pytest.raises(StoreError) as caught:
            await store.look_up(KEY)

    assert str(caught.value).isprintable()
    assert len(server.requests) == (6 if reply.status == 200 else 1)


async def test_version_1_cannot_look_up_a_comma(server: Server) -> None:
    async with store_v1(server.url) as store:
        with pytest.raises(StoreError, match=r"cannot look up a key with a comma: index-a,b\\n"):
            await store.look_up("index-a,b\n-1-49c8f7d5#1")
        with pytest.raises(StoreError, match="comma"):
            await store.look_up_newest("index-a,b-1-49c8f7d5#")

    assert not server.requests


async def test_version_2_asks_as_builders_do(server: Server) -> None:
    server.on(V2.look_up, V2.miss)

    async with store_v2(f"{server.url}/") as store:
        await store.look_up(KEY)
        await store.look_up_newest("index-x-1-49c8f7d5#")

    exact, newest = (msgspec.json.decode(request.body) for request in server.requests)
    assert server.requests[0].path == (
        "/twirp/github.actions.results.api.v1.CacheService/GetCacheEntryDownloadURL"
    )
    assert exact["key"] == KEY
    assert exact["restore_keys"] == []
    assert newest["restore_keys"] == ["index-x-1-49c8f7d5#"]
    assert len(exact["version"]) == 64


async def test_version_1_keeps_the_path_of_its_url(server: Server) -> None:
    server.on("cache", V1.miss)

    async with store_v1(f"{server.url}/account") as store:
        await store.look_up("index-ü&x-1-49c8f7d5#1")

    [request] = server.requests
    assert request.path == "/account/_apis/artifactcache/cache"
    assert request.query["keys"] == ["index-ü&x-1-49c8f7d5#1"]
    assert request.headers["accept"] == "application/json;api-version=6.0-preview.1"


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_an_expired_url_is_looked_up_again(
    server: Server, version: Version, store: ActionsCacheClient, status: int
) -> None:
    server.on(version.look_up, version.hit(KEY, f"{server.url}/fresh?sig=2"))
    server.on("stale", Reply(status))
    server.on("fresh", Reply(200, CONTENT))

    assert await store.read(CacheHit(KEY, httpx2.URL(f"{server.url}/stale?sig=1"))) == CONTENT
    assert store.requests.counts == {"look-up": 1, "download": 2}


async def test_an_entry_that_went_is_an_error(
    server: Server, version: Version, store: ActionsCacheClient
) -> None:
    server.on(version.look_up, version.miss)
    server.on("stale", Reply(404))

    with pytest.raises(StoreError, match=r"#1 was deleted while"):
        await store.read(CacheHit(KEY, httpx2.URL(f"{server.url}/stale?sig=1")))


async def test_an_url_that_is_always_stale_is_an_error(
    server: Server, version: Version, store: ActionsCacheClient
) -> None:
    server.on(version.look_up, version.hit(KEY, f"{server.url}/stale?sig=2"))
    server.on("stale", Reply(403))

    with pytest.raises(StoreError, match=r"/stale answered HTTP 403$"):
        await store.read(CacheHit(KEY, httpx2.URL(f"{server.url}/stale?sig=1")))

    assert store.requests.counts == {"look-up": 1, "download": 2}


@pytest.mark.parametrize("status", [201, 204, 206, 301, 400, 416])
async def test_a_download_is_200_or_nothing(
    server: Server, version: Version, store: ActionsCacheClient, status: int
) -> None:
    server.on("blob", Reply(status, b"" if status == 204 else CONTENT))

    with pytest.raises(StoreError, match=f"HTTP {status}"):
        await store.read(CacheHit(KEY, httpx2.URL(f"{server.url}/blob")))


async def test_an_entry_is_written_in_three_steps(
    server: Server, version: Version, store: ActionsCacheClient
) -> None:
    server.on(version.reserve, version.reserved(server.url))
    server.on(version.upload, Reply(201))
    server.on(
        version.finalize, *([Reply(200), Reply(204)] if version is V1 else [json({"ok": True})])
    )

    await store.write(KEY, CONTENT)

    assert store.requests.counts == {"reserve": 1, "upload": 1, "finalize": 1}
    reserve, upload, finalize = server.requests
    assert msgspec.json.decode(reserve.body)["key"] == KEY
    assert upload.body == CONTENT
    size = msgspec.json.decode(finalize.body)
    assert int(size.get("size_bytes", size.get("size"))) == len(CONTENT)


async def test_a_large_version_1_entry_is_split(server: Server) -> None:
    content = bytes(2 * CHUNK + 1)
    server.on("caches", json({"cacheId": 12}))
    server.on("12", Reply(204))

    async with store_v1(server.url) as store:
        await store.write(KEY, content)

    uploads = [request for request in server.requests if request.method == "PATCH"]
    assert [request.headers["content-range"] for request in uploads] == [
        "bytes 0-33554431/*",
        "bytes 33554432-67108863/*",
        "bytes 67108864-67108864/*",
    ]
    assert [len(request.body) for request in uploads] == [CHUNK, CHUNK, 1]
    assert store.requests.counts == {"reserve": 1, "upload": 3, "finalize": 1}


async def test_a_taken_key_is_said_to_be(
    server: Server, version: Version, store: ActionsCacheClient
) -> None:
    server.on(version.reserve, version.taken())

    with pytest.raises(AlreadyExistsError, match=f"^{KEY} exists already$"):
        await store.write(KEY, CONTENT)

    assert store.requests.counts == {"reserve": 1}


async def test_a_token_that_may_not_write_is_told_what_could(
    server: Server, version: Version, store: ActionsCacheClient
) -> None:
    server.on(version.reserve, version.refusal())

    with pytest.raises(WriteRefusedError, match="run on push, schedule"):
        await store.write(KEY, CONTENT)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("cache write denied: token has read-only\npermission", WriteRefusedError),
        ("This job may not write: forbidden", WriteRefusedError),
        ("another job may be creating this cache", AlreadyExistsError),
        ("", AlreadyExistsError),
    ],
)
async def test_version_2_refuses_with_a_message(
    server: Server, message: str, error: type[StoreError]
) -> None:
    server.on("CreateCacheEntry", json({"ok": False, "message": message}))

    async with store_v2(server.url) as store:
        with pytest.raises(error) as caught:
            await store.write(KEY, CONTENT)

    assert type(caught.value) is error
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_other_refusals_are_no_word_about_the_key(
    server: Server, version: Version, store: ActionsCacheClient, status: int
) -> None:
    server.on(version.reserve, json({"code": "whatever", "msg": "no\x07"}, status))

    with pytest.raises(StoreError, match=f"HTTP {status}") as caught:
        await store.write(KEY, CONTENT)

    assert type(caught.value) is (TokenRefusedError if status == 401 else StoreError)
    assert str(caught.value).isprintable()


# Lost answers: what the service did, and what `write` then says.


def _holding(server: Server, version: Version, content: bytes | None) -> None:
    """Script what an exact look-up shows afterwards."""
    hit = version.hit(KEY, f"{server.url}/blob")
    server.on(version.look_up, version.miss if content is None else hit)
    server.on("blob", Reply(200, content or b""))


@pytest.mark.parametrize("lost", [RESET, Reply(500), Reply(200, b"{", length=99), html()])
async def test_our_own_reservation_behind_a_lost_answer_is_taken(
    server: Server, version: Version, store: ActionsCacheClient, lost: Reply
) -> None:
    server.on(version.reserve, lost, version.taken())
    _holding(server, version, None)

    with pytest.raises(AlreadyExistsError):
        await store.write(KEY, CONTENT)

    assert store.requests.counts == {"reserve": 2, "look-up": 1}


async def test_the_same_content_behind_a_lost_answer_is_written(
    server: Server, version: Version, store: ActionsCacheClient
) -> None:
    server.on(version.reserve, RESET, version.taken())
    _holding(server, version, CONTENT)

    await store.write(KEY, CONTENT)


async def test_other_content_behind_a_lost_answer_is_somebody_elses(
    server: Server, version: Version, store: ActionsCacheClient
) -> None:
    server.on(version.reserve, RESET, version.taken())
    _holding(server, version, b"{}")

    with pytest.raises(AlreadyExistsError):
        await store.write(KEY, CONTENT)


@pytest.mark.parametrize("status", [429, 403])
async def test_a_request_that_was_not_carried_out_leaves_no_doubt(
    server: Server, version: Version, store: ActionsCacheClient, status: int
) -> None:
    server.on(version.reserve, json({}, status, retry_after="0"), version.taken())

    with pytest.raises(AlreadyExistsError):
        await store.write(KEY, CONTENT)

    assert store.requests.counts == {"reserve": 2}


@pytest.mark.parametrize("lost", [RESET, Reply(503), Reply(201, b"", length=99)])
async def test_an_upload_whose_answer_was_lost_is_done_again(
    server: Server, version: Version, store: ActionsCacheClient, lost: Reply
) -> None:
    server.on(version.reserve, version.reserved(server.url))
    server.on(version.upload, lost, Reply(201))
    if version is V2:
        server.on(version.finalize, json({"ok": True}))

    await store.write(KEY, CONTENT)

    assert store.requests.counts == {"reserve": 1, "upload": 2, "finalize": 1}


async def test_an_upload_that_fails_is_not_finished(
    server: Server, version: Version, store: ActionsCacheClient
) -> None:
    server.on(version.reserve, version.reserved(server.url))
    server.on(version.upload, Reply(403))

    with pytest.raises(StoreError, match="HTTP 403"):
        await store.write(KEY, CONTENT)

    assert store.requests.counts == {"reserve": 1, "upload": 1}


def _finalizing(server: Server, version: Version, *replies: Reply) -> None:
    server.on(version.reserve, version.reserved(server.url))
    left = list(replies)

    def finalize(_: Request) -> Reply:
        return left.pop(0) if len(left) > 1 else left[0]

    def version_1(request: Request) -> Reply:
        return Reply(204) if request.method == "PATCH" else finalize(request)

    if version is V2:
        server.on("upload", Reply(201))
        server.on(version.finalize, finalize)
    else:
        server.on(version.finalize, version_1)


REPEATED = {
    "complete already": json({"error": "already complete"}, 400),
    "not ok": json({"ok": False}, 409),
    "always lost": RESET,
    "always an error": Reply(500),
    "a page": html(404),
}


@pytest.mark.parametrize("reply", REPEATED.values(), ids=REPEATED.keys())
async def test_a_finalize_whose_answer_was_lost_is_looked_up(
    server: Server, version: Version, store: ActionsCacheClient, reply: Reply
) -> None:
    _finalizing(server, version, RESET, reply)
    _holding(server, version, CONTENT)

    await store.write(KEY, CONTENT)

    assert store.requests.counts["look-up"] == 1


@pytest.mark.parametrize("content", [None, b"{}", CONTENT[:-1]])
@pytest.mark.parametrize("reply", REPEATED.values(), ids=REPEATED.keys())
async def test_a_finalize_that_did_not_happen_is_an_error(
    server: Server, version: Version, store: ActionsCacheClient, reply: Reply, content: bytes | None
) -> None:
    _finalizing(server, version, reply)
    _holding(server, version, content)

    with pytest.raises(StoreError) as caught:
        await store.write(KEY, CONTENT)

    assert type(caught.value) is StoreError
    assert str(caught.value).isprintable()


async def test_a_doubt_that_cannot_be_cleared_is_an_error(
    server: Server, version: Version, store: ActionsCacheClient
) -> None:
    _finalizing(server, version, Reply(400))
    server.on(version.look_up, html())

    with pytest.raises(StoreError, match="HTTP 400"):
        await store.write(KEY, CONTENT)


# Which version, and what there is to work with.


ENVIRONMENTS: dict[str, tuple[dict[str, str], str]] = {
    "v2": ({"ACTIONS_RESULTS_URL": "/r", "ACTIONS_CACHE_SERVICE_V2": "True"}, "/r/twirp"),
    "both, v2": (
        {
            "ACTIONS_RESULTS_URL": "/r",
            "ACTIONS_CACHE_URL": "/c",
            "ACTIONS_CACHE_SERVICE_V2": "true",
        },
        "/r/twirp",
    ),
    "both, not said": ({"ACTIONS_RESULTS_URL": "/r", "ACTIONS_CACHE_URL": "/c"}, "/c/_apis"),
    "both, not v2": (
        {
            "ACTIONS_RESULTS_URL": "/r",
            "ACTIONS_CACHE_URL": "/c",
            "ACTIONS_CACHE_SERVICE_V2": "false",
        },
        "/c/_apis",
    ),
    "v1": ({"ACTIONS_CACHE_URL": "/c"}, "/c/_apis"),
    "v2 without its URL": (
        {"ACTIONS_CACHE_URL": "/c", "ACTIONS_CACHE_SERVICE_V2": "1"},
        "/c/_apis",
    ),
    "v1 by the other URL": ({"ACTIONS_RESULTS_URL": "/r"}, "/r/_apis"),
}


@pytest.mark.parametrize(("environment", "path"), ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
async def test_the_version_is_chosen_as_builders_choose_it(
    server: Server, environment: dict[str, str], path: str
) -> None:
    server.on("cache", V1.miss)
    server.on("GetCacheEntryDownloadURL", V2.miss)
    urls = {k: f"{server.url}{v}" if k.endswith("URL") else v for k, v in environment.items()}
    settings = in_environment(ACTIONS_RUNTIME_TOKEN=RUNTIME_TOKEN, **urls)

    async with open_client(settings, AT_ONCE) as store:
        await store.look_up(KEY)

    assert server.requests[0].path.startswith(path)
    assert store.reads
    assert not store.lists
    assert store.access.readable == store.access.writable == {Ref("refs/heads/main")}
    assert store.name == f"github:{server.url.removeprefix('http://')}"


async def test_rest_alone_lists_but_does_not_read(server: Server) -> None:
    async with store_rest(server.url) as store:
        assert store.lists
        assert not store.reads
        assert store.name == "github:octo/cache"
        assert not store.access.readable
        with pytest.raises(StoreError, match="ACTIONS_RUNTIME_TOKEN"):
            await store.look_up(KEY)


async def test_the_service_alone_does_not_list(server: Server) -> None:
    async with store_v2(server.url) as store:
        assert await store.limits() == ASSUMED
        for ask in (store.list_entries(), store.delete(7)):
            with pytest.raises(StoreError, match="GITHUB_TOKEN"):
                await ask


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"GITHUB_TOKEN": API_TOKEN},
        {"GITHUB_REPOSITORY": "octo/cache"},
        {"ACTIONS_RUNTIME_TOKEN": RUNTIME_TOKEN},
        {"ACTIONS_CACHE_URL": "http://127.0.0.1:1/"},
    ],
)
async def test_nothing_to_work_on_is_a_mistake(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="no cache to work on: set"):
        async with open_client(in_environment(**environment)):
            pass


async def test_retries_are_logged_in_words(
    server: Server, version: Version, store: ActionsCacheClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="maintainer")
    server.on(version.look_up, Reply(503), RESET, version.miss)

    await store.look_up(KEY)

    messages: list[Any] = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].endswith(f"/…/{version.look_up}: HTTP 503; retrying")
