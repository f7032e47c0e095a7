"""Mark: what is reachable, what is not, and since when. Pure."""

from maintainer.mark.entries import Marker
from maintainer.mark.indexes import find_indexes, find_opaque_indexes
from maintainer.model.marks import Marks
from maintainer.model.snapshot import Snapshot

__all__ = ["Marker", "mark"]


def mark(snapshot: Snapshot) -> Marks:
    """Return the merge of each index, and the state of each entry.

    A blob is reachable when a live result of some index needs it, from the point of view of the
    token that reads it.
    """
    indexes = find_indexes(snapshot)
    marker = Marker(snapshot, indexes)
    return Marks(
        snapshot=snapshot,
        indexes=indexes,
        marks=tuple(map(marker.mark, snapshot.entries)),
        opaque_indexes=find_opaque_indexes(snapshot),
    )
