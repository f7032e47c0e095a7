"""What the graph remembers to save requests, and what a probe has shown. Pure."""

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
    """A generation that the graph knows, and where its content was."""

    generation_id: int
    location: str | None
    content_digest: Digest
    valid: bool = True
    """Whether importers accept it, as it was read."""


@dataclass(frozen=True, slots=True)
class WrittenGeneration:
    """A generation that a run wrote, and whose entry no listing has shown yet."""

    generation_id: int
    size: int
    """Bytes."""
    written_at: datetime

    def is_in(self, entry: StoredEntry) -> bool:
        """Return whether an entry with its key must be the same, so need not be read again."""
        return entry.size == self.size and abs(entry.created_at - self.written_at) <= SKEW


@dataclass(frozen=True, slots=True)
class Memory:
    """What the graph remembers that saves requests."""

    store_ids: frozenset[int] = frozenset()
    """The entries of the generations that were read."""
    written: Mapping[tuple[Ref, str], WrittenGeneration] = field(default_factory=dict)
    """By ref and key."""
    places: Mapping[IndexId, Mapping[int, KnownPlace]] = field(default_factory=dict)
    """The generations that are stored, by index and number."""
    named_blobs: frozenset[Digest] = frozenset()
    """The blobs that the newest generations name, and that the merges need."""
    spare_blobs: frozenset[Digest] = frozenset()
    """The other remembered ones: of older results, and of gone generations."""
    missing_blobs: frozenset[Digest] = frozenset()
    """Those of all these that an earlier run did not find."""
    doubts: Mapping[tuple[Ref, str], Doubt] = field(default_factory=dict)
    """What the last runs got in place of generations, by ref and key."""
    broken_entries: frozenset[int] = frozenset()
    """The entries whose content cannot be downloaded, as an earlier run has found."""
    broken_blobs: frozenset[Digest] = frozenset()
    """The blobs whose content cannot be downloaded, in any entry that a look-up finds."""
    checked_blobs: Mapping[Digest, datetime] = field(default_factory=dict)
    """When it was last found out whether their content can be downloaded."""
    probed_at: datetime | None = None
    """When the probe of the last complete run began."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What one probe of a cache has shown."""

    at: datetime
    access: Access
    abilities: Abilities
    entries: Iterable[StoredEntry]
    """All that were listed; may be read more than once."""
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
    """The blobs that an index references and that the budget did not allow to look up: without them
    nothing can be planned."""
    broken_blobs: frozenset[Digest] = frozenset()
    """The blobs that are listed or found, but whose content cannot be downloaded: not live."""
    facts: StoreFacts = NO_FACTS


@dataclass(frozen=True, slots=True)
class ExpectedEntries:
    """The entries that existed at the last look, and ought to exist still."""

    found: int
    """How many of them do."""
    gone: Iterable[RememberedEntry]
    """The others, least recently used first."""
    size: int
    """Bytes of all that is stored, and of what is gone."""
