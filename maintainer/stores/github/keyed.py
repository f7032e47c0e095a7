"""A service that keeps entries under keys: what the Actions cache is to a run."""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import httpx2

from maintainer.cacheconfig import Ref
from maintainer.model.entry import Access, Listing, StoredEntry, StoreLimits
from maintainer.model.reason import ClosedRef, Note
from maintainer.stores.http.requests import RequestLog

MAX_NAME_LENGTH = 4096
"""Characters of a key or a ref; git allows a quarter, GitHub an eighth of it."""

PAGE = 100
"""How many items a page of a list has."""

MayAsk = Callable[[], Awaitable[bool]]
"""Whether another request may be sent."""


@dataclass(frozen=True, slots=True)
class CacheHit:
    """An entry that a look-up found."""

    key: str
    """As the service spells it; some turn keys to lower case."""
    url: httpx2.URL = field(repr=False)
    """Where its content is. A secret for some minutes: never logged or stored."""
    ref: Ref | None = None
    """Which ref it is in, if the service says so."""

    @property
    def location(self) -> str:
        """A digest of the place that gives nothing of the URL away. Another place is another
        entry; the same place says nothing, for a server that was emptied may use it again.
        """
        return hashlib.sha256(self.url.path.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ClosedRefs:
    """Which of some refs are closed."""

    closed: Mapping[Ref, ClosedRef]
    """Closed pull requests, and deleted branches and tags."""
    notes: tuple[Note, ...] = ()
    """What could not be found out, and why."""


class KeyedService(Protocol):
    """Entries under keys, written once, found by a key or the beginning of one.

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
    def deletions_a_minute(self) -> int | None:
        """How many entries it lets be deleted in a minute; None if it sets no pace."""

    @property
    def requests(self) -> RequestLog:
        """What was asked of it so far."""

    async def limits(self) -> StoreLimits:
        """Ask when it evicts; what nobody may ask is assumed. Raises no StoreError."""

    async def retention(self) -> timedelta | None:
        """Ask for the retention alone. Raises no StoreError."""

    async def list_entries(self) -> Listing:
        """List all entries, of every ref and tool."""

    async def closed_refs(self, refs: Iterable[Ref], may_ask: MayAsk) -> ClosedRefs:
        """Find out which of some refs are closed, as long as `may_ask` allows another request.

        Raises no StoreError.
        """

    async def closed_ref(self, ref: Ref) -> ClosedRef | None:
        """Ask again why a ref is closed; None if it is not."""

    async def newest_indexes(self) -> tuple[StoredEntry, ...]:
        """List the indexes that were created last, in all refs, up to a page of them."""

    async def last_used(
        self, prefix: str, page: int = 1, ref: Ref | None = None
    ) -> tuple[StoredEntry, ...]:
        """List the entries that were used last, in one ref or in all, of those whose keys start
        with `prefix`: a page of them, the first by default.
        """

    async def look_up(self, key: str) -> CacheHit | None:
        """Find the entry with exactly this key in the refs that the token reads."""

    async def look_up_newest(self, prefix: str) -> CacheHit | None:
        """Find the entry created last among those whose keys start with `prefix`."""

    async def read(self, found: CacheHit) -> bytes:
        """Download what a look-up found, looking it up once more if its URL has expired."""

    async def has_content(self, found: CacheHit) -> bool:
        """Whether what a look-up has just found can be downloaded: fetches its first byte.

        False only if the storage itself says that there is nothing. Raises StoreError if the
        answer proves neither.
        """

    async def write(self, key: str, content: bytes) -> None:
        """Write a new entry in the ref that the token can write.

        Returns only if the entry has this content. Raises AlreadyExistsError if the key is taken
        (some servers, act's for one, let it be taken again: look it up before), WriteRefusedError
        if the token may not.
        """

    async def delete(self, entry_id: int) -> bool:
        """Delete an entry; False if it was gone already."""
