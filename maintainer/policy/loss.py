"""The mass-deletion guard: if most of what was stored is gone, and the store had no reason to evict
it, the run assumes an outage and changes nothing. `--accept-loss` turns it off for one run.
"""

from datetime import datetime, timedelta

from maintainer.model.entry import StoreLimits
from maintainer.model.memory import ExpectedEntries, Memory, Probe
from maintainer.model.snapshot import Snapshot

NAME = "mass-deletion guard"

_RETENTION = timedelta(days=7)
"""GitHub's default, where nobody says another one."""


def find_loss(
    known: Memory,
    remembered: ExpectedEntries,
    probe: Probe,
    snapshot: Snapshot,
    limits: StoreLimits,
) -> str | None:
    """Return how much is gone, if a probe found less than half of what is known to have existed.

    What a store deletes by its own rules does not count.
    """
    if probe.abilities.evicted_by is None:
        return _find_loss_of_indexes(known, probe, snapshot)
    if not probe.abilities.lists:
        expected = known.named_blobs - known.missing_blobs - probe.unasked_blobs
        found = len(expected & probe.live_blobs)
        return _format(found, len(expected), "blobs that existed at the last look")
    unexplained = _count_unexplained(remembered, probe.at, limits)
    expected_entries = remembered.found + unexplained
    return _format(remembered.found, expected_entries, "entries that existed at the last look")


def _count_unexplained(remembered: ExpectedEntries, now: datetime, limits: StoreLimits) -> int:
    """Count what is gone and the store had no reason to delete.

    It deletes what was idle for its retention and, as far as what was stored since makes it exceed
    its quota, what was used least recently.
    """
    excess = remembered.size - limits.quota
    retention = limits.retention or _RETENTION
    unexplained = 0
    for entry in remembered.gone:
        unexplained += now - entry.last_accessed_at < retention and excess <= 0
        excess -= entry.size
    return unexplained


def _find_loss_of_indexes(known: Memory, probe: Probe, snapshot: Snapshot) -> str | None:
    """Return how much is gone, if it is more than half of the indexes, or of the blobs they need.

    One that was emptied, or whose disk is not mounted, looks like this. What only former exports
    needed may go: builders delete it.
    """
    expected = sum(1 for places in known.places.values() if places)
    named = {one.index for one in probe.read} | {one.index for one in probe.unread}
    named |= {one.index for one in snapshot.generations if one.exists}
    still = sum(1 for index, places in known.places.items() if places and index in named)
    if problem := _format(still, expected, "tags that existed at the last look"):
        return problem
    needed = frozenset[object]().union(*(one.blobs for one in snapshot.generations if one.exists))
    return _format(len(needed & snapshot.live_blobs), len(needed), "blobs that the tags need")


def _format(found: int, expected: int, what: str) -> str | None:
    if found * 2 >= expected:
        return None
    return f"only {found} of {expected} {what} were found"
