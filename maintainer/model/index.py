"""Indexes and their generations, as they are read and remembered. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, IndexKey, Key, Ref, Sink, hash_ref
from maintainer.model.content import Content
from maintainer.model.doubt import Cause
from maintainer.model.reason import WhyUnread


@dataclass(frozen=True, slots=True)
class KnownGeneration:
    """A generation that was read, now or in an earlier run."""

    generation_id: int
    index: IndexId
    number: int
    content_digest: Digest
    config: CacheConfig | None
    """None if it is invalid, or if its content no longer matters."""
    violation: str | None
    """The importer's rule that it breaks."""
    created_at: datetime
    """When its entry was created, or first seen if the store does not report it."""
    store_id: int | None
    """Its entry, where the store lists entries."""
    exists: bool
    """Whether it is still stored, as far as known."""
    last_seen_at: datetime | None = None
    """When it was last known to be stored."""
    missing_since: datetime | None = None
    """When it was noticed to be gone, if it is."""
    sink: Sink | None = None
    """The sink record, which only indexes that we write have."""

    @property
    def key(self) -> IndexKey:
        """Its cache key."""
        return self.index.key(self.number)

    @property
    def blobs(self) -> frozenset[Digest]:
        """The blobs that it references; none if it was not decoded."""
        return self.config.blobs if self.config else frozenset()


@dataclass(frozen=True, slots=True)
class UnreadGeneration:
    """A generation that exists, or may exist, and could not be read this time."""

    index: IndexId
    number: int
    """0 if unknown."""
    why: WhyUnread
    cause: Cause = Cause.TRANSIENT

    @property
    def name(self) -> str:
        """Its name for messages: its key, or the name of its index if the number is unknown."""
        return str(self.index.key(self.number)) if self.number else str(self.index)


@dataclass(frozen=True, slots=True)
class BrokenTag:
    """A tag without a readable manifest, which no run can repair."""

    name: str
    problem: str


def read_until(
    generations: Iterable[KnownGeneration],
    now: datetime,
    marked_at: Mapping[IndexId, datetime] | None = None,
) -> dict[int, datetime]:
    """Return until when builders may have read each generation of the index, by id.

    They read the one created last, whatever its number. If GitHub evicts that, they read the one
    created before it. `marked_at` is when this was last recorded; generations that were gone by
    then are omitted.
    """
    indexes: defaultdict[IndexId, list[KnownGeneration]] = defaultdict(list)
    for one in generations:
        indexes[one.index].append(one)
    until: dict[int, datetime] = {}
    for index, known in indexes.items():
        until |= _read_until(known, now, (marked_at or {}).get(index))
    return until


def _read_until(
    generations: Iterable[KnownGeneration], now: datetime, marked_at: datetime | None
) -> dict[int, datetime]:
    until: dict[int, datetime] = {}
    later: list[KnownGeneration] = []
    hidden_from = now
    for one in sorted(generations, key=lambda one: (one.created_at, one.number), reverse=True):
        if one.exists:
            until[one.generation_id] = hidden_from
        elif one.missing_since and (marked_at is None or one.missing_since > marked_at):
            until[one.generation_id] = _hidden_from(later, one.missing_since)
        hidden_from = _hidden_from([one], hidden_from)
        later.append(one)
    return until


def _hidden_from(later: Iterable[KnownGeneration], end: datetime) -> datetime:
    """Return the last moment before `end` at which none of these was certainly stored.

    They are ordered by creation, the last first.
    """
    for one in later:
        stored_until = end if one.exists else one.last_seen_at
        if one.created_at < end and stored_until and stored_until >= end:
            end = one.created_at
    return end


def index_of(ref: Ref, key: Key) -> IndexId | None:
    """Return which index an entry is a generation of.

    None if it is not an index, or has a key that builds in its ref do not write.
    """
    if not isinstance(key, IndexKey) or key.ref_hash != hash_ref(ref):
        return None
    return IndexId(ref, key.scope, key.signed)


@dataclass(frozen=True, slots=True)
class ReadGeneration:
    """A generation that was read now."""

    index: IndexId
    number: int
    content: Content
    config: CacheConfig | None
    """None if it is invalid."""
    violation: str | None
    """The importer's rule that it breaks."""
    created_at: datetime
    """When it was created, or read if the store does not report it."""
    store_id: int | None
    location: str | None
    sink: Sink | None = None
    """The sink record, which only indexes that we write have."""
