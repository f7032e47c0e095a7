"""What a run needs of a cache, wherever it lives."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from maintainer.budget import Budget
from maintainer.cacheconfig import IndexId
from maintainer.contents import ContentChecker
from maintainer.model.decision import Heal, Keep, Rewritten, WriteIndex
from maintainer.model.entry import Access, KnownEntry, RememberedEntry, StoredEntry, StoreLimits
from maintainer.model.export import Export
from maintainer.model.marks import Marks
from maintainer.model.memory import Known, Probe
from maintainer.model.snapshot import Snapshot
from maintainer.progress import Progress
from maintainer.settings import Settings
from maintainer.stores.base import RequestLog
from maintainer.sweep import Recheck


@dataclass(frozen=True, slots=True)
class Conditions:
    """What every stage of a run depends on."""

    settings: Settings
    budget: Budget
    progress: Progress
    clock: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]


class Cache(Protocol):
    """A cache that can be probed, rewritten and swept.

    Methods raise StoreError when the cache could not be asked.
    """

    @property
    def name(self) -> str:
        """What people call it; the key of its part of the graph."""

    @property
    def access(self) -> Access:
        """What may be done to it."""

    @property
    def requests(self) -> RequestLog:
        """What was asked of it so far."""

    @property
    def evicts(self) -> bool:
        """Whether a host evicts entries by its own rules, so that what was there matters."""

    @property
    def deletions_a_minute(self) -> int | None:
        """How many entries may be deleted in a minute; None if nothing sets a pace."""

    async def limits(self, probe: Probe, conditions: Conditions) -> StoreLimits:
        """Return when it evicts: as configured, as the host says, or as is assumed."""

    @property
    def deletes(self) -> bool:
        """Whether entries can be deleted."""

    @property
    def left_alone(self) -> Sequence[Keep]:
        """What was seen, and is nothing that a run could know or touch."""

    async def probe(self, known: Known, now: datetime, conditions: Conditions) -> Probe:
        """Look what there is. What cannot be read, or must not, is told in the probe."""

    def further_entries(self) -> Iterator[Sequence[StoredEntry]]:
        """Give the entries that a probe leaves out, because there may be too many to hold."""

    def find_outage(
        self,
        known: Known,
        remembered: Sequence[RememberedEntry],
        probe: Probe,
        snapshot: Snapshot,
        limits: StoreLimits,
    ) -> str | None:
        """Tell how much is gone, if it is more than evictions explain."""

    def checker(
        self, known: Known, conditions: Conditions, *, quota: int, accept_loss: bool
    ) -> ContentChecker | None:
        """Return what checks whether blobs can be downloaded; None if they just are files."""

    def rewrite(
        self, writes: Sequence[WriteIndex], marks: Marks, conditions: Conditions
    ) -> AsyncIterator[Rewritten]:
        """Write indexes; tell what came of each."""

    def recheck(
        self, marks: Marks, rewritten: Mapping[IndexId, Rewritten], conditions: Conditions
    ) -> Recheck:
        """Give what asks, before a blob goes, whether a build has begun to need it meanwhile."""

    async def wait_for_index(
        self,
        export: Export,
        snapshot: Snapshot,
        waits: Iterator[timedelta],
        conditions: Conditions,
    ) -> bool:
        """Wait until a build has written an index in the ref of an export; whether it has.

        `waits` are the pauses between two looks; it takes as many as it needs.
        """

    def heal(
        self,
        marks: Marks,
        rewritten: Mapping[IndexId, Rewritten],
        deleted: Sequence[KnownEntry],
        conditions: Conditions,
    ) -> AsyncIterator[Heal]:
        """Rewrite the indexes in which builds have referenced what the sweep has deleted."""

    async def delete(self, entry: KnownEntry) -> bool:
        """Delete an entry; False if it was gone already.

        Raises ChangedError if it is not what was seen any more.
        """
