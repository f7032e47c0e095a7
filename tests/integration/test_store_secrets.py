"""Tokens go to their service only, and neither they nor signatures are ever told."""

import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator

import httpx2
import pytest

from maintainer.errors import StoreError, UsageError
from maintainer.stores.github.client import open_client
from maintainer.stores.github.keyed import CacheHit
from tests.integration.connecting import (
    API_TOKEN,
    AT_ONCE,
    RUNTIME_TOKEN,
    WITH,
    beside_a_proxy,
    in_environment,
    send_with,
    store_rest,
    store_v1,
    store_v2,
)
from tests.integration.scripted import RESET, Reply, Request, Server, html, json, serve

pytestmark = pytest.mark.anyio

SIGNATURE = "SIGNATURE-OF-THE-STORAGE"
PATH_TOKEN = "PATH-OF-THE-ACCOUNT"
SECRETS = (RUNTIME_TOKEN, API_TOKEN, SIGNATURE, PATH_TOKEN)
KEY = "index-x-1-49c8f7d5#1"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as started:
        yield started


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    """Start a server with another name, and another port."""
    with serve("localhost") as started:
        yield started


def _see(request: Request) -> str:
    return f"{request.headers} {request.path} {request.query}"


@pytest.mark.parametrize("transport", WITH)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_does_not_take_the_token_along(
    server: Server,
    elsewhere: Server,
    status: int,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send_with(transport, monkeypatch)
    server.on("caches", Reply(status, headers={"Location": f"{elsewhere.url}/caches"}))
    elsewhere.on("caches", json({"total_count": 0, "actions_caches": []}))

    async with store_rest(server.url) as store:
        assert (await store.list_entries()).complete

    assert server.requests[0].headers["authorization"] == f"Bearer {API_TOKEN}"
    assert len(elsewhere.requests) == 1
    assert "authorization" not in elsewhere.requests[0].headers
    assert API_TOKEN not in _see(elsewhere.requests[0])


async def test_another_port_of_the_same_host_is_another_host(server: Server) -> None:
    with serve() as neighbour:
        server.on("caches", Reply(307, headers={"Location": f"{neighbour.url}/caches"}))
        neighbour.on("caches", json({"total_count": 0, "actions_caches": []}))

        async with store_rest(server.url) as store:
            await store.list_entries()

        assert "authorization" not in neighbour.requests[0].headers


async def test_a_renamed_repository_is_followed_with_the_token(server: Server) -> None:
    server.on("caches", Reply(301, headers={"Location": "/repositories/1/renamed?page=1"}))
    server.on("renamed", json({"total_count": 0, "actions_caches": []}))

    async with store_rest(server.url) as store:
        await store.list_entries()

    assert server.asked("renamed")[0].headers["authorization"] == f"Bearer {API_TOKEN}"
    assert store.requests.counts == {"list": 1}


@pytest.mark.parametrize("status", [302, 303])
async def test_a_deletion_is_not_turned_into_a_question(server: Server, status: int) -> None:
    server.on("7", Reply(status, headers={"Location": "/8"}))
    server.on("8", json({}))

    async with store_rest(server.url) as store:
        with pytest.raises(StoreError, match="redirected"):
            await store.delete(7)

    assert not server.asked("8")


async def test_a_circle_of_redirects_ends(server: Server) -> None:
    server.on("caches", Reply(302, headers={"Location": "/caches"}))

    async with store_rest(server.url) as store:
        with pytest.raises(StoreError, match="redirected too often"):
            await store.list_entries()

    assert len(server.requests) == 6


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_the_service_does_not_redirect(
    server: Server, elsewhere: Server, status: int
) -> None:
    moved = Reply(status, headers={"Location": f"{elsewhere.url}/there"})
    server.on("GetCacheEntryDownloadURL", moved)
    server.on("CreateCacheEntry", moved)
    server.on("cache", moved)

    async with store_v2(server.url) as store:
        with pytest.raises(StoreError, match=f"HTTP {status}"):
            await store.look_up(KEY)
        with pytest.raises(StoreError, match=f"HTTP {status}"):
            await store.write(KEY, b"content")
    async with store_v1(server.url) as store:
        with pytest.raises(StoreError, match=f"HTTP {status}"):
            await store.look_up(KEY)

    assert not elsewhere.requests


async def test_storage_never_sees_the_token(server: Server, elsewhere: Server) -> None:
    signed = f"{elsewhere.url}/blob?sig={SIGNATURE}"
    server.on("CreateCacheEntry", json({"ok": True, "signed_upload_url": signed}))
    server.on("FinalizeCacheEntryUpload", json({"ok": True}))
    found = {"ok": True, "signed_download_url": signed, "matched_key": KEY}
    server.on("GetCacheEntryDownloadURL", json(found))
    server.on("cache", json({"cacheKey": KEY, "archiveLocation": signed}))
    elsewhere.on("blob", Reply(201), Reply(302, headers={"Location": f"{server.url}/moved"}))
    server.on("moved", Reply(200, b"content"))

    async with store_v2(server.url) as store:
        await store.write(KEY, b"content")
        assert await store.read(await _found(store.look_up(KEY))) == b"content"
    async with store_v1(server.url) as store:
        assert await store.read(await _found(store.look_up(KEY))) == b"content"

    for request in [*elsewhere.requests, *server.asked("moved")]:
        assert "authorization" not in request.headers
        assert RUNTIME_TOKEN not in _see(request)
    assert [request.method for request in elsewhere.requests] == ["PUT", "GET", "GET"]


async def _found(looking: object) -> CacheHit:
    found = await looking  # type: ignore[misc]
    assert isinstance(found, CacheHit)
    return found


async def _what_it_tells(ask: Callable[[], Awaitable[object]]) -> list[str]:
    try:
        await ask()
    except StoreError as error:
        return [str(error), repr(error), *traceback.format_exception(error)]
    return []


TROUBLES = {
    "refused": json({"message": RUNTIME_TOKEN, "code": "internal"}, 400),
    "no rights": json({"code": "permission_denied"}, 403),
    "server error": Reply(500, SIGNATURE.encode()),
    "HTML": html(),
    "wrong shape": json({"ok": RUNTIME_TOKEN, "cacheKey": 1, "total_count": API_TOKEN}),
    "reset": RESET,
    "moved": Reply(302, headers={"Location": f"https://nowhere.invalid/?sig={SIGNATURE}"}),
    "moved nowhere": Reply(302, headers={"Location": f"ftp://{SIGNATURE}:80000/"}),
    "cut short": Reply(200, b"{", length=100),
    "no header": Reply(200, b"{}", headers={"X": SIGNATURE, "Bad header": SIGNATURE}),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
async def test_no_error_and_no_log_tells_a_secret(
    server: Server, trouble: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"{server.url}/{PATH_TOKEN}"
    told: list[str] = []
    for name in ("caches", "cache", "7", "blob", "GetCacheEntryDownloadURL", "CreateCacheEntry"):
        server.on(name, trouble)
    signed = CacheHit(KEY, httpx2.URL(f"{url}/blob?sig={SIGNATURE}"))

    async with store_v2(url) as v2, store_v1(url) as v1, store_rest(url) as rest:
        for ask in (
            lambda: v2.look_up(KEY),
            lambda: v2.look_up_newest(KEY),
            lambda: v2.write(KEY, b"content"),
            lambda: v2.read(signed),
            lambda: v1.look_up(KEY),
            lambda: v1.write(KEY, b"content"),
            rest.list_entries,
            lambda: rest.delete(7),
        ):
            told += await _what_it_tells(ask)
        told += [repr(thing) for thing in (v2, v1, rest, signed, v2.access, v2.requests)]

    told += [repr(vars(record)) + record.getMessage() for record in caplog.records]
    assert told
    for secret in SECRETS:
        assert secret not in "\n".join(told)


async def test_httpx_would_have_told_the_signature(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside_a_proxy(monkeypatch)  # Otherwise httpx2's client does not send it.
    caplog.set_level(logging.DEBUG)
    server.on("blob", Reply(200, b"content"))

    async with store_v2(server.url) as store:
        # Whatever a program does to its own loggers, it takes this one to hear httpx2 again.
        caplog.set_level(logging.INFO, logger="httpx2")
        await store.read(CacheHit(KEY, httpx2.URL(f"{server.url}/blob?sig={SIGNATURE}")))
        assert SIGNATURE in caplog.text
        caplog.clear()

    caplog.set_level(logging.DEBUG)
    async with store_v2(server.url) as store:
        await store.read(CacheHit(KEY, httpx2.URL(f"{server.url}/blob?sig={SIGNATURE}")))

    assert SIGNATURE not in caplog.text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACTIONS_RUNTIME_TOKEN", RUNTIME_TOKEN + "\n"),
        ("ACTIONS_RUNTIME_TOKEN", "no-JWT-but-secret"),
        ("ACTIONS_RUNTIME_TOKEN", f"{RUNTIME_TOKEN}\u00e9"),
        ("GITHUB_TOKEN", f" {API_TOKEN}"),
        ("ACTIONS_RESULTS_URL", f"https://user:{SIGNATURE}@results.invalid/"),
        ("ACTIONS_RESULTS_URL", f"https://results.invalid/?token={SIGNATURE}"),
        ("ACTIONS_CACHE_URL", f"{SIGNATURE}"),
        ("ACTIONS_CACHE_URL", f"https://host:99999999/{SIGNATURE}"),
        ("GITHUB_API_URL", f"file:///{SIGNATURE}"),
    ],
)
async def test_a_bad_environment_is_one_line_without_the_value(variable: str, value: str) -> None:
    good = {
        "ACTIONS_RUNTIME_TOKEN": RUNTIME_TOKEN,
        "ACTIONS_RESULTS_URL": "https://results.invalid/",
        "GITHUB_TOKEN": API_TOKEN,
        "GITHUB_REPOSITORY": "octo/cache",
    }

    with pytest.raises(UsageError) as caught:
        async with open_client(in_environment(**good | {variable: value}), AT_ONCE):
            pass

    assert variable in str(caught.value)
    assert str(caught.value).isprintable()
    for text in (str(caught.value), "".join(traceback.format_exception(caught.value))):
        assert value.strip() not in text
        assert not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize(
    "url",
    ["ftp://host/", "/blob", "http://", "http://h:99999999/", "\x00", "h" * 70000],
)
async def test_content_is_asked_of_web_servers_only(server: Server, url: str) -> None:
    reply = json({"ok": True, "signed_download_url": url, "matched_key": KEY})
    server.on("GetCacheEntryDownloadURL", reply)

    async with store_v2(server.url) as store:
        with pytest.raises(StoreError, match="no URL for the content"):
            await store.look_up(KEY)


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:99999999/", f"http://{'label' * 20}.invalid/", "http://[", "file:///etc"],
)
async def test_a_redirect_to_nowhere_is_one_line(server: Server, location: str) -> None:
    server.on("blob", Reply(302, headers={"Location": location}))

    async with store_v2(server.url) as store:
        with pytest.raises(StoreError) as caught:
            await store.read(CacheHit(KEY, httpx2.URL(f"{server.url}/blob?sig={SIGNATURE}")))

    assert location not in str(caught.value)
