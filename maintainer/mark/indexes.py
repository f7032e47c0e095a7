"""What each index comes to: the merge of what is known of it, as far as its blobs exist."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from maintainer.cacheconfig import (
    CacheConfig,
    IndexId,
    IndexKey,
    Sink,
    forget,
    may_be_index,
    merge,
    prune,
)
from maintainer.mark.fitting import exports_to, fit_into, omitted_of
from maintainer.mark.generations import Generations, generations_of, sinks_of
from maintainer.mark.merges import former_merge, merge_others
from maintainer.model.entry import KnownEntry
from maintainer.model.index import KnownGeneration, UnreadGeneration, index_of
from maintainer.model.marks import Index, OpaqueIndex
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot

_NOTHING = CacheConfig()


def find_indexes(snapshot: Snapshot) -> tuple[Index, ...]:
    """Return each index with its merge; those of other indexes come last."""
    known: defaultdict[IndexId, list[KnownGeneration]] = defaultdict(list)
    unread: defaultdict[IndexId, list[UnreadGeneration]] = defaultdict(list)
    for generation in snapshot.generations:
        known[generation.index].append(generation)
    for problem in snapshot.unread:
        unread[problem.index].append(problem)
    found = {
        index: generations_of(index, known[index], tuple(unread[index]), snapshot)
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
    together = [merge_others(index, found[index], snapshot, indexes) for index in merges]
    together += [former_merge(index, found[index], snapshot, indexes) for index in former]
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


def _index(
    index: IndexId,
    found: Generations,
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
    exports = exports_to(index, found.stored, known)
    merged = fit_into(snapshot, state.merged, read, usable, exports)
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
        omitted=omitted_of(state.merged, merged),
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


def _sink_of(inputs: Iterable[KnownGeneration]) -> Sink:
    """Return the sink of an index rewritten in place.

    A merge under an earlier name stays a merge, so that it can be used again.
    """
    return Sink.MERGE if sinks_of(inputs) == {Sink.MERGE} else Sink.REWRITE


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
    index: IndexId, found: Generations, known: Remembered, snapshot: Snapshot
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
    gone = (known.lost & blobs) | ((known.deleted & blobs) - found.referenced)
    if gone:
        remembered = forget(remembered, gone)
    return _MergeState(remembered, merged, all_known, all_live)


def find_opaque_indexes(snapshot: Snapshot) -> tuple[OpaqueIndex, ...]:
    """Return the indexes whose content is unknown, newest first: they may need any blob."""
    violated = {one.store_id for one in snapshot.generations if one.violation}
    opaque_indexes = [
        OpaqueIndex(entry.key, entry.ref, entry.created_at)
        for entry in snapshot.entries
        if _is_unknown_index(entry)
        or (
            isinstance(entry.parsed, IndexKey)
            and (
                entry.ref not in snapshot.access.readable
                or entry.store_id in violated
                or index_of(entry.ref, entry.parsed) is None
            )
        )
    ]
    opaque_indexes += [
        OpaqueIndex(str(one.key), one.index.ref, one.created_at)
        for one in snapshot.generations
        if one.index.is_named and one.violation and one.exists and one.config is None
    ]
    return tuple(sorted(opaque_indexes, key=lambda one: (one.created_at, one.key), reverse=True))


def _is_unknown_index(entry: KnownEntry) -> bool:
    """Whether another version of BuildKit may have written an index under a key that is not ours.

    Or one whose number has too many digits.
    """
    return entry.parsed is None and may_be_index(entry.key)
