"""What a run knows of a cache once it was probed and recorded: all that marking sees. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from maintainer.cacheconfig import Digest, IndexId, Ref, Scope
from maintainer.model.entry import Access, KnownEntry
from maintainer.model.index import BrokenTag, KnownGeneration, UnreadGeneration
from maintainer.model.reason import Reason


@dataclass(frozen=True, slots=True)
class Layout:
    """What only a directory has: an OCI image layout, whose tags may be caches or images."""

    changed_at: datetime
    """When a tag was last replaced: until then, any blob may have been in use."""
    held: Mapping[Digest, frozenset[IndexId]] = field(default_factory=dict)
    """The manifests and configs of the tags that are caches: who names them."""
    pinned: Mapping[Digest, Reason] = field(default_factory=dict)
    """The blobs that something else needs, and why."""
    others: frozenset[IndexId] = frozenset()
    """The tags that are no caches."""
    former: frozenset[Digest] = frozenset()
    """The blobs that tags may have needed since the last run, until a tag was last replaced."""
    broken: tuple[BrokenTag, ...] = ()
    """The tags that lead nowhere."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cache at one moment, from the point of view of one token."""

    now: datetime
    access: Access
    entries: tuple[KnownEntry, ...]
    """All that exist, by store id; none where the store cannot list them."""
    generations: tuple[KnownGeneration, ...]
    unread: tuple[UnreadGeneration, ...]
    live_blobs: frozenset[Digest]
    """The blobs that exist where the token can read them."""
    read_by_builders: Mapping[IndexId, str]
    """The key that a builder which does not sign gets for an index: what was created last."""
    listing_complete: bool
    layout: Layout | None = None
    merged_scope: Scope | None = None
    """The scope, or the tag of a directory, that holds the merge of all others of its ref; None if
    there is to be none.
    """
    recent_references: Mapping[tuple[Ref, Digest], datetime] = field(default_factory=dict)
    """When an index of a ref was last created that references a blob, for the last hour or more."""
    broken_blobs: frozenset[Digest] = frozenset()
    """The blobs that a look-up finds, and whose content cannot be downloaded: they are not live."""
