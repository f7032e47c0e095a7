"""The list of entries: complete, or said not to be, and in as few pages as there can be."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from maintainer.cacheconfig import ENTRY_VERSION, BlobKey, content_digest
from maintainer.errors import StoreError
from maintainer.model.entry import Listing, StoreLimits
from maintainer.stores.github.credentials import Token
from maintainer.stores.github.rest import ASSUMED, Rest
from maintainer.stores.http.client import Http
from maintainer.stores.http.requests import RequestLog
from tests.integration.connecting import store_rest
from tests.integration.scripted import Reply, Request, Server, html, json, serve
from tests.samples import once_each

pytestmark = pytest.mark.anyio

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as started:
        yield started


def _entry(number: int) -> dict[str, Any]:
    created_at = (FIRST + timedelta(seconds=number)).isoformat()
    return {
        "id": number,
        "ref": "refs/heads/main",
        "key": f"buildkit-blob-1-sha256:{number:064x}",
        "version": "v",
        "last_accessed_at": created_at,
        "created_at": created_at,
        "size_in_bytes": number,
    }


class World:
    """A repository whose entries come and go between two pages."""

    def __init__(self, count: int) -> None:
        self.entries = {number: _entry(number) for number in range(1, count + 1)}
        self.between: Callable[[int], None] = lambda _: None
        """Called with the number of the request before each but the first."""
        self.total: Callable[[int], int] = lambda count: count
        self.links = False
        self.ties_go_by_id = False
        self.asked = 0
        self._lock = threading.Lock()

    def add(self, *numbers: int) -> None:
        self.entries |= {number: _entry(number) for number in numbers}

    def remove(self, *numbers: int) -> None:
        for number in numbers:
            self.entries.pop(number, None)

    def page(self, request: Request) -> Reply:
        with self._lock:
            return self._page(request)

    def _page(self, request: Request) -> Reply:
        assert request.query["sort"] == ["created_at"]
        assert request.query["per_page"] == ["100"]
        self.asked += 1
        if self.asked > 1:
            self.between(self.asked)
        backwards = request.query["direction"] == ["desc"]
        by_id = sorted(self.entries.values(), key=lambda entry: entry["id"])
        if backwards and not self.ties_go_by_id:
            by_id.reverse()
        entries = sorted(by_id, key=lambda entry: entry["created_at"], reverse=backwards)
        number = int(request.query["page"][0])
        body = {
            "total_count": self.total(len(entries)),
            "actions_caches": entries[(number - 1) * 100 : number * 100],
        }
        last = math.ceil(len(entries) / 100)
        if not self.links or number >= last:
            return json(body)
        next_, end = (f"<http://x/y?per_page=100&page={n}>" for n in (number + 1, last))
        return json(body, link=f'{next_}; rel="next", {end}; rel="last"')


async def _list(server: Server, world: World) -> Listing:
    server.on("caches", world.page)
    async with store_rest(server.url) as store:
        listing = await store.list_entries()
    assert store.requests.counts == {"list": world.asked}
    return listing


def _ids(listing: Listing) -> set[int]:
    return {entry.id for entry in listing.entries}


async def test_a_name_with_nul_is_listed_under_a_name_that_shows_it(server: Server) -> None:
    world = World(3)
    world.entries[2]["key"] = "other\0tool"

    listing = await _list(server, world)

    assert [entry.key for entry in listing.entries if entry.id == 2] == [r"other\x00tool"]
    assert listing.complete
    world = World(3)
    world.entries[2] |= {"key": "index-we\0b-1-49c8f7d5#1", "version": ENTRY_VERSION}
    with pytest.raises(StoreError, match="an index whose name has NUL"):
        await _list(server, world)


@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 199, 200, 201, 350, 1000])
async def test_needs_one_request_for_each_hundred(server: Server, count: int, links: bool) -> None:
    world = World(count)
    world.links = links

    listing = await _list(server, world)

    assert listing.complete
    assert sorted(entry.id for entry in listing.entries) == list(range(1, count + 1))
    assert world.asked == max(1, math.ceil(count / 100))


@pytest.mark.parametrize(("count", "at"), once_each([150, 200, 250, 1000], [2, 3, 4, 10]))
async def test_what_comes_meanwhile_hides_nothing(server: Server, count: int, at: int) -> None:
    world = World(count)

    def add(number: int) -> None:
        if number == at:
            world.add(*range(5001, 5131))

    world.between = add

    listing = await _list(server, world)

    assert listing.complete
    assert _ids(listing) >= set(range(1, count + 1))
    assert world.asked == math.ceil(count / 100)


@pytest.mark.parametrize(
    ("gone", "at"),
    once_each([1, 50, 100, 101, 150, 201, 250, 300, 450, 500, 550], [2, 3, 4, 5, 6]),
)
async def test_what_goes_meanwhile_hides_nothing(server: Server, gone: int, at: int) -> None:
    world = World(550)

    def remove(number: int) -> None:
        if number == at:
            world.remove(*range(gone, gone + 10))

    world.between = remove

    listing = await _list(server, world)

    assert listing.complete
    assert _ids(listing) >= set(world.entries)


@pytest.mark.parametrize("at", [2, 3])
async def test_one_that_goes_and_one_that_comes_do_not_cancel_out(server: Server, at: int) -> None:
    world = World(250)

    def change(number: int) -> None:
        if number == at:
            world.remove(1)
            world.add(9001)

    world.between = change

    listing = await _list(server, world)

    assert listing.complete
    assert _ids(listing) >= set(world.entries) - {9001}


async def test_a_cache_that_never_rests_is_said_to_be_incomplete_or_is_complete(
    server: Server,
) -> None:
    world = World(500)

    def change(number: int) -> None:
        world.remove(*range(number * 7, number * 7 + 3))
        world.add(1000 + number)

    world.between = change

    listing = await _list(server, world)

    kept = {number for number in world.entries if number <= 500}
    assert _ids(listing) >= kept
    assert world.asked <= 5 + 6 + 6


async def test_ties_in_another_order_are_read_again(server: Server) -> None:
    world = World(200)
    world.ties_go_by_id = True
    for entry in world.entries.values():
        entry["created_at"] = FIRST.isoformat()

    listing = await _list(server, world)

    assert listing.complete
    assert _ids(listing) == set(range(1, 201))


@pytest.mark.parametrize("count", [3, 150, 250])
@pytest.mark.parametrize("wrong", [-120, -100, -2, -1, 1, 2, 100, 120])
async def test_a_total_that_disagrees_is_not_complete(
    server: Server, count: int, wrong: int
) -> None:
    world = World(count)
    world.links = True
    world.total = lambda entries: max(0, entries + wrong)

    listing = await _list(server, world)

    assert not listing.complete
    assert _ids(listing) == set(range(1, count + 1))


@pytest.mark.parametrize("count", [1, 50, 100])
async def test_a_total_of_nothing_with_entries_is_not_complete(server: Server, count: int) -> None:
    world = World(count)
    world.total = lambda _: 0

    listing = await _list(server, world)

    assert not listing.complete
    assert len(list(listing.entries)) == count


@pytest.mark.parametrize("total", [-1, 10**6 + 1, 10**12, 2**63, 10**40, 1.5, "7", None, True])
async def test_an_absurd_total_is_an_error(server: Server, total: Any) -> None:
    server.on("caches", json({"total_count": total, "actions_caches": [_entry(1)]}))

    async with store_rest(server.url) as store:
        with pytest.raises(StoreError, match=r"claims|malformed response"):
            await store.list_entries()

    assert len(server.requests) <= 6


async def test_a_link_to_an_absurd_page_is_an_error(server: Server) -> None:
    page = {"total_count": 1, "actions_caches": [_entry(1)]}
    server.on("caches", json(page, link='<http://x/?page=123456789>; rel="last"'))

    async with store_rest(server.url) as store:
        with pytest.raises(StoreError, match="123,456,789 pages"):
            await store.list_entries()


async def test_a_page_that_repeats_another_is_read_again(server: Server) -> None:
    world = World(250)

    def page(request: Request) -> Reply:
        if world.asked == 1:
            request.query["page"][0] = "2"
        return world.page(request)

    server.on("caches", page)
    async with store_rest(server.url) as store:
        listing = await store.list_entries()

    assert listing.complete
    assert len(list(listing.entries)) == 250


async def test_an_entry_that_is_always_left_out_is_missed_and_that_is_said(server: Server) -> None:
    world = World(250)
    world.remove(77)
    world.total = lambda count: count + 1

    listing = await _list(server, world)

    assert not listing.complete
    assert len(list(listing.entries)) == 249


async def test_a_server_that_does_not_sort_is_listed_or_said_to_be_incomplete(
    server: Server,
) -> None:
    world = World(250)

    def page(request: Request) -> Reply:
        request.query["direction"][0] = "asc"
        return world.page(request)

    server.on("caches", page)
    async with store_rest(server.url) as store:
        listing = await store.list_entries()

    assert _ids(listing) == set(range(1, 251))
    assert not listing.complete


BAD_ENTRIES = {
    "id 0": {"id": 0},
    "negative id": {"id": -1},
    "no number": {"id": "7"},
    "huge id": {"id": 2**63},
    "fraction": {"id": 1.5},
    "negative size": {"size_in_bytes": -1},
    "huge size": {"size_in_bytes": 2**63},
    "key is a number": {"key": 7},
    "long key": {"key": "k" * 4097},
    "long ref": {"ref": "r" * 4097},
    "no time": {"created_at": "yesterday\x1b[2J"},
}


@pytest.mark.parametrize("bad", BAD_ENTRIES.values(), ids=BAD_ENTRIES.keys())
async def test_an_entry_that_cannot_be_is_an_error(server: Server, bad: dict[str, Any]) -> None:
    entries = [_entry(1), _entry(2) | bad]
    server.on("caches", json({"total_count": 2, "actions_caches": entries}))

    async with store_rest(server.url) as store:
        with pytest.raises(StoreError) as caught:
            await store.list_entries()

    assert str(caught.value).isprintable()
    assert "malformed response" in str(caught.value)
    assert len(str(caught.value)) < 400


async def test_times_are_aware_and_in_utc(server: Server) -> None:
    entry = _entry(1) | {
        "created_at": "2026-01-01T01:00:00.1234567+01:00",
        "last_accessed_at": "2026-01-01T00:00:01",
    }
    server.on("caches", json({"total_count": 1, "actions_caches": [entry]}))

    async with store_rest(server.url) as store:
        [listed] = (await store.list_entries()).entries

    assert listed.created_at == FIRST + timedelta(microseconds=123457)
    assert listed.last_accessed_at == FIRST + timedelta(seconds=1)
    assert listed.created_at.tzinfo is UTC
    assert listed.last_accessed_at.tzinfo is UTC


async def test_a_page_in_place_of_an_answer_deletes_nothing(server: Server) -> None:
    server.on("7", html(), Reply(204))

    async with store_rest(server.url) as store:
        assert await store.delete(7)

    assert store.requests.counts == {"delete": 2}


@pytest.mark.parametrize(
    ("status", "outcome"), [(204, True), (200, True), (404, False)], ids=["gone", "ok", "missing"]
)
async def test_deleting_what_is_gone_is_no_error(
    server: Server, status: int, outcome: bool
) -> None:
    server.on("7", Reply(status))

    async with store_rest(server.url) as store:
        assert await store.delete(7) is outcome

    assert [(r.method, r.path) for r in server.requests] == [
        ("DELETE", "/repos/octo/cache/actions/caches/7")
    ]


async def test_a_deletion_whose_answer_was_lost_is_one(server: Server) -> None:
    server.on("7", Reply(502), Reply(404))

    async with store_rest(server.url) as store:
        assert await store.delete(7) is True


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (401, "SITE_TOKEN holds no token that it knows, or one that has expired"),
        (403, "the token in SITE_TOKEN needs the permission `actions: {permission}`"),
    ],
)
async def test_a_refusal_names_the_variable_of_the_token_and_what_it_lacks(
    server: Server, status: int, cause: str
) -> None:
    server.on("7", json({"message": "Resource not accessible\x1b[2J"}, status))
    server.on("caches", json({"message": "Resource not accessible\x1b[2J"}, status))

    async with store_rest(server.url, token_env="SITE_TOKEN") as store:
        with pytest.raises(StoreError) as deletion:
            await store.delete(7)
        with pytest.raises(StoreError) as listing:
            await store.list_entries()

    write, read = cause.format(permission="write"), cause.format(permission="read")
    refused = f"(HTTP {status})"
    assert str(deletion.value) == f"GitHub's API refused to delete {refused}: {write}"
    assert str(listing.value) == f"GitHub's API refused the list of caches {refused}: {read}"
    assert store.requests.counts == {"delete": 1, "list": 1}


@pytest.mark.parametrize(
    ("answers", "limits"),
    [
        pytest.param(
            {
                "storage-limit": json({"max_cache_size_gb": 25}),
                "retention-limit": json({"max_cache_retention_days": 14}),
            },
            StoreLimits(25 * 10**9, timedelta(days=14)),
            id="github.com",
        ),
        pytest.param(
            {
                "storage-limit": json({}, 404),
                "usage-policy": json({"repo_cache_size_limit_in_gb": 15}),
                "retention-limit": json({}, 404),
            },
            StoreLimits(15 * 10**9, None),
            id="Enterprise Server",
        ),
        pytest.param(
            {
                "storage-limit": json({"message": "Forbidden"}, 403),
                "usage-policy": json({"message": "Forbidden"}, 403),
                "retention-limit": json({"message": "Forbidden"}, 403),
            },
            StoreLimits(10 * 10**9, timedelta(days=7), is_assumed=True),
            id="a token that may not ask",
        ),
        pytest.param(
            {
                "storage-limit": json({"max_cache_size_gb": -1}),
                "usage-policy": json([]),
                "retention-limit": Reply(500),
            },
            ASSUMED,
            id="answers that make no sense",
        ),
    ],
)
async def test_the_limits_of_a_repository_are_asked_and_what_is_refused_is_assumed(
    server: Server, answers: dict[str, Reply], limits: StoreLimits
) -> None:
    for path, answer in answers.items():
        server.on(path, *[answer] * 10)

    async with store_rest(server.url) as store:
        assert await store.limits() == limits


_WHOLE = {
    "id": 1,
    "key": "setup-node-1",
    "ref": "refs/heads/main",
    "version": "1",
    "size_in_bytes": 10,
    "created_at": "2026-08-01T12:00:00Z",
    "last_accessed_at": "2026-08-02T12:00:00Z",
}
_OURS = _WHOLE | {"key": str(BlobKey(content_digest(b"a"))), "version": ENTRY_VERSION}
_FIELDS = sorted(_WHOLE)


@pytest.mark.parametrize("field", _FIELDS)
@pytest.mark.parametrize("how", ["null", "missing"])
async def test_another_tools_entry_counts_as_far_as_it_is_known(
    server: Server, field: str, how: str
) -> None:
    entry = {k: v for k, v in _WHOLE.items() if k != field}
    listed = entry | {field: None} if how == "null" else entry
    server.on("caches", json({"total_count": 1, "actions_caches": [listed]}))

    async with store_rest(server.url) as store:
        listing = await store.list_entries()

    assert listing.complete
    (one,) = listing.entries
    needed_to_delete = field in ("id", "ref", "created_at", "last_accessed_at")
    assert one.id < 0 if needed_to_delete else one.id == 1
    assert one.parsed is None
    assert store.requests.counts == {"list": 1}


@pytest.mark.parametrize(
    "never",
    ["9999-12-31T12:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"],
)
async def test_a_time_that_no_grace_period_can_follow_is_not_known(
    server: Server, never: str
) -> None:
    caches = [_OURS | {"created_at": never}, _WHOLE | {"id": 2, "created_at": never}]
    server.on("caches", json({"total_count": 2, "actions_caches": caches}))

    async with store_rest(server.url) as store:
        listing = await store.list_entries()

    assert not listing.complete
    assert [(one.id < 0, one.key) for one in listing.entries] == [(True, "setup-node-1")]


@pytest.mark.parametrize("field", ["id", "created_at", "last_accessed_at", "ref", "size_in_bytes"])
async def test_an_entry_of_ours_that_is_not_whole_makes_the_list_incomplete_and_is_not_asked_again(
    server: Server, field: str
) -> None:
    caches = [_OURS | {field: None}, _WHOLE | {"id": 2}]
    server.on("caches", json({"total_count": 2, "actions_caches": caches}))

    async with store_rest(server.url) as store:
        listing = await store.list_entries()

    assert not listing.complete
    assert [one.id for one in listing.entries] == [2]
    assert store.requests.counts == {"list": 1}
    assert store.requests.retries == 0


@pytest.mark.parametrize(
    ("key", "version"), [(None, None), (_OURS["key"], None), (None, ENTRY_VERSION)]
)
async def test_what_may_be_an_entry_of_ours_makes_the_list_incomplete(
    server: Server, key: str | None, version: str | None
) -> None:
    caches = [_WHOLE | {"key": key, "version": version}]
    server.on("caches", json({"total_count": 1, "actions_caches": caches}))

    async with store_rest(server.url) as store:
        assert not (await store.list_entries()).complete


async def test_deletions_are_paced_as_github_wants_them(server: Server) -> None:
    for number in range(4):
        server.on(str(number), Reply(204))
    async with Http(RequestLog()) as http:
        rest = Rest(http, server.url, "octo/cache", Token("t", "T"), deletions_a_minute=1_200)
        began = time.monotonic()
        for number in range(4):
            assert await rest.delete(number)

    assert time.monotonic() - began >= 3 * 60 / 1_200


async def test_nobody_paces_deletions_on_this_machine_and_everybody_does_elsewhere(
    server: Server,
) -> None:
    async with store_rest(server.url) as here, store_rest("https://api.github.com") as there:
        assert here.deletions_a_minute is None
        assert there.deletions_a_minute == 180
