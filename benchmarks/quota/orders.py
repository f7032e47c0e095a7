"""Orders: what chooses what stays in a cache that is full."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable
from datetime import timedelta

from maintainer import simulation
from maintainer.cacheconfig import Digest
from maintainer.model.history import History
from maintainer.model.limits import KeepFree
from maintainer.simulation import Order, Stored, replay

_A_DAY = timedelta(days=1)


room = simulation.room(lambda quota: quota)
"""Keep what the product's policy keeps."""
room_with_15_percent_free = simulation.room(KeepFree(share=0.15).limit)
"""Keep what the product's policy keeps if 15 % of the quota must be free."""


def count_found(history: History, quota: int, order: Order, daily: Order | None = None) -> int:
    """Return how many results builds find."""
    return sum(step.found for step in replay(history, quota, order, daily))


def latest(stored: Stored, quota: int) -> Collection[Digest]:
    """Keep whole results: those needed last, as far as they fit."""
    return _fill(stored, quota, sorted(stored.keys, key=lambda key: -stored.uses[key].last))


def uses_by_age_and_bytes(stored: Stored, quota: int) -> Collection[Digest]:
    """Keep whole results: those with the most uses for their age and bytes, as far as they fit."""

    def worth(key: int) -> float:
        uses = stored.uses[key]
        return uses.count / (stored.turn - uses.last + 1) / _size(stored, key)

    return _fill(stored, quota, sorted(stored.keys, key=worth, reverse=True))


class GreedyDualSizeFrequency:
    """Keep whole results by GreedyDual-Size-Frequency (Cherkasova 1998), as far as they fit.

    A result is worth its uses for each byte, and what the last one that had to leave was worth when
    a build last needed this one.
    """

    def __init__(self) -> None:
        self._turns: list[int] = []
        self._clocks = [0.0]

    def __call__(self, stored: Stored, quota: int) -> Collection[Digest]:
        """Return what stays."""
        worth = {key: self._worth(stored, key) for key in stored.keys}
        staying = _fill(stored, quota, sorted(worth, key=worth.__getitem__, reverse=True))
        left = [worth[key] for key in worth if not staying.issuperset(stored.history.stacks[key])]
        self._turns.append(stored.turn)
        self._clocks.append(max([self._clocks[-1], *left]))
        return staying

    def _worth(self, stored: Stored, key: int) -> float:
        uses = stored.uses[key]
        clock = self._clocks[bisect_left(self._turns, uses.last)]
        return clock + uses.count / _size(stored, key)


def day_and_exclusive_bytes(stored: Stored, quota: int) -> Collection[Digest]:
    """Let whole results leave by the day on which they were needed last, the oldest first.

    Of one day, what frees most bytes leaves first.
    """
    history, first = stored.history, stored.history.builds[0].at
    days = {key: (stored.needed_at(key) - first) // _A_DAY for key in stored.keys}
    users = Counter(blob for key in days for blob in history.stacks[key])
    size = sum(history.sizes[blob] for blob in users)
    while size > quota:
        freed = {key: _exclusive(stored, key, users) for key in days}
        key = min(days, key=lambda one: (days[one], -freed[one], -one))
        del days[key]
        users.subtract(history.stacks[key])
        size -= freed[key]
    return {blob for blob, count in users.items() if count}


def _exclusive(stored: Stored, key: int, users: Counter[Digest]) -> int:
    history = stored.history
    return sum(history.sizes[blob] for blob in history.stacks[key] if users[blob] == 1)


def _size(stored: Stored, key: int) -> int:
    return sum(stored.history.sizes[blob] for blob in stored.history.stacks[key])


def _fill(stored: Stored, quota: int, keys: Iterable[int]) -> set[Digest]:
    """Keep one after the other, if it fits."""
    kept: set[Digest] = set()
    room = quota
    for key in keys:
        missing = set(stored.history.stacks[key]) - kept
        size = sum(map(stored.history.sizes.__getitem__, missing))
        if size <= room:
            kept |= missing
            room -= size
    return kept
