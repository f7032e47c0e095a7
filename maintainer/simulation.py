"""Simulate a cache of any size on the builds of the past: what would they have found? Pure.

`benchmarks.quota` compares more orders with the same replay.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from maintainer.cacheconfig import Digest
from maintainer.model.history import Build, History
from maintainer.model.limits import KeepFree
from maintainer.model.room import Branch, Inventory
from maintainer.policy.room import make_room

PolicyName = Literal["github", "room", "daily"]

_A_DAY = timedelta(days=1)
_POINTS = 60
"""The most points of a curve."""


@dataclass
class Uses:
    """When builds needed a key."""

    last: int
    """The build that needed it last."""
    count: int = 0


@dataclass
class Stored:
    """What is stored after a build, and what an order may know."""

    history: History
    turn: int = 0
    """The number of the build."""
    blobs: dict[Digest, None] = field(default_factory=dict)
    """Those that exist; what was accessed last comes last."""
    uses: dict[int, Uses] = field(default_factory=dict)
    """Of each key that a build has needed."""

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(map(self.history.sizes.__getitem__, self.blobs))

    @property
    def keys(self) -> list[int]:
        """The keys whose result can be found."""
        return [key for key in self.uses if self.has(key)]

    def has(self, key: int) -> bool:
        """Whether all blobs exist that a key leads to."""
        return all(blob in self.blobs for blob in self.history.stacks[key])

    def needed_at(self, key: int) -> datetime:
        """Return when a build last needed a key."""
        return self.history.builds[self.uses[key].last].at

    def add(self, turn: int, build: Build) -> tuple[int, int]:
        """Let a build import and export; return how many of its results a build before it had
        exported, and how many of these it found.
        """
        self.turn = turn
        known = [key for key in build.keys if key in self.uses]
        found = sum(map(self.has, known))
        for key in build.keys:
            uses = self.uses.setdefault(key, Uses(turn))
            uses.last, uses.count = turn, uses.count + 1
            for blob in self.history.stacks[key]:
                # An export looks for each blob, and uploads those that do not exist.
                self.blobs.pop(blob, None)
                self.blobs[blob] = None
        return len(known), found

    def keep(self, staying: Collection[Digest]) -> None:
        """Delete all other blobs."""
        self.blobs = {blob: None for blob in self.blobs if blob in staying}


Order = Callable[[Stored, int], Collection[Digest]]
"""What of all that is stored stays, so that it holds no more than so many bytes."""


def github(stored: Stored, quota: int) -> Collection[Digest]:
    """Keep the blobs that were accessed last, whatever needs them."""
    staying = dict(stored.blobs)
    size = stored.size
    for blob in stored.blobs:
        if size <= quota:
            break
        size -= stored.history.sizes[blob]
        del staying[blob]
    return staying


def room(limit: Callable[[int], int]) -> Order:
    """Return the order of a run that makes room; `limit` is what a quota allows."""

    def keep(stored: Stored, quota: int) -> Collection[Digest]:
        history = stored.history
        branches = (Branch((history.tops[key],), stored.needed_at(key)) for key in stored.keys)
        inventory = Inventory(history.layers, tuple(branches), history.sizes)
        return make_room(inventory, limit(quota), history.builds[stored.turn].at).staying

    return keep


@dataclass(frozen=True, slots=True)
class Step:
    """A build, and a simulated cache after it."""

    at: datetime
    needed: int
    """The results that a build before it had exported."""
    found: int
    """Those of them that it found."""
    size: int
    """Bytes stored."""


def replay(
    history: History, quota: int, after_build: Order | None, daily: Order | None = None
) -> Iterator[Step]:
    """Replay builds in a cache to which one order is applied after each build that exceeds the
    quota, and another one once a day.
    """
    stored, day = Stored(history), None
    for turn, build in enumerate(history.builds):
        day = day or build.at
        if daily and build.at - day >= _A_DAY:
            day = build.at
            stored.keep(daily(stored, quota))
        needed, found = stored.add(turn, build)
        size = stored.size
        if after_build and size > quota:
            stored.keep(after_build(stored, quota))
            size = stored.size
        yield Step(build.at, needed, found, size)


@dataclass(frozen=True, slots=True)
class Policy:
    """What keeps a cache within its quota."""

    name: PolicyName
    after_build: Order | None
    daily: Order | None = None


def policies(keep_free: KeepFree, *, evicts: bool) -> tuple[Policy, ...]:
    """Return what may keep a cache within its quota; `evicts` is whether its store does that."""
    alone = (Policy("github", github),) if evicts else ()
    return (
        *alone,
        Policy("daily", github if evicts else None, room(keep_free.limit)),
        Policy("room", room(lambda quota: quota)),
    )


class SimulatedPoint(msgspec.Struct, frozen=True):
    """Some builds in a row, and the cache after them."""

    at: datetime
    """The time of the last one."""
    needed: int
    """Results that they needed, and that builds before them had exported."""
    found: int
    """Those of them that they found."""
    size: int
    """Bytes stored after the last one."""


class SimulatedCache(msgspec.Struct, frozen=True):
    """What builds would have found under a quota."""

    policy: PolicyName
    quota: int
    """Bytes."""
    found: int
    """The results that builds found."""
    largest: int
    """The most bytes that were stored after a build."""
    size: int
    """Bytes stored in the end."""
    points: tuple[SimulatedPoint, ...]
    """Over time; of many builds, several in one."""


def simulate(
    history: History, quotas: Iterable[int], chosen: Sequence[Policy]
) -> tuple[SimulatedCache, ...]:
    """Simulate a cache for each quota and policy."""
    return tuple(
        _summarize(policy.name, quota, [*replay(history, quota, policy.after_build, policy.daily)])
        for quota in quotas
        for policy in chosen
    )


def _summarize(policy: PolicyName, quota: int, steps: Sequence[Step]) -> SimulatedCache:
    together = -(-len(steps) // _POINTS) or 1
    return SimulatedCache(
        policy,
        quota,
        found=sum(step.found for step in steps),
        largest=max((step.size for step in steps), default=0),
        size=steps[-1].size if steps else 0,
        points=tuple(
            _point(steps[first : first + together]) for first in range(0, len(steps), together)
        ),
    )


def _point(steps: Sequence[Step]) -> SimulatedPoint:
    needed, found = sum(step.needed for step in steps), sum(step.found for step in steps)
    return SimulatedPoint(steps[-1].at, needed, found, steps[-1].size)
