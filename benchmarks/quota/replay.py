"""Replay a history under a quota, and count what builds find."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from benchmarks.quota.history import Build, History
from maintainer.cacheconfig import Digest


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

    def add(self, turn: int, build: Build) -> int:
        """Let a build import and export; return how many results it found."""
        self.turn = turn
        found = sum(key in self.uses and self.has(key) for key in build.keys)
        for key in build.keys:
            uses = self.uses.setdefault(key, Uses(turn))
            uses.last, uses.count = turn, uses.count + 1
            for blob in self.history.stacks[key]:
                # An export looks for each blob, and uploads those that do not exist.
                self.blobs.pop(blob, None)
                self.blobs[blob] = None
        return found

    def keep(self, staying: Collection[Digest]) -> None:
        """Delete all other blobs."""
        self.blobs = {blob: None for blob in self.blobs if blob in staying}


Order = Callable[[Stored, int], Collection[Digest]]
"""What of all that is stored stays, so that it holds no more than so many bytes."""


def replay(history: History, quota: int, order: Order) -> int:
    """Return how many results builds find if the order is applied after each of them."""
    stored, found = Stored(history), 0
    for turn, build in enumerate(history.builds):
        found += stored.add(turn, build)
        if stored.size > quota:
            stored.keep(order(stored, quota))
    return found


def replay_hosted(history: History, quota: int, host: Order, runs: Order) -> int:
    """Return how many results builds find if a host evicts at once, and a run comes once a day."""
    stored, found, day = Stored(history), 0, history.builds[0].at
    for turn, build in enumerate(history.builds):
        if build.at - day >= timedelta(days=1):
            day = build.at
            stored.keep(runs(stored, quota))
        found += stored.add(turn, build)
        if stored.size > quota:
            stored.keep(host(stored, quota))
    return found
