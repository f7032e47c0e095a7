"""The memory of the graph, which saves requests, and the result of a probe. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from maintainer.cacheconfig import Digest, IndexId, Ref
from maintainer.model.doubt import Doubt
from maintainer.model.entry import Access, RememberedEntry, StoredEntry
from maintainer.model.index import ReadGeneration, UnreadGeneration
from maintainer.model.store import NO_FACTS, Abilities, StoreFacts

SKEW = timedelta(minutes=10)
"""The largest difference between our clock and the service's."""


@dataclass(frozen=True, slots=True)
class KnownPlace:
    """A generation in the graph, and the entry that contained it."""

    generation_id: int
    location: str | None
    content_digest: Digest
    valid: bool = True
    """Whether importers accept the content that was read."""
    key: str = ""
    created_at: datetime | None = None
    """When its entry was created, where the store lists entries."""
    is_export: bool = True
    """Whether a build may have written it: it has no sink record."""


@dataclass(frozen=True, slots=True)
class WrittenGeneration:
    """A generation that a run wrote, and whose entry no listing has shown yet."""

    generation_id: int
    size: int
    """Bytes."""
    written_at: datetime

    def is_in(self, entry: StoredEntry) -> bool:
        """Whether an entry with its key must be the same, so that it need not be read again."""
        return entry.size == self.size and abs(entry.created_at - self.written_at) <= SKEW


@dataclass(frozen=True, slots=True)
class Memory:
    """What the graph remembers, to save requests."""

    read_entries: Mapping[int, KnownPlace | None] = field(default_factory=dict)
    """The entries of the generations that were read, and what is known of them. If that is nothing,
    they count as read whatever they are.
    """
    written: Mapping[tuple[Ref, str], WrittenGeneration] = field(default_factory=dict)
    """By ref and key."""
    places: Mapping[IndexId, Mapping[int, KnownPlace]] = field(default_factory=dict)
    """The generations that are stored, by index and number."""
    referenced_blobs: frozenset[Digest] = frozenset()
    """The blobs that the newest generations reference and the merges need."""
    spare_blobs: frozenset[Digest] = frozenset()
    """The other remembered ones: of older results, and of gone generations."""
    missing_blobs: frozenset[Digest] = frozenset()
    """All of these that an earlier run did not find."""
    doubts: Mapping[tuple[Ref, str], Doubt] = field(default_factory=dict)
    """The answers that the last runs got instead of generations, by ref and key."""
    broken_entries: frozenset[int] = frozenset()
    """The entries whose content an earlier run could not download."""
    broken_blobs: frozenset[Digest] = frozenset()
    """The blobs whose content cannot be downloaded, in any entry that a look-up finds."""
    checked_blobs: Mapping[Digest, datetime] = field(default_factory=dict)
    """When these blobs were last checked."""
    probed_at: datetime | None = None
    """When the probe of the last complete run began."""
    ended_at: datetime | None = None
    """When that run ended."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of one probe of a cache."""

    at: datetime
    access: Access
    abilities: Abilities
    entries: Iterable[StoredEntry]
    """All listed entries; can be iterated more than once."""
    listing_complete: bool
    read: tuple[ReadGeneration, ...]
    unread: tuple[UnreadGeneration, ...]
    adopted: Mapping[int, int]
    """The entries of generations that an earlier run wrote: store ids by generation."""
    found: frozenset[int]
    """Generations that were looked up and are unchanged."""
    gone: frozenset[int]
    """Generations that were looked up and are gone."""
    live_blobs: frozenset[Digest]
    """The blobs that exist where the token can read them."""
    missing_blobs: frozenset[Digest]
    """The blobs that an index references and that were not found, now or earlier."""
    read_by_builders: Mapping[IndexId, str]
    unasked_blobs: frozenset[Digest] = frozenset()
    """The blobs that an index references and that the budget did not allow to look up. If there are
    any, nothing can be planned."""
    broken_blobs: frozenset[Digest] = frozenset()
    """The blobs that are listed or found, but whose content cannot be downloaded: not live."""
    damaged_blobs: frozenset[Digest] = frozenset()
    """The blobs that this probe found with another content than they should have: not live."""
    facts: StoreFacts = NO_FACTS


@dataclass(frozen=True, slots=True)
class ExpectedEntries:
    """The entries that existed at the last probe and should still exist."""

    found: int
    """How many of them exist."""
    gone: Iterable[RememberedEntry]
    """The others, least recently used first."""
    size: int
    """Bytes of all stored entries, and of the missing ones."""
    arrived: int = 0
    """Bytes of the entries that are new."""
