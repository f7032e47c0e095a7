"""What builds needed, one after the other: what a cache of any size is measured by. Pure.

A key always leads to the stack of blobs that the first build with it made: a cache that has lost
nothing would have returned it to all later ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from maintainer.cacheconfig import CacheConfig, Digest, Result
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.model.room import StackedLayer

Stack = tuple[Digest, ...]
"""The blobs that a result needs, from the bottom up."""


@dataclass(frozen=True)
class Build:
    """A build and the keys that it needs, in the order of its export."""

    at: datetime
    keys: tuple[int, ...]


@dataclass(frozen=True)
class History:
    """Builds in order, and what their keys lead to."""

    builds: tuple[Build, ...]
    stacks: Mapping[int, Stack]
    """Of each key that a build needs."""
    sizes: Mapping[Digest, int]

    def latest(self, most: int) -> "History":
        """Return the last builds, but no more than `most` when multiplied by their results: the
        time of a simulation grows with that.
        """
        keys: set[int] = set()
        count = 0
        for build in reversed(self.builds):
            keys.update(build.keys)
            if count and (count + 1) * len(keys) > most:
                break
            count += 1
        if count == len(self.builds):
            return self
        builds = self.builds[-count:]
        stacks = {key: self.stacks[key] for build in builds for key in build.keys}
        return History(builds, stacks, self.sizes)

    @cached_property
    def written(self) -> int:
        """Bytes of all blobs."""
        return sum(self.sizes[blob] for blob in {b for s in self.stacks.values() for b in s})

    @cached_property
    def findable(self) -> int:
        """How many results a cache without a quota returns."""
        return sum(len(build.keys) for build in self.builds) - len(self.stacks)

    @cached_property
    def layers(self) -> tuple[StackedLayer, ...]:
        """All layers, each after the one below."""
        return tuple(self._numbers)

    @cached_property
    def tops(self) -> Mapping[int, int]:
        """For each key the number of its topmost layer."""
        return {key: self._numbers[layers[-1]] for key, layers in self._stacked.items()}

    @cached_property
    def _numbers(self) -> dict[StackedLayer, int]:
        numbers: dict[StackedLayer, int] = {}
        for layers in self._stacked.values():
            for layer in layers:
                numbers.setdefault(layer, len(numbers))
        return numbers

    @cached_property
    def _stacked(self) -> Mapping[int, list[StackedLayer]]:
        numbers: dict[StackedLayer, int] = {}
        stacked: dict[int, list[StackedLayer]] = {}
        for key, stack in self.stacks.items():
            below = NO_PARENT
            stacked[key] = []
            for blob in stack:
                stacked[key].append(StackedLayer(blob, below))
                below = numbers.setdefault(stacked[key][-1], len(numbers))
        return stacked


def stack_of(config: CacheConfig, result: Result) -> Stack:
    """Return the blobs that a result of an index needs."""
    blobs: dict[Digest, None] = {}
    for layer in reversed(result.layers):
        below = layer
        while below != NO_PARENT:
            blobs[config.layers[below].blob] = None
            below = config.layers[below].parent
    return tuple(reversed(blobs))
