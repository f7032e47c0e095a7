"""Probe: what exists? Only reads the store, and asks only for what is in doubt."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from maintainer.cacheconfig import BlobKey, Digest
from maintainer.errors import StoreError
from maintainer.model.entry import Listing, StoredEntry
from maintainer.model.export import Export
from maintainer.model.memory import Known, Probe
from maintainer.stores.base import Existing, RunContext, Store


async def probe(store: Store, known: Known, now: datetime, context: RunContext) -> Probe:
    """Look at a store once. What the budget does not allow to read counts as not read.

    Raises StoreError if the store could not be asked what exists; an index that cannot be read is
    told in the probe.
    """
    context.progress.stage("probe: list entries")
    listing = Listing((), complete=True)
    if store.abilities.lists:
        listing = await store.entries(now, context)
    versions = await store.versions(known, now, context)
    named = known.named_blobs.union(*(one.config.blobs for one in versions.read if one.config))
    blobs = await _Look(store, known, listing, context).find(named)
    return Probe(
        at=now,
        access=store.access,
        abilities=store.abilities,
        entries=listing.entries,
        listing_complete=blobs.listing_complete,
        read=versions.read,
        unread=versions.unread,
        adopted=versions.adopted,
        found=versions.found,
        gone=versions.gone,
        live_blobs=blobs.live,
        missing_blobs=named - blobs.live - blobs.unasked,
        read_by_builders=versions.read_by_builders,
        unasked_blobs=blobs.unasked,
        broken_blobs=blobs.broken,
        facts=versions.facts,
    )


async def wait_for_index(
    store: Store, export: Export, waits: Iterable[timedelta], context: RunContext
) -> bool:
    """Wait until a build has written an index in the ref of an export; return whether it has.

    `waits` are the pauses between two questions. It ends when the budget allows no more of them;
    the rest of the run goes on.
    """
    for wait in waits:
        await context.sleep(wait.total_seconds())
        if not context.budget.allows(1, rest=1):
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

    live: frozenset[Digest]
    listing_complete: bool
    unasked: frozenset[Digest] = frozenset()
    broken: frozenset[Digest] = frozenset()


@dataclass(frozen=True, slots=True)
class _Look:
    """Finds out which blobs exist: those that are listed, and of the others those that answer."""

    store: Store
    known: Known
    listing: Listing
    context: RunContext

    async def find(self, named: frozenset[Digest]) -> _Blobs:
        lists = self.store.abilities.lists
        wanted = named | self.known.known_blobs
        listed = _Listed(wanted, self.listing.entries, self.known, self.store.access.readable)
        broken = frozenset(listed.broken - listed.live)
        doubtful = named - listed.live - broken
        if lists and self.listing.complete:
            doubtful -= (self.known.missing_blobs & self.known.named_blobs) - listed.anywhere
        if self.store.abilities.looks_cheaply:
            self.context.progress.stage("probe: look for blobs", len(named))
            asked = await self.store.existing(named, self.context)
            return _Blobs(asked.found, self.listing.complete, asked.unasked)
        self.context.progress.stage("probe: look up blobs", len(doubtful))
        asked = await self.store.existing(doubtful, self.context)
        if not lists:
            # A look-up finds what cannot be downloaded, too, until it has been checked again.
            broken = self.known.broken_blobs & asked.found
            asked = replace(asked, found=asked.found - broken)
            asked = await self._ask_for_superseded(named, asked)
        live = asked.found.union(listed.live)
        # If the list lacks what is there, who knows what else it lacks, or of which cache it is.
        complete = self.listing.complete and not (lists and asked.found)
        return _Blobs(live, complete, asked.unasked, broken)

    async def _ask_for_superseded(self, named: frozenset[Digest], asked: Existing) -> Existing:
        """Ask for the blobs of superseded generations too, if these may matter again.

        They do if a blob is gone, or is back.
        """
        missing = self.known.missing_blobs
        gone = named - asked.found - asked.unasked - missing
        if not (asked.found & missing or gone):
            return asked
        others = await self.store.existing(self.known.superseded_blobs - named, self.context)
        return Existing(asked.found | others.found, asked.unasked | others.unasked)


class _Listed:
    """What a list says of some blobs."""

    def __init__(
        self,
        named: frozenset[Digest],
        entries: Iterable[StoredEntry],
        known: Known,
        readable: frozenset[str],
    ) -> None:
        self.live: set[Digest] = set()
        """Those that are listed where the token reads, as far as their content is not missing."""
        self.broken: set[Digest] = set()
        """Those that are listed there, and whose content cannot be downloaded."""
        self.anywhere: set[Digest] = set()
        """Those that are listed in any ref."""
        for entry in entries:
            if not isinstance(entry.parsed, BlobKey) or entry.parsed.digest not in named:
                continue
            sound = entry.id not in known.broken_entries
            if sound:
                self.anywhere.add(entry.parsed.digest)
            if entry.ref in readable:
                (self.live if sound else self.broken).add(entry.parsed.digest)
