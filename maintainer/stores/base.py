"""What a run needs of a place where a cache lives."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from maintainer.cacheconfig import Ref


@dataclass(frozen=True, slots=True)
class Access:
    """What the token may do, by its own claims."""

    readable: frozenset[Ref] = frozenset()
    writable: frozenset[Ref] = frozenset()


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry, as a listing shows it."""

    id: int
    ref: Ref
    key: str
    version: str
    size: int
    """Bytes."""
    created_at: datetime
    last_accessed_at: datetime


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything that a listing showed, by id."""

    entries: tuple[StoredEntry, ...]
    complete: bool
    """False if entries went while it was read, so that others may have slipped between pages."""


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that a look-up found."""

    key: str
    """As the service spells it; some turn keys to lower case."""
    url: str = field(repr=False)
    """Where its content is. A secret for some minutes: never logged or stored."""


@dataclass(slots=True)
class RequestLog:
    """What a run has asked of the store so far."""

    counts: Counter[str] = field(default_factory=Counter)
    """Requests by kind: list, look-up, download, reserve, upload, finalize, delete."""
    retries: int = 0


class Store(Protocol):
    """A cache that can be probed, rewritten and swept.

    Every method raises StoreError when the store could not be asked.
    """

    @property
    def name(self) -> str:
        """What people call it; the key of its part of the graph."""

    @property
    def access(self) -> Access:
        """What the token may do."""

    @property
    def lists(self) -> bool:
        """Whether it can list its entries, and delete them."""

    @property
    def reads(self) -> bool:
        """Whether it can look up, read and write entries."""

    @property
    def requests(self) -> RequestLog:
        """What was asked of it so far."""

    async def list_entries(self) -> Listing:
        """List all entries, of every ref and tool."""

    async def look_up(self, key: str) -> Found | None:
        """Find the entry with exactly this key in the refs that the token reads."""

    async def look_up_newest(self, prefix: str) -> Found | None:
        """Find the entry created last among those whose keys start with `prefix`."""

    async def read(self, found: Found) -> bytes:
        """Download what a look-up found."""

    async def write(self, key: str, content: bytes) -> None:
        """Write a new entry in the ref that the token can write.

        Raises AlreadyExistsError if the key is taken, WriteRefusedError if the token may not.
        """

    async def delete(self, entry_id: int) -> bool:
        """Delete an entry; False if it was gone already."""
