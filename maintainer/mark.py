"""Mark: what is reachable, what is not, and since when. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    Digest,
    IndexId,
    IndexKey,
    SignatureKey,
    Sink,
    UploadKey,
    forget,
    merge,
    prune,
)
from maintainer.cacheconfig.difference import only_new
from maintainer.cacheconfig.shrink import Export, last_uses, loses_results, shrink, used_now
from maintainer.cacheconfig.timestamps import to_nanoseconds
from maintainer.model import reason as reasons
from maintainer.model.entry import KnownEntry
from maintainer.model.index import KnownGeneration, UnreadGeneration, index_of, read_until
from maintainer.model.marks import Index, Mark, Marks, OpaqueIndex, State
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot

_NOTHING = CacheConfig()


def mark(snapshot: Snapshot) -> Marks:
    """Return the merge of each index, and the state of each entry.

    A blob is reachable when a live result of some index needs it, from the point of view of the
    token that reads it.
    """
    indexes = _indexes(snapshot)
    marker = Marker(snapshot, indexes)
    return Marks(
        snapshot=snapshot,
        indexes=indexes,
        marks=tuple(map(marker.mark, snapshot.entries)),
        opaque_indexes=_opaque_indexes(snapshot),
    )


def _indexes(snapshot: Snapshot) -> tuple[Index, ...]:
    known: defaultdict[IndexId, list[KnownGeneration]] = defaultdict(list)
    unread: defaultdict[IndexId, list[UnreadGeneration]] = defaultdict(list)
    for generation in snapshot.generations:
        known[generation.index].append(generation)
    for problem in snapshot.unread:
        unread[problem.index].append(problem)
    found = {
        index: _generations(index, known[index], tuple(unread[index]), snapshot)
        for index in sorted({*known, *unread, *snapshot.memory, *_places_of_merges(snapshot)})
    }
    exported = {
        index: _used_by_others(index, found[index].ordered, snapshot)
        for index in _places_of_merges(snapshot)
    }
    merges = [index for index, key in sorted(exported.items()) if key is None]
    former = [
        index
        for index, one in found.items()
        if index not in exported and not index.is_named and one.is_former_merge
    ]
    indexes = [
        _index(index, one, snapshot, exported.get(index))
        for index, one in found.items()
        if index not in {*merges, *former}
        and (not index.is_named or one.unread or one.stored or exported.get(index))
    ]
    together = [_merge(index, found[index], snapshot, indexes) for index in merges]
    together += [_former_merge(index, found[index], snapshot, indexes) for index in former]
    return (*indexes, *(one for one in together if one))


def _places_of_merges(snapshot: Snapshot) -> frozenset[IndexId]:
    """Return the indexes that are reserved for the merge of all others, one for each ref."""
    if snapshot.merged_scope is None:
        return frozenset()
    return frozenset(IndexId(ref, snapshot.merged_scope) for ref in snapshot.access.readable)


def _used_by_others(
    index: IndexId, generations: Iterable[KnownGeneration], snapshot: Snapshot
) -> str | None:
    """Return the key of a stored generation that a build has exported; None if all are ours.

    Every merge that we write has a special sink, which builds never export. A tag may also point
    to something that is not a cache.
    """
    if index in snapshot.facts.others:
        return str(index)
    for one in generations:
        if one.exists and one.config and one.config.records and one.sink is not Sink.MERGE:
            return str(one.key)
    return None


@dataclass(frozen=True, slots=True)
class _Generations:
    """The known generations of one index."""

    ordered: tuple[KnownGeneration, ...]
    """All, including remembered ones, oldest first."""
    stored: tuple[KnownGeneration, ...]
    unread: tuple[UnreadGeneration, ...]
    shadowed_by: str | None
    highest: int
    """The highest number that was ever seen; 0 if none was."""

    @property
    def is_former_merge(self) -> bool:
        """Whether it contains only merges: an earlier setting reserved it for the merge."""
        return _sinks(self.ordered) == {Sink.MERGE}

    @property
    def named(self) -> frozenset[Digest]:
        """Every blob that a stored one references."""
        return frozenset[Digest]().union(*(one.blobs for one in self.stored))

    @property
    def read_by_builders(self) -> CacheConfig:
        """The content of the generation that builders read, as far as it was decoded."""
        read = [one for one in self.stored if str(one.key) == self.shadowed_by] or self.stored[-1:]
        refused = not read or read[0].violation is not None
        return CacheConfig() if refused else read[0].config or CacheConfig()


def _generations(
    index: IndexId,
    known: Iterable[KnownGeneration],
    unread: tuple[UnreadGeneration, ...],
    snapshot: Snapshot,
) -> _Generations:
    ordered = tuple(sorted(known, key=lambda one: (one.number, one.generation_id)))
    stored = tuple(one for one in ordered if one.exists)
    shadowed_by = _shadowed_by(index, stored, unread, snapshot)
    remembered = snapshot.memory.get(index, Remembered())
    numbers = [one.number for one in ordered] + [one.number for one in unread]
    highest = max(remembered.highest, *numbers, 0)
    return _Generations(ordered, stored, unread, shadowed_by, highest)


def _merge(
    index: IndexId, found: _Generations, snapshot: Snapshot, others: Iterable[Index]
) -> Index | None:
    """Return the merge of all other indexes of a ref; None if there is nothing to hold."""
    here = [one for one in others if one.id.ref == index.ref and not one.is_merge]
    from_others = snapshot.memory.get(index, Remembered()).replaced
    taken_over = prune(merge(from_others.values()), snapshot.staying_blobs)
    sources = [one.merged for one in here if one.merged.records]
    sources += [taken_over] if taken_over.records else []
    sources += _needed_by_others(found, snapshot)
    may_be_mistyped = snapshot.facts.leaves_out and not any(one.merged.records for one in here)
    if may_be_mistyped or not snapshot.listing_complete or any(one.unread for one in here):
        # An index that was not seen this time may still exist, so nothing of it is dropped. Nor is
        # anything if the settings choose none of those that exist: their names may be mistyped.
        sources += [one.config for one in found.stored[-1:] if one.config and one.config.records]
    merged = prune(merge(sources), snapshot.staying_blobs)
    merged, omitted = _fit(snapshot, merged, _exports(here, snapshot))
    if not (merged.records or found.stored or found.unread):
        return None
    others_merged = sum(1 for one in here if one.merged.records)
    of_all = _index_of_merge(
        index, found, snapshot, merged, omitted=omitted, merged_with=others_merged
    )
    return replace(of_all, taken_over=taken_over)


def _needed_by_others(found: _Generations, snapshot: Snapshot) -> Iterator[CacheConfig]:
    """Return what names need that the settings leave out, if another configuration merged it in."""
    theirs = {
        blob
        for blob, reason in snapshot.facts.pinned.items()
        if isinstance(reason, reasons.NeededByOtherName)
    }
    if theirs and found.stored and (config := found.stored[-1].config):
        yield prune(config, theirs)


def _exports(indexes: Iterable[Index], snapshot: Snapshot) -> Iterator[Export]:
    """Return the known exports of builds, which show when builds used which results."""
    for index in indexes:
        known = snapshot.memory.get(index.id, Remembered(index.merged))
        yield from _exports_to(index.id, index.generations, known)


def _exports_to(
    index: IndexId, stored: Iterable[KnownGeneration], known: Remembered
) -> Iterator[Export]:
    """Return the known exports to one index: all generations of one are remembered together."""
    if index.is_named:
        yield from map(Export, known.parts)
        return
    for one in stored:
        if one.config and one.sink is None:
            yield Export(one.config, to_nanoseconds(one.created_at))


def _former_merge(
    index: IndexId, found: _Generations, snapshot: Snapshot, others: Iterable[Index]
) -> Index | None:
    """Return the rest of a merge that runs no longer write: it keeps no blob alive.

    Builds may still import it, so results are dropped from it before blobs are deleted.
    """
    if not found.stored and not found.unread:
        return None
    needed = frozenset[Digest]().union(*(one.merged.blobs for one in others))
    config = (found.stored[-1].config if found.stored else None) or CacheConfig()
    merged = prune(config, needed & snapshot.live_blobs)
    return _index_of_merge(index, found, snapshot, merged)


def _index_of_merge(
    index: IndexId,
    found: _Generations,
    snapshot: Snapshot,
    merged: CacheConfig,
    *,
    omitted: int = 0,
    merged_with: int = 0,
) -> Index:
    return Index(
        id=index,
        generations=found.stored,
        inputs=(),
        unread=found.unread,
        merged=merged,
        remembered=merged,
        usable=prune(found.read_by_builders, snapshot.live_blobs),
        highest=found.highest,
        shadowed_by=found.shadowed_by,
        merged_with=merged_with,
        omitted=omitted,
        is_merge=True,
        sink=Sink.MERGE,
    )


def _index(
    index: IndexId,
    found: _Generations,
    snapshot: Snapshot,
    used_by_builds: str | None,
) -> Index:
    known = snapshot.memory.get(index, Remembered())
    inputs = tuple(
        one
        for one in found.ordered
        if one.violation is None
        and one.generation_id >= known.up_to_date
        and (one.exists or not (index.signed or index.is_named))
    )
    read = found.read_by_builders
    state = _merge_state(index, found, known, snapshot)
    usable = _usable(index, read, state, snapshot)
    exports = _exports_to(index, found.stored, known)
    merged, omitted = _fitting(snapshot, state.merged, read, usable, exports)
    return Index(
        id=index,
        generations=found.stored,
        inputs=inputs,
        unread=found.unread,
        merged=merged,
        remembered=state.remembered,
        usable=usable,
        highest=found.highest,
        shadowed_by=found.shadowed_by,
        sink=_sink_of(inputs),
        omitted=omitted,
        is_forgotten=known.forgotten,
        used_by_builds=used_by_builds,
    )


def _usable(
    index: IndexId, read: CacheConfig, state: "_MergeState", snapshot: Snapshot
) -> CacheConfig:
    """Return the part of what builders read that they can use, in memory once if it is pruned."""
    if not index.signed:
        if read == state.merged:
            return state.merged
        if read == state.known:
            return state.known_live
    return prune(read, snapshot.live_blobs)


def _fitting(
    snapshot: Snapshot,
    merged: CacheConfig,
    read: CacheConfig,
    usable: CacheConfig,
    exports: Iterable[Export],
) -> tuple[CacheConfig, int]:
    """Return what there is room for; an export that is complete stays unchanged.

    An export that is nearly as large as the limit leaves no room for anything else. What builders
    find now stays, even if it is larger than its owner wants merges to be.
    """
    if _is_whole(read, merged):
        return merged, 0
    smaller, omitted = _fit(snapshot, merged, exports, read=read)
    if not omitted:
        return smaller, 0
    staying = merge([prune(usable, snapshot.staying_blobs)])
    if snapshot.is_read(staying) and loses_results(smaller, staying):
        # Of records that only the whole merge unites, each has a result here.
        return staying, max(0, merged.result_count - staying.result_count)
    if usable.blobs & snapshot.departed.keys():
        return smaller, omitted
    if _is_whole(read, usable) and not only_new(smaller, [usable]).records:
        return usable, merged.result_count - usable.result_count
    return smaller, omitted


def _is_whole(read: CacheConfig, merged: CacheConfig) -> bool:
    """Whether builders already read the whole merge: then it fits unchanged."""
    return len(read.records) == len(merged.records) and read.result_count == merged.result_count


def _fit(
    snapshot: Snapshot,
    merged: CacheConfig,
    exports: Iterable[Export] = (),
    *,
    read: CacheConfig = _NOTHING,
) -> tuple[CacheConfig, int]:
    """Return what there is room for, and how many results are omitted.

    What builders read now comes first: it is the newest export, whose build may have found all of
    it, and made nothing; or a run has written it, which may have seen exports that this has not.
    """
    if snapshot.has_room_for(merged):
        return merged, 0
    uses = {**last_uses(exports), **used_now(read, merged)}
    smaller = shrink(merged, snapshot.room_taken, uses)
    return smaller, merged.result_count - smaller.result_count


def _sink_of(inputs: Iterable[KnownGeneration]) -> Sink:
    """Return the sink of an index rewritten in place.

    A merge under an earlier name stays a merge, so that it can be used again.
    """
    return Sink.MERGE if _sinks(inputs) == {Sink.MERGE} else Sink.REWRITE


def _sinks(generations: Iterable[KnownGeneration]) -> set[Sink | None]:
    """Return the known sinks of generations that are not empty."""
    return {one.sink for one in generations if one.sink or (one.config and one.config.records)}


@dataclass(frozen=True, slots=True)
class _MergeState:
    """The merge of an index, before and after pruning."""

    remembered: CacheConfig
    """Without results that were lost before the index was last up to date."""
    merged: CacheConfig
    known: CacheConfig
    """All that is remembered."""
    known_live: CacheConfig
    """The part of it whose blobs exist."""


def _merge_state(
    index: IndexId, found: _Generations, known: Remembered, snapshot: Snapshot
) -> _MergeState:
    """Merge the known generations."""
    if index.signed:
        # Signed generations are never rewritten, so each is pruned on its own.
        configs = [one.config for one in found.stored if one.config]
        merged = merge(prune(config, snapshot.live_blobs) for config in configs)
        return _MergeState(merge(configs), merged, _NOTHING, _NOTHING)
    if known.forgotten:
        return _MergeState(_NOTHING, _NOTHING, _NOTHING, _NOTHING)
    remembered = known.merged()
    if index.is_named and (found.is_former_merge or not remembered.records):
        # A merge that we wrote under an earlier name: only what it took over is remembered of it.
        remembered = merge([found.read_by_builders, remembered])
    all_known = remembered
    all_live = merged = prune(remembered, snapshot.live_blobs)
    if merged.blobs & snapshot.departed.keys():
        # The newest result of a record leaves, and no older one takes its place.
        merged = prune(merged, snapshot.staying_blobs)
        remembered = forget(remembered, snapshot.departed)
    blobs = remembered.blobs
    gone = (known.lost & blobs) | ((known.deleted & blobs) - found.named)
    if gone:
        remembered = forget(remembered, gone)
    return _MergeState(remembered, merged, all_known, all_live)


def _shadowed_by(
    index: IndexId,
    generations: tuple[KnownGeneration, ...],
    unread: tuple[UnreadGeneration, ...],
    snapshot: Snapshot,
) -> str | None:
    read = snapshot.read_by_builders.get(index)
    if index.signed or read is None or unread or not generations:
        return None
    newest = str(generations[-1].key)
    return None if read.casefold() == newest.casefold() else read


def _opaque_indexes(snapshot: Snapshot) -> tuple[OpaqueIndex, ...]:
    violated = {one.store_id for one in snapshot.generations if one.violation}
    opaque_indexes = [
        OpaqueIndex(entry.key, entry.ref, entry.created_at)
        for entry in snapshot.entries
        if isinstance(entry.parsed, IndexKey)
        and (
            entry.ref not in snapshot.access.readable
            or entry.store_id in violated
            or index_of(entry.ref, entry.parsed) is None
        )
    ]
    opaque_indexes += [
        OpaqueIndex(str(one.key), one.index.ref, one.created_at)
        for one in snapshot.generations
        if one.index.is_named and one.violation and one.exists and one.config is None
    ]
    return tuple(sorted(opaque_indexes, key=lambda one: (one.created_at, one.key), reverse=True))


class Marker:
    """Marks entries one by one, by the needs of all indexes together."""

    def __init__(self, snapshot: Snapshot, indexes: tuple[Index, ...]) -> None:
        self.snapshot = snapshot
        self.indexes = {index.id: index for index in indexes}
        self.current = {one.store_id for index in indexes for one in index.current}
        self.unread = {(one.index, one.number) for one in snapshot.unread}
        self.needed: dict[Digest, IndexId] = {}
        self.named_now: dict[Digest, IndexId] = {}
        self.named_until: dict[Digest, datetime] = {}
        self.read_until: dict[int | None, datetime] = {}
        self.facts = snapshot.facts
        for index in indexes:
            for blob in index.needs.blobs:
                self.needed.setdefault(blob, index.id)
        # Whatever is needed is reachable, so only the rest can be dangling since some time.
        for index in indexes:
            for blob in self._not_needed(index.named):
                self.named_now.setdefault(blob, index.id)
        self._remember_what_builders_read()
        self.signed_content = {
            one.content_digest: str(one.key) for one in snapshot.generations if one.exists
        }

    def _remember_what_builders_read(self) -> None:
        """Record that a generation and its blobs were needed until builders read a newer one."""
        snapshot = self.snapshot
        times = read_until(snapshot.generations, snapshot.now, snapshot.marked_at)
        for one in self.snapshot.generations:
            if until := times.get(one.generation_id):
                self.read_until[one.store_id] = until
                for blob in self._not_needed(one.blobs):
                    self.named_until[blob] = max(until, self.named_until.get(blob, until))

    def _not_needed(self, blobs: Iterable[Digest]) -> list[Digest]:
        return [blob for blob in blobs if blob not in self.needed]

    def mark(self, entry: KnownEntry) -> Mark:
        """Return the state of one entry, and the reason."""
        if entry.parsed is None or entry.ref not in self.snapshot.access.readable:
            return self._mark_out_of_reach(entry)
        if isinstance(entry.parsed, BlobKey):
            return self._mark_blob(entry, entry.parsed.digest)
        if isinstance(entry.parsed, SignatureKey):
            return self._mark_signature(entry, entry.parsed.digest)
        if isinstance(entry.parsed, UploadKey):
            return Mark(entry, State.DANGLING, reasons.AbandonedUpload(), entry.last_use_at)
        return self._mark_generation(entry, entry.parsed)

    def _mark_out_of_reach(self, entry: KnownEntry) -> Mark:
        """Mark an entry of another tool, or in a ref that the token cannot read."""
        reason = self.facts.closed_refs.get(entry.ref)
        is_readable = entry.ref in self.snapshot.access.readable
        if reason and entry.can_be_deleted and not is_readable:
            return Mark(entry, State.CLOSED, reason, _closed_since(entry, reason))
        if entry.parsed is None:
            return Mark(entry, State.FOREIGN, reasons.OtherTool())
        return Mark(entry, State.UNREADABLE, reasons.UnreadableRef(entry.ref))

    def _mark_blob(self, entry: KnownEntry, digest: Digest) -> Mark:
        if entry.content_missing_since:
            since = entry.content_missing_since
            return Mark(entry, State.WITHOUT_CONTENT, reasons.NoContent(), since)
        if index := self.needed.get(digest):
            return Mark(entry, State.REACHABLE, reasons.Needed(str(index), index.ref))
        if reason := self.facts.pinned.get(digest):
            return Mark(entry, State.REACHABLE, reason)
        if holders := self.facts.manifest_blobs.get(digest):
            return Mark(
                entry, State.NEWEST, reasons.ReadByBuilds(), self.snapshot.now, min(holders)
            )
        departed = self.snapshot.departed.get(digest)
        if index := self.named_now.get(digest):
            named = departed or reasons.ReferencedUntilNow(index=str(index), ref=index.ref)
            return Mark(entry, State.DANGLING, named, self.snapshot.now)
        until = self.named_until.get(digest)
        if digest in self.facts.recent_roots and self.facts.quiet_since:
            until = max(self.facts.quiet_since, until or self.facts.quiet_since)
        since = self._unreferenced_since(entry, until)
        return Mark(entry, State.DANGLING, departed or reasons.Unreferenced(), since)

    def _mark_signature(self, entry: KnownEntry, signed: Digest) -> Mark:
        if signed in self.signed_content:
            return Mark(entry, State.REACHABLE, reasons.Signs(self.signed_content[signed]))
        since = self._unreferenced_since(entry, None)
        return Mark(entry, State.DANGLING, reasons.SignedIndexGone(), since)

    def _mark_generation(self, entry: KnownEntry, key: IndexKey) -> Mark:
        index = index_of(entry.ref, key)
        if index is None:
            return Mark(entry, State.FOREIGN, reasons.ForeignKey(entry.ref))
        if (index, key.generation) in self.unread:
            return Mark(entry, State.UNREAD, reasons.Unread(), index=index)
        if index.signed:
            return Mark(entry, State.SIGNED, reasons.Signed(), index=index)
        newest = self.indexes[index].generations[-1]
        if entry.store_id in self.current:
            return Mark(entry, State.NEWEST, reasons.ReadByBuilds(), self.snapshot.now, index)
        since = self._since_builders_read(entry)
        return Mark(entry, State.SUPERSEDED, reasons.Superseded(by=newest.number), since, index)

    def _since_builders_read(self, entry: KnownEntry) -> datetime:
        """Return since when builders have not read a generation.

        Builders look up only the newest one, so any later look-up of this one was ours.
        """
        until = self.read_until.get(entry.store_id)
        if entry.unreferenced_since is None:
            return self._unreferenced_since(entry, until)
        return max(entry.unreferenced_since, until or entry.unreferenced_since)

    def _unreferenced_since(self, entry: KnownEntry, needed_until: datetime | None) -> datetime:
        """Return since when an entry is unreferenced: never earlier than its last use.

        A build that finds a stored blob does not upload it again, and writes its index later. Until
        then, that look-up is the only sign that the build needs the blob.
        """
        if entry.unreferenced_since is None and entry.known_before:
            return max(self.snapshot.now, entry.last_use_at, needed_until or self.snapshot.now)
        since = max(entry.unreferenced_since or entry.last_use_at, entry.last_use_at)
        if not entry.known_before and self.snapshot.listed_before:
            since = max(since, min(self.snapshot.listed_before, self.snapshot.now))
        was_used_since = (
            entry.unreferenced_since is None
            or entry.unreferenced_since - entry.last_use_at < self.facts.unseen_for
        )
        if was_used_since and self.facts.quiet_since:
            # A tag may have pointed to it until the tag was last replaced.
            since = max(since, self.facts.quiet_since)
        return max(since, needed_until or since)


def _closed_since(entry: KnownEntry, reason: reasons.ClosedRef) -> datetime:
    """Return since when no build reads an entry of a closed ref, as far as that is known."""
    if isinstance(reason, reasons.PullRequestClosed) and reason.closed_at:
        return max(reason.closed_at, entry.last_use_at)
    return entry.last_use_at
