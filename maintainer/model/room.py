"""What a cache consists of while it has to become smaller, and what leaves it. Pure.

Indexes share layers, and results share indexes' layers. So layers are numbered across all indexes,
each after the one below it; and results that need exactly the same layers are one *branch*.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Self

from maintainer.cacheconfig import CacheConfig, Digest, IndexId
from maintainer.cacheconfig.order import number_layers
from maintainer.cacheconfig.shrink import ResultId, results_of
from maintainer.cacheconfig.timestamps import to_datetime
from maintainer.model.reason import LeftForRoom, ProtectedExceedsLimit


class StackedLayer(NamedTuple):
    """A layer, and the one below."""

    blob: Digest
    below: int
    """Its number, which is lower; -1 for none."""


@dataclass(frozen=True, slots=True)
class CachedResult:
    """A result of a record of an index."""

    index: IndexId
    record: str
    """The digest of the record."""


@dataclass(frozen=True, slots=True)
class Branch:
    """The results that need exactly the same layers: they stay or leave together."""

    layers: tuple[int, ...]
    """The numbers of the topmost layers, ascending. Each needs all below it."""
    needed_at: datetime
    """When a build last needed one of them."""
    results: tuple[CachedResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """All results of a cache, and the layers that they stand on."""

    layers: tuple[StackedLayer, ...]
    branches: tuple[Branch, ...]
    sizes: Mapping[Digest, int]
    """Bytes of each blob."""

    @classmethod
    def of(
        cls,
        indexes: Mapping[IndexId, CacheConfig],
        needed_at: Mapping[ResultId, datetime],
        sizes: Mapping[Digest, int],
    ) -> Self:
        """Return what is in some indexes, whose blobs all exist.

        A result of which nobody knows when a build needed it was last needed when it was made.
        """
        stacks = _Stacks()
        for index, config in indexes.items():
            stacks.add(index, config, needed_at)
        branches = (Branch(one, *stacks.branches[one]) for one in stacks.branches)
        layers = tuple(StackedLayer(*one) for one in stacks.numbers)
        return cls(layers, tuple(branches), sizes)


class _Stacks:
    """The layers and branches of some indexes: each once, however many indexes have it."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[Digest, int], int] = {}
        self.branches: dict[tuple[int, ...], tuple[datetime, tuple[CachedResult, ...]]] = {}

    def add(
        self, index: IndexId, config: CacheConfig, needed_at: Mapping[ResultId, datetime]
    ) -> None:
        numbers = number_layers(config.layers, self.numbers)
        for name, _, result, _ in results_of(config):
            layers = result.layers
            # A result that lists a layer and the one below needs no more than the upper one.
            top = set(layers) - {config.layers[layer].parent for layer in layers}
            place = tuple(sorted(numbers[layer] for layer in top))
            needed = needed_at.get(name, to_datetime(result.created_at))
            before, results = self.branches.get(place, (needed, ()))
            one = CachedResult(index, name.record)
            self.branches[place] = max(before, needed), (*results, one)


@dataclass(frozen=True, slots=True)
class Departure:
    """A branch that leaves, and why."""

    branch: Branch
    reason: LeftForRoom
    digest: Digest
    """Of its topmost layer, or of the first of several."""
    freed: frozenset[Digest] = frozenset()
    """The blobs that are unreferenced once it and all before it have left."""


@dataclass(frozen=True, slots=True)
class Room:
    """What leaves a cache and what remains, before anything is done."""

    stored: int
    """Bytes of all that is stored."""
    remaining: int
    """Bytes of what remains."""
    staying: frozenset[Digest]
    """The blobs that remain: what stays needs no others."""
    departures: tuple[Departure, ...] = ()
    """What leaves, in order: a branch comes before those that it stands on."""
    blocked: ProtectedExceedsLimit | None = None
    """Why nothing leaves although the cache holds more than its limit, if so."""

    @property
    def departed(self) -> Mapping[Digest, LeftForRoom]:
        """The blobs that are unreferenced then, and why."""
        return {blob: one.reason for one in self.departures for blob in one.freed}


@dataclass(frozen=True, slots=True)
class RoomDecision:
    """What leaves a cache, and for what."""

    room: Room
    limit: int
    """Bytes that the cache may hold, so that enough is free."""
    quota: int
    """Bytes."""
    stored: int
    """Bytes of all entries when the run began."""


def size_of(blobs: Iterable[Digest], sizes: Mapping[Digest, int]) -> int:
    """Return the bytes of some blobs."""
    return sum(sizes[blob] for blob in blobs)
