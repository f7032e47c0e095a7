"""Probe: find out what exists. Only reads the store, and looks up only uncertain blobs."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from maintainer.cacheconfig import BlobKey, Digest
from maintainer.errors import StoreError
from maintainer.model.entry import Listing, StoredEntry
from maintainer.model.export import Export
from maintainer.model.memory import Memory, Probe
from maintainer.stores.base import Existing, RunContext, Store


async def list_entries(store: Store, now: datetime, context: RunContext) -> Listing:
    """List what exists. Raises StoreError if the store could not."""
    context.progress.stage("probe: list entries")
    if not store.abilities.lists:
        return Listing((), complete=True)
    return await store.entries(now, context)


async def probe(
    store: Store, listing: Listing, known: Memory, now: datetime, context: RunContext
) -> Probe:
    """Probe a store whose entries were listed. What the budget does not allow to read is unread.

    Raises StoreError if the store cannot be reached; an index that cannot be read is reported in
    the probe.
    """
    versions = await store.versions(known, now, context)
    new = frozenset[Digest]().union(*(one.config.blobs for one in versions.read if one.config))
    blobs = await _BlobCheck(store, known, listing, context).find(new)
    return Probe(
        at=now,
        access=store.access,
        abilities=store.abilities,
        entries=_without(listing.entries, blobs.unstored),
        listing_complete=blobs.listing_complete,
        read=versions.read,
        unread=versions.unread,
        adopted=versions.adopted,
        found=versions.found,
        gone=versions.gone,
        live_blobs=blobs.live,
        missing_blobs=blobs.referenced - blobs.live - blobs.unasked,
        read_by_builders=versions.read_by_builders,
        unasked_blobs=blobs.unasked,
        broken_blobs=blobs.broken,
        damaged_blobs=blobs.damaged,
        facts=versions.facts,
    )


def _without(entries: Iterable[StoredEntry], unstored: frozenset[int]) -> Iterable[StoredEntry]:
    """Return what is stored of what was listed."""
    return tuple(one for one in entries if one.id not in unstored) if unstored else entries


async def wait_for_index(
    store: Store, export: Export, waits: Iterable[timedelta], context: RunContext
) -> bool:
    """Wait until a build has written an index in the ref of an export; return whether it has.

    `waits` are the pauses between two checks. It ends when the budget allows no more checks; the
    run continues.
    """
    for wait in waits:
        await context.sleep(wait.total_seconds())
        if not await context.budget.allows_rest(1):
            return False
        try:
            new = await store.new_versions()
        except StoreError:
            return False
        if any(one.index.ref == export.ref for one in new):
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Blobs:
    """Which of the blobs that indexes reference exist."""

    referenced: frozenset[Digest]
    """The blobs whose existence matters; others are looked up only for a reason."""
    live: frozenset[Digest]
    listing_complete: bool
    unasked: frozenset[Digest] = frozenset()
    broken: frozenset[Digest] = frozenset()
    damaged: frozenset[Digest] = frozenset()
    unstored: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _BlobCheck:
    """Finds out which blobs exist: listed ones, and those that a look-up finds."""

    store: Store
    known: Memory
    listing: Listing
    context: RunContext

    async def find(self, new: frozenset[Digest]) -> _Blobs:
        """Find out which blobs exist; `new` are those of the generations that were just read."""
        known, lists = self.known, self.store.abilities.lists
        referenced = known.referenced_blobs | new
        if lists:
            referenced |= known.spare_blobs
        if self.store.abilities.looks_cheaply:
            asked = await self._ask(referenced)
            return _Blobs(
                referenced,
                asked.found,
                self.listing.complete,
                asked.unasked,
                damaged=asked.damaged,
                unstored=asked.unstored,
            )
        listed = _Listed(referenced, self.listing.entries, known, self.store.access.readable)
        listed.live -= self.listing.empty
        broken = frozenset(listed.broken - listed.live)
        doubtful = referenced - listed.live - broken
        if lists and self.listing.complete:
            again = (listed.anywhere & known.referenced_blobs) | (new - known.referenced_blobs)
            doubtful -= known.missing_blobs - again
        asked = await self._ask(doubtful)
        if not lists:
            # A look-up also finds blobs that cannot be downloaded, until they are checked again.
            broken = known.broken_blobs & asked.found
            asked = replace(asked, found=asked.found - broken)
            if _changes(known, referenced, asked):
                others = await self._ask(known.spare_blobs - referenced)
                asked = Existing(asked.found | others.found, asked.unasked | others.unasked)
                referenced |= known.spare_blobs
        live = asked.found.union(listed.live)
        # If the list lacks an existing blob, it may lack others, or belong to another cache.
        complete = self.listing.complete and not (lists and asked.found)
        return _Blobs(referenced, live, complete, asked.unasked, broken)

    async def _ask(self, blobs: frozenset[Digest]) -> Existing:
        self.context.progress.stage("probe: look for blobs", len(blobs))
        return await self.store.existing(blobs, self.context)


def _changes(known: Memory, referenced: frozenset[Digest], asked: Existing) -> bool:
    """Whether older results may matter: a needed blob is gone, or a missing one is back."""
    gone = referenced - asked.found - asked.unasked
    return bool(asked.found & known.missing_blobs or gone - known.missing_blobs)


class _Listed:
    """The entries of some blobs in a list."""

    def __init__(
        self,
        referenced: frozenset[Digest],
        entries: Iterable[StoredEntry],
        known: Memory,
        readable: frozenset[str],
    ) -> None:
        self.live: set[Digest] = set()
        """Those that are listed in readable refs, unless their content is missing."""
        self.broken: set[Digest] = set()
        """Those that are listed in readable refs, but cannot be downloaded."""
        self.anywhere: set[Digest] = set()
        """Those that are listed in any ref."""
        for entry in entries:
            if not isinstance(entry.parsed, BlobKey) or entry.parsed.digest not in referenced:
                continue
            sound = entry.id not in known.broken_entries
            if sound:
                self.anywhere.add(entry.parsed.digest)
            if entry.ref in readable:
                (self.live if sound else self.broken).add(entry.parsed.digest)
