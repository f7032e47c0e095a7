"""When a cache holds more than its limit, whole results leave it: first those for which the time
since a build needed them, times their bytes, is largest (fewer bytes than a fifth of the limit
count as a fifth). What would leave last is taken first, and whatever still fits stays with all that
it needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.model.reason import LeftForRoom, ProtectedExceedsLimit
from maintainer.model.room import Branch, Departure, Inventory, Room, size_of

NAME = "room"

_A_DAY = timedelta(days=1)
_YOUNG = timedelta(hours=6)
"""Added to each age, so that what one build needed and the next one did not is not old at once."""
_PARTS = 5
"""What takes less than this part of the limit leaves by its age alone."""
_MAX_LAYERS = 1_000
"""No builder mounts a stack of more layers: Linux's overlay file system takes 500."""


def make_room(
    inventory: Inventory,
    limit: int,
    now: datetime,
    *,
    protected: AbstractSet[Digest] = frozenset(),
    others: int = 0,
) -> Room:
    """Return what leaves a cache, so that it holds no more bytes than its limit.

    `protected` are the blobs that must stay, and `others` are the bytes of everything stored that
    no result needs. Nearly linear in the layers and results, whatever they are.
    """
    ranking = _Ranking(inventory, now, limit // _PARTS)
    blobs = ranking.needed
    stored = others + size_of(blobs, inventory.sizes)
    if stored <= limit:
        return Room(stored, stored, frozenset(blobs))
    kept = blobs & protected
    size = size_of(kept, inventory.sizes)
    if others + size > limit:
        blocked = ProtectedExceedsLimit(limit, size, others)
        return Room(stored, stored, frozenset(blobs), blocked=blocked)
    filling = _Filling(inventory, ranking.order(), kept, limit - others - size)
    remaining = others + size_of(filling.kept, inventory.sizes)
    departures = _departures(inventory, filling.leaving, filling.kept)
    return Room(stored, remaining, frozenset(filling.kept), departures)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A branch, and what its place in the order depends on."""

    branch: Branch
    size: int
    """Bytes of its layers, shared or not."""
    weight: float
    """The product of its age and its bytes."""
    depth: int
    """How many layers it needs."""
    blobs: tuple[Digest, ...]
    """Those of its topmost layers."""

    @property
    def key(self) -> tuple[float, int, int, tuple[Digest, ...]]:
        """What is smaller stays longer. It is smaller for a branch that another one stands on."""
        return self.weight, self.size, self.depth, self.blobs


class _Ranking:
    """All branches, by the order in which they stay.

    Age times bytes is the space-time product of A. J. Smith ("Long Term File Migration",
    Communications of the ACM 24(8), 1981). That small results count alike is ours: otherwise many
    small ones that nobody needs would stay in place of a large one. See docs/policies.md.
    """

    def __init__(self, inventory: Inventory, now: datetime, small: int) -> None:
        """`small` are the bytes of which a result takes at least as many, for the order."""
        self._inventory = inventory
        self._small = small
        ages = [max((now - one.needed_at) / _A_DAY, 0) for one in inventory.branches]
        self._days = _days(inventory, ages)
        self.needed = frozenset(self._days)

    def order(self) -> Sequence[_Ranked]:
        """Return all branches, and first the one that stays longest."""
        layers, sizes = self._inventory.layers, self._inventory.sizes
        size, days, depth = [0] * len(layers), [0.0] * len(layers), [0] * len(layers)
        for number, (blob, below) in enumerate(layers):
            size[number], days[number], depth[number] = sizes[blob], self._days.get(blob, 0), 1
            if below != NO_PARENT:
                size[number] += size[below]
                days[number] = max(days[number], days[below])
                depth[number] += depth[below]
        ranked = []
        for one in self._inventory.branches:
            total = sum(size[layer] for layer in one.layers)
            age = max(days[layer] for layer in one.layers) + _YOUNG / _A_DAY
            blobs = tuple(sorted(layers[layer].blob for layer in one.layers))
            levels = sum(depth[layer] for layer in one.layers)
            ranked.append(_Ranked(one, total, age * max(total, self._small), levels, blobs))
        return sorted(ranked, key=lambda one: one.key)


def _days(inventory: Inventory, ages: Sequence[float]) -> Mapping[Digest, float]:
    """Return for each blob that is needed the days since a build last needed it."""
    youngest: dict[int, float] = {}
    for branch, age in zip(inventory.branches, ages, strict=True):
        for layer in branch.layers:
            youngest[layer] = min(age, youngest.get(layer, age))
    days: dict[Digest, float] = {}
    for number in range(len(inventory.layers) - 1, -1, -1):
        if number not in youngest:
            continue
        (blob, below), age = inventory.layers[number], youngest[number]
        days[blob] = min(age, days.get(blob, age))
        if below != NO_PARENT:
            youngest[below] = min(age, youngest.get(below, age))
    return days


class _Filling:
    """The blobs that stay, to which branches are added in order as long as there is room."""

    def __init__(
        self, inventory: Inventory, order: Sequence[_Ranked], kept: AbstractSet[Digest], room: int
    ) -> None:
        self.kept = set(kept)
        self._inventory = inventory
        self._room = room
        self._complete = {NO_PARENT}
        """Layers that stay with all below."""
        self._too_large: set[int] = set()
        """Layers for which there was no room. There never will be: it shrinks by all that is kept,
        and what they lack by no more than that.
        """
        for number, (blob, below) in enumerate(inventory.layers):
            if blob in kept and below in self._complete:
                self._complete.add(number)
        self.leaving = [one for one in order if not self._keep(one.branch)]

    def _keep(self, branch: Branch) -> bool:
        """Keep a branch if it fits; return whether it does."""
        missing: set[Digest] = set()
        size, walked = 0, []
        for layer in _stack(self._inventory, branch.layers, self._complete):
            blob = self._inventory.layers[layer].blob
            if blob not in self.kept and blob not in missing:
                missing.add(blob)
                size += self._inventory.sizes[blob]
            walked.append(layer)
            if layer in self._too_large or len(walked) > _MAX_LAYERS or size > self._room:
                if len(branch.layers) == 1:
                    self._too_large.update(branch.layers)
                return False
        self.kept |= missing
        self._complete.update(walked)
        self._room -= size
        return True


def _stack(inventory: Inventory, layers: Sequence[int], known: AbstractSet[int]) -> Iterator[int]:
    """Return some layers and all below, from the top down, as far as they are not known."""
    for top in layers:
        layer = top
        while layer not in known:
            yield layer
            layer = inventory.layers[layer].below


def _departures(
    inventory: Inventory, leaving: Sequence[_Ranked], kept: AbstractSet[Digest]
) -> tuple[Departure, ...]:
    """Return what leaves, in order. `leaving` begins with what leaves last."""
    needed, counted = set(kept), {NO_PARENT}
    departures: list[Departure] = []
    for place, one in zip(range(len(leaving), 0, -1), leaving, strict=True):
        layers = list(_stack(inventory, one.branch.layers, counted))
        freed = {inventory.layers[layer].blob for layer in layers} - needed
        needed |= freed
        counted.update(layers)
        bytes_freed = size_of(freed, inventory.sizes)
        reason = LeftForRoom(
            needed_at=one.branch.needed_at, size=one.size, place=place, freed=bytes_freed
        )
        departures.append(Departure(one.branch, reason, one.blobs[0], frozenset(freed)))
    return tuple(reversed(departures))
