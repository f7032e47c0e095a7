"""Tells an accident from a clean-up: of what tags need, too much may be gone to be true. Pure."""

from maintainer.model.memory import Known, Probe
from maintainer.model.snapshot import Snapshot


def find_loss(known: Known, probe: Probe, snapshot: Snapshot) -> str | None:
    """Tell how much is gone, if it is more than half of the tags, or of the blobs that they need.

    A host evicts, a directory does not: one that was emptied, or whose disk is not mounted, looks
    like this. What only former exports needed may go (builders do that with `reset=true`).
    """
    expected = sum(1 for index, places in known.places.items() if index.is_tag and places)
    named = {one.index for one in probe.read} | {one.index for one in probe.unread}
    named |= {one.index for one in snapshot.generations if one.exists}
    still = sum(1 for index, places in known.places.items() if places and index in named)
    if still * 2 < expected:
        return _say(still, expected, "tags that existed at the last look")
    needed = frozenset().union(*(one.blobs for one in snapshot.generations if one.exists))
    found = len(needed & snapshot.live_blobs)
    if found * 2 < len(needed):
        return _say(found, len(needed), "blobs that the tags need")
    return None


def _say(found: int, expected: int, what: str) -> str:
    return f"only {found} of {expected} {what} were found"
