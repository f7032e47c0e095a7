"""Probe: what exists? Only reads the store, and looks up only what is in doubt.

A look-up makes an entry look used, which changes what the host evicts first; a listing does not.
"""

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import TypeVar

import anyio

from maintainer.budget import Budget
from maintainer.cacheconfig import (
    ENTRY_VERSION,
    BlobKey,
    Digest,
    IndexId,
    IndexKey,
    Ref,
    Scope,
    content_digest,
    decode_whole,
    parse_key,
)
from maintainer.errors import InvalidIndexError, StoreError, UnreadableError, UsedUpError
from maintainer.model import reason as reasons
from maintainer.model.doubt import Cause
from maintainer.model.entry import Access, StoredEntry
from maintainer.model.index import ReadGeneration, UnreadGeneration, index_of
from maintainer.model.memory import Known, KnownPlace, Probe
from maintainer.progress import Progress
from maintainer.stores.base import Found, Listing, Store
from maintainer.text import printable

_REF_HASH = re.compile(r"(?=(-1-[0-9a-f]{8}))", re.ASCII)

_LOOK_UP_AND_READ = 2

_T = TypeVar("_T")
_R = TypeVar("_R")


async def probe_store(
    store: Store,
    known: Known,
    *,
    now: datetime,
    grace: timedelta,
    scopes: Sequence[str],
    generation_gap: int,
    budget: Budget,
    progress: Progress,
) -> Probe:
    """Look at the store once. What the budget does not allow to read counts as not read.

    An index that gave the same answer for the whole grace period, and cannot be read, counts as
    read and not valid: builders cannot read it either.
    `scopes` and `generation_gap` matter only where the store cannot list. Raises StoreError if
    the store could not be asked what exists; an index that cannot be read is told in the probe.
    """
    look = _Look(store, known, budget, progress, now, grace)
    progress.stage("probe: list entries")
    if store.lists:
        listing = await store.list_entries()
        indexes = await _read_listed(look, listing)
    else:
        listing = Listing((), complete=True)
        indexes = await _Search(look, generation_gap).find(scopes)
    named = known.named_blobs.union(*(one.config.blobs for one in indexes.read if one.config))
    blobs = await _probe_blobs(look, listing, named)
    return Probe(
        at=now,
        access=store.access,
        lists=store.lists,
        entries=blobs.listing.entries,
        listing_complete=blobs.listing.complete,
        read=tuple(indexes.read),
        unread=tuple(indexes.unread),
        adopted=indexes.adopted,
        found=frozenset(indexes.found),
        gone=frozenset(indexes.gone),
        live_blobs=blobs.live,
        missing_blobs=named - blobs.live - blobs.unasked,
        read_by_builders=indexes.read_by_builders,
        unasked_blobs=blobs.unasked,
        broken_blobs=blobs.broken,
    )


def read_content(
    index: IndexId,
    number: int,
    content: bytes,
    created_at: datetime,
    *,
    store_id: int | None = None,
    location: str | None = None,
) -> ReadGeneration:
    """Decode a generation, or say why an importer would refuse it."""
    config, sink, violation = None, None, None
    try:
        config, sink = decode_whole(content)
    except InvalidIndexError as error:
        violation = str(error)
    return ReadGeneration(
        index, number, content, config, violation, created_at, store_id, location, sink
    )


class _Indexes:
    """The generations that a probe has met."""

    def __init__(self) -> None:
        self.read: list[ReadGeneration] = []
        self.unread: list[UnreadGeneration] = []
        self.adopted: dict[int, int] = {}
        self.found: set[int] = set()
        self.gone: set[int] = set()
        self.read_by_builders: dict[IndexId, str] = {}


@dataclass(frozen=True, slots=True)
class _Look:
    """What a probe works with."""

    store: Store
    known: Known
    budget: Budget
    progress: Progress
    now: datetime
    grace: timedelta

    def unread(
        self,
        index: IndexId,
        number: int,
        error: StoreError,
        *,
        entry: StoredEntry | None = None,
    ) -> ReadGeneration | UnreadGeneration:
        """Return what a generation counts as that could not be read."""
        cause = error.cause if isinstance(error, UnreadableError) else Cause.TRANSIENT
        doubt = self.known.doubts.get((index.ref, str(index.key(number))))
        if doubt is None or not doubt.has_ended(cause, self.now, self.grace):
            return UnreadGeneration(index, number, _why_unread(error), cause)
        violation = f"nobody has been able to read it since {doubt.since:%Y-%m-%d %H:%M}: {error}"
        created_at, store_id = (entry.created_at, entry.id) if entry else (self.now, None)
        return ReadGeneration(index, number, b"", None, violation, created_at, store_id, None)


def _why_unread(error: StoreError) -> reasons.WhyUnread:
    return error.reason if isinstance(error, UsedUpError) else reasons.Problem(str(error))


async def _read_listed(look: _Look, listing: Listing) -> _Indexes:
    """Read every listed generation that the graph does not know and the token can read."""
    indexes = _Indexes()
    wanted: list[tuple[StoredEntry, IndexId, IndexKey]] = []
    for entry in listing.entries:
        key = entry.parsed
        index = index_of(entry.ref, key)
        readable = entry.ref in look.store.access.readable and entry.id not in look.known.store_ids
        written = look.known.written.get((entry.ref, entry.key))
        if readable and written and written.is_in(entry):
            indexes.adopted[written.manifest_id] = entry.id
        elif readable and index and isinstance(key, IndexKey):
            wanted.append((entry, index, key))
    look.progress.stage("probe: read new generations", len(wanted))
    refs = _refs_of_indexes(listing.entries, look.store.access)

    async def read(job: tuple[StoredEntry, IndexId, IndexKey]) -> ReadGeneration | UnreadGeneration:
        entry, index, key = job
        look.progress.advance()
        if others := refs[entry.key.casefold()] - {entry.ref}:
            return UnreadGeneration(index, key.generation, reasons.SameKeyElsewhere(min(others)))
        if reason := look.budget.take(_LOOK_UP_AND_READ):
            return UnreadGeneration(index, key.generation, reason)
        try:
            return await read_entry(look.store, entry, index, key)
        except StoreError as error:
            return look.unread(index, key.generation, error, entry=entry)

    for outcome in await for_each(read, wanted):
        if isinstance(outcome, ReadGeneration):
            indexes.read.append(outcome)
        else:
            indexes.unread.append(outcome)
    indexes.read_by_builders = _created_last(listing.entries, look.store.access)
    return indexes


def _refs_of_indexes(entries: Iterable[StoredEntry], access: Access) -> Mapping[str, set[Ref]]:
    """Tell in which refs the key of an index is, whatever its case; builds write it in one only.

    A key holds the hash of its ref: that of another ref is there only if somebody wants it to be
    read in place of the index there.
    """
    refs: defaultdict[str, set[Ref]] = defaultdict(set)
    for entry in entries:
        if entry.version == ENTRY_VERSION and entry.ref in access.readable:
            refs[entry.key.casefold()].add(entry.ref)
    return refs


async def read_entry(
    store: Store, entry: StoredEntry, index: IndexId, key: IndexKey
) -> ReadGeneration:
    """Read a generation that is listed. Raises StoreError if it is not what the list says."""
    found = await store.look_up(entry.key)
    if found is None:
        raise UnreadableError(Cause.NOT_FOUND, "it is listed, but a look-up did not find it")
    if found.ref not in (None, entry.ref):
        raise StoreError(f"a look-up found an entry of the same key in {printable(found.ref)}")
    content = await store.read(found)
    if len(content) != entry.size:
        # An entry of the same key in another ref that the token reads, or half an answer.
        raise UnreadableError(
            Cause.OTHER_SIZE, f"it has {len(content):,} bytes where the list says {entry.size:,}"
        )
    return read_content(index, key.generation, content, entry.created_at, store_id=entry.id)


def _created_last(entries: Iterable[StoredEntry], access: Access) -> dict[IndexId, str]:
    """Tell what a builder gets that asks for an index by its prefix: the entry created last."""
    indexes: dict[tuple[str, str], IndexId] = {}
    last: dict[tuple[str, str], StoredEntry] = {}
    ours = [entry for entry in entries if entry.ref in access.readable]
    for entry in ours:
        index = index_of(entry.ref, entry.parsed)
        if index and not index.signed:
            indexes[entry.ref, str(index)] = index
    for entry in sorted(ours, key=lambda entry: (entry.created_at, entry.id)):
        # A prefix look-up is loose: it finds signed indexes, and scopes that continue the prefix.
        if entry.version == ENTRY_VERSION and entry.key.startswith("index-"):
            for match in _REF_HASH.finditer(entry.key):
                last[entry.ref, entry.key[: match.end(1)]] = entry
    return {index: last[place].key for place, index in indexes.items()}


class _Search:
    """Finds the generations of the configured scopes by look-ups, newest first."""

    def __init__(self, look: _Look, gap: int) -> None:
        self.look = look
        self.store = look.store
        self.known = look.known.places
        self.budget = look.budget
        self.progress = look.progress
        self.gap = gap
        self.now = look.now
        self.indexes = _Indexes()

    async def find(self, scopes: Sequence[str]) -> _Indexes:
        # Nothing tells from which ref the index of another one comes. One's own is read first.
        refs = self.store.access.writable or self.store.access.readable
        wanted = [
            IndexId(ref, Scope(scope)) for ref in sorted(refs) for scope in sorted(set(scopes))
        ]
        self.progress.stage("probe: search generations", len(wanted))
        for index in wanted:
            try:
                await self._find_index(index)
            except StoreError as error:
                self.indexes.unread.append(UnreadGeneration(index, 0, _why_unread(error)))
            self.progress.advance()
        return self.indexes

    async def _find_index(self, index: IndexId) -> None:
        newest = await self._newest(index)
        places = self.known.get(index, {})
        if not newest:
            self.indexes.gone |= {place.manifest_id for place in places.values()}
            return
        above = sorted((number for number in places if number > newest), reverse=True)
        trusted: frozenset[int] = frozenset()
        misses = 0
        for number in chain(above, range(newest, 0, -1)):
            if number in trusted:
                misses = 0
                continue
            found = await self._read(index, number, places.get(number))
            if found and number in places and self._is_the_same(places[number], found):
                # Numbers start again when all generations are gone. This one is what it was, so
                # that has not happened, and those that were there before it need no look-up.
                trusted = frozenset(one for one in places if one < number)
                self.indexes.found |= {places[one].manifest_id for one in trusted}
            misses = 0 if found else misses + (number <= newest)
            if misses >= self.gap:
                break

    def _is_the_same(self, place: KnownPlace, found: Found) -> bool:
        """Tell whether a generation that was read is what the graph knows, where it knows it.

        The place alone says nothing: a server that was emptied counts from one again, and in some
        the place follows from the key.
        """
        return place.manifest_id in self.indexes.found and place.location == found.location

    async def _newest(self, index: IndexId) -> int:
        """Find the newest generation as a builder does, and mind what a builder does not."""
        if reason := self.budget.take(_LOOK_UP_AND_READ):
            raise UsedUpError(reason)
        found = await self.store.look_up_newest(str(index))
        if found is None:
            return 0
        self.indexes.read_by_builders[index] = found.key
        number = generation_of(index, found.key)
        if number is None:
            found = await self.store.look_up_newest(index.prefix)
            number = generation_of(index, found.key) if found else None
        number = number or 0
        # Creation times may tie, and the first of a tie may be what the look-up finds.
        while parse_key(key := str(index.key(number + 1))) and await self.store.look_up(key):
            number += 1
        return number

    async def _read(self, index: IndexId, number: int, place: KnownPlace | None) -> Found | None:
        """Read a generation, if it is there."""
        if reason := self.budget.take(_LOOK_UP_AND_READ):
            raise UsedUpError(reason)
        found = await self.store.look_up(str(index.key(number)))
        if found is None:
            if place:
                self.indexes.gone.add(place.manifest_id)
            return None
        try:
            content = await self.store.read(found)
        except StoreError as error:
            self._note_unread(self.look.unread(index, number, error), place)
            return found
        same = place is not None and place.content_digest == content_digest(content)
        if place:
            (self.indexes.found if same else self.indexes.gone).add(place.manifest_id)
        if place is None or not same or place.location != found.location:
            self.indexes.read.append(
                read_content(index, number, content, self.now, location=found.location)
            )
        return found

    def _note_unread(
        self, outcome: ReadGeneration | UnreadGeneration, place: KnownPlace | None
    ) -> None:
        if isinstance(outcome, UnreadGeneration):
            self.indexes.unread.append(outcome)
            return
        self.indexes.read.append(outcome)
        if place and place.content_digest != content_digest(outcome.content):
            self.indexes.gone.add(place.manifest_id)


def generation_of(index: IndexId, key: str) -> int | None:
    """Read the number of a generation of `index`, whatever the case in which it is spelt."""
    prefix, number = key[: len(index.prefix)], key[len(index.prefix) :]
    if prefix.casefold() != index.prefix.casefold():
        return None
    parsed = parse_key(f"{index.prefix}{number}")
    return parsed.generation if isinstance(parsed, IndexKey) else None


@dataclass(frozen=True, slots=True)
class _Blobs:
    listing: Listing
    live: frozenset[Digest]
    unasked: frozenset[Digest] = frozenset()
    broken: frozenset[Digest] = frozenset()


async def _probe_blobs(look: _Look, listing: Listing, named: frozenset[Digest]) -> _Blobs:
    """Find out which blobs exist: those that are listed, and of the others those that answer."""
    sound = [entry for entry in listing.entries if entry.id not in look.known.broken_entries]
    anywhere = _blobs_in(sound)
    live = _blobs_in(entry for entry in sound if entry.ref in look.store.access.readable)
    broken = _broken(look, listing) - live
    doubtful = named - live - broken
    if look.store.lists and listing.complete:
        doubtful -= (look.known.missing_blobs & look.known.named_blobs) - anywhere
    if doubtful and not look.store.reads:
        look.progress.stage("probe: list entries again")
        again = await look.store.list_entries()
        listing = _united(listing, again)
        return _Blobs(listing, (live | _blobs_in(listing.entries)) - broken, broken=broken)
    asked = await _ask_for(look, doubtful)
    if not look.store.lists:
        # A look-up finds what cannot be downloaded, too, until it has been checked again.
        broken = look.known.broken_blobs & asked.live
        asked = replace(asked, live=asked.live - broken)
    if look.store.lists and asked.live:
        # The list lacks what is there, so who knows what else it lacks, or of which cache it is.
        listing = replace(listing, complete=False)
    if not look.store.lists and _turns_back(look.known, named, live | asked.live, asked.unasked):
        further = await _ask_for(look, look.known.superseded_blobs - named)
        asked = _Asked(asked.live | further.live, asked.unasked | further.unasked)
    return _Blobs(listing, live | asked.live, asked.unasked, broken)


def _broken(look: _Look, listing: Listing) -> frozenset[Digest]:
    """Return the blobs that are listed, and whose content cannot be downloaded."""
    readable = look.store.access.readable
    known = look.known.broken_entries
    return _blobs_in(one for one in listing.entries if one.id in known and one.ref in readable)


def _turns_back(
    known: Known, named: frozenset[Digest], live: frozenset[Digest], unasked: frozenset[Digest]
) -> bool:
    """Tell whether superseded generations may matter again: a blob is gone, or is back."""
    return bool(live & known.missing_blobs or named - live - unasked - known.missing_blobs)


@dataclass(frozen=True, slots=True)
class _Asked:
    live: frozenset[Digest]
    unasked: frozenset[Digest]


async def _ask_for(look: _Look, blobs: frozenset[Digest]) -> _Asked:
    """Look up blobs, as far as the budget allows."""
    look.progress.stage("probe: look up blobs", len(blobs))

    async def exists(digest: Digest) -> bool | None:
        look.progress.advance()
        if look.budget.take(1):
            return None
        try:
            return await look.store.look_up(str(BlobKey(digest))) is not None
        except UsedUpError as error:
            look.budget.stop(error.reason)
            return None

    wanted = sorted(blobs)
    answers = dict(zip(wanted, await for_each(exists, wanted), strict=True))
    return _Asked(
        frozenset(digest for digest, found in answers.items() if found),
        frozenset(digest for digest, found in answers.items() if found is None),
    )


def _blobs_in(entries: Iterable[StoredEntry]) -> frozenset[Digest]:
    keys = (entry.parsed for entry in entries)
    return frozenset(key.digest for key in keys if isinstance(key, BlobKey))


def _united(one: Listing, other: Listing) -> Listing:
    entries = {entry.id: entry for entry in (*one.entries, *other.entries)}
    return Listing(tuple(entries[key] for key in sorted(entries)), one.complete and other.complete)


async def for_each(job: Callable[[_T], Awaitable[_R]], items: Sequence[_T]) -> list[_R]:
    """Run a job for each item, as many at once as the store allows; results in order."""
    results: dict[int, _R] = {}

    async def run(position: int, item: _T) -> None:
        results[position] = await job(item)

    try:
        async with anyio.create_task_group() as group:
            for position, item in enumerate(items):
                group.start_soon(run, position, item)
    except* StoreError as errors:
        raise _first(errors) from None
    return [results[position] for position in range(len(items))]


def _first(errors: BaseExceptionGroup[StoreError]) -> StoreError:
    """Give one of several errors: the others came of the same trouble."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
