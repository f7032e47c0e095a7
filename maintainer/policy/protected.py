"""To make room, nothing leaves that the newest export of a scope needs, for seven days after it was
written, or that a build has used within the grace period. What an index needs that the run cannot
rewrite stays as well.
"""

from collections.abc import Iterator
from datetime import timedelta

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.model.marks import Index, Marks
from maintainer.model.room import Inventory
from maintainer.model.stock import Needs, Stock

NAME = "protected"

_BUILT_WITHIN = timedelta(days=7)
"""GitHub evicts what nobody has used for as long."""


def protect(
    marks: Marks, inventory: Inventory, stock: Stock, needs: Needs, grace: timedelta
) -> frozenset[Digest]:
    """Return the blobs that must not leave. What a layer stands on is protected with it."""
    now = marks.snapshot.now
    protected = set(_referenced_anyway(marks))
    for times in (needs.needed_at, stock.used_at):
        protected |= {blob for blob, at in times.items() if now - at < grace}
    for export in needs.exports.values():
        if now - export.at < _BUILT_WITHIN:
            protected |= export.blobs
    for blob, below in reversed(inventory.layers):
        if blob in protected and below != NO_PARENT:
            protected.add(inventory.layers[below].blob)
    return frozenset(protected)


def _can_be_rewritten(index: Index, marks: Marks) -> bool:
    """Whether a run may write an index without what leaves."""
    writable = index.id.ref in marks.snapshot.access.writable
    return writable and not (index.id.signed or index.used_by_builds or index.unread)


def _referenced_anyway(marks: Marks) -> Iterator[Digest]:
    """Return the blobs that an index references which stays as it is."""
    yield from marks.snapshot.facts.pinned
    for index in marks.indexes:
        if not _can_be_rewritten(index, marks):
            yield from index.referenced
            yield from index.needs.blobs
