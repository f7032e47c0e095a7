"""The indexes of a cache service: listed and read, or searched by look-ups where nothing lists.

A look-up makes an entry look used, which changes what the service evicts first; a listing does not.
"""

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from maintainer.budget import Spare
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
from maintainer.errors import (
    BudgetExhaustedError,
    StoreError,
    TokenRefusedError,
    UnreadableError,
)
from maintainer.model import reason as reasons
from maintainer.model.checks import next_reading
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

LOOK_UP_AND_READ = 2
"""Requests that it takes to read a generation, or a byte of it."""
_PROOFS = 5
"""So many other indexes are tried, before it counts as an outage that one cannot be read."""


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
    read while another one can, counts as read and not valid: builders cannot read it either.
    """
    look = _Reader(service, known, now, context, context.budget.spare())
    return (await _read_listed(look, sorted(entries, key=lambda one: one.id))).versions


async def search(
    service: KeyedService, known: Memory, scopes: Sequence[str], now: datetime, context: RunContext
) -> Versions:
    """Find the generations of some scopes by look-ups, newest first."""
    look = _Reader(service, known, now, context, context.budget.spare())
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
    spare: Spare
    """What may be spent on indexes that are read again."""

    def is_due(self, entry: StoredEntry, place: KnownPlace) -> bool:
        """Whether an index that builders read is to be read again: it may lose its content.

        All of them are read again by the first run after each multiple of `verify_after`, as long
        as they are younger than `keep_alive`, because reading is a use; and in each run while they
        are in doubt, so that no doubt is forgotten.
        """
        settings, before = self.context.settings, self.known.probed_at
        if not settings.verify_after or before is None or not place.valid:
            return False
        if (entry.ref, entry.key) in self.known.doubts:
            return True
        if self.now - entry.created_at > settings.keep_alive:
            return False
        is_due = next_reading(before, settings.verify_after) <= self.now
        return is_due and self.spare.reserve(LOOK_UP_AND_READ)

    def given_up(
        self, one: UnreadGeneration, entry: StoredEntry | None = None
    ) -> ReadGeneration | None:
        """Return what a generation counts as whose doubt has ended; None if it goes on."""
        doubt = self.known.doubts.get((one.index.ref, str(one.index.key(one.number))))
        if doubt is None or not doubt.has_ended(one.cause, self.now, self.context.settings.grace):
            return None
        if entry and doubt.entries and entry.id not in doubt.entries:
            return None  # A build has used the key of an index that is gone.
        if one.index.ref not in self.service.access.writable:
            return None  # It would stay, and need what is deleted.
        violation = f"nobody has been able to read it since {doubt.since:%Y-%m-%d %H:%M}"
        if isinstance(one.why, reasons.Problem):
            violation += f": {one.why.problem}"
        created_at, store_id = (entry.created_at, entry.id) if entry else (self.now, None)
        return ReadGeneration(
            one.index, one.number, Content.of(b""), None, violation, created_at, store_id, None
        )

    async def reads_another(self, entries: Iterable[StoredEntry], unread: Container[int]) -> bool:
        """Whether an index that was read before can be read again: if none, it is an outage.

        `unread` are the entries that could not be read just now.
        """
        attempts = 0
        for entry in sorted(entries, key=lambda one: one.id, reverse=True):
            index, key = index_of(entry.ref, entry.parsed), entry.parsed
            place = self.known.read_entries.get(entry.id)
            if not index or not isinstance(key, IndexKey) or place is None or not place.valid:
                continue
            if entry.id in unread or attempts == _PROOFS:
                continue
            if self.context.budget.reserve(LOOK_UP_AND_READ):
                return False
            attempts += 1
            with suppress(StoreError):
                read = await read_entry(self.service, entry, index, key.generation)
                if read.content.digest == place.content_digest:
                    return True
        return False


def _unread(index: IndexId, number: int, error: StoreError) -> UnreadGeneration:
    cause = error.cause if isinstance(error, UnreadableError) else Cause.TRANSIENT
    return UnreadGeneration(index, number, _why_unread(error), cause)


def _why_unread(error: StoreError) -> reasons.WhyUnread:
    return error.reason if isinstance(error, BudgetExhaustedError) else reasons.Problem(str(error))


@dataclass(frozen=True, slots=True)
class _Job:
    """A generation to read."""

    entry: StoredEntry
    index: IndexId
    number: int
    place: KnownPlace | None
    """What is known of it, if it is read again."""


async def _read_listed(look: _Reader, entries: Iterable[StoredEntry]) -> _Indexes:
    """Read every listed generation that the graph does not know and the token can read.

    What builders read is read again from time to time.
    """
    indexes = _Indexes()
    indexes.read_by_builders = _created_last(entries, look.service.access)
    jobs = list(_jobs(look, entries, indexes))
    look.context.progress.stage("probe: read new generations", len(jobs))
    refs = _refs_of_indexes(entries, look.service.access)

    async def read(job: _Job) -> ReadGeneration | UnreadGeneration:
        look.context.progress.advance()
        if others := refs[job.entry.key.casefold()] - {job.entry.ref}:
            return UnreadGeneration(job.index, job.number, reasons.SameKeyElsewhere(min(others)))
        if not job.place and (reason := look.context.budget.reserve(LOOK_UP_AND_READ)):
            return UnreadGeneration(job.index, job.number, reason)
        try:
            return await read_entry(look.service, job.entry, job.index, job.number)
        except TokenRefusedError:
            raise
        except StoreError as error:
            return _unread(job.index, job.number, error)

    outcomes = await _give_up(look, entries, jobs, await for_each(read, jobs))
    for job, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(outcome, UnreadGeneration):
            indexes.unread.append(outcome)
        elif not job.place or job.place.content_digest != outcome.content.digest:
            indexes.read.append(outcome)
            indexes.gone |= {job.place.generation_id} if job.place else set()
    return indexes


def _jobs(look: _Reader, entries: Iterable[StoredEntry], indexes: _Indexes) -> Iterator[_Job]:
    """Return which generations to read; note in `indexes` which of them runs have written."""
    for entry in entries:
        key, index = entry.parsed, index_of(entry.ref, entry.parsed)
        written = look.known.written.get((entry.ref, entry.key))
        is_known = entry.id in look.known.read_entries
        place = look.known.read_entries.get(entry.id)
        if entry.ref not in look.service.access.readable:
            continue
        if not is_known and written and written.is_in(entry):
            indexes.adopted[written.generation_id] = entry.id
        elif not index or not isinstance(key, IndexKey):
            continue
        elif not is_known or (place and place.key != entry.key):
            yield _Job(entry, index, key.generation, None)
        elif place:
            is_read = indexes.read_by_builders.get(index) == entry.key
            if _is_another(entry, place) or (is_read and look.is_due(entry, place)):
                yield _Job(entry, index, key.generation, place)


def _is_another(entry: StoredEntry, place: KnownPlace) -> bool:
    """Whether an entry has a number that another one had before.

    That is so when a server was restored from a backup, and counts on from there.
    """
    return place.created_at not in (None, entry.created_at)


async def _give_up(
    look: _Reader,
    entries: Iterable[StoredEntry],
    jobs: Sequence[_Job],
    outcomes: Sequence[ReadGeneration | UnreadGeneration],
) -> Sequence[ReadGeneration | UnreadGeneration]:
    """Return the outcomes, those given up whose doubt has ended, unless nothing can be read."""
    ended = {
        at: end
        for at, (job, one) in enumerate(zip(jobs, outcomes, strict=True))
        if isinstance(one, UnreadGeneration) and (end := look.given_up(one, job.entry))
    }
    is_read = any(isinstance(one, ReadGeneration) and one.config for one in outcomes)
    unread = {
        job.entry.id
        for job, one in zip(jobs, outcomes, strict=True)
        if isinstance(one, UnreadGeneration)
    }
    if not ended or not (is_read or await look.reads_another(entries, unread)):
        return outcomes
    return [ended.get(at, one) for at, one in enumerate(outcomes)]


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
    service: KeyedService, entry: StoredEntry, index: IndexId, number: int
) -> ReadGeneration:
    """Read a generation that is listed; what importers would refuse is downloaded twice.

    Raises StoreError if it is not what the list says.
    """
    read = await _read_once(service, entry, index, number)
    if read.violation:
        again = await _read_once(service, entry, index, number)
        if again.violation and again.content.digest != read.content.digest:
            raise StoreError(f"each download of it is another one; now: {again.violation}")
        return again
    return read


async def _read_once(
    service: KeyedService, entry: StoredEntry, index: IndexId, number: int
) -> ReadGeneration:
    found = await service.look_up(entry.key)
    if found is None:
        raise UnreadableError(Cause.NOT_FOUND, "it is listed, but a look-up did not find it")
    if found.ref not in (None, entry.ref):
        raise StoreError(f"a look-up found an entry of the same key in {printable(found.ref)}")
    content = await service.read(found)
    read = read_content(index, number, content, entry.created_at, store_id=entry.id)
    if len(content) != entry.size:
        # An entry of the same key in another ref that the token reads, or half an answer; or the
        # list is wrong, and builders find what is in it.
        is_of_use = read.config and read.config.records
        raise UnreadableError(
            Cause.TRANSIENT if is_of_use else Cause.OTHER_SIZE,
            f"it has {len(content):,} bytes where the list says {entry.size:,}",
        )
    return read


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
            except TokenRefusedError:
                raise
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
        if reason := self.budget.reserve(LOOK_UP_AND_READ):
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
        if reason := self.budget.reserve(LOOK_UP_AND_READ):
            raise BudgetExhaustedError(reason)
        found = await self.service.look_up(str(index.key(number)))
        if found is None:
            if place:
                self.indexes.gone.add(place.generation_id)
            return None
        try:
            content = await self.service.read(found)
        except StoreError as error:
            unread = _unread(index, number, error)
            self._note_unread(self.look.given_up(unread) or unread, place)
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
