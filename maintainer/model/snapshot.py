"""The cache after the probe is recorded: the input of marking. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, Ref, Scope
from maintainer.cacheconfig.bounds import has_at_most, size_of
from maintainer.cacheconfig.oci import fits_importers, importers_size
from maintainer.model.entry import Access, KnownEntry
from maintainer.model.index import KnownGeneration, UnreadGeneration
from maintainer.model.reason import IncompleteList, LeftForRoom, UnreadIndex
from maintainer.model.remembered import Remembered
from maintainer.model.store import NO_FACTS, StoreFacts


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cache at one moment, from the point of view of one token."""

    now: datetime
    access: Access
    entries: tuple[KnownEntry, ...]
    """Recent indexes, some of which may be opaque, and the uploads that show exports in progress.
    All others are read from the graph in batches.
    """
    generations: tuple[KnownGeneration, ...]
    unread: tuple[UnreadGeneration, ...]
    live_blobs: frozenset[Digest]
    """The blobs that exist where the token can read them."""
    read_by_builders: Mapping[IndexId, str]
    """The key that an unsigned build reads for an index: the one created last."""
    listing_complete: bool
    facts: StoreFacts = NO_FACTS
    merged_scope: Scope | None = None
    """The scope, name or tag that holds the merge of all others of its ref; None if that is turned
    off.
    """
    max_merge_size: int | None = None
    """Bytes that no index exceeds by what is merged into it; None if there is no such limit."""
    recent_references: Mapping[tuple[Ref, Digest], datetime] = field(default_factory=dict)
    """When the last index of a ref that references a blob was created, for at least an hour."""
    memory: Mapping[IndexId, Remembered] = field(default_factory=dict)
    """The memory of each index, except signed ones and merges that we wrote."""
    broken_blobs: frozenset[Digest] = frozenset()
    """The blobs that a look-up finds but that cannot be downloaded: they are not live."""
    departed: Mapping[Digest, LeftForRoom] = field(default_factory=dict)
    """The blobs whose results have left to make room, and why: no index is written with them."""
    leaving: frozenset[Digest] = frozenset()
    """Those of them whose results leave in this run: they were needed until now."""
    listed_before: datetime | None = None
    """When an earlier run last listed the entries: what is new came later, whatever its times say.
    """

    @property
    def staying_blobs(self) -> frozenset[Digest]:
        """The existing blobs that results in an index may need."""
        return self.live_blobs - self.departed.keys()

    def is_read(self, config: CacheConfig) -> bool:
        """Whether importers read an index of this size."""
        return self.facts.index_limit is None or fits_importers(config)

    def has_room_for(self, config: CacheConfig) -> bool:
        """Whether importers read an index, and read it fast enough for its owner."""
        limit = self.max_merge_size
        return self.is_read(config) and (limit is None or has_at_most(config, limit))

    def room_taken(self, config: CacheConfig) -> float:
        """Return which share of that room an index takes; more than 1 if there is none for it."""
        importers = self.facts.index_limit
        read = importers_size(config) / importers if importers else 0.0
        return max(read, size_of(config) / self.max_merge_size if self.max_merge_size else 0.0)

    @property
    def gap(self) -> UnreadIndex | IncompleteList | None:
        """Return why it is not known what is needed, if so."""
        if self.unread:
            return UnreadIndex(self.unread[0].name)
        return None if self.listing_complete else IncompleteList()

    @property
    def marked_at(self) -> Mapping[IndexId, datetime]:
        """When the clocks of everything that each index references were last recorded."""
        return {index: one.marked_at for index, one in self.memory.items() if one.marked_at}
