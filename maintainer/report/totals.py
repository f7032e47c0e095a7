"""Totals of the entries of a run, which come in batches. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import TypeVar

from maintainer.cacheconfig import BlobKey, Digest, IndexId, IndexKey, Ref, Scope
from maintainer.model.decision import DeleteEntry, Deletion, RewriteResult
from maintainer.model.entry import KnownEntry
from maintainer.model.index import index_of
from maintainer.model.marks import Mark, State
from maintainer.report.model import EntryTotal, NamedSpace, UsedDay
from maintainer.report.space import count_tool

_Place = tuple[State, IndexId | None]
"""A state; for the newest generation of an index, also the index."""


_Name = TypeVar("_Name", int, str)
_NAMES = 8
"""Up to this many refs or scopes are listed one by one."""
_DAYS = 7
"""What was last used on so many days is counted by day: GitHub evicts what is older."""


class EntryTotals:
    """Counts what exists, by state, while a run plans, writes and deletes."""

    def __init__(self) -> None:
        self._stored: dict[_Place, EntryTotal] = {}
        self._due: dict[_Place, EntryTotal] = {}
        self._replaced: dict[int, _Place] = {}
        """Where newest generations were counted that are due: once their indexes are written, the
        graph has them as superseded."""
        self._used: dict[int, tuple[int, int]] = {}
        """Entries and bytes, by the day of their last use."""
        self._refs: dict[str, tuple[int, int]] = {}
        """Entries and bytes, by ref."""
        self._scopes: dict[str, tuple[int, int]] = {}
        """Indexes and their bytes, by scope."""
        self._written: set[tuple[Ref, str]] = set()
        """The entries that the run has added, by ref and key."""
        self.foreign: dict[str, EntryTotal] = {}
        """Entries of other tools, by the beginning of their keys."""
        self.deleted_blobs: set[Digest] = set()
        self.deleted_generations: Counter[IndexId | None] = Counter()
        self.deletions = 0
        """How many entries are to be deleted."""
        self.blobs_deleted = 0
        """How many blobs are gone that builds could read."""

    def plan(self, marks: Iterable[Mark], deletes: Iterable[DeleteEntry]) -> None:
        """Add a batch of entries, and which of them are to be deleted."""
        due = {delete.entry.store_id for delete in deletes}
        self.deletions += len(due)
        for marked in marks:
            entry = marked.entry
            place = marked.state, marked.index if marked.state is State.NEWEST else None
            _add(self._stored, place, entry.size, 1)
            self._count_known(entry, 1)
            if entry.store_id in due:
                _add(self._due, place, entry.size, 1)
                if marked.state is State.NEWEST:
                    self._replaced[entry.store_id] = place
            elif marked.state is State.FOREIGN:
                count_tool(self.foreign, entry.key, entry.size)

    def write(self, one: RewriteResult, stored: Collection[tuple[Ref, str]]) -> None:
        """Add what was written; `stored` are entries that existed before, by ref and key.

        In a directory, a tag may return to a manifest that is still stored, and several tags may
        lead to one.
        """
        if one.written is None:
            return
        scope = None if one.index.is_named else one.index.scope
        for key, size in one.entries.items():
            entry = one.index.ref, key
            if entry not in stored and entry not in self._written:
                self._written.add(entry)
                _add(self._stored, (State.NEWEST, None), size, 1)
                self._count(one.written.created_at, one.index.ref, scope, size, 1)

    def sweep(self, one: Deletion, wanted: Collection[Digest]) -> None:
        """Add the outcome of a deletion; record it if it is one of the wanted blobs."""
        if not one.is_gone:
            return
        entry = one.delete.entry
        place = self._replaced.get(entry.store_id, (State(entry.state), None))
        _add(self._stored, place, -entry.size, -1)
        self._count_known(entry, -1)
        _add(self._due, place, -entry.size, -1)
        if one.delete.state is State.CLOSED:
            return
        if isinstance(entry.parsed, BlobKey):
            self.blobs_deleted += 1
            if entry.parsed.digest in wanted:
                self.deleted_blobs.add(entry.parsed.digest)
        elif index := index_of(entry.ref, entry.parsed):
            self.deleted_generations[index] += 1

    def _count_known(self, entry: KnownEntry, number: int) -> None:
        scope = entry.parsed.scope if isinstance(entry.parsed, IndexKey) else None
        used_at = entry.used_at or entry.last_use_at
        self._count(used_at, entry.ref, scope, number * entry.size, number)

    def _count(
        self, used_at: datetime, ref: Ref, scope: Scope | None, size: int, number: int
    ) -> None:
        _count(self._used, used_at.toordinal(), number, size)
        _count(self._refs, ref, number, size)
        if scope is not None:
            _count(self._scopes, scope, number, size)

    def refs(self) -> Iterator[NamedSpace]:
        """Return what each ref takes, the largest first."""
        return _largest(self._refs)

    def scopes(self) -> Iterator[NamedSpace]:
        """Return what the indexes of each scope take, the largest first."""
        return _largest(self._scopes)

    def used_days(self, now: datetime) -> Iterator[UsedDay]:
        """Return what exists by the day of its last use, the newest first."""
        first = now.toordinal() - _DAYS
        older = [0, 0]
        for day, (entries, size) in sorted(self._used.items(), reverse=True):
            if day >= first and entries > 0:
                yield UsedDay(date.fromordinal(day), entries, size)
            elif day < first:
                older[0] += entries
                older[1] += size
        if older[0] > 0:
            yield UsedDay(None, *older)

    def stored(self, written: Collection[IndexId]) -> Iterator[EntryTotal]:
        """Return what exists, by state; the old entry of a rewritten index is superseded."""
        return _by_state(self._stored, written)

    def due(self, written: Collection[IndexId]) -> Iterator[EntryTotal]:
        """Return the part that is due for deletion and still exists."""
        return _by_state(self._due, written)


def _count(sums: dict[_Name, tuple[int, int]], name: _Name, entries: int, size: int) -> None:
    known = sums.get(name, (0, 0))
    sums[name] = known[0] + entries, known[1] + size


def _largest(sums: Mapping[str, tuple[int, int]]) -> Iterator[NamedSpace]:
    """Return what is stored under each name, the largest first; small ones are added up."""
    stored = [NamedSpace(name, *known) for name, known in sums.items() if known[0] > 0]
    stored.sort(key=lambda one: (-one.size, one.name))
    yield from stored[:_NAMES]
    if others := stored[_NAMES:]:
        yield NamedSpace("", sum(one.entries for one in others), sum(one.size for one in others))


def _add(totals: dict[_Place, EntryTotal], place: _Place, size: int, entries: int) -> None:
    known = totals.get(place, EntryTotal(place[0].value, 0, 0))
    totals[place] = EntryTotal(known.state, known.entries + entries, known.size + size)


def _by_state(
    totals: Mapping[_Place, EntryTotal], written: Collection[IndexId]
) -> Iterator[EntryTotal]:
    together: dict[str, EntryTotal] = {}
    for (state, index), some in totals.items():
        superseded = state is State.NEWEST and index in written
        if some.entries:
            _add_total(together, State.SUPERSEDED if superseded else state, some.size, some.entries)
    return iter(together.values())


def _add_total(totals: dict[str, EntryTotal], state: State, size: int, entries: int) -> None:
    """Add entries to the total of a state."""
    known = totals.get(state, EntryTotal(state.value, 0, 0))
    totals[state] = EntryTotal(state.value, known.entries + entries, known.size + size)
