"""Rewrite: one merged index, written as the next generation and read back. Never hides a build's.

The order of the steps is the safety argument: what a build wrote meanwhile is read and merged in
before anything newer is written, and nothing counts as written before it was read back.
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta

import anyio

from maintainer.budget import Budget
from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    Digest,
    Sink,
    encode,
    loses_links,
    merge,
    parse_key,
    prune,
    why_too_large,
    with_sink,
)
from maintainer.errors import AlreadyExistsError, StoreError, UsedUpError
from maintainer.model.decision import Rewritten, WriteIndex
from maintainer.model.index import ReadGeneration
from maintainer.model.marks import Index
from maintainer.model.reason import NumbersExhausted, Reason, TooLarge, UsedByBuilds
from maintainer.probe import generation_of, read_content
from maintainer.stores.base import Found, Store

REQUESTS = 7
"""What one index takes when nobody interferes: two look-ups, three to write, two to read back."""
_ATTEMPTS = 10
"""So many generations of builds are merged in before an index is left for the next run."""
_POLLS = 5
"""So often a reserved key is looked up while its builder has time to finish it."""


class Rewriter:
    """Writes indexes to one store."""

    def __init__(
        self,
        store: Store,
        live_blobs: frozenset[Digest],
        broken_blobs: frozenset[Digest] = frozenset(),
        *,
        budget: Budget,
        reservation_wait: timedelta,
        max_index_size: int,
        clock: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._store = store
        self._live = set(live_blobs)
        self._broken = broken_blobs
        self._budget = budget
        self._wait = reservation_wait
        self._max_size = max_index_size
        self._clock = clock
        self._sleep = sleep

    async def rewrite(self, write: WriteIndex, index: Index) -> Rewritten:
        """Write one index. What goes wrong is told in the result."""
        if reason := self._budget.take(REQUESTS):
            return Rewritten(write.index, None, (), left=reason)
        attempt = _Attempt(write, index)
        try:
            written = await self._write(attempt)
        except UsedUpError as error:
            return attempt.came_to(left=self._budget.stop(error.reason))
        except _CannotBeError as error:
            return attempt.came_to(left=error.reason)
        except StoreError as error:
            return attempt.came_to(error=str(error))
        return attempt.came_to(written)

    async def _write(self, attempt: "_Attempt") -> ReadGeneration | None:
        for _ in range(_ATTEMPTS):
            if await self._merge_in_newer(attempt):
                return None
            # Some services take a key twice and serve the last, so ask first.
            taken = await self._store.look_up(str(attempt.index.key(attempt.number)))
            if taken is not None:
                await self._meet(attempt, attempt.number, taken)
                continue
            try:
                return await self._write_once(attempt)
            except AlreadyExistsError:
                await self._give_way(attempt)
        raise StoreError(
            f"builds wrote {attempt.index} {_ATTEMPTS} times meanwhile: left for the next run"
        )

    async def _merge_in_newer(self, attempt: "_Attempt") -> bool:
        """Look again what is the newest; tell whether it says it all already."""
        found = await self._store.look_up_newest(attempt.index.prefix)
        number = generation_of(attempt.index, found.key) if found else None
        if found is None or number is None or number in attempt.numbers:
            return False
        newest = await self._meet(attempt, number, found)
        if number + 1 < attempt.number:
            return False  # Builders get it, but the highest generation is another one.
        if newest.config is None or merge([newest.config]) != attempt.content:
            return False
        return not loses_links(attempt.content, newest.sink)

    async def _write_once(self, attempt: "_Attempt") -> ReadGeneration:
        key = str(attempt.index.key(attempt.number))
        content = encode(with_sink(attempt.content, attempt.sink))
        if parse_key(key) is None:
            raise _CannotBeError(NumbersExhausted())
        if problem := why_too_large(content, self._max_size):
            raise _CannotBeError(TooLarge(problem, len(content), concurrent=True))
        await self._store.write(key, content)
        attempt.unproven = key
        found = await self._store.look_up(key)
        if found is None or await self._store.read(found) != content:
            raise StoreError("it was written, but a look-up finds nothing, or something else")
        attempt.unproven = None
        return read_content(
            attempt.index, attempt.number, content, self._clock(), location=found.location
        )

    async def _give_way(self, attempt: "_Attempt") -> None:
        """Somebody has the next number: merge in what they write, or wait and take the one after.

        A builder that reserved a key and died leaves it locked for ever.
        """
        key = str(attempt.index.key(attempt.number))
        found = await self._store.look_up(key)
        for _ in range(_POLLS):
            if found is not None:
                break
            await self._sleep(self._wait.total_seconds() / _POLLS)
            found = await self._store.look_up(key)
        if found is None:
            attempt.number += 1
        else:
            await self._meet(attempt, attempt.number, found)

    async def _meet(self, attempt: "_Attempt", number: int, found: Found) -> ReadGeneration:
        """Read a generation that a build wrote meanwhile, and merge it in."""
        met = read_content(
            attempt.index,
            number,
            await self._store.read(found),
            self._clock(),
            location=found.location,
        )
        if attempt.sink is Sink.MERGE and met.sink is not Sink.MERGE:
            raise _CannotBeError(UsedByBuilds(str(met.index.key(number))))
        if met.config:
            attempt.missing |= await self._probe(met.config.blobs)
            attempt.content = prune(merge([attempt.content, met.config]), self._live)
        attempt.met.append(met)
        attempt.numbers.add(number)
        attempt.number = max(attempt.number, number + 1)
        return met

    async def _probe(self, blobs: Iterable[Digest]) -> set[Digest]:
        """Find out which of the blobs exist that were not there when the run looked; the others."""
        missing = set(blobs) - self._live
        for digest in sorted(missing - self._broken):
            if await self._store.look_up(str(BlobKey(digest))):
                self._live.add(digest)
        return missing - self._live


class _CannotBeError(StoreError):
    """What would be written now must not be: no run could read it again, or it is not ours."""

    def __init__(self, reason: Reason) -> None:
        """Say why."""
        self.reason = reason
        super().__init__("it cannot be written")


class _Attempt:
    """What is to be written, as it changes while builds write."""

    def __init__(self, write: WriteIndex, index: Index) -> None:
        self.index = write.index
        self.content: CacheConfig = write.content
        self.sink: Sink = write.sink
        self.number: int = write.key.generation
        self.met: list[ReadGeneration] = []
        self.missing: set[Digest] = set()
        self.unproven: str | None = None
        self.numbers = {one.number for one in index.generations}
        self.numbers |= {one.number for one in index.unread}

    def came_to(
        self,
        written: ReadGeneration | None = None,
        *,
        error: str | None = None,
        left: Reason | None = None,
    ) -> Rewritten:
        """Tell what came of it."""
        missing = frozenset(self.missing)
        met = tuple(self.met)
        return Rewritten(self.index, written, met, error, left, missing, self.unproven)
