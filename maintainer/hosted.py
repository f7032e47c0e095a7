"""A cache that a host keeps: entries under keys, written once, listed and evicted by the host."""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from maintainer.cache import Conditions
from maintainer.cacheconfig import BlobKey, Digest, IndexId, IndexKey, SignatureKey
from maintainer.contents import ContentChecker
from maintainer.errors import StoreError, UsedUpError
from maintainer.exports import find_new_export
from maintainer.heal import Healer
from maintainer.model import reason as reasons
from maintainer.model.decision import Heal, Keep, Rewritten, WriteIndex
from maintainer.model.entry import KnownEntry, RememberedEntry, StoredEntry, StoreLimits
from maintainer.model.export import Export
from maintainer.model.index import index_of
from maintainer.model.marks import Marks
from maintainer.model.memory import Known, Probe
from maintainer.model.reason import Reason
from maintainer.model.snapshot import Snapshot
from maintainer.outage import find_outage
from maintainer.probe import probe_store
from maintainer.rewrite import Rewriter
from maintainer.stores.base import Store
from maintainer.sweep import Recheck

_RECHECKS = 2
"""Requests that tell what builds have done since the run began."""
_LIMITS = 3
"""Requests that tell when the host evicts, at the most."""
_PAGE = 100
"""So many blobs are on a page of those that were used last."""
_FRESH = timedelta(seconds=30)
"""What was asked so long ago is asked again."""


class HostedCache:
    """What a run needs of a cache, in terms of what a host offers."""

    evicts = True
    left_alone: Sequence[Keep] = ()

    def __init__(self, store: Store) -> None:
        self._store = store
        self._checker: ContentChecker | None = None
        self.name = store.name
        self.access = store.access
        self.deletes = store.lists
        self.requests = store.requests

    async def probe(self, known: Known, now: datetime, conditions: Conditions) -> Probe:
        """Look what there is, with as few requests as possible."""
        settings = conditions.settings
        merged = (settings.merged_scope,) if settings.merged_scope else ()
        return await probe_store(
            self._store,
            known,
            now=now,
            grace=settings.grace,
            scopes=(*settings.scopes, *merged),
            generation_gap=conditions.settings.generation_gap,
            budget=conditions.budget,
            progress=conditions.progress,
        )

    def further_entries(self) -> Iterator[Sequence[StoredEntry]]:
        """Give none: a host lists some thousands at the most, and a probe has them all."""
        return iter(())

    def find_outage(
        self,
        known: Known,
        remembered: Sequence[RememberedEntry],
        probe: Probe,
        snapshot: Snapshot,
        limits: StoreLimits,
    ) -> str | None:
        """Return how much is gone, if it is more than the host's own rules explain."""
        del snapshot
        return find_outage(known, remembered, probe, limits)

    @property
    def deletions_a_minute(self) -> int | None:
        """How many entries the host lets be deleted in a minute."""
        return self._store.deletions_a_minute

    async def limits(self, probe: Probe, conditions: Conditions) -> StoreLimits:
        """Return when the host evicts; the quota is not asked for if it is configured.

        Then the retention matters only to blobs that a young index in another ref may need.
        """
        quota = conditions.settings.quota
        limits = StoreLimits(quota=int(quota), is_assumed=False) if quota else StoreLimits()
        matters = any(
            isinstance(entry.parsed, IndexKey)
            and entry.ref not in self.access.readable
            and probe.at - entry.created_at < conditions.settings.grace
            for entry in probe.entries
        )
        if quota and not matters:
            return limits
        if not conditions.budget.spare().take(1 if quota else _LIMITS):
            return limits
        if quota:
            return replace(limits, retention=await self._store.retention())
        return await self._store.limits()

    def checker(
        self, known: Known, conditions: Conditions, *, quota: int, accept_loss: bool
    ) -> ContentChecker | None:
        """Return what looks up blobs and downloads a byte of each."""
        self._checker = ContentChecker(
            self._store,
            known,
            conditions.settings,
            quota=quota,
            accept_loss=accept_loss,
            budget=conditions.budget,
            progress=conditions.progress,
            clock=conditions.clock,
        )
        return self._checker

    async def rewrite(
        self, writes: Sequence[WriteIndex], marks: Marks, conditions: Conditions
    ) -> AsyncIterator[Rewritten]:
        """Write each index as the next generation."""
        snapshot = marks.snapshot
        rewriter = self._rewriter(snapshot.live_blobs, snapshot.broken_blobs, conditions)
        indexes = {index.id: index for index in marks.indexes}
        for write in writes:
            yield await rewriter.rewrite(write, indexes[write.index])

    def _rewriter(
        self, live: frozenset[Digest], broken: frozenset[Digest], conditions: Conditions
    ) -> Rewriter:
        return Rewriter(
            self._store,
            live,
            broken,
            budget=conditions.budget,
            reservation_wait=conditions.settings.reservation_wait,
            max_index_size=conditions.settings.max_index_size,
            clock=conditions.clock,
            sleep=conditions.sleep,
        )

    async def wait_for_index(
        self,
        export: Export,
        snapshot: Snapshot,
        waits: Iterator[timedelta],
        conditions: Conditions,
    ) -> bool:
        """Ask for the newest indexes now and then, until one is new in the ref of the export.

        Stop waiting when the budget allows no more questions; the rest of the run goes on.
        """
        known = {entry.store_id for entry in snapshot.entries}
        for wait in waits:
            await conditions.sleep(wait.total_seconds())
            if not conditions.budget.allows(1, rest=1):
                return False
            try:
                newest = await self._store.newest_indexes()
            except StoreError:
                return False
            if any(entry.ref == export.ref and entry.id not in known for entry in newest):
                return True
        return False

    async def heal(
        self,
        marks: Marks,
        rewritten: Mapping[IndexId, Rewritten],
        deleted: Sequence[KnownEntry],
        conditions: Conditions,
    ) -> AsyncIterator[Heal]:
        """Ask what builds have written meanwhile, if blobs were deleted, and rewrite that."""
        healer = Healer(self._store, marks, rewritten, deleted, conditions.budget)
        if healer.deleted:
            conditions.progress.stage("heal")
            rewriter = self._rewriter(healer.live, marks.snapshot.broken_blobs, conditions)
            async for heal in healer.heal(rewriter):
                yield heal

    def recheck(
        self, marks: Marks, rewritten: Mapping[IndexId, Rewritten], conditions: Conditions
    ) -> Recheck:
        """Give what lists the newest indexes and looks up what supersedes others."""
        looked_up = self._checker.looked_up if self._checker else ()
        return _AskNowAndThen(self._store, marks, rewritten, looked_up, conditions.clock)

    async def delete(self, entry: KnownEntry) -> bool:
        """Delete an entry by its id."""
        return await self._store.delete(entry.store_id)


class _AskNowAndThen:
    """Asks what was done meanwhile; requests are too dear to ask before each deletion."""

    def __init__(
        self,
        store: Store,
        marks: Marks,
        rewritten: Mapping[IndexId, Rewritten],
        looked_up: Collection[int],
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._clock = clock
        self._rewritten = rewritten
        self._known = {entry.store_id for entry in marks.snapshot.entries}
        self._accessed = {one.store_id: one.last_accessed_at for one in marks.snapshot.entries}
        """When each entry was last accessed, as far as that was taken into account."""
        self._uploaded: dict[int, StoredEntry] = {}
        """The blobs that builds have stored since the run began."""
        self._newest = {one.id: str(one.newest.key) for one in marks.indexes if one.newest}
        # A generation that cannot be read may need any blob, whoever has met it.
        self._ours = {
            (one.index.ref, str(one.index.key(one.number)))
            for came_of_it in rewritten.values()
            for one in (*came_of_it.met, came_of_it.written)
            if one and one.config
        }
        self._referenced = [
            (one.index.ref, blob)
            for came_of_it in rewritten.values()
            for one in came_of_it.met
            if one.config
            for blob in one.config.blobs
        ]
        self._why_none: Reason | None = None
        self._used: set[int] = set()
        self._looked_up = frozenset(looked_up)
        self._more_pages = 1 + len(self._looked_up) // _PAGE if looked_up else 0
        """So many pages of the blobs used last may be filled by what the run has looked up."""
        self._asked_at: dict[IndexId | None, datetime] = {}

    def requests(self, entry: KnownEntry) -> int:
        """How many requests it takes to ask for this one: none, if that was done just now."""
        if not isinstance(entry.parsed, IndexKey):
            return 0 if self._is_fresh(None) else _RECHECKS + self._more_pages
        index = index_of(entry.ref, entry.parsed)
        return 0 if index in self._rewritten or self._is_fresh(index) else 1

    async def why_not(self, entry: KnownEntry) -> Reason | None:
        """Return why an entry may not go, if so."""
        if isinstance(entry.parsed, IndexKey):
            index = index_of(entry.ref, entry.parsed)
            return await self._why_not_superseded(index) if index else reasons.ForeignKey(entry.ref)
        if not self._is_fresh(None):
            self._why_none = await self._what_was_done_meanwhile()
            self._asked_at[None] = self._clock()
        if self._why_none is None and entry.store_id in self._used:
            return reasons.LookedUp()
        return self._why_none

    def _is_fresh(self, what: IndexId | None) -> bool:
        asked_at = self._asked_at.get(what)
        return asked_at is not None and self._clock() - asked_at < _FRESH

    async def _why_not_superseded(self, index: IndexId) -> Reason | None:
        """Look whether what supersedes it is there still: if not, builders fall back to it."""
        if index in self._rewritten or self._is_fresh(index):
            return None
        newest = self._newest.get(index, "the newest generation")
        try:
            found = await self._store.look_up(newest)
        except UsedUpError:
            raise
        except StoreError as error:
            return reasons.NewestUnchecked(newest, str(error))
        if found is None:
            return reasons.NewestGone(newest)
        self._asked_at[index] = self._clock()
        return None

    async def _what_was_done_meanwhile(self) -> Reason | None:
        """Ask what builds have done since the run began; return why no blob may go, if so.

        A build in any ref may name a blob of a ref that it reads, so all new indexes count. Before
        it writes its index it looks up the blobs, and does not upload those that it finds; or it
        has listed them when it began, and looks nothing up. Then a new blob shows that it is there.
        """
        try:
            for entry in await self._store.newest_indexes():
                if entry.id not in self._known and (entry.ref, entry.key) not in self._ours:
                    return reasons.NewIndex(entry.key, entry.ref)
            if reason := await self._what_was_used_meanwhile():
                return reason
        except UsedUpError:
            raise
        except StoreError as error:
            return reasons.BuildsUnknown(str(error))
        uploads = (
            (blob.ref, blob.parsed.digest, blob.created_at)
            for blob in self._uploaded.values()
            if isinstance(blob.parsed, BlobKey | SignatureKey)
        )
        export = find_new_export(uploads, self._referenced)
        return export.reason if export else None

    async def _what_was_used_meanwhile(self) -> Reason | None:
        """Note which blobs were used since the run began; return why none may go, if so.

        What the run has looked up itself counts as used, since a build may have been faster. But it
        is no sign that builds have used so much: the list goes on after it.
        """
        shown: dict[int, datetime] = {}
        for page in range(1, 2 + self._more_pages):
            blobs = await self._store.last_used_blobs(page)
            used = {one.id for one in blobs if self._accessed.get(one.id) != one.last_accessed_at}
            self._used |= used
            self._uploaded |= {one.id: one for one in blobs if one.id not in self._known}
            shown |= {one.id: one.last_accessed_at for one in blobs}
            if not blobs or len(used) < len(blobs):
                self._accessed |= shown
                self._more_pages = 0
                return None
            if used.isdisjoint(self._looked_up):
                break
        return reasons.TooManyUsed()
