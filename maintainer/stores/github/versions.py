"""The indexes of a cache service: listed and read, or searched by look-ups where nothing lists.

A look-up makes an entry look used, which changes what the service evicts first; a listing does not.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from maintainer.cacheconfig import (
    ENTRY_VERSION,
    IndexId,
    IndexKey,
    Ref,
    Scope,
    content_digest,
    parse_key,
)
from maintainer.concurrency import for_each
from maintainer.errors import BudgetExhaustedError, StoreError, UnreadableError
from maintainer.model import reason as reasons
from maintainer.model.content import Content
from maintainer.model.doubt import Cause
from maintainer.model.entry import Access, StoredEntry
from maintainer.model.index import ReadGeneration, UnreadGeneration, index_of
from maintainer.model.memory import KnownPlace, Memory
from maintainer.sanitize import printable
from maintainer.stores.base import RunContext, Versions
from maintainer.stores.decoding import read_content
from maintainer.stores.github.keyed import CacheHit, KeyedService

_REF_HASH = re.compile(r"(?=(-1-[0-9a-f]{8}))", re.ASCII)

_LOOK_UP_AND_READ = 2


async def read_listed(
    service: KeyedService,
    known: Memory,
    entries: Iterable[StoredEntry],
    now: datetime,
    context: RunContext,
) -> Versions:
    """Read every listed generation that the graph does not know and the token can read.

    `entries` are those that may be indexes, or hide one. What the budget does not allow to read
    counts as not read. An index that gave the same answer for the whole grace period, and cannot be
    read, counts as read and not valid: builders cannot read it either.
    """
    look = _Reader(service, known, now, context)
    return (await _read_listed(look, sorted(entries, key=lambda one: one.id))).versions


async def search(
    service: KeyedService, known: Memory, scopes: Sequence[str], now: datetime, context: RunContext
) -> Versions:
    """Find the generations of some scopes by look-ups, newest first."""
    look = _Reader(service, known, now, context)
    return (await _Search(look, context.settings.generation_gap).find(scopes)).versions


class _Indexes:
    """The generations that a probe has found."""

    def __init__(self) -> None:
        self.read: list[ReadGeneration] = []
        self.unread: list[UnreadGeneration] = []
        self.adopted: dict[int, int] = {}
        self.found: set[int] = set()
        self.gone: set[int] = set()
        self.read_by_builders: dict[IndexId, str] = {}

    @property
    def versions(self) -> Versions:
        """All of it, as a value."""
        return Versions(
            read=tuple(self.read),
            unread=tuple(self.unread),
            adopted=self.adopted,
            found=frozenset(self.found),
            gone=frozenset(self.gone),
            read_by_builders=self.read_by_builders,
        )


@dataclass(frozen=True, slots=True)
class _Reader:
    """The context of one probe of the indexes."""

    service: KeyedService
    known: Memory
    now: datetime
    context: RunContext

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
        if doubt is None or not doubt.has_ended(cause, self.now, self.context.settings.grace):
            return UnreadGeneration(index, number, _why_unread(error), cause)
        violation = f"nobody has been able to read it since {doubt.since:%Y-%m-%d %H:%M}: {error}"
        created_at, store_id = (entry.created_at, entry.id) if entry else (self.now, None)
        nothing = Content.of(b"")
        return ReadGeneration(index, number, nothing, None, violation, created_at, store_id, None)


def _why_unread(error: StoreError) -> reasons.WhyUnread:
    return error.reason if isinstance(error, BudgetExhaustedError) else reasons.Problem(str(error))


async def _read_listed(look: _Reader, entries: Iterable[StoredEntry]) -> _Indexes:
    """Read every listed generation that the graph does not know and the token can read."""
    indexes = _Indexes()
    wanted: list[tuple[StoredEntry, IndexId, IndexKey]] = []
    for entry in entries:
        key = entry.parsed
        index = index_of(entry.ref, key)
        readable = (
            entry.ref in look.service.access.readable and entry.id not in look.known.store_ids
        )
        written = look.known.written.get((entry.ref, entry.key))
        if readable and written and written.is_in(entry):
            indexes.adopted[written.generation_id] = entry.id
        elif readable and index and isinstance(key, IndexKey):
            wanted.append((entry, index, key))
    look.context.progress.stage("probe: read new generations", len(wanted))
    refs = _refs_of_indexes(entries, look.service.access)

    async def read(job: tuple[StoredEntry, IndexId, IndexKey]) -> ReadGeneration | UnreadGeneration:
        entry, index, key = job
        look.context.progress.advance()
        if others := refs[entry.key.casefold()] - {entry.ref}:
            return UnreadGeneration(index, key.generation, reasons.SameKeyElsewhere(min(others)))
        if reason := look.context.budget.reserve(_LOOK_UP_AND_READ):
            return UnreadGeneration(index, key.generation, reason)
        try:
            return await read_entry(look.service, entry, index, key)
        except StoreError as error:
            return look.unread(index, key.generation, error, entry=entry)

    for outcome in await for_each(read, wanted):
        if isinstance(outcome, ReadGeneration):
            indexes.read.append(outcome)
        else:
            indexes.unread.append(outcome)
    indexes.read_by_builders = _created_last(entries, look.service.access)
    return indexes


def _refs_of_indexes(entries: Iterable[StoredEntry], access: Access) -> Mapping[str, set[Ref]]:
    """Return in which refs the key of an index is, whatever its case; builds write it in one only.

    A key contains the hash of its ref: an entry in another ref is there only because somebody wants
    it to be read in place of the index there.
    """
    refs: defaultdict[str, set[Ref]] = defaultdict(set)
    for entry in entries:
        if entry.version == ENTRY_VERSION and entry.ref in access.readable:
            refs[entry.key.casefold()].add(entry.ref)
    return refs


async def read_entry(
    service: KeyedService, entry: StoredEntry, index: IndexId, key: IndexKey
) -> ReadGeneration:
    """Read a generation that is listed. Raises StoreError if it is not what the list says."""
    found = await service.look_up(entry.key)
    if found is None:
        raise UnreadableError(Cause.NOT_FOUND, "it is listed, but a look-up did not find it")
    if found.ref not in (None, entry.ref):
        raise StoreError(f"a look-up found an entry of the same key in {printable(found.ref)}")
    content = await service.read(found)
    if len(content) != entry.size:
        # An entry of the same key in another ref that the token reads, or half an answer.
        raise UnreadableError(
            Cause.OTHER_SIZE, f"it has {len(content):,} bytes where the list says {entry.size:,}"
        )
    return read_content(index, key.generation, content, entry.created_at, store_id=entry.id)


def _created_last(entries: Iterable[StoredEntry], access: Access) -> dict[IndexId, str]:
    """Return what a builder gets that asks for an index by its prefix: the entry created last."""
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

    def __init__(self, look: _Reader, gap: int) -> None:
        self.look = look
        self.service = look.service
        self.known = look.known.places
        self.budget = look.context.budget
        self.progress = look.context.progress
        self.gap = gap
        self.now = look.now
        self.indexes = _Indexes()

    async def find(self, scopes: Sequence[str]) -> _Indexes:
        # Nothing tells from which ref the index of another one comes. One's own is read first.
        refs = self.service.access.writable or self.service.access.readable
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
            self.indexes.gone |= {place.generation_id for place in places.values()}
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
                self.indexes.found |= {places[one].generation_id for one in trusted}
            misses = 0 if found else misses + (number <= newest)
            if misses >= self.gap:
                break

    def _is_the_same(self, place: KnownPlace, found: CacheHit) -> bool:
        """Return whether a generation that was read is what the graph knows, where it knows it.

        The place alone says nothing: a server that was emptied counts from one again, and in some
        the place follows from the key.
        """
        return place.generation_id in self.indexes.found and place.location == found.location

    async def _newest(self, index: IndexId) -> int:
        """Find the newest generation as a builder does, with the checks that a builder omits."""
        if reason := self.budget.reserve(_LOOK_UP_AND_READ):
            raise BudgetExhaustedError(reason)
        found = await self.service.look_up_newest(str(index))
        if found is None:
            return 0
        self.indexes.read_by_builders[index] = found.key
        number = generation_of(index, found.key)
        if number is None:
            found = await self.service.look_up_newest(index.prefix)
            number = generation_of(index, found.key) if found else None
        number = number or 0
        # Creation times may tie, and the first of a tie may be what the look-up finds.
        while parse_key(key := str(index.key(number + 1))) and await self.service.look_up(key):
            number += 1
        return number

    async def _read(self, index: IndexId, number: int, place: KnownPlace | None) -> CacheHit | None:
        """Read a generation, if it exists."""
        if reason := self.budget.reserve(_LOOK_UP_AND_READ):
            raise BudgetExhaustedError(reason)
        found = await self.service.look_up(str(index.key(number)))
        if found is None:
            if place:
                self.indexes.gone.add(place.generation_id)
            return None
        try:
            content = await self.service.read(found)
        except StoreError as error:
            self._note_unread(self.look.unread(index, number, error), place)
            return found
        same = place is not None and place.content_digest == content_digest(content)
        if place:
            (self.indexes.found if same else self.indexes.gone).add(place.generation_id)
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
        if place and place.content_digest != outcome.content.digest:
            self.indexes.gone.add(place.generation_id)


def generation_of(index: IndexId, key: str) -> int | None:
    """Read the number of a generation of `index`, whatever the case in which it is spelt."""
    prefix, number = key[: len(index.prefix)], key[len(index.prefix) :]
    if prefix.casefold() != index.prefix.casefold():
        return None
    parsed = parse_key(f"{index.prefix}{number}")
    return parsed.generation if isinstance(parsed, IndexKey) else None
