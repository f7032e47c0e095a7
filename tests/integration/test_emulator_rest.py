"""The emulated REST API lists and deletes as GitHub's does."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from maintainer.emulator import ActionsCache, Running, serve_in_thread
from maintainer.settings import GitHubSettings, parse_size
from maintainer.stores.github.client import open_client

MAIN, TOPIC = "refs/heads/main", "refs/heads/topic"
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def cache() -> ActionsCache:
    """250 entries; the later written, the smaller and the longer unused."""
    cache = ActionsCache(quota=3 * 1024**3)
    for number in range(250):
        cache.put(
            f"key-{number:03}",
            size=1000 - number,
            ref=TOPIC if number % 50 == 0 else MAIN,
            created_at=NEW_YEAR + timedelta(minutes=number),
            last_accessed_at=NEW_YEAR + timedelta(days=30, minutes=-number),
        )
    return cache


@pytest.fixture
def running(cache: ActionsCache) -> Iterator[Running]:
    with serve_in_thread(cache) as running:
        yield running


@pytest.fixture
def rest(running: Running) -> Iterator[httpx2.Client]:
    token = running.environment(MAIN)["GITHUB_TOKEN"]
    with httpx2.Client(
        base_url=f"{running.url}/repos/example/app/actions",
        headers={"Authorization": f"token {token}"},
    ) as client:
        yield client


def _keys(answer: httpx2.Response) -> list[str]:
    return [entry["key"] for entry in answer.json()["actions_caches"]]


def test_our_client_lists_every_entry_in_as_few_pages_as_there_are(running: Running) -> None:
    pages: list[str] = []
    running.observe(before=lambda request: pages.append(request.kind))

    async def listed() -> list[str]:
        settings = GitHubSettings.model_validate(running.environment(MAIN))
        async with open_client(settings) as store:
            listing = await store.list_entries()
        assert listing.complete
        entries = sorted(listing.entries, key=lambda entry: entry.id)
        assert entries[1].size == 999
        assert entries[1].created_at == NEW_YEAR + timedelta(minutes=1)
        return [entry.key for entry in entries]

    assert asyncio.run(listed()) == [f"key-{number:03}" for number in range(250)]
    assert pages == ["list"] * 3


def test_a_page_has_at_most_a_hundred_entries_and_thirty_unless_asked(rest: httpx2.Client) -> None:
    assert len(_keys(rest.get("caches"))) == 30
    assert len(_keys(rest.get("caches", params={"per_page": "1000"}))) == 100
    last = rest.get("caches", params={"per_page": "100", "page": "3"})
    assert len(_keys(last)) == 50
    assert last.json()["total_count"] == 250
    beyond = rest.get("caches", params={"per_page": "100", "page": "4"})
    assert _keys(beyond) == []


@pytest.mark.parametrize(
    ("sort", "direction", "first"),
    [
        ("created_at", "asc", "key-000"),
        ("created_at", "desc", "key-249"),
        ("last_accessed_at", "asc", "key-249"),
        ("size_in_bytes", "asc", "key-249"),
        ("size_in_bytes", "desc", "key-000"),
    ],
)
def test_pages_come_in_the_order_asked_for(
    rest: httpx2.Client, sort: str, direction: str, first: str
) -> None:
    answer = rest.get("caches", params={"sort": sort, "direction": direction})
    assert _keys(answer)[0] == first


def test_a_listing_can_be_of_one_ref_and_one_prefix(rest: httpx2.Client) -> None:
    answer = rest.get("caches", params={"ref": TOPIC, "key": "key-1"})
    assert sorted(_keys(answer)) == ["key-100", "key-150"]
    assert answer.json()["total_count"] == 2


def test_an_entry_is_deleted_once(rest: httpx2.Client, cache: ActionsCache) -> None:
    assert rest.delete("caches/7").status_code == httpx2.codes.NO_CONTENT
    assert rest.delete("caches/7").status_code == httpx2.codes.NOT_FOUND
    assert len(cache.entries()) == 249


def test_a_key_is_deleted_in_the_ref_that_is_named_or_in_all(
    rest: httpx2.Client, cache: ActionsCache
) -> None:
    cache.put("key-001", b"", ref=TOPIC)
    deleted = rest.delete("caches", params={"key": "key-001", "ref": TOPIC})
    assert [entry["ref"] for entry in deleted.json()["actions_caches"]] == [TOPIC]
    cache.put("key-001", b"", ref=TOPIC)
    assert rest.delete("caches", params={"key": "key-001"}).json()["total_count"] == 2
    assert rest.delete("caches", params={"key": "key-001"}).status_code == httpx2.codes.NOT_FOUND
    assert rest.delete("caches", params={"key": "key-00"}).status_code == httpx2.codes.NOT_FOUND


def test_a_deleted_key_can_be_written_again(rest: httpx2.Client, cache: ActionsCache) -> None:
    rest.delete("caches/1").raise_for_status()
    assert cache.put("key-000", b"", ref=TOPIC).id == 251


def test_usage_and_limits_have_githubs_shape(rest: httpx2.Client, cache: ActionsCache) -> None:
    assert rest.get("cache/usage").json() == {
        "full_name": "example/app",
        "active_caches_size_in_bytes": cache.usage,
        "active_caches_count": 250,
    }
    assert rest.get("cache/storage-limit").json() == {"max_cache_size_gb": 3}
    cache.quota = parse_size("2GB")
    assert rest.get("cache/storage-limit").json() == {"max_cache_size_gb": 2}
    assert rest.get("cache/retention-limit").json() == {"max_cache_retention_days": 7}
