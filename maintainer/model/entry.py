"""Entries of a store, as listed and as remembered by the graph. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

import msgspec

from maintainer.cacheconfig import Digest, Key, Ref
from maintainer.model.reason import Reason

_T = TypeVar("_T")

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""Before anything was stored."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a store without refs may not be written, and what to do, for people."""

    why: str = "this user may not write it"
    advice: str = "run as the user who builds"


FAR_AHEAD = timedelta(days=30)
"""A time that is recorded and so far ahead was recorded by a run whose clock was wrong."""


@dataclass(frozen=True, slots=True)
class Access:
    """The permissions of the token, by its own claims.

    Sets, although services search refs in the token's order: an index key contains the hash of its
    ref, and blobs are the same wherever they are found.
    """

    readable: frozenset[Ref] = frozenset()
    writable: frozenset[Ref] = frozenset()
    refusal: Refusal = Refusal()
    is_certain: bool = True
    """Whether somebody has said so; otherwise only an attempt shows what is refused."""


class StoredEntry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One entry, or one file, as a listing shows it. A million of them are written and read."""

    id: int
    ref: Ref
    key: str
    version: str
    size: int
    """Bytes."""
    created_at: datetime
    last_accessed_at: datetime
    parsed: Key
    """Its kind, by the rules of its store."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything that a listing showed."""

    entries: Iterable[StoredEntry]
    """Can be iterated more than once."""
    complete: bool
    """Whether it contains every entry that existed when it began, except those deleted since."""
    state: bytes | None = None
    """What shows, together with the entries, whether anything has changed since another run; None
    if nothing shows that: then every run does everything."""
    empty: frozenset[Digest] = frozenset()
    """The blobs that seem to be stored without their content: they are looked up."""


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """When a store evicts entries automatically."""

    quota: int | None = None
    """Bytes, above which it evicts the least recently used entries, or that it may store by the
    settings; None if nothing limits it.
    """
    retention: timedelta | None = None
    """It evicts entries that were unused for this long; None if unknown."""
    is_assumed: bool = False
    """Whether the quota is assumed, because no service reports it."""


@dataclass(frozen=True, slots=True)
class RememberedEntry:
    """An entry of ours that existed at the last probe."""

    store_id: int
    size: int
    """Bytes."""
    last_accessed_at: datetime


class KnownEntry(msgspec.Struct, frozen=True, gc=False):
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
    unreferenced_since: datetime | None
    """Since when it is unreferenced, by the graph; None if it is not."""
    state: str
    """As marked by the last run that saw it."""
    reason: Reason
    used_at: datetime | None = None
    """When a build last used it, if known: `last_accessed_at` without our look-ups."""
    checked_at: datetime | None = None
    """When a run last found out whether its content can be downloaded."""
    content_missing_since: datetime | None = None
    """Since when it is known that its content cannot be downloaded, if so."""

    @property
    def last_use_at(self) -> datetime:
        """When it was created or last accessed, by anyone, whichever is later.

        Our look-ups count, because one may hide a look-up by a build just before it.
        """
        return max(self.created_at, self.last_accessed_at)

    @property
    def can_be_deleted(self) -> bool:
        """Whether the store has said enough about it: it lists some without number or times."""
        return self.store_id >= 0


def in_batches(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Return values in their order, at most so many at a time."""
    remaining = iter(values)
    while batch := list(islice(remaining, size)):
        yield batch
