"""Normal form: the same meaning gives the same bytes, so a run that changes nothing writes nothing.

Layers are sorted by blob, then parent; records by digest, then inputs; inputs by link. Layers that
no result needs are left out.
"""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Protocol, Self, TypeVar

import msgspec

from maintainer.cacheconfig.model import NO_PARENT, CacheConfig, Layer, Link, Record, Result
from maintainer.cacheconfig.order import dependency_order

# Positions of records of one digest settle in a round for each level at which they differ; real
# builds take two or three. A hostile index could need a round a record, so there is an end to it:
# what is not settled then stays as the Merkle digests order it, which is the same every time.
_ROUNDS = 64


class _Ordered(Hashable, Protocol):
    def __lt__(self, other: Self, /) -> bool: ...


_Key = TypeVar("_Key", bound=_Ordered)


def normalize(config: CacheConfig) -> CacheConfig:
    """Return `config` in normal form. Nearly linear time, whatever the content."""
    needed = _needed_layers(config)
    layers = [layer for layer in _layer_order(config.layers) if layer in needed]
    layer_at = {old: new for new, old in enumerate(layers)}
    records = _record_order(config.records)
    record_at = _inverse(records)
    return CacheConfig(
        layers=tuple(_move_layer(config.layers[old], layer_at) for old in layers),
        records=tuple(
            Record(
                digest=config.records[old].digest,
                results=_move_results(config.records[old].results, layer_at),
                inputs=_move_inputs(config.records[old].inputs, record_at),
            )
            for old in records
        ),
    )


def _needed_layers(config: CacheConfig) -> set[int]:
    needed: set[int] = set()
    for record in config.records:
        for result in record.results:
            for layer in result.layers:
                below = layer
                # A layer of a chain comes without its parents, but it still names its parent.
                while below != NO_PARENT and below not in needed:
                    needed.add(below)
                    below = config.layers[below].parent
    return needed


def _layer_order(layers: Sequence[Layer]) -> list[int]:
    """Sort by blob, then by the parent's place in the same order.

    That is the order of the chains of blobs, read downwards. Prefix doubling, as for suffix arrays,
    keeps it at n·log² n however long the chains are.
    """
    rank = _dense_rank([layer.blob for layer in layers])
    jump = [layer.parent for layer in layers]
    while any(below != NO_PARENT for below in jump):
        rank = _dense_rank(
            [
                (rank[layer], rank[below] if below != NO_PARENT else NO_PARENT)
                for layer, below in enumerate(jump)
            ]
        )
        jump = [jump[below] if below != NO_PARENT else NO_PARENT for below in jump]
    return sorted(range(len(layers)), key=rank.__getitem__)


def _dense_rank(keys: Sequence[_Key]) -> list[int]:
    ranks = {key: rank for rank, key in enumerate(sorted(set(keys)))}
    return [ranks[key] for key in keys]


def _record_order(records: Sequence[Record]) -> list[int]:
    """Sort by digest, then by inputs, whose links are compared by their final positions."""
    merkle = _merkle_digests(records)
    order = sorted(range(len(records)), key=lambda n: (records[n].digest, *merkle[n]))
    counts = Counter(record.digest for record in records)
    twins = [n for n, record in enumerate(records) if counts[record.digest] > 1]
    if not twins:
        return order
    for _ in range(_ROUNDS):
        at = _inverse(order)
        inputs = {n: _move_inputs(records[n].inputs, at) for n in twins}
        settled = sorted(order, key=lambda n: (records[n].digest, inputs.get(n, ())))
        if settled == order:
            break
        order = settled
    return order


def _merkle_digests(records: Sequence[Record]) -> list[tuple[int, bytes]]:
    """Return the depth of each record, and a digest of all that leads to it."""
    sources = [{link.source for links in record.inputs for link in links} for record in records]
    digests = [(0, b"")] * len(records)
    for node in dependency_order(sources) or ():
        inputs = [
            sorted((digests[link.source][1], link.selector) for link in links)
            for links in records[node].inputs
        ]
        depth = 1 + max((digests[source][0] for source in sources[node]), default=0)
        content = repr((records[node].digest, inputs)).encode("utf-8", "surrogatepass")
        digests[node] = (depth, hashlib.sha256(content).digest())
    return digests


def _inverse(order: Sequence[int]) -> dict[int, int]:
    return {old: new for new, old in enumerate(order)}


def _move_layer(layer: Layer, at: dict[int, int]) -> Layer:
    parent = NO_PARENT if layer.parent == NO_PARENT else at[layer.parent]
    return msgspec.structs.replace(layer, parent=parent)


def _move_results(results: Iterable[Result], at: dict[int, int]) -> tuple[Result, ...]:
    moved = (
        Result(tuple(at[layer] for layer in result.layers), result.with_parents, result.created_at)
        for result in results
    )
    return tuple(sorted(moved, key=lambda result: (not result.with_parents, result)))


def _move_inputs(
    inputs: tuple[tuple[Link, ...], ...], at: dict[int, int]
) -> tuple[tuple[Link, ...], ...]:
    return tuple(
        tuple(sorted({Link(at[link.source], link.selector) for link in links})) for links in inputs
    )
