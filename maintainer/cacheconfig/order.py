"""Dependency order."""

from collections.abc import Collection, Sequence

from maintainer.cacheconfig.keys import Digest
from maintainer.cacheconfig.model import NO_PARENT, Layer, Link, Record


def sources_of(records: Sequence[Record]) -> list[list[int]]:
    """Return for each record the records that it links to, once for each link."""
    return [[link.source for links in record.inputs for link in links] for record in records]


def parents_of(layers: Sequence[Layer]) -> list[tuple[int, ...]]:
    """Return for each layer the one below, if there is one."""
    return [() if layer.parent == NO_PARENT else (layer.parent,) for layer in layers]


def leave_out(records: Sequence[Record], gone: Collection[int]) -> tuple[Record, ...]:
    """Return the records at all other positions, none of which links to one that goes."""
    kept = [position for position in range(len(records)) if position not in gone]
    if not kept or kept[-1] == len(kept) - 1:
        return tuple(records[: len(kept)])  # Only the last ones go, so no other moves.
    at = {old: new for new, old in enumerate(kept)}
    return tuple(
        Record(
            records[old].digest,
            records[old].results,
            tuple(
                tuple(Link(at[link.source], link.selector) for link in links)
                for links in records[old].inputs
            ),
        )
        for old in kept
    )


def number_layers(layers: Sequence[Layer], known: dict[tuple[Digest, int], int]) -> list[int]:
    """Give layers numbers: the same blob on the same parents is the same layer in any index.

    `known` has the numbers of the layers of other indexes, by blob and the number of the layer
    below, and gets the new ones. Return the number of each of `layers`.
    """
    numbers = [NO_PARENT] * len(layers)
    for position in dependency_order(parents_of(layers)) or ():
        layer = layers[position]
        below = NO_PARENT if layer.parent == NO_PARENT else numbers[layer.parent]
        numbers[position] = known.setdefault((layer.blob, below), len(known))
    return numbers


def dependency_order(sources: Sequence[Collection[int]]) -> list[int] | None:
    """Order nodes so that each comes after its sources; None if they loop.

    `sources[n]` are the nodes that node n needs. Kahn's algorithm: linear time, no recursion, and
    the order depends on the positions alone.
    """
    users: list[list[int]] = [[] for _ in sources]
    waiting = list(map(len, sources))
    for node, needed in enumerate(sources):
        for source in needed:
            users[source].append(node)
    order = [node for node, count in enumerate(waiting) if count == 0]
    for node in order:
        for user in users[node]:
            waiting[user] -= 1
            if waiting[user] == 0:
                order.append(user)
    return order if len(order) == len(sources) else None


def depths(sources: Sequence[Collection[int]]) -> list[int]:
    """Return how many nodes lie below each in its longest chain of sources, which do not loop."""
    below = [0] * len(sources)
    for node in dependency_order(sources) or ():
        below[node] = 1 + max((below[source] for source in sources[node]), default=-1)
    return below
