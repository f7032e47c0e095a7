"""The emulated cache service keeps GitHub's rules, as its clients see them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar, get_args

import httpx2
import pytest

from maintainer.emulator import ActionsCache, Request, Running, serve_in_thread
from maintainer.emulator.server import Service
from maintainer.errors import AlreadyExistsError, WriteRefusedError
from maintainer.settings import GitHubSettings
from maintainer.stores.github.client import ActionsCacheClient, open_client

MAIN, TOPIC = "refs/heads/main", "refs/heads/topic"
_T = TypeVar("_T")

TWIRP = "twirp/github.actions.results.api.v1.CacheService"


class Clock:
    """A clock that goes on when told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def step(self, **by: int) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> ActionsCache:
    return ActionsCache(clock=clock)


@pytest.fixture
def running(cache: ActionsCache) -> Iterator[Running]:
    with serve_in_thread(cache) as running:
        yield running


@pytest.fixture(params=get_args(Service))
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.param
    return found


class Client:
    """Our own client, one call after another."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.settings = GitHubSettings.model_validate(environment)

    def write(self, key: str, content: bytes) -> None:
        async def call(store: ActionsCacheClient) -> None:
            await store.write(key, content)

        self._run(call)

    def read(self, key: str) -> bytes | None:
        async def call(store: ActionsCacheClient) -> bytes | None:
            found = await store.look_up(key)
            return await store.read(found) if found else None

        return self._run(call)

    def newest(self, prefix: str) -> str | None:
        async def call(store: ActionsCacheClient) -> str | None:
            found = await store.look_up_newest(prefix)
            return found.key if found else None

        return self._run(call)

    def _run(self, call: Callable[[ActionsCacheClient], Awaitable[_T]]) -> _T:
        async def with_store() -> _T:
            async with open_client(self.settings) as store:
                return await call(store)

        return asyncio.run(with_store())


def test_what_our_client_writes_it_reads_again(running: Running, service: Service) -> None:
    client = Client(running.environment(MAIN, service=service))
    client.write("index-web-1-49c8f7d5#1", b"\x00 some bytes \xff")
    assert client.read("index-web-1-49c8f7d5#1") == b"\x00 some bytes \xff"


def test_an_entry_may_be_empty(running: Running) -> None:
    client = Client(running.environment(MAIN))
    client.write("empty", b"")
    assert client.read("empty") == b""


def test_a_key_is_never_written_twice(running: Running, service: Service) -> None:
    client = Client(running.environment(MAIN, service=service))
    client.write("key", b"first")
    with pytest.raises(AlreadyExistsError):
        client.write("key", b"second")
    assert client.read("key") == b"first"


def test_a_reserved_key_stays_locked_and_unseen(
    running: Running, service: Service, cache: ActionsCache
) -> None:
    client = Client(running.environment(MAIN, service=service))
    running.call(lambda cache: cache.reserve(MAIN, "key", "another version"))
    client.write("key", b"free in this version")
    version = running.call(lambda cache: cache.entries()[0].version)
    running.call(lambda cache: cache.reserve(MAIN, "locked", version))
    with pytest.raises(AlreadyExistsError):
        client.write("locked", b"")
    assert client.read("locked") is None
    assert running.call(lambda cache: cache.reserved) == [(MAIN, "key"), (MAIN, "locked")]


def test_an_exact_match_goes_before_a_newer_entry_with_the_prefix(
    running: Running, service: Service, clock: Clock
) -> None:
    client = Client(running.environment(MAIN, service=service))
    client.write("index#1", b"")
    clock.step(minutes=1)
    client.write("index#12", b"")
    assert client.newest("index#1") == "index#1"
    assert client.newest("index#") == "index#12"


def test_the_newest_is_what_was_created_last_whatever_its_number(
    running: Running, service: Service, clock: Clock
) -> None:
    client = Client(running.environment(MAIN, service=service))
    for number in (9, 10, 2):
        client.write(f"index#{number}", b"")
        clock.step(minutes=1)
    assert client.newest("index#") == "index#2"


def test_refs_are_searched_in_the_order_of_the_token(
    running: Running, service: Service, cache: ActionsCache
) -> None:
    client = Client(running.environment(TOPIC, readable=(MAIN,), service=service))
    cache.put("layer", b"main", ref=MAIN)
    assert client.read("layer") == b"main"
    cache.put("layer-and-more", b"topic", ref=TOPIC)
    assert client.newest("layer") == "layer-and-more"
    cache.put("layer", b"other", ref="refs/heads/other")
    assert client.read("layer") == (b"main" if service == "v2" else None)


def test_a_token_reads_no_ref_that_it_does_not_name(
    running: Running, service: Service, cache: ActionsCache
) -> None:
    cache.put("layer", b"main", ref=MAIN)
    assert Client(running.environment(TOPIC, service=service)).read("layer") is None


def test_the_same_key_is_free_in_another_ref(running: Running, service: Service) -> None:
    for ref in (MAIN, TOPIC):
        Client(running.environment(ref, service=service)).write("key", ref.encode())
    for ref in (MAIN, TOPIC):
        assert Client(running.environment(ref, service=service)).read("key") == ref.encode()


def test_a_token_that_only_reads_writes_nothing(
    running: Running, service: Service, cache: ActionsCache
) -> None:
    cache.put("layer", b"main", ref=MAIN)
    client = Client(running.environment(MAIN, write=False, service=service))
    assert client.read("layer") == b"main"
    with pytest.raises(WriteRefusedError):
        client.write("key", b"")
    assert cache.reserved == []


def test_a_refused_write_is_told_in_the_words_that_githubs_client_looks_for(
    running: Running,
) -> None:
    reader = running.environment(MAIN, write=False)
    v2 = _post(running, reader, f"{TWIRP}/CreateCacheEntry", {"key": "k", "version": "v"})
    assert v2.json()["ok"] is False
    assert v2.json()["message"].startswith("cache write denied:")
    v1 = _post(running, reader, "_apis/artifactcache/caches", {"key": "k", "version": "v"})
    assert v1.status_code == httpx2.codes.FORBIDDEN
    assert v1.json()["message"].startswith("cache write denied:")


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer x.y.z", "Basic eA==", "Bearer \xe9"])
def test_only_its_own_tokens_are_good(running: Running, token: str) -> None:
    headers = {b"Authorization": token.encode("latin-1")}
    for path in (f"{TWIRP}/CreateCacheEntry", "_apis/artifactcache/caches"):
        answer = httpx2.post(f"{running.url}/{path}", headers=headers, json={})
        assert answer.status_code == httpx2.codes.UNAUTHORIZED
    answer = httpx2.get(f"{running.url}/repos/a/b/actions/caches", headers=headers)
    assert answer.status_code == httpx2.codes.UNAUTHORIZED


def test_the_rest_token_is_no_runtime_token_nor_the_other_way_round(running: Running) -> None:
    environment = running.environment(MAIN)
    swapped = environment | {"ACTIONS_RUNTIME_TOKEN": environment["GITHUB_TOKEN"]}
    answer = _post(running, swapped, f"{TWIRP}/CreateCacheEntry", {"key": "k", "version": "v"})
    assert answer.status_code == httpx2.codes.UNAUTHORIZED
    answer = httpx2.get(
        f"{running.url}/repos/a/b/actions/caches",
        headers={"Authorization": f"Bearer {environment['ACTIONS_RUNTIME_TOKEN']}"},
    )
    assert answer.status_code == httpx2.codes.UNAUTHORIZED


def test_a_wrong_size_is_refused_and_the_key_stays_locked(running: Running) -> None:
    environment = running.environment(MAIN)
    named = {"key": "k", "version": "v"}
    url = _post(running, environment, f"{TWIRP}/CreateCacheEntry", named).json()[
        "signed_upload_url"
    ]
    finalize = f"{TWIRP}/FinalizeCacheEntryUpload"
    unsent = _post(running, environment, finalize, named | {"size_bytes": 0})
    assert unsent.json()["code"] == "invalid_argument"
    httpx2.put(url, content=b"five!", headers={"x-ms-blob-type": "BlockBlob"}).raise_for_status()
    wrong = _post(running, environment, finalize, named | {"size_bytes": "4"})
    assert wrong.json()["code"] == "invalid_argument"
    assert running.call(lambda cache: cache.reserved) == [(MAIN, "k")]
    right = _post(running, environment, finalize, named | {"sizeBytes": "5"})
    assert right.json()["ok"] is True
    again = _post(running, environment, finalize, named | {"size_bytes": 5})
    assert again.json()["code"] == "not_found"


def test_chunks_of_version_1_may_arrive_in_any_order_but_none_may_miss(running: Running) -> None:
    environment = running.environment(MAIN, service="v1")
    base = "_apis/artifactcache/caches"
    cache_id = _post(running, environment, base, {"key": "k", "version": "v"}).json()["cacheId"]
    headers = {"Authorization": f"Bearer {environment['ACTIONS_RUNTIME_TOKEN']}"}

    def send(start: int, content: bytes) -> httpx2.Response:
        stop = start + len(content) - 1
        return httpx2.patch(
            f"{running.url}/{base}/{cache_id}",
            content=content,
            headers=headers | {"Content-Range": f"bytes {start}-{stop}/*"},
        )

    send(3, b"def").raise_for_status()
    early = _post(running, environment, f"{base}/{cache_id}", {"size": 6})
    assert early.status_code == httpx2.codes.BAD_REQUEST
    send(0, b"abc").raise_for_status()
    _post(running, environment, f"{base}/{cache_id}", {"size": 6}).raise_for_status()
    assert running.call(lambda cache: cache.entries()[0].content) == b"abcdef"


def test_another_refs_upload_cannot_be_written_to(running: Running) -> None:
    base = "_apis/artifactcache/caches"
    mine = running.environment(MAIN, service="v1")
    theirs = running.environment(TOPIC, service="v1")
    cache_id = _post(running, mine, base, {"key": "k", "version": "v"}).json()["cacheId"]
    answer = _post(running, theirs, f"{base}/{cache_id}", {"size": 0})
    assert answer.status_code == httpx2.codes.NOT_FOUND


def test_above_the_quota_the_least_recently_used_go_first(clock: Clock) -> None:
    cache = ActionsCache(clock=clock, quota=100)
    for name in ("old", "used", "young"):
        cache.put(name, size=30, ref=MAIN)
        clock.step(hours=1)
    with serve_in_thread(cache) as running:
        client = Client(running.environment(MAIN))
        assert client.read("used") == bytes(30)
        clock.step(hours=1)
        client.write("new", bytes(30))
    assert [entry.key for entry in cache.entries()] == ["used", "young", "new"]
    assert cache.usage == 90


def test_a_look_up_counts_as_a_use_and_a_listing_does_not(
    running: Running, cache: ActionsCache, clock: Clock
) -> None:
    written_at = clock.now
    cache.put("key", b"", ref=MAIN)
    environment = running.environment(MAIN)
    clock.step(hours=1)
    httpx2.get(
        f"{running.url}/repos/a/b/actions/caches",
        headers={"Authorization": f"Bearer {environment['GITHUB_TOKEN']}"},
    ).raise_for_status()
    assert cache.entries()[0].last_accessed_at == written_at
    assert Client(environment).read("key") == b""
    assert cache.entries()[0].last_accessed_at == clock.now
    assert cache.entries()[0].created_at == written_at


def test_observers_see_each_request_before_and_after_it_changed_the_cache(
    running: Running, service: Service
) -> None:
    before: list[tuple[Request, int]] = []
    after: list[tuple[Request, int]] = []

    def count(into: list[tuple[Request, int]], request: Request) -> None:
        into.append((request, running.call(lambda cache: len(cache.entries()))))

    running.observe(before=lambda r: count(before, r), after=lambda r: count(after, r))
    Client(running.environment(MAIN, service=service)).write("key", b"content")
    assert [r.kind for r, _ in before] == ["reserve", "upload", "finalize"]
    assert [r.kind for r, _ in after] == ["reserve", "upload", "finalize"]
    assert [r.key for r, _ in after] == ["key", "key", "key"]
    assert {r.status for r, _ in before} == {None}
    assert None not in {r.status for r, _ in after}
    assert [entries for _, entries in before] == [0, 0, 0]
    assert [entries for _, entries in after] == [0, 0, 1]


def test_what_an_observer_raises_reaches_the_test(cache: ActionsCache) -> None:
    def fail(request: Request) -> None:
        raise AssertionError(request.kind)

    with (
        pytest.raises(AssertionError, match="look-up"),
        serve_in_thread(cache, after=fail) as running,
    ):
        assert Client(running.environment(MAIN)).read("key") is None


def _post(
    running: Running, environment: dict[str, str], path: str, body: Mapping[str, object]
) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {environment['ACTIONS_RUNTIME_TOKEN']}"}
    return httpx2.post(f"{running.url}/{path}", headers=headers, json=body)
