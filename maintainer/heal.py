"""Heal: rewrite indexes that builds wrote during the sweep and that reference deleted blobs.

An export without look-ups relies on stored blobs, and is invisible until it writes its index. If a
sweep deletes such a blob first, the index references a missing blob until it is rewritten.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from functools import cached_property

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, Sink, prune
from maintainer.errors import BudgetExhaustedError, StoreError
from maintainer.graph.entries import Entries
from maintainer.model.decision import Heal, RewriteResult, WriteIndex
from maintainer.model.index import ReadGeneration
from maintainer.model.marks import Index, Marks
from maintainer.model.reason import NotWritable, Signed, UsedByBuilds, WrittenDuringSweep
from maintainer.rewrite import rewrite
from maintainer.stores.base import NewVersion, RunContext, Store

_LOOK_UP_AND_READ = 2


class Healer:
    """Rewrites the indexes that builds wrote during a sweep, without the deleted blobs."""

    def __init__(
        self,
        store: Store,
        marks: Marks,
        rewritten: Mapping[IndexId, RewriteResult],
        entries: Entries,
        context: RunContext,
    ) -> None:
        self._store = store
        self._marks = marks
        self._rewritten = rewritten
        self._entries = entries
        self._context = context
        self._readable = marks.snapshot.access.readable

    async def find(self) -> AsyncIterator[Heal]:
        """Find the damaged indexes, and how to rewrite them.

        Raises StoreError if the store could not list what builds have written, or, after all
        others are found, if some of these indexes could not be read. Raises BudgetExhaustedError
        if the budget does not allow it.
        """
        unread: list[str] = []
        for version in await self._written_since():
            await self._reserve(_LOOK_UP_AND_READ)
            try:
                generation = await self._store.read(version)
            except BudgetExhaustedError:
                raise
            except StoreError as error:
                key = version.index.key(version.number)
                unread.append(f"{key} in {version.index.ref}: {error}")
                continue
            referenced = generation.config.blobs if generation.config else ()
            if blobs := self._entries.deleted(referenced, self._readable):
                yield self._plan(generation, blobs)
        if unread:
            raise StoreError("; ".join(unread))

    async def _written_since(self) -> list[NewVersion]:
        """List the current versions of the indexes that builds have written since the run began."""
        await self._reserve(1, rest=1)
        ours = {
            (one.index, one.number)
            for result in self._rewritten.values()
            for one in (*result.concurrent, result.written)
            if one
        }
        newest = {
            one.index: one
            for one in await self._store.new_versions()
            if one.index.ref in self._readable and (one.index, one.number) not in ours
        }
        return [newest[index] for index in sorted(newest)]

    async def _reserve(self, requests: int, *, rest: int = 0) -> None:
        if reason := await self._context.budget.reserve_rest(requests, rest):
            raise BudgetExhaustedError(reason)

    def _plan(self, generation: ReadGeneration, blobs: frozenset[Digest]) -> Heal:
        found = {index.id: index for index in self._marks.indexes}.get(generation.index)
        index = found or _new_index(generation)
        if blocked_by := self._find_veto(index):
            return Heal(generation, blobs, blocked_by=blocked_by)
        result = self._rewritten.get(index.id)
        written = result.written if result else None
        content = (written.config if written else None) or index.merged
        numbers = (index.highest, generation.number, written.number if written else 0)
        key = index.id.key(max(numbers) + 1)
        reason = WrittenDuringSweep(str(index.id.key(generation.number)), len(blobs))
        write = WriteIndex(index.id, key, prune(content, self._live), reason, index.sink)
        return Heal(generation, blobs, write, index)

    async def heal(self, planned: Heal) -> Heal:
        """Rewrite one of these indexes; errors are in the result."""
        if planned.write is None or planned.base is None:
            return planned
        marks = replace(self._marks, indexes=(planned.base,))
        results: list[RewriteResult] = []
        await rewrite(
            self._store, [planned.write], marks, self._context, results.append, live=self._live
        )
        return replace(planned, result=results[0])

    @cached_property
    def _live(self) -> frozenset[Digest]:
        """The blobs that exist after the sweep."""
        live = self._marks.snapshot.live_blobs
        return live - self._entries.deleted(live, self._readable)

    def _find_veto(self, index: Index) -> Signed | NotWritable | UsedByBuilds | None:
        if index.id.signed:
            return Signed()
        if index.id.ref not in self._marks.snapshot.access.writable:
            return NotWritable(index.id.ref)
        if index.used_by_builds:
            return UsedByBuilds(index.used_by_builds)
        return None


def _new_index(generation: ReadGeneration) -> Index:
    """Return an index that did not exist when the run probed the store."""
    nothing = CacheConfig()
    return Index(
        id=generation.index,
        generations=(),
        inputs=(),
        unread=(),
        merged=nothing,
        remembered=nothing,
        usable=nothing,
        highest=0,
        shadowed_by=None,
        sink=generation.sink or Sink.REWRITE,
    )
