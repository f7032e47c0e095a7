"""What a run knows of a cache once it was probed and recorded: all that marking sees."""

from dataclasses import dataclass
from datetime import datetime

from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    Digest,
    IndexKey,
    Ref,
    SignatureKey,
)
from maintainer.stores import Access

Key = BlobKey | SignatureKey | IndexKey | None
"""A key of our own kinds; None for what belongs to other tools."""


@dataclass(frozen=True, slots=True)
class KnownEntry:
    """An entry that exists, and what the graph remembers of it."""

    store_id: int
    ref: Ref
    key: str
    parsed: Key
    size: int
    """Bytes."""
    created_at: datetime
    last_accessed_at: datetime
    known_before: bool
    """Whether an earlier run has seen it."""
    unneeded_since: datetime | None
    """Since when the graph knows that nothing needs it, if it does."""

    @property
    def last_use_at(self) -> datetime:
        """The later of created and last accessed."""
        return max(self.created_at, self.last_accessed_at)


@dataclass(frozen=True, slots=True)
class KnownIndex:
    """A generation that was read, now or in an earlier run."""

    manifest_id: int
    key: IndexKey
    ref: Ref
    content_digest: Digest
    config: CacheConfig | None
    """None if it is not valid, or superseded and so not needed again."""
    violation: str | None
    """The rule of the importer's that it breaks."""
    created_at: datetime
    """When its entry was created, or first seen where the store does not tell."""
    store_id: int | None
    """Its entry, where the store lists entries."""
    exists: bool
    """Whether it is still stored, as far as known."""
    superseded: bool
    """Whether a newer generation was seen to hold all that was live in it."""


@dataclass(frozen=True, slots=True)
class UnreadIndex:
    """A generation that exists and could not be read this time."""

    key: IndexKey
    ref: Ref
    problem: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cache at one moment, from the point of view of one token."""

    now: datetime
    access: Access
    entries: tuple[KnownEntry, ...]
    """All that exist, by store id; none where the store cannot list them."""
    indexes: tuple[KnownIndex, ...]
    unread: tuple[UnreadIndex, ...]
    live_blobs: frozenset[Digest]
    """The blobs that exist where the token can read them."""
    listing_complete: bool
