"""What a run knows of a cache after the probe is recorded: all that marking sees. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from maintainer.cacheconfig import Digest, IndexId, Ref, Scope
from maintainer.model.entry import Access, KnownEntry
from maintainer.model.index import KnownGeneration, UnreadGeneration
from maintainer.model.reason import IncompleteList, UnreadIndex
from maintainer.model.remembered import Remembered
from maintainer.model.store import NO_FACTS, StoreFacts


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cache at one moment, from the point of view of one token."""

    now: datetime
    access: Access
    entries: tuple[KnownEntry, ...]
    """Those that were created lately: exports in progress and opaque indexes are among them. All
    the others are read from the graph in batches.
    """
    generations: tuple[KnownGeneration, ...]
    unread: tuple[UnreadGeneration, ...]
    live_blobs: frozenset[Digest]
    """The blobs that exist where the token can read them."""
    read_by_builders: Mapping[IndexId, str]
    """The key that a builder which does not sign gets for an index: what was created last."""
    listing_complete: bool
    facts: StoreFacts = NO_FACTS
    merged_scope: Scope | None = None
    """The scope, or the tag of a directory, that holds the merge of all others of its ref; None if
    that is turned off.
    """
    recent_references: Mapping[tuple[Ref, Digest], datetime] = field(default_factory=dict)
    """When an index of a ref was last created that references a blob, for the last hour or more."""
    memory: Mapping[IndexId, Remembered] = field(default_factory=dict)
    """What is remembered of each index: nothing of a signed one, or of a merge that we wrote."""
    broken_blobs: frozenset[Digest] = frozenset()
    """The blobs that a look-up finds, and whose content cannot be downloaded: they are not live."""

    @property
    def gap(self) -> UnreadIndex | IncompleteList | None:
        """Return why not all that is needed is known, if so."""
        if self.unread:
            return UnreadIndex(self.unread[0].name)
        return None if self.listing_complete else IncompleteList()

    @property
    def marked_at(self) -> Mapping[IndexId, datetime]:
        """When the clocks of everything that each index references were last recorded."""
        return {index: one.marked_at for index, one in self.memory.items() if one.marked_at}
