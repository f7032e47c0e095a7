"""Tells an outage from an eviction: too much may be gone to be true. Pure."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from maintainer.model.entry import RememberedEntry, StoreLimits
from maintainer.model.memory import Known, Probe

_RETENTION = timedelta(days=7)
"""GitHub's default, where nobody says another one."""


def find_outage(
    known: Known, remembered: Iterable[RememberedEntry], probe: Probe, limits: StoreLimits
) -> str | None:
    """Tell how much is gone, if a probe found less than half of what is known to have existed.

    What the host deletes by its own rules does not count: entries that were idle for its retention
    and, as far as what was stored since makes it exceed its quota, those that were used least
    recently.
    """
    if not probe.lists:
        expected = known.named_blobs - known.missing_blobs - probe.unasked_blobs
        return _say(len(expected), len(expected & probe.live_blobs), "blobs")
    present = {entry.id for entry in probe.entries}
    entries = sorted(remembered, key=lambda entry: (entry.last_accessed_at, entry.store_id))
    evicted = _evicted_by_the_host(entries, present, probe, limits)
    expected_ids = {entry.store_id for entry in entries} - evicted
    return _say(len(expected_ids), len(expected_ids & present), "entries")


def _evicted_by_the_host(
    entries: Sequence[RememberedEntry], present: set[int], probe: Probe, limits: StoreLimits
) -> set[int]:
    """Give those that are gone and that the host had a reason to delete."""
    known = {entry.store_id for entry in entries}
    stored_since = sum(entry.size for entry in probe.entries if entry.id not in known)
    excess = stored_since + sum(entry.size for entry in entries) - limits.quota
    retention = limits.retention or _RETENTION
    evicted = set()
    for entry in entries:
        if entry.store_id in present:
            continue
        if probe.at - entry.last_accessed_at >= retention or excess > 0:
            evicted.add(entry.store_id)
        excess -= entry.size
    return evicted


def _say(expected: int, found: int, what: str) -> str | None:
    if found * 2 >= expected:
        return None
    return f"only {found} of {expected} {what} that existed at the last look were found"
