"""What of a merge there is room for: what builds used longest ago is left out."""

from collections.abc import Iterable, Iterator

from maintainer.cacheconfig import CacheConfig, IndexId, merge, prune
from maintainer.cacheconfig.difference import only_new
from maintainer.cacheconfig.shrink import Export, last_uses, loses_results, shrink, used_now
from maintainer.cacheconfig.timestamps import to_nanoseconds
from maintainer.model.index import KnownGeneration
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot

_NOTHING = CacheConfig()


def fit_into(
    snapshot: Snapshot,
    merged: CacheConfig,
    read: CacheConfig,
    usable: CacheConfig,
    exports: Iterable[Export],
) -> CacheConfig:
    """Return what there is room for; an export that is complete stays unchanged.

    An export that is nearly as large as the limit leaves no room for anything else. What builders
    find now (`usable`, of what they `read`) stays, even if it is larger than its owner wants merges
    to be.
    """
    if _is_whole(read, merged):
        return merged
    smaller = fit(snapshot, merged, exports, read=read)
    if not omitted_of(merged, smaller):
        return smaller
    staying = merge([prune(usable, snapshot.staying_blobs)])
    if takes_results_away(snapshot, smaller, staying):
        # Of records that only the whole merge unites, each has a result here.
        return staying
    if usable.blobs & snapshot.departed.keys():
        return smaller
    if _is_whole(read, usable) and not only_new(smaller, [usable]).records:
        return usable
    return smaller


def fit(
    snapshot: Snapshot,
    merged: CacheConfig,
    exports: Iterable[Export] = (),
    *,
    read: CacheConfig = _NOTHING,
) -> CacheConfig:
    """Return what there is room for.

    What builders read now comes first: it is the newest export, whose build may have found all of
    it, and made nothing; or a run has written it, which may have seen exports that this has not.
    """
    if snapshot.has_room_for(merged):
        return merged
    uses = {**last_uses(exports), **used_now(read, merged)}
    return shrink(merged, snapshot.room_taken, uses)


def takes_results_away(snapshot: Snapshot, config: CacheConfig, read: CacheConfig) -> bool:
    """Whether builders would find less in `config` than in what they read now, if they can."""
    return snapshot.is_read(read) and loses_results(config, read)


def omitted_of(merged: CacheConfig, fitting: CacheConfig) -> int:
    """Return how many results of a merge there is no room for."""
    return max(0, merged.result_count - fitting.result_count)


def _is_whole(read: CacheConfig, merged: CacheConfig) -> bool:
    """Whether builders already read the whole merge: then it fits unchanged."""
    return len(read.records) == len(merged.records) and read.result_count == merged.result_count


def exports_to(
    index: IndexId, stored: Iterable[KnownGeneration], known: Remembered
) -> Iterator[Export]:
    """Return the known exports to one index: all generations of one are remembered together."""
    if index.is_named:
        yield from map(Export, known.parts)
        return
    for one in stored:
        if one.config and one.sink is None:
            yield Export(one.config, to_nanoseconds(one.created_at))
