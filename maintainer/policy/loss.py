"""The mass-deletion guard: if most of what was stored is gone, and the store had no reason to evict
it, the run assumes an outage and changes nothing. `--accept-loss` turns it off for one run.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from maintainer.cacheconfig import IndexId
from maintainer.model.entry import StoreLimits
from maintainer.model.memory import ExpectedEntries, Memory, Probe
from maintainer.model.reason import Counted
from maintainer.model.snapshot import Snapshot

NAME = "mass-deletion guard"

_RETENTION = timedelta(days=7)
"""GitHub's default, used if the quota is unknown."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Most of what is known is gone."""

    found: int
    expected: int
    of: Counted
    """What was counted."""


def find_loss(
    known: Memory,
    remembered: ExpectedEntries,
    probe: Probe,
    snapshot: Snapshot,
    limits: StoreLimits,
    *,
    deleted: Collection[IndexId] = (),
) -> Loss | None:
    """Return how much is gone, if a probe found less than half of the known entries.

    Entries that the store deletes by its own rules do not count, nor do indexes that runs have
    `deleted` since the last probe.
    """
    if probe.abilities.evicted_by is None:
        return _find_loss_of_indexes(known, probe, snapshot, deleted)
    if not probe.abilities.lists:
        expected = known.referenced_blobs - known.missing_blobs - probe.unasked_blobs
        found = len(expected & probe.live_blobs)
        return _measure(found, len(expected), Counted.BLOBS)
    unexplained = _count_unexplained(remembered, probe.at, limits)
    expected_entries = remembered.found + unexplained
    return _measure(remembered.found, expected_entries, Counted.ENTRIES)


def _count_unexplained(remembered: ExpectedEntries, now: datetime, limits: StoreLimits) -> int:
    """Count the missing entries that the store had no reason to evict.

    The store evicts entries that were unused for its retention. If new entries exceed its quota, it
    evicts the least recently used ones. A quota that it exceeded by far at the last look is not
    its own: somebody has misspelled it, or it was assumed.
    """
    before = remembered.size - remembered.arrived
    quota = limits.quota
    excess = remembered.size - (before if quota is None or before > 2 * quota else quota)
    retention = limits.retention or _RETENTION
    unexplained = 0
    for entry in remembered.gone:
        unexplained += now - entry.last_accessed_at < retention and excess <= 0
        excess -= entry.size
    return unexplained


def _find_loss_of_indexes(
    known: Memory, probe: Probe, snapshot: Snapshot, deleted: Collection[IndexId]
) -> Loss | None:
    """Return how much is gone, if it is more than half of the indexes, or of the blobs they need.

    A directory that was emptied, or whose disk is not mounted, looks like this. Blobs that only
    replaced exports needed do not count: builders delete them. Nor do those that the budget did not
    allow to look up.
    """
    present = {one.index for one in probe.read} | {one.index for one in probe.unread}
    present |= {one.index for one in snapshot.generations if one.exists}
    expected = {index for index, places in known.places.items() if places}
    expected -= frozenset(deleted) - present
    if loss := _measure(len(expected & present), len(expected), Counted.INDEXES):
        return loss
    needed = frozenset[object]().union(*(one.blobs for one in snapshot.generations if one.exists))
    needed -= probe.unasked_blobs
    return _measure(len(needed & snapshot.live_blobs), len(needed), Counted.NEEDED_BLOBS)


def _measure(found: int, expected: int, of: Counted) -> Loss | None:
    return None if found * 2 >= expected else Loss(found, expected, of)
