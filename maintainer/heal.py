"""Heal: what a build has referenced while the sweep deleted it is taken out of its index at once.

An export that looks nothing up counts on stored blobs, and nothing shows it until its index is
written. If a sweep deletes such a blob first, the index references what is gone until it is
rewritten without.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping

from maintainer.budget import Budget
from maintainer.cacheconfig import BlobKey, CacheConfig, Digest, IndexId, IndexKey, Sink, prune
from maintainer.errors import StoreError, UsedUpError
from maintainer.model.decision import Heal, Rewritten, WriteIndex
from maintainer.model.entry import KnownEntry, StoredEntry
from maintainer.model.index import ReadGeneration, index_of
from maintainer.model.marks import Index, Marks
from maintainer.model.reason import NotWritable, Signed, UsedByBuilds, WrittenDuringSweep
from maintainer.probe import read_entry
from maintainer.rewrite import Rewriter
from maintainer.stores.base import Store

_LOOK_UP_AND_READ = 2


class Healer:
    """Rewrites the indexes that builds wrote during a sweep, without what the sweep deleted."""

    def __init__(
        self,
        store: Store,
        marks: Marks,
        rewritten: Mapping[IndexId, Rewritten],
        deleted: Collection[KnownEntry],
        budget: Budget,
    ) -> None:
        self._store = store
        self._marks = marks
        self._rewritten = rewritten
        self._budget = budget
        gone = {entry.store_id for entry in deleted}
        readable = marks.snapshot.access.readable
        stored = [entry for entry in marks.snapshot.entries if entry.ref in readable]
        # The same blob may be stored in another ref that the token reads.
        left = _blobs_of(entry for entry in stored if entry.store_id not in gone)
        self.deleted = _blobs_of(deleted) - left
        self.live = marks.snapshot.live_blobs - self.deleted

    async def heal(self, rewriter: Rewriter) -> AsyncIterator[Heal]:
        """Heal what can be healed; return all that is damaged.

        Raises StoreError if the store could not list what builds have written, or, after all
        others are healed, if some of these indexes could not be read. Raises UsedUpError if the
        budget does not allow it.
        """
        unread: list[str] = []
        for index, entry, key in await self._written_since():
            self._take(_LOOK_UP_AND_READ)
            try:
                generation = await read_entry(self._store, entry, index, key)
            except UsedUpError:
                raise
            except StoreError as error:
                unread.append(f"{key} in {index.ref}: {error}")
                continue
            blobs = generation.config.blobs & self.deleted if generation.config else frozenset()
            if blobs:
                yield await self._heal(generation, blobs, rewriter)
        if unread:
            raise StoreError("; ".join(unread))

    async def _written_since(self) -> list[tuple[IndexId, StoredEntry, IndexKey]]:
        """List what builders read of each index that a build has written since the run began."""
        self._take(1, rest=1)
        known = {entry.store_id for entry in self._marks.snapshot.entries}
        ours = {
            (one.index.ref, str(one.index.key(one.number)))
            for result in self._rewritten.values()
            for one in (*result.met, result.written)
            if one
        }
        newest: dict[IndexId, tuple[IndexId, StoredEntry, IndexKey]] = {}
        entries = await self._store.newest_indexes()
        for entry in sorted(entries, key=lambda entry: (entry.created_at, entry.id)):
            index, key = index_of(entry.ref, entry.parsed), entry.parsed
            if index is None or not isinstance(key, IndexKey):
                continue
            if entry.ref not in self._marks.snapshot.access.readable:
                continue
            if entry.id not in known and (entry.ref, entry.key) not in ours:
                newest[index] = (index, entry, key)
        return [newest[index] for index in sorted(newest)]

    def _take(self, requests: int, *, rest: int = 0) -> None:
        if reason := self._budget.take(requests, rest=rest):
            raise UsedUpError(reason)

    async def _heal(
        self, generation: ReadGeneration, blobs: frozenset[Digest], rewriter: Rewriter
    ) -> Heal:
        found = {index.id: index for index in self._marks.indexes}.get(generation.index)
        index = found or _new_index(generation)
        if why_not := self._why_not(index):
            return Heal(generation, blobs, why_not=why_not)
        result = self._rewritten.get(index.id)
        written = result.written if result else None
        content = (written.config if written else None) or index.merged
        numbers = (index.highest, generation.number, written.number if written else 0)
        key = index.id.key(max(numbers) + 1)
        content = prune(content, self.live)
        reason = WrittenDuringSweep(str(index.id.key(generation.number)), len(blobs))
        write = WriteIndex(index.id, key, content, reason, index.sink)
        return Heal(generation, blobs, await rewriter.rewrite(write, index))

    def _why_not(self, index: Index) -> Signed | NotWritable | UsedByBuilds | None:
        if index.id.signed:
            return Signed()
        if index.id.ref not in self._marks.snapshot.access.writable:
            return NotWritable(index.id.ref)
        if index.used_by_builds:
            return UsedByBuilds(index.used_by_builds)
        return None


def _new_index(generation: ReadGeneration) -> Index:
    """Return an index that was not there when the run looked."""
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
        hidden_by=None,
        sink=generation.sink or Sink.REWRITE,
    )


def _blobs_of(entries: Iterable[KnownEntry]) -> frozenset[Digest]:
    keys = (entry.parsed for entry in entries)
    return frozenset(key.digest for key in keys if isinstance(key, BlobKey))
