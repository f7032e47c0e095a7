"""The layer chains of an index: which are the largest, and what the missing ones cost. Pure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence

from maintainer.cacheconfig import CacheConfig, Digest
from maintainer.cacheconfig.model import NO_PARENT, Layer
from maintainer.cacheconfig.order import dependency_order
from maintainer.report.model import ChainRow, LostBlob

_CHAINS = 5
"""Up to this many chains, the largest, are in a tree."""
_NEEDED_BY = 8
"""Up to this many scopes that need a chain are named."""
_LOST = 20
"""Up to this many missing blobs are named."""


def largest_chains(
    config: CacheConfig,
    size_of: Callable[[Digest], int],
    whole: int,
    needed_by: Callable[[Digest], Collection[str]],
) -> tuple[tuple[ChainRow, ...], int]:
    """Return the tree of the largest layer chains, and how many chains are not in it.

    `whole` is the number of bytes that the shares refer to; `needed_by` returns the scopes that
    need a blob. Layers without a branch between them are one row.
    """
    forest = _Forest(config.layers, size_of, needed_by)
    ends = Counter(
        layer for record in config.records for result in record.results for layer in result.layers
    )
    tips = sorted(ends, key=lambda layer: (-forest.totals[layer], config.layers[layer].blob, layer))
    shown, left, chains = set[int](), 0, 0
    for tip in tips:
        if tip in shown:
            continue
        if chains == _CHAINS:
            left += 1
            continue
        chains += 1
        shown.update(forest.down_from(tip))
    return tuple(forest.rows(shown, ends, whole)), left


class _Forest:
    """Layers, and their children."""

    def __init__(
        self,
        layers: Sequence[Layer],
        size_of: Callable[[Digest], int],
        needed_by: Callable[[Digest], Collection[str]],
    ) -> None:
        self.layers = layers
        self._needed_by = needed_by
        self.sizes = [size_of(layer.blob) for layer in layers]
        self.totals = list(self.sizes)
        """Bytes of each layer with all layers below it."""
        for position in _bottom_up(layers):
            parent = layers[position].parent
            if parent != NO_PARENT:
                self.totals[position] += self.totals[parent]

    def down_from(self, layer: int) -> list[int]:
        chain = []
        while layer != NO_PARENT:
            chain.append(layer)
            layer = self.layers[layer].parent
        return chain

    def rows(self, shown: set[int], ends: Counter[int], whole: int) -> list[ChainRow]:
        """Return the layers of `shown`, each followed by its children."""
        above = self._above(shown)
        rows = []
        waiting = [(root, 0) for root in reversed(above[NO_PARENT])]
        while waiting:
            layer, depth = waiting.pop()
            run = [layer]
            while len(above[run[-1]]) == 1:
                run += above[run[-1]]
            waiting += [(one, depth + 1) for one in reversed(above[run[-1]])]
            rows.append(self._row(run, depth, sum(ends[one] for one in run), whole))
        return rows

    def _above(self, shown: set[int]) -> defaultdict[int, list[int]]:
        """Return the children of each layer, the largest subtree first."""
        weight: Counter[int] = Counter()
        for layer in reversed(_bottom_up(self.layers)):
            if layer in shown:
                weight[layer] += self.sizes[layer]
                weight[self.layers[layer].parent] += weight[layer]
        above = defaultdict[int, list[int]](list)
        for layer in sorted(shown, key=lambda one: (-weight[one], self.layers[one].blob)):
            above[self.layers[layer].parent].append(layer)
        return above

    def _row(self, run: Sequence[int], depth: int, results: int, whole: int) -> ChainRow:
        largest = max(run, key=lambda layer: (self.sizes[layer], self.layers[layer].blob))
        size = sum(self.sizes[layer] for layer in run)
        digest = self.layers[largest].blob
        names = sorted(self._needed_by(digest))
        return ChainRow(
            depth=depth,
            digest=digest,
            layers=len(run),
            size=size,
            share=size / whole if whole else 0.0,
            results=results,
            needed_by=tuple(names[:_NEEDED_BY]),
            needed_by_omitted=len(names[_NEEDED_BY:]),
        )


def find_losses(
    remembered: CacheConfig, left: CacheConfig, live_blobs: Collection[Digest]
) -> tuple[int, tuple[LostBlob, ...]]:
    """Return how many results pruning has dropped, and because of which missing blobs.

    Each result is attributed to its lowest missing blob.
    """
    causes = _causes(remembered.layers, live_blobs)
    lost: Counter[Digest] = Counter()
    for record in remembered.records:
        dead = [_cause(result.layers, causes) for result in record.results]
        if dead and all(dead):
            lost[next(cause for cause in dead if cause)] += 1
    sizes = {layer.blob: layer.size for layer in remembered.layers}
    costliest = sorted(lost.items(), key=lambda item: (-item[1], item[0]))
    return (
        max(0, remembered.result_count - left.result_count),
        tuple(LostBlob(blob, sizes[blob], count) for blob, count in costliest[:_LOST]),
    )


def _causes(layers: Sequence[Layer], live_blobs: Collection[Digest]) -> list[Digest | None]:
    """Return for each layer the lowest missing blob among it and the layers below it."""
    causes: list[Digest | None] = [None] * len(layers)
    for position in _bottom_up(layers):
        layer = layers[position]
        below = None if layer.parent == NO_PARENT else causes[layer.parent]
        causes[position] = below or (None if layer.blob in live_blobs else layer.blob)
    return causes


def _cause(layers: Sequence[int], causes: Sequence[Digest | None]) -> Digest | None:
    return next((cause for layer in layers if (cause := causes[layer])), None)


def _bottom_up(layers: Sequence[Layer]) -> list[int]:
    parents = [() if layer.parent == NO_PARENT else (layer.parent,) for layer in layers]
    return dependency_order(parents) or []
