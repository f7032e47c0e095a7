"""Needs: which results of an index need a blob, and how a builder gets from a step to it."""

from collections.abc import Iterator
from dataclasses import dataclass

from maintainer.cacheconfig.keys import Digest
from maintainer.cacheconfig.model import NO_PARENT, CacheConfig, Layer, Record, Result
from maintainer.cacheconfig.order import dependency_order, parents_of


@dataclass(frozen=True, slots=True)
class Need:
    """A result that needs a blob."""

    record: int
    """The position of its record."""
    result: Result
    layer: int
    """The position of the layer of the result that is the blob, or stands on it."""
    steps: int
    """How many layers that one lies above the blob."""


def needs_of(config: CacheConfig, blob: Digest) -> Iterator[Need]:
    """Return every result that needs a blob, as a layer of its own or below one."""
    steps = _steps_above(config, blob)
    for position, record in enumerate(config.records):
        for result in record.results:
            above = [layer for layer in result.layers if layer in steps]
            if above:
                nearest = min(above, key=lambda layer: steps[layer])
                yield Need(position, result, nearest, steps[nearest])


def records_to(config: CacheConfig, position: int) -> tuple[Record, ...]:
    """Return the records on one way to a record, by first inputs, beginning with a step without."""
    way = [config.records[position]]
    while way[-1].inputs:
        way.append(config.records[min(link.source for link in way[-1].inputs[0])])
    return tuple(reversed(way))


def layers_to(config: CacheConfig, position: int) -> tuple[Layer, ...]:
    """Return the layers that a layer stands on, and itself, from the bottom up."""
    way = []
    while position != NO_PARENT:
        way.append(config.layers[position])
        position = config.layers[position].parent
    return tuple(reversed(way))


def _steps_above(config: CacheConfig, blob: Digest) -> dict[int, int]:
    """Return how far above a blob each layer lies that is the blob or stands on it."""
    steps: dict[int, int] = {}
    for position in dependency_order(parents_of(config.layers)) or ():
        layer = config.layers[position]
        if layer.blob == blob:
            steps[position] = 0
        elif layer.parent in steps:
            steps[position] = steps[layer.parent] + 1
    return steps
