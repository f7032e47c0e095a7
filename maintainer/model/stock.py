"""What is stored, as far as it stays: what room is made of. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from maintainer.cacheconfig import BlobKey, Digest, IndexId, Sink
from maintainer.model.decision import Plan
from maintainer.model.index import KnownGeneration
from maintainer.model.marks import Mark, State
from maintainer.model.reason import Grace

_LEAVING = (State.DANGLING, State.SUPERSEDED, State.WITHOUT_CONTENT)
"""What is unreferenced leaves, now or after its grace period."""


class Stock:
    """Adds up what is stored, and what of it leaves anyway."""

    def __init__(self) -> None:
        self.stored = 0
        """Bytes of all entries."""
        self.leaving = 0
        """Bytes of the entries that are deleted without making room: by this plan, or once their
        grace period is over."""
        self.sizes: dict[Digest, int] = {}
        """Bytes of each blob that live results need, in all refs together."""
        self.used_at: dict[Digest, datetime] = {}
        """When a build last looked each of them up, as far as the store reports it."""

    def add(self, marks: Iterable[Mark], plan: Plan) -> None:
        """Add some entries, and what a plan does with them."""
        due = {delete.entry.store_id for delete in plan.deletes}
        due |= {
            keep.store_id
            for keep in plan.keeps
            if keep.store_id is not None and isinstance(keep.reason, Grace)
        }
        for marked in marks:
            entry = marked.entry
            self.stored += entry.size
            if entry.store_id in due or marked.state in _LEAVING:
                self.leaving += entry.size
            elif marked.state is State.REACHABLE and isinstance(entry.parsed, BlobKey):
                blob = entry.parsed.digest
                used_at = entry.used_at or entry.last_use_at
                self.sizes[blob] = self.sizes.get(blob, 0) + entry.size
                self.used_at[blob] = max(used_at, self.used_at.get(blob, used_at))


@dataclass(frozen=True, slots=True)
class LastExport:
    """The newest export of an index."""

    blobs: frozenset[Digest]
    """Those that it references."""
    at: datetime
    """When it was written."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What builds have needed, and when."""

    needed_at: Mapping[Digest, datetime]
    """When a build last exported each blob, as far as known."""
    exports: Mapping[IndexId, LastExport]


def newest_exports(generations: Iterable[KnownGeneration]) -> dict[IndexId, KnownGeneration]:
    """Return the newest generation of each index that a build has exported.

    An index that we have written contains a sink record. It counts if no export is known, as after
    the loss of the database: it contains what the newest export needed.
    """
    return _newest(one for one in generations if one.sink is not Sink.MERGE)


def newest_rewrites(generations: Iterable[KnownGeneration]) -> dict[IndexId, KnownGeneration]:
    """Return the newest generation of each index that a run has rewritten in place."""
    return _newest(one for one in generations if one.sink is Sink.REWRITE)


def _newest(generations: Iterable[KnownGeneration]) -> dict[IndexId, KnownGeneration]:
    newest: dict[IndexId, KnownGeneration] = {}
    for one in generations:
        if one.violation is None:
            known = newest.get(one.index, one)
            newest[one.index] = max(known, one, key=_by_export)
    return newest


def _by_export(one: KnownGeneration) -> tuple[bool, datetime, int]:
    return one.sink is None, one.created_at, one.number
