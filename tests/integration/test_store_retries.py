"""What is tried again, how long it waits, and when it gives up: against a real HTTP server."""

import gzip
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
import stamina

from maintainer.concurrency import MAX_CONCURRENT
from maintainer.errors import StoreError
from maintainer.stores.github.keyed import CacheHit
from maintainer.stores.http import client as http
from maintainer.stores.http.client import Http
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.http.retry import RetryPolicy
from tests.integration.connecting import (
    AT_ONCE,
    WITH,
    send_with,
    store_rest,
    store_v1,
    store_v2,
)
from tests.integration.scripted import RESET, Reply, Server, html, json, serve

pytestmark = pytest.mark.anyio

LOOK_UP = "GetCacheEntryDownloadURL"
EMPTY_LIST = json({"total_count": 0, "actions_caches": []})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as started:
        yield started


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Wait nowhere, not even where the service asks for it."""
    with stamina.set_testing(True, attempts=6, cap=True):
        yield


@pytest.fixture(params=WITH)
def each_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send requests by each transport."""
    send_with(request.param, monkeypatch)


PASSING = {
    "too many": json({}, 429),
    "internal": json({}, 500),
    "bad gateway": html(502),
    "unavailable": html(503),
    "gateway time-out": Reply(504),
    "reset": RESET,
    "cut short": Reply(200, b'{"total_count": 0, "act', length=100),
    "HTML": html(),
    "no JSON": Reply(200, b"{"),
    "not UTF-8": Reply(200, b'{"total_count": "\xff"}'),
    "another shape": json([]),
    "a list of something else": json({"total_count": 1, "actions_caches": [{"id": "x"}]}),
    "nothing": Reply(200),
    "secondary limit": json({"message": "You have exceeded a secondary rate limit."}, 403),
}


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING.keys())
@pytest.mark.usefixtures("no_waiting", "each_transport")
async def test_what_may_pass_is_tried_again(server: Server, trouble: Reply) -> None:
    server.on("caches", trouble, trouble, EMPTY_LIST)

    async with store_rest(server.url) as store:
        listing = await store.list_entries()

    assert listing.complete
    assert list(listing.entries) == []
    assert store.requests.counts == {"list": 3}
    assert store.requests.retries == 2


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING.keys())
@pytest.mark.usefixtures("no_waiting")
async def test_what_does_not_pass_is_one_line(server: Server, trouble: Reply) -> None:
    server.on("caches", trouble)

    async with store_rest(server.url) as store:
        with pytest.raises(StoreError) as caught:
            await store.list_entries()

    assert len(server.requests) == 6
    line = str(caught.value)
    assert line.startswith(f"GET {server.url}/…/caches ")
    assert line.isprintable()
    assert "?" not in line
    assert "per_page" not in line


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 410, 422, 501])
async def test_what_does_not_change_is_asked_once(server: Server, status: int) -> None:
    server.on("caches", json({}, status))

    async with store_rest(server.url) as store:
        with pytest.raises(StoreError, match=f"HTTP {status}"):
            await store.list_entries()

    assert len(server.requests) == 1


@pytest.mark.usefixtures("each_transport")
async def test_a_refused_connection_is_tried_again_and_told() -> None:
    with serve() as server:
        url = server.url

    async with store_rest(url) as store:
        with pytest.raises(StoreError, match=r"/…/caches failed: Connection refused$"):
            await store.list_entries()

    assert store.requests.counts == {"list": 6}


async def test_a_host_that_is_not_known_is_said_to_be_that() -> None:
    async with store_rest("http://cache.invalid") as store:
        with pytest.raises(StoreError, match=r"failed: host name does not resolve$"):
            await store.list_entries()


async def test_a_proxy_of_the_environment_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    server.on("caches", EMPTY_LIST)

    async with store_rest("http://cache.invalid") as store:
        assert (await store.list_entries()).complete

    assert server.requests[0].headers["host"] == "cache.invalid"


async def test_an_answer_that_takes_too_long_is_given_up(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.on("caches", lambda _: _slow(), EMPTY_LIST)
    patience = RetryPolicy(first_wait=timedelta(0), total=timedelta(seconds=0.2))

    async with store_rest(server.url, patience) as store:
        with pytest.raises(StoreError, match="timed out"):
            await store.list_entries()


def _slow() -> Reply:
    # The client has left long before; whatever is written then is lost.
    import time

    time.sleep(0.4)
    return EMPTY_LIST


def _as_date(then: datetime) -> str:
    return format_datetime(then, usegmt=True)


def _as_seconds(then: datetime) -> str:
    return str(int(then.timestamp()))


# A time is written when its test runs: minutes may lie between collecting tests and running them.
Asked = str | Callable[[datetime], str]
USED_UP: dict[str, Asked] = {"x_ratelimit_remaining": "0", "x_ratelimit_reset": _as_seconds}
ASKED_WAITS: dict[str, tuple[dict[str, Asked], int, int]] = {
    "seconds": ({"retry_after": "7"}, 429, 7),
    "a date": ({"retry_after": _as_date}, 429, 3000),
    "a date that is over": ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 503, 0),
    "no date": ({"retry_after": "soon"}, 503, 0),
    "unavailable": ({"retry_after": "11"}, 503, 11),
    "secondary limit": ({"retry_after": "60"}, 403, 60),
    "used up": (USED_UP, 403, 2000),
    "used up, with 429": (USED_UP, 429, 2000),
}


@pytest.mark.parametrize(("asked", "status", "wait"), ASKED_WAITS.values(), ids=ASKED_WAITS)
@pytest.mark.usefixtures("no_waiting")
async def test_waits_as_long_as_the_service_asks(
    server: Server, asked: dict[str, Asked], status: int, wait: int
) -> None:
    then = datetime.now(UTC) + timedelta(seconds=wait)
    headers = {name: it if isinstance(it, str) else it(then) for name, it in asked.items()}
    server.on("caches", json({}, status, **headers), EMPTY_LIST)

    async with store_rest(server.url, RetryPolicy(longest_asked_wait=timedelta(hours=1))) as store:
        await store.list_entries()

    assert store.requests.counts == {"list": 2}
    assert store.requests.asked_to_wait.total_seconds() == pytest.approx(wait, abs=30)


@pytest.mark.usefixtures("no_waiting")
async def test_a_secondary_limit_that_names_no_time_is_given_a_minute(server: Server) -> None:
    server.on("caches", PASSING["secondary limit"], EMPTY_LIST)

    async with store_rest(server.url) as store:
        await store.list_entries()

    assert store.requests.asked_to_wait == timedelta(minutes=1)


async def test_does_not_wait_longer_than_a_run_can(server: Server) -> None:
    server.on("caches", json({}, 403, retry_after="3600"))

    async with store_rest(server.url) as store:
        with pytest.raises(StoreError, match=r"HTTP 403, asking for 3,600 s of patience"):
            await store.list_entries()

    assert len(server.requests) == 1


async def test_waits_grow_and_have_an_end() -> None:
    patience = RetryPolicy()

    assert patience.attempts == 6
    assert patience.first_wait < patience.longest_wait < patience.total
    assert patience.longest_asked_wait <= patience.total


async def test_really_waits_between_attempts(server: Server) -> None:
    waits: list[float] = []
    stamina.instrumentation.set_on_retry_hooks([lambda details: waits.append(details.wait_for)])
    server.on(
        "caches", Reply(503), Reply(503), Reply(503, headers={"Retry-After": "0"}), EMPTY_LIST
    )
    patience = RetryPolicy(
        first_wait=timedelta(milliseconds=1), longest_wait=timedelta(seconds=0.1)
    )
    try:
        async with store_rest(server.url, patience) as store:
            await store.list_entries()
    finally:
        stamina.instrumentation.set_on_retry_hooks(None)

    assert 0.001 <= waits[0] <= 0.002 <= waits[1] <= 0.003
    assert waits[2] == 0


async def test_rate_limit_is_remembered(server: Server) -> None:
    told: dict[str, Any] = {"x_ratelimit_limit": "1000", "x_ratelimit_reset": "1800000000"}
    page = {"total_count": 0, "actions_caches": []}
    server.on("caches", json(page, x_ratelimit_remaining="987", **told))
    server.on("7", json({}, 404, x_ratelimit_remaining="986", **told))

    async with store_rest(server.url) as store:
        assert store.requests.rate_limit_remaining is None
        await store.list_entries()
        assert store.requests.rate_limit_remaining == 987
        await store.delete(7)

    assert store.requests.rate_limit == 1000
    assert store.requests.rate_limit_remaining == 986
    assert store.requests.rate_limit_reset_at == datetime(2027, 1, 15, 8, tzinfo=UTC)


async def test_nonsense_about_the_rate_limit_is_no_problem(server: Server) -> None:
    reply = Reply(
        EMPTY_LIST.status,
        EMPTY_LIST.body,
        {"x-ratelimit-remaining": "-1", "x-ratelimit-reset": "9" * 40, "x-ratelimit-limit": "x"},
    )
    server.on("caches", reply)

    async with store_rest(server.url) as store:
        await store.list_entries()

    assert store.requests.rate_limit_remaining is None


def _found(server: Server) -> CacheHit:
    return CacheHit("index-x-1-49c8f7d5#1", httpx2.URL(f"{server.url}/blob?sig=SIGNATURE"))


@pytest.mark.parametrize(
    "trouble",
    [
        RESET,
        Reply(500),
        Reply(200, b"whole, ", length=10),
        Reply(200, b"whole, or not", length=-1),
        Reply(200, gzip.compress(b"something"), {"Content-Encoding": "gzip"}),
        html(),
    ],
    ids=["reset", "500", "cut short", "no length", "encoded", "a page for people"],
)
@pytest.mark.usefixtures("each_transport")
async def test_only_whole_downloads_count(server: Server, trouble: Reply) -> None:
    server.on("blob", trouble, Reply(200, b"content"))

    async with store_v2(server.url) as store:
        assert await store.read(_found(server)) == b"content"

    assert store.requests.counts == {"download": 2}


async def test_a_chunked_download_tells_its_end(server: Server) -> None:
    chunked = {"Transfer-Encoding": "chunked"}
    server.on("blob", Reply(200, b"3\r\nabc\r\n0\r\n\r\n", chunked, length=-1))

    async with store_v2(server.url) as store:
        assert await store.read(_found(server)) == b"abc"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"x" * 1001),
        Reply(200, b"x" * 10, length=10**12),
        Reply(200, b"3e9\r\n" + b"x" * 1001, {"Transfer-Encoding": "chunked"}, length=-1),
    ],
    ids=["larger", "announced", "chunked"],
)
@pytest.mark.usefixtures("each_transport")
async def test_an_index_above_the_limit_is_refused_before_it_is_read_whole(
    server: Server, reply: Reply
) -> None:
    server.on("blob", reply)

    async with store_v2(server.url, max_index_size=1000) as store:
        with pytest.raises(StoreError, match="more than 1,000 bytes"):
            await store.read(_found(server))

    assert len(server.requests) == 1


async def test_an_index_that_inflates_is_refused(server: Server) -> None:
    server.on(
        "blob", Reply(200, gzip.compress(bytes(300 * 2**20), 9), {"Content-Encoding": "gzip"})
    )

    async with store_v2(server.url) as store:
        with pytest.raises(StoreError, match="was not asked to encode"):
            await store.read(_found(server))


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip"])
@pytest.mark.usefixtures("each_transport")
async def test_json_that_inflates_is_refused(server: Server, encoding: str) -> None:
    packed = gzip.compress(b"[" * (http.MAX_ANSWER_SIZE + 1), 9)
    if "," in encoding:
        packed = gzip.compress(packed, 9)
    server.on("caches", Reply(200, packed, {"Content-Encoding": encoding}))

    async with store_rest(server.url) as store:
        with pytest.raises(StoreError, match=r"more than (16,777,216 bytes|once)"):
            await store.list_entries()

    assert len(server.requests) == 1


async def test_json_may_be_encoded(server: Server) -> None:
    server.on("caches", Reply(200, gzip.compress(EMPTY_LIST.body), {"Content-Encoding": "gzip"}))

    async with store_rest(server.url) as store:
        assert (await store.list_entries()).complete


async def test_deep_nesting_is_no_answer(server: Server) -> None:
    server.on("caches", Reply(200, b'{"total_count":0,"x":' + b"[" * 10**6 + b"]" * 10**6 + b"}"))

    async with store_rest(server.url) as store:
        with pytest.raises(StoreError, match="malformed response"):
            await store.list_entries()


async def test_uploads_stay_below_what_github_allows_in_any_minute() -> None:
    async with Http(RequestLog()) as client:
        limiter = client.uploads

    # What a full bucket lets through at once, and what drips into it within a minute.
    burst = limiter.max_rate
    refilled = limiter.max_rate / limiter.time_period * 60
    assert burst + refilled <= 200


async def test_each_entry_counts_as_one_upload(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "UPLOADS", 2)
    monkeypatch.setattr("maintainer.stores.github.service_v1.CHUNK", 2)
    server.on("caches", json({}, 500), json({"cacheId": 5}))
    server.on("5", Reply(204))

    async with store_v1(server.url) as store:
        await store.write("index-x-1-49c8f7d5#1", b"12345")
        assert not store._http.uploads.has_capacity()

    assert store.requests.counts == {"reserve": 2, "upload": 3, "finalize": 1}


async def test_requests_under_way_are_bounded(server: Server) -> None:
    import anyio

    server.on(LOOK_UP, json({"ok": False}))

    async with store_v2(server.url, AT_ONCE) as store, anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(store.look_up, f"buildkit-blob-1-sha256:{number:064}")

    assert store.requests.counts == {"look-up": 50}
    assert store._http._places.total_tokens == MAX_CONCURRENT
