"""What a run knows of a cache once it was probed and recorded: all that marking sees."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from maintainer.cacheconfig import (
    CacheConfig,
    Digest,
    IndexId,
    IndexKey,
    Key,
    Ref,
    Scope,
    Sink,
    hash_ref,
)
from maintainer.doubt import Cause
from maintainer.stores import Access


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
    state: str
    """As the last run that saw it marked it."""
    reason: str
    used_at: datetime | None = None
    """When a build last used it, as far as known; like `last_accessed_at`, without our look-ups."""
    checked_at: datetime | None = None
    """When a run last found out whether its content can be downloaded."""
    content_missing_since: datetime | None = None
    """Since when it is known that its content cannot be downloaded, if so."""

    @property
    def last_use_at(self) -> datetime:
        """The later of created and last accessed, whoever did it.

        Our look-ups count, because one may hide that of a build which came just before it.
        """
        return max(self.created_at, self.last_accessed_at)


@dataclass(frozen=True, slots=True)
class KnownGeneration:
    """A generation that was read, now or in an earlier run."""

    manifest_id: int
    index: IndexId
    number: int
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
    last_seen_at: datetime | None = None
    """When it was last known to be stored."""
    missing_since: datetime | None = None
    """When it was noticed to be gone, if it is."""
    sink: Sink | None = None
    """The record that only what we write has, as far as it was decoded."""

    @property
    def key(self) -> IndexKey:
        """Its cache key."""
        return self.index.key(self.number)

    @property
    def blobs(self) -> frozenset[Digest]:
        """The blobs that it names, as far as it was decoded."""
        return self.config.blobs if self.config else frozenset()


@dataclass(frozen=True, slots=True)
class UnreadGeneration:
    """A generation that exists, or may exist, and could not be read this time."""

    index: IndexId
    number: int
    """0 if even that is not known."""
    problem: str
    cause: Cause = Cause.TRANSIENT

    @property
    def name(self) -> str:
        """What to call it: its key, or that of its index if the number is not known."""
        return str(self.index.key(self.number)) if self.number else str(self.index)


@dataclass(frozen=True, slots=True)
class BrokenTag:
    """A tag of a directory that leads nowhere, and that no run can repair."""

    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class Layout:
    """What only a directory has: an OCI image layout, whose tags may be caches or images."""

    changed_at: datetime
    """When a tag was last replaced: until then, any blob may have been in use."""
    held: Mapping[Digest, frozenset[IndexId]] = field(default_factory=dict)
    """The manifests and configs of the tags that are caches: who names them."""
    pinned: Mapping[Digest, str] = field(default_factory=dict)
    """The blobs that something else needs, with the reason in words."""
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


def read_until(generations: Iterable[KnownGeneration], now: datetime) -> dict[int, datetime]:
    """Tell until when builders may have read each generation of its index, by manifest id.

    They read what was created last, whatever its number; and if the host evicts that, what was
    created before it. Generations that are gone and superseded are left out.
    """
    indexes: defaultdict[IndexId, list[KnownGeneration]] = defaultdict(list)
    for one in generations:
        indexes[one.index].append(one)
    until: dict[int, datetime] = {}
    for index in indexes.values():
        until |= _read_until(index, now)
    return until


def _read_until(generations: Iterable[KnownGeneration], now: datetime) -> dict[int, datetime]:
    until: dict[int, datetime] = {}
    later: list[KnownGeneration] = []
    hidden_from = now
    for one in sorted(generations, key=lambda one: (one.created_at, one.number), reverse=True):
        if one.exists:
            until[one.manifest_id] = hidden_from
        elif one.missing_since and not one.superseded:
            until[one.manifest_id] = _hidden_from(later, one.missing_since)
        hidden_from = _hidden_from([one], hidden_from)
        later.append(one)
    return until


def _hidden_from(later: Iterable[KnownGeneration], end: datetime) -> datetime:
    """Give the last moment before `end` at which none of these was sure to be stored.

    They come in the order of their creation, the last first.
    """
    for one in later:
        stored_until = end if one.exists else one.last_seen_at
        if one.created_at < end and stored_until and stored_until >= end:
            end = one.created_at
    return end


def index_of(ref: Ref, key: Key) -> IndexId | None:
    """Tell which index an entry is a generation of.

    None if it is no index, or a key that no build in its ref writes.
    """
    if not isinstance(key, IndexKey) or key.ref_hash != hash_ref(ref):
        return None
    return IndexId(ref, key.scope, key.signed)
