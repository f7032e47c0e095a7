"""What the index comes to that is reserved for the merge of all others of its ref."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, Sink, merge, prune
from maintainer.cacheconfig.shrink import Export, built_since
from maintainer.cacheconfig.timestamps import to_nanoseconds
from maintainer.mark.fitting import exports_to, fit, omitted_of
from maintainer.mark.generations import Generations
from maintainer.model import reason as reasons
from maintainer.model.marks import Index
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot

_LONG = timedelta(days=30)
"""What no build has built on since is not kept for indexes that nobody has seen."""


def merge_others(
    index: IndexId, found: Generations, snapshot: Snapshot, others: Iterable[Index]
) -> Index | None:
    """Return the merge of all other indexes of a ref; None if there is nothing to hold."""
    here = [one for one in others if one.id.ref == index.ref]
    from_others = snapshot.memory.get(index, Remembered()).replaced
    taken_over = prune(merge(from_others.values()), snapshot.staying_blobs)
    sources = [one.merged for one in here if one.merged.records]
    sources += [taken_over] if taken_over.records else []
    sources += _needed_by_others(found, snapshot)
    stored = found.stored[-1].config if found.stored else None
    if stored and stored.records and not _is_all_seen(here, snapshot):
        sources.append(stored)
    elif stored and snapshot.facts.is_searched and not any(one.is_forgotten for one in here):
        # Others may exist that nobody named. What no build has built on for long is not theirs.
        sources.append(built_since(stored, to_nanoseconds(snapshot.now - _LONG)))
    merged = prune(merge(sources), snapshot.staying_blobs)
    fitting = fit(snapshot, merged, _exports(here, snapshot))
    if not (fitting.records or found.stored or found.unread):
        return None
    return replace(
        _index_of_merge(index, found, snapshot, fitting),
        omitted=omitted_of(merged, fitting),
        merged_with=sum(1 for one in here if one.merged.records),
        taken_over=taken_over,
    )


def _is_all_seen(here: Sequence[Index], snapshot: Snapshot) -> bool:
    """Whether nothing exists that the merge is made of and that was not seen this time.

    If the settings choose none of the names that exist, they may be mistyped.
    """
    if not snapshot.listing_complete or any(one.unread for one in here):
        return False
    return not snapshot.facts.leaves_out or any(one.merged.records for one in here)


def _needed_by_others(found: Generations, snapshot: Snapshot) -> Iterator[CacheConfig]:
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
        yield from exports_to(index.id, index.generations, known)


def former_merge(
    index: IndexId, found: Generations, snapshot: Snapshot, others: Iterable[Index]
) -> Index | None:
    """Return the rest of a merge that runs no longer write: it keeps no blob alive.

    Builds may still import it, so results are dropped from it before blobs are deleted.
    """
    if not found.stored and not found.unread:
        return None
    config = (found.stored[-1].config if found.stored else None) or CacheConfig()
    needed = frozenset[Digest]().union(*(one.merged.blobs for one in others))
    if snapshot.facts.is_searched:
        # Others that nobody named may need the rest, and no blob is deleted.
        needed = config.blobs
    merged = prune(config, needed & snapshot.live_blobs)
    return _index_of_merge(index, found, snapshot, merged)


def _index_of_merge(
    index: IndexId, found: Generations, snapshot: Snapshot, merged: CacheConfig
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
        is_merge=True,
        sink=Sink.MERGE,
    )
