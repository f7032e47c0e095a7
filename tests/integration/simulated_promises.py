"""What must be true of the results that builds wrote, told from what the cache held and when.

I3: no result is lost. What an index that existed held, or the memory of a run, is in the newest
index after the next complete run, for each cache key the newest that still exists; and a generation
is deleted only while another one holds what it led to.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain

from maintainer.cacheconfig import Digest, IndexId, Ref, Scope, parse_key
from maintainer.cacheconfig.keys import BlobKey, IndexKey
from maintainer.emulator import Entry
from tests.integration.simulated_builds import (
    Build,
    Usable,
    blobs_in,
    downloadable_in,
    index_of,
    read_by_builders,
    usable_in,
)
from tests.integration.simulated_runs import MERGED, Workflow
from tests.integration.world import MAIN

SKEW = timedelta(minutes=10)
"""So much may the clocks of runs differ, and so much may a grace period be cut short by it."""

_LONGEST = timedelta(hours=1)
"""An export that has been visible for longer was killed, as far as a run knows."""

_NEARLY_EVICTED = timedelta(days=6) - SKEW
"""After seven days the host evicts what nobody has used."""

_Held = tuple[int, Usable]
"""An entry, and a result in it."""


class Contents:
    """What the indexes lead to, read once."""

    def __init__(self) -> None:
        self._usable: dict[int, frozenset[Usable]] = {}

    def of(self, entry: Entry) -> frozenset[Usable]:
        """Return the results of an index."""
        if entry.id not in self._usable:
            self._usable[entry.id] = usable_in(entry.content)
        return self._usable[entry.id]


@dataclass
class Ledger:
    """What the runs with one database owe to builds."""

    contents: Contents
    owed: dict[IndexId, frozenset[Usable]] = field(default_factory=dict)
    """What their memory holds, although it may be in no index any more."""
    excused: set[_Held] = field(default_factory=set)
    """What a run has rightly dropped: it was gone, or older than another result of its key."""

    def begin(self, entries: Collection[Entry], workflow: Workflow) -> dict[IndexId, set[Usable]]:
        """Return what a complete run owes for each index that it can write."""
        live = blobs_in(entries, workflow.readable)
        held = _by_index(_findable(entries, workflow))
        owed: dict[IndexId, set[Usable]] = {}
        for index in {*held, *self.owed}:
            if index.ref != workflow.ref or index.signed or index.scope == MERGED:
                continue
            known = {
                (entry.id, result)
                for entry in held.get(index, [])
                for result in self.contents.of(entry)
            }
            wanted = {result for one, result in known if (one, result) not in self.excused}
            owed[index] = _newest(_live(wanted | self.owed.get(index, frozenset()), live))
            self.excused |= {one for one in known if one[1] not in owed[index]}
        return owed

    def end(
        self,
        owed: Mapping[IndexId, set[Usable]],
        before: Collection[Entry],
        after: Collection[Entry],
        workflow: Workflow,
        *,
        complete: bool,
        written: Collection[int],
        deleted: Collection[int],
        past: Collection[Collection[Entry]],
    ) -> list[str]:
        """Settle what was owed; tell what was lost.

        `written` and `deleted` are the entries that runs did this to: what else went has gone by
        itself, maybe before the run could read it. `past` is what there was meanwhile.
        """
        now = blobs_in(after, workflow.readable)
        live = downloadable_in(_stayed(before, after), workflow.readable)
        old = {entry.id for entry in before}
        findable = _findable(before, workflow)
        there = {entry.id for entry in after}.union(deleted)
        problems = []
        for index, wanted in owed.items():
            still = _live(wanted, live) & self._known(
                index, [one for one in findable if one.id in there]
            )
            self.excused |= {
                (entry.id, result)
                for entry in findable
                if index_of(entry) == index
                for result in self.contents.of(entry)
                if result not in still
            }
            self.excused |= {
                (entry.id, result)
                for entry in after
                if entry.id not in old and index_of(entry) == index
                for result in self.contents.of(entry) - _live(self.contents.of(entry), now)
            }
            kept = self.owed.get(index, frozenset()) & still
            newest = read_by_builders(after, index)
            disturbed = any(
                entry.id not in old and entry.id not in written and entry.ref == index.ref
                for entry in after
            )
            # While its newest generation may be read again, an index is not written.
            disturbed |= any(
                entry.lost and entry.ref == index.ref and entry.key.startswith(str(index))
                for entry in chain(before, after)
            )
            # The host takes away what the run has seen there, or what it has just written, because
            # it has written more: the next run writes it again.
            read = read_by_builders(before, index)
            evicted = read is not None and read.id not in there
            evicted |= any(
                entry.id in written and entry.id not in old | there and index_of(entry) == index
                for entry in chain(*past)
            )
            if complete and not disturbed and not evicted:
                found = self.contents.of(newest) if newest else frozenset()
                problems += [
                    f"I3: {index}: {result[0][7:15]} is not in {newest and newest.key}"
                    for result in still
                    if not _leads(found, result, now)
                ]
                lost = {blob for _, blobs, _ in found for blob in blobs} - now
                if (
                    newest
                    and index_of(newest) == index
                    and not lost <= blobs_in(chain(before, *past), workflow.readable)
                ):
                    problems.append(f"I2: {newest.key} names blobs that were lost before")
                # Builders that do not sign find signed indexes too, which no run merges in.
                kept = found if newest and index_of(newest) == index else kept
            self.owed[index] = kept
        if complete and workflow.merged_scope:
            problems += self._missing_in_merge(before, after, workflow, written)
        return problems

    def _missing_in_merge(
        self,
        before: Collection[Entry],
        after: Collection[Entry],
        workflow: Workflow,
        written: Collection[int],
    ) -> list[str]:
        """Return which results of the newest indexes of a ref the merge of all of them lacks."""
        known = {entry.id for entry in before}.union(written)
        place = IndexId(Ref(workflow.ref), Scope(MERGED))
        indexes = _by_index(entry for entry in after if entry.ref == workflow.ref)
        if any(entry.id not in known for some in indexes.values() for entry in some):
            return []  # Builds have exported meanwhile: the next run merges that in.
        if any(index_of(one) and one.id not in {e.id for e in after} for one in before):
            return []  # The host or the sweep took one: what was hidden by it is newest now.
        live = blobs_in(after, workflow.readable)
        downloadable = downloadable_in(after, workflow.readable)
        newest = read_by_builders(after, place)
        found = self.contents.of(newest) if newest else frozenset()
        wanted = {
            result
            for index in indexes
            if index != place and not index.signed
            if (entry := read_by_builders(after, index)) and index_of(entry) == index
            for result in _newest(_live(self.contents.of(entry), downloadable))
        }
        return [
            f"merge of {workflow.ref}: {result[0][7:15]} is not in {newest and newest.key}"
            for result in sorted(wanted)
            if not _leads(found, result, live)
        ]

    def _known(self, index: IndexId, stayed: Collection[Entry]) -> set[Usable]:
        """Return what the run knew for sure: its memory, and what it could read all the time."""
        read = [entry for entry in stayed if index_of(entry) == index]
        return set(self.owed.get(index, ())).union(*(self.contents.of(entry) for entry in read))

    def lose(self) -> None:
        """Forget, as the database did."""
        self.owed.clear()
        self.excused.clear()


def _by_index(entries: Iterable[Entry]) -> dict[IndexId, list[Entry]]:
    indexes: defaultdict[IndexId, list[Entry]] = defaultdict(list)
    for entry in entries:
        if index := index_of(entry):
            indexes[index].append(entry)
    return dict(indexes)


def _findable(entries: Collection[Entry], workflow: Workflow) -> list[Entry]:
    """Return what a run can find that has no memory.

    Without a list it counts down from the generation that was created last: a higher number, which
    no builder leaves behind, stays hidden.
    """
    if workflow.rest:
        return list(entries)
    newest = {index: read_by_builders(entries, index) for index in _by_index(entries)}
    return [
        entry
        for entry in entries
        if (index := index_of(entry)) is None
        or (top := newest[index]) is None
        or _generation(entry) <= _generation(top)
    ]


def _generation(entry: Entry) -> int:
    key = parse_key(entry.key)
    return key.generation if isinstance(key, IndexKey) else 0


def _stayed(before: Collection[Entry], after: Collection[Entry]) -> list[Entry]:
    """Return what was there all the time, and did not go and come back."""
    there = {entry.id for entry in before}
    return [entry for entry in after if entry.id in there]


def _live(results: Iterable[Usable], live: Collection[Digest]) -> set[Usable]:
    return {result for result in results if all(blob in live for blob in result[1])}


def _newest(results: Iterable[Usable]) -> set[Usable]:
    """Keep of each record what was made last; what was made at the same time too."""
    ordered = list(results)
    last: dict[str, int] = {}
    for digest, _, made_at in ordered:
        last[digest] = max(last.get(digest, made_at), made_at)
    return {result for result in ordered if result[2] == last[result[0]]}


def _leads(found: Iterable[Usable], wanted: Usable, live: Collection[Digest]) -> bool:
    """Return whether a builder with this key gets what it wants, or something that is as new."""
    return any(
        digest == wanted[0] and made_at >= wanted[2] and all(blob in live for blob in blobs)
        for digest, blobs, made_at in found
    )


@dataclass
class Checks:
    """When the contents of blobs were last checked with each memory, and what runs owe to that.

    After a complete run no index that it wrote names a blob that had lost its content when the run
    began, and was due for a check.
    """

    last: dict[tuple[int, Digest], datetime] = field(default_factory=dict)

    def due(
        self, entries: Collection[Entry], workflow: Workflow, memory: int, now: datetime, quota: int
    ) -> set[Digest]:
        """Return the blobs without content that a run must notice."""
        nearly_full = sum(entry.size for entry in entries) > quota * 0.9
        there: defaultdict[Digest, list[Entry]] = defaultdict(list)
        for entry in entries:
            key = parse_key(entry.key)
            if isinstance(key, BlobKey) and blobs_in([entry], workflow.readable):
                there[key.digest].append(entry)
        due = set()
        for digest, found in there.items():
            last = self.last.get((memory, digest))
            again = last is None or (
                now - last >= workflow.verify_after + 2 * SKEW
                and now - found[0].created_at <= timedelta(days=13)
                and not nearly_full
            )
            # Of several entries it may be another one that a look-up finds.
            if len(found) == 1 and found[0].lost and workflow.verify_after and again:
                due.add(digest)
        return due

    def note(self, memory: int, blobs: Iterable[Digest], now: datetime) -> None:
        """Note what a run has downloaded."""
        self.last |= {(memory, digest): now for digest in blobs}

    def lose(self, memory: int) -> None:
        """Forget, as the database did."""
        self.last = {key: when for key, when in self.last.items() if key[0] != memory}


@dataclass(frozen=True)
class Import:
    """A build that has read an index, and may download what it leads to for a while."""

    index: IndexId
    entry: int
    usable: frozenset[Usable]
    at: datetime

    def needs(self, blob: Digest, before: Collection[Entry], after: Collection[Entry]) -> bool:
        """Return whether a deletion takes away something that it could have used."""
        refs = {self.index.ref, Ref(MAIN)}
        was, still = blobs_in(before, refs), blobs_in(after, refs)
        return any(
            blob in blobs and set(blobs) <= was and not set(blobs) <= still
            for _, blobs, _ in self.usable
        )


def lost_by(
    deleted: Entry,
    began: Collection[Entry],
    after: Collection[Entry],
    ledger: Ledger,
    gone: Collection[int],
) -> list[Usable]:
    """Return which results of a deleted generation no other generation leads to.

    They are live or not for those who read the index from its own ref; what was lost when the run
    began, and has come back since, it cannot know of. What an earlier run has rightly dropped does
    not count; and what the host takes away meanwhile, the run remembers if it is an index, and
    cannot know of if it is a blob: all that has gone but is not in `gone`, which runs have deleted.
    """
    index = index_of(deleted)
    if index is None or index.scope == MERGED:
        return []  # A merge holds nothing that the indexes which it is made of do not hold.
    known = downloadable_in(_stayed(began, after), {index.ref, MAIN})
    held = [*after, *(entry for entry in began if entry.id not in gone)]
    live = blobs_in(held, {index.ref, MAIN})
    others = {
        result for entry in _by_index(held).get(index, []) for result in ledger.contents.of(entry)
    }
    return [
        result
        for result in _live(ledger.contents.of(deleted), known)
        if (deleted.id, result) not in ledger.excused and not _leads(others, result, live)
    ]


def come_meanwhile(
    deleted: Entry,
    *,
    began: Collection[Entry],
    listed: Collection[Entry],
    seen: Collection[Entry],
    written: Collection[int],
    workflow: Workflow,
) -> list[str]:
    """Return what builds did with a deleted blob since the run began, and before it last looked.

    An index that the run has listed and cannot read does not protect what nobody has used for so
    long that the host is about to evict it; an export that looks nothing up is no use.
    """
    key = parse_key(deleted.key)
    if not isinstance(key, BlobKey):
        return []
    there = {entry.id for entry in listed if entry.ref not in workflow.readable}
    unused_since = max(deleted.created_at, deleted.last_accessed_at)
    old = {entry.id: entry for entry in began}
    told = []
    for entry in seen:
        before = old.get(entry.id)
        if before and entry.id == deleted.id and entry.last_accessed_at > before.last_accessed_at:
            told.append("a build looked it up")
        if entry.id in there and entry.created_at - unused_since >= _NEARLY_EVICTED:
            continue
        if index_of(entry) and entry.id not in old and entry.id not in written:
            live = blobs_in(seen, {entry.ref, MAIN})
            if any(key.digest in blobs for _, blobs, _ in _live(usable_in(entry.content), live)):
                told.append(f"{entry.key} named it")
    return told


def taken_from(
    imports: Iterable[Import],
    deleted: Entry,
    after: Collection[Entry],
    now: datetime,
    workflow: Workflow,
) -> list[Import]:
    """Return which builds need a deleted blob that began less than a grace period ago.

    The index that they read must be there for the run to know of them.
    """
    key = parse_key(deleted.key)
    if not isinstance(key, BlobKey):
        return []
    before = [*after, deleted]
    return [
        one
        for one in imports
        if now - one.at < workflow.grace - SKEW
        and one.index.ref in workflow.readable
        and one.needs(key.digest, before, after)
    ]


def counts_visibly(
    export: Build,
    deleted: Entry,
    seen: Collection[Entry],
    now: datetime,
    workflow: Workflow,
) -> bool:
    """Return whether an export counts on a deleted blob, and was visible when the run last looked.

    It is visible if it has uploaded a blob within the last hour, and no index in its ref has been
    created since that references this blob or that the run cannot read.
    """
    key = parse_key(deleted.key)
    if not isinstance(key, BlobKey) or key.digest not in export.counts_on:
        return False
    return any(
        entry.id in export.uploaded
        and now - entry.created_at < _LONGEST - SKEW
        and not any(_may_reference(index, entry, workflow) for index in seen)
        for entry in seen
    )


def _may_reference(index: Entry, blob: Entry, workflow: Workflow) -> bool:
    if index_of(index) is None or index.ref != blob.ref or index.created_at < blob.created_at:
        return False
    key = parse_key(blob.key)
    if index.ref not in workflow.readable or not isinstance(key, BlobKey):
        return True
    return any(key.digest in blobs for _, blobs, _ in usable_in(index.content))


def unhealed(
    seen: Collection[Entry],
    after: Collection[Entry],
    deleted: Collection[Entry],
    workflow: Workflow,
) -> list[str]:
    """Return which indexes reference what a run has deleted, although it could have rewritten them.

    They were there when it asked for the last time what builds have written.
    """
    there = {entry.id for entry in seen}
    keys = [parse_key(entry.key) for entry in deleted]
    gone = {key.digest for key in keys if isinstance(key, BlobKey)}
    gone -= blobs_in(after, workflow.readable)
    problems = []
    for index in _by_index(after):
        newest = read_by_builders(after, index)
        if index.signed or index.ref != workflow.ref or newest is None or newest.id not in there:
            continue
        found = {blob for _, blobs, _ in usable_in(newest.content) for blob in blobs}
        if index_of(newest) == index and found & gone:
            problems.append(f"I6: {newest.key} in {index.ref} references {found & gone}")
    return problems
