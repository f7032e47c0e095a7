"""Lists of a cache that changes while it is listed: nothing that stays is missing from them.

Pages that are requested at once are answered in any order, and between any two answers entries go
and come.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from maintainer.concurrency import MAX_CONCURRENT
from maintainer.model.entry import Listing
from tests.integration.connecting import store_rest
from tests.integration.scripted import Reply, Request, Server, serve
from tests.integration.test_store_listing import FIRST, World

_PATIENCE = 10.0
"""Seconds until a test fails because requests that should come at once do not."""


@dataclass(frozen=True)
class Change:
    """What happens before an answer: entries go, by their place in the order, and others come."""

    answer: int
    gone: frozenset[int]
    come: int


@dataclass(frozen=True)
class Story:
    """A cache, what happens to it, and in which order pages are answered."""

    count: int
    ties: int
    """So many entries after one another were created in the same second."""
    changes: tuple[Change, ...]
    order: tuple[int, ...]
    comes_at_once: bool = False
    """Whether what comes has the time of the newest, and not a later one."""


class ChangingWorld(World):
    """Answers the pages that are requested at once in the order of a story."""

    def __init__(self, story: Story) -> None:
        super().__init__(story.count)
        self._story = story
        self._ready = threading.Condition()
        self._waiting: list[Request] = []
        self._left = 0
        """How many pages of the first pass are still to be answered."""
        self._passes = 0
        self.between = self._change
        self.stayed = frozenset(self.entries)
        for number in self.entries:
            self._set_time(number, number // story.ties)

    def _set_time(self, number: int, second: int) -> None:
        created_at = FIRST.replace(hour=second // 3600, minute=second // 60 % 60)
        self.entries[number]["created_at"] = created_at.replace(second=second % 60).isoformat()

    def page(self, request: Request) -> Reply:
        with self._ready:
            self._waiting.append(request)
            self._ready.notify_all()
            assert self._ready.wait_for(lambda: self._is_next(request), _PATIENCE)
            self._waiting.remove(request)
            reply = self._page(request)
            if request.query["direction"] == ["desc"]:
                self._passes += 1
                pages = -(-len(self.entries) // 100)
                self._left = pages if self._passes == 1 else 1
            self._left -= self._passes == 1
            self._ready.notify_all()
            return reply

    def _is_next(self, request: Request) -> bool:
        """Whether all requests that come at once are there, and this one is to be answered."""
        if len(self._waiting) < min(self._left, MAX_CONCURRENT):
            return False
        pages = sorted(int(one.query["page"][0]) for one in self._waiting)
        order = self._story.order
        return int(request.query["page"][0]) == pages[order[self.asked % len(order)] % len(pages)]

    def _change(self, answer: int) -> None:
        for change in self._story.changes:
            if change.answer == answer:
                by_age = sorted(self.entries)
                self.remove(*(by_age[one % len(by_age)] for one in change.gone if by_age))
                self._come(change.come, answer)
        self.stayed &= frozenset(self.entries)

    def _come(self, count: int, answer: int) -> None:
        first = 10_000 * answer
        self.add(*range(first, first + count))
        newest = self._story.count // self._story.ties
        for number in range(first, first + count):
            self._set_time(number, newest + (not self._story.comes_at_once) * answer)


_CHANGES = st.builds(
    Change,
    answer=st.integers(2, 9),
    gone=st.frozensets(st.integers(0, 700), max_size=12),
    come=st.integers(0, 12),
)
_STORIES = st.builds(
    Story,
    # Near a full hundred, what comes may be on a page that is read.
    count=st.builds(lambda pages, more: pages * 100 + more, st.integers(1, 6), st.integers(-3, 9)),
    ties=st.sampled_from([1, 1, 2, 30, 120]),
    changes=st.lists(_CHANGES, max_size=3).map(tuple),
    order=st.lists(st.integers(0, 7), min_size=1, max_size=8).map(tuple),
    comes_at_once=st.booleans(),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as started:
        yield started


def _list(server: Server, world: ChangingWorld) -> tuple[Listing, frozenset[int]]:
    async def list_entries() -> Listing:
        async with store_rest(server.url) as store:
            return await store.list_entries()

    server.on("caches", world.page)
    listing = anyio.run(list_entries)
    return listing, frozenset(entry.id for entry in listing.entries)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_STORIES)
# The 101st moves to the first page after that was read, and what comes makes up for it.
@example(Story(201, 1, (Change(3, frozenset({0, 1}), 1),), (0,), comes_at_once=True))
@example(Story(650, 1, (Change(3, frozenset({0}), 0),), (0,)))
@example(Story(650, 120, (Change(4, frozenset(range(8)), 8),), (5, 0, 3), comes_at_once=True))
def test_nothing_that_stays_is_missing_from_a_list_that_is_said_to_be_complete(
    server: Server, story: Story
) -> None:
    world = ChangingWorld(story)

    listing, listed = _list(server, world)

    assert not listing.complete or listed >= world.stayed
    assert len(listed) == len(list(listing.entries))


@pytest.mark.parametrize("count", [101, 250, 801, 2_900])
def test_the_pages_after_the_first_are_requested_at_once(server: Server, count: int) -> None:
    world = ChangingWorld(Story(count, 1, (), (7, 0, 3)))

    listing, listed = _list(server, world)

    # The world answers none of them before as many as may be are there.
    assert listing.complete
    assert listed == frozenset(range(1, count + 1))
    assert world.asked == -(-count // 100)


def test_a_list_is_complete_once_the_cache_rests(server: Server) -> None:
    story = Story(650, 1, (Change(3, frozenset(range(20)), 20),), (0,))
    world = ChangingWorld(story)

    listing, listed = _list(server, world)

    assert listing.complete
    assert listed == frozenset(world.entries)
