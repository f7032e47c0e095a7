"""Counts the results that builders can use before and after a run. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, count_results, prune
from maintainer.model.marks import Index, Marks
from maintainer.report.model import ResultTotals
from maintainer.report.sizes import BlobSizes


def total_results(
    marks: Marks, contents: Mapping[IndexId, CacheConfig], sizes: BlobSizes
) -> ResultTotals:
    """Return how many results builders can use, and how many they cannot use any more.

    `contents` are what they can use of each index after the run.
    """
    indexes = marks.indexes
    before = [index.usable for index in indexes]
    after = contents.values()
    blobs = frozenset[Digest]().union(*(config.blobs for config in after))
    counts = _ResultCounts()
    results = ResultTotals(
        before=counts.of(before),
        after=counts.of(after),
        possible=counts.of(index.merged for index in indexes),
        size=sizes.of(blobs),
        lost=_count_lost(marks),
    )
    # Under names, a merge loses what expired with a name, or was overwritten long ago, and so
    # does a name that a run has written. What is forgotten leaves at its owner's wish, merges
    # included.
    forgets = any(one.is_forgotten for one in indexes)
    builds = [
        one.merged if _is_rewritten(one) else one.usable
        for one in indexes
        if not (one.is_forgotten or (one.is_merge and (one.id.is_named or forgets)))
    ]
    dropped = counts.of([*builds, *after]) - results.after
    return msgspec.structs.replace(results, dropped=dropped)


class _ResultCounts:
    """Counts the keys with a result in some indexes, each once, and the same indexes once."""

    def __init__(self) -> None:
        self._known: dict[frozenset[int], int] = {}

    def of(self, configs: Iterable[CacheConfig]) -> int:
        distinct = {id(config): config for config in configs if config.records}
        which = frozenset(distinct)
        if which not in self._known:
            self._known[which] = count_results(distinct.values())
        return self._known[which]


def _count_lost(marks: Marks) -> int:
    """Count the results of which no index has a live one left."""
    indexes, live = marks.indexes, marks.snapshot.live_blobs
    if all(one.remembered.result_count <= one.merged.result_count + one.omitted for one in indexes):
        return 0
    left = [prune(one.remembered, live) if one.omitted else one.merged for one in indexes]
    return max(0, count_results(one.remembered for one in indexes) - count_results(left))


def _is_rewritten(index: Index) -> bool:
    """Whether a name holds what a run has written: also what builds overwrote before that."""
    return index.id.is_named and bool(index.generations) and index.generations[-1].sink is not None
