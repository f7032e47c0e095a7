"""Normal form: the same meaning gives the same bytes, so a run that changes nothing writes nothing.

Layers are sorted by blob, then parent; records by digest, then inputs; inputs by link. Layers that
no result needs are left out.
"""

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Protocol, Self, TypeVar

from maintainer.cacheconfig.model import NO_PARENT, CacheConfig, Layer, Link, Record, Result
from maintainer.cacheconfig.order import dependency_order, depths, sources_of

# The highest level of twins that is sorted exactly; real builds have about six. A hostile index
# could have one for each record, so there is an end to it: what is not settled after so many rounds
# stays as the Merkle digests order it, which is the same every time.
_ROUNDS = 64


class _Ordered(Hashable, Protocol):
    def __lt__(self, other: Self, /) -> bool: ...


_Key = TypeVar("_Key", bound=_Ordered)


def normalize(config: CacheConfig, kept: Sequence[int] | None = None) -> CacheConfig:
    """Return `config` in normal form. Nearly linear time, whatever the content.

    `kept` are the positions of the records that stay, in order: all by default, and always those
    with results and all that they build on.
    """
    layer_order = _layer_order(config.layers, _needed_layers(config))
    layer_at = _inverse(layer_order)
    record_order = _record_order(
        config.records, range(len(config.records)) if kept is None else kept
    )
    record_at = _inverse(record_order)
    layers = [config.layers[old] for old in layer_order]
    records = [config.records[old] for old in record_order]
    normal = CacheConfig(
        layers=tuple([layer.on(layer_at.get(layer.parent, NO_PARENT)) for layer in layers]),
        records=tuple(
            [
                Record(
                    digest=record.digest,
                    results=_move_results(record.results, layer_at),
                    inputs=_move_inputs(record.inputs, record_at),
                )
                for record in records
            ]
        ),
    )
    return config if normal == config else normal  # Most are normal; one copy is enough.


def put_in_order(config: CacheConfig) -> CacheConfig:
    """Return `config` in normal form, unless it names layers that no result needs.

    What is left of an index after pruning is then the same object as long as nothing is lost, and
    in memory once.
    """
    normal = normalize(config)
    return normal if len(normal.layers) == len(config.layers) else config


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


def _layer_order(layers: Sequence[Layer], needed: Iterable[int]) -> list[int]:
    """Sort the layers that are needed by blob, then by the parent's place in the same order.

    That is the order of the chains of blobs, read downwards. Prefix doubling, as for suffix arrays,
    keeps it at n·log² n however long the chains are. Most indexes have each blob once.
    """
    some = sorted(needed)
    at = _inverse(some)
    rank = _dense_rank([layers[layer].blob for layer in some])
    jump = [at.get(layers[layer].parent, NO_PARENT) for layer in some]
    while len(set(rank)) < len(rank) and any(below != NO_PARENT for below in jump):
        rank = _dense_rank(
            [
                (rank[layer], rank[below] if below != NO_PARENT else NO_PARENT)
                for layer, below in enumerate(jump)
            ]
        )
        jump = [jump[below] if below != NO_PARENT else NO_PARENT for below in jump]
    return [layer for _, layer in sorted(zip(rank, some, strict=True))]


def _dense_rank(keys: Sequence[_Key]) -> list[int]:
    ranks = {key: rank for rank, key in enumerate(sorted(set(keys)))}
    return [ranks[key] for key in keys]


def _record_order(records: Sequence[Record], kept: Iterable[int]) -> list[int]:
    """Sort by digest, then by inputs, whose links are compared by their final positions.

    Inputs are compared of twins only: records of one digest. How two of them compare follows from
    the twins that they link to. So each group of twins is sorted once for each level that members
    of it have, the lowest level first.
    """
    same: dict[str, list[int]] = {}
    for position in kept:
        same.setdefault(records[position].digest, []).append(position)
    groups = [same[digest] for digest in sorted(same)]
    twins = [group for group in groups if len(group) > 1]
    order = list(chain.from_iterable(groups))
    levels = _twin_levels(records, twins)
    if max(levels, default=0) >= _ROUNDS or _repeats_links(records, twins):
        return _sort_in_rounds(records, order, twins)
    at = _inverse(order)
    steps = {(levels[n], number) for number, group in enumerate(twins) for n in group}
    for _, number in sorted(steps):
        group, start = twins[number], at[twins[number][0]]
        group.sort(key=lambda n: _places(records[n].inputs, at))
        at.update(zip(group, range(start, start + len(group)), strict=True))
    return list(chain.from_iterable(groups))


def _twin_levels(records: Sequence[Record], twins: Iterable[Iterable[int]]) -> list[int]:
    """Return how many twins each twin stands on, one linked to the next; 0 for other records."""
    members = set(chain.from_iterable(twins))
    below: list[list[int]] = [[] for _ in records]
    for position in members:
        below[position] = [
            link.source
            for links in records[position].inputs
            for link in links
            if link.source in members
        ]
    return depths(below)


def _repeats_links(records: Sequence[Record], twins: Iterable[Iterable[int]]) -> bool:
    """Whether twins with the same inputs may differ in how often they state a link."""
    return any(
        len(links) > 1 and len(set(links)) < len(links)
        for position in chain.from_iterable(twins)
        for links in records[position].inputs
    )


def _sort_in_rounds(
    records: Sequence[Record], positions: Iterable[int], twins: Sequence[Sequence[int]]
) -> list[int]:
    """Sort all groups in rounds, beginning with the order of the Merkle digests."""
    merkle = _merkle_digests(records)
    order = sorted(positions, key=lambda position: (records[position].digest, *merkle[position]))
    for _ in range(_ROUNDS):
        at = _inverse(order)
        places = {n: _places(records[n].inputs, at) for n in chain.from_iterable(twins)}
        settled = sorted(order, key=lambda n: (records[n].digest, places.get(n, [])))
        if settled == order:
            break
        order = settled
    return order


def _places(inputs: Iterable[Iterable[Link]], at: Mapping[int, int]) -> list[list[tuple[int, str]]]:
    """Return for each input its links, by the places of their sources."""
    return [sorted({(at[link.source], link.selector) for link in links}) for links in inputs]


def _merkle_digests(records: Sequence[Record]) -> list[tuple[int, bytes]]:
    """Return the depth of each record, and a digest of all that leads to it."""
    sources = sources_of(records)
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


def _move_results(results: Iterable[Result], at: Mapping[int, int]) -> tuple[Result, ...]:
    moved = [
        Result(tuple([at[layer] for layer in one.layers]), one.with_parents, one.created_at)
        for one in results
    ]
    moved.sort(key=lambda result: (not result.with_parents, result))
    return tuple(moved)


def _move_inputs(
    inputs: Iterable[Iterable[Link]], at: Mapping[int, int]
) -> tuple[tuple[Link, ...], ...]:
    return tuple(
        [
            tuple(sorted({Link(at[link.source], link.selector) for link in links}))
            for links in inputs
        ]
    )
