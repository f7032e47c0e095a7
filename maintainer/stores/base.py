"""What a run needs of a place where a cache lives."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from urllib.parse import urlsplit

from maintainer.cacheconfig import Ref
from maintainer.errors import UsedUpError
from maintainer.model.entry import Access, StoredEntry, StoreLimits
from maintainer.model.reason import RequestsExhausted

MAX_NAME_LENGTH = 4096
"""Characters of a key or a ref; git allows a quarter, GitHub an eighth of it."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything that a listing showed, by id."""

    entries: tuple[StoredEntry, ...]
    complete: bool
    """Whether every entry that existed when it began, and was not deleted meanwhile, is there."""


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that a look-up found."""

    key: str
    """As the service spells it; some turn keys to lower case."""
    url: str = field(repr=False)
    """Where its content is. A secret for some minutes: never logged or stored."""
    ref: Ref | None = None
    """Which ref it is in, if the service says so."""

    @property
    def location(self) -> str:
        """A digest of the place that gives nothing of the URL away. Another place is another
        entry; the same place says nothing, for a server that was emptied may use it again.
        """
        return hashlib.sha256(urlsplit(self.url).path.encode()).hexdigest()


REST_KINDS = frozenset({"list", "recheck", "delete", "limits"})
"""Requests to the REST API, whose rate limit a repository's workflows share."""
_ALWAYS = frozenset({"reserve", "upload", "finalize"})
"""Requests that are never refused: a write that was begun is brought to its end."""


@dataclass(slots=True)
class RequestLog:
    """What a run has asked of the store so far."""

    counts: Counter[str] = field(default_factory=Counter)
    """Requests by kind: list, recheck, look-up, download, reserve, upload, finalize, delete,
    limits.
    """
    retries: int = 0
    """How many of them were further attempts."""
    asked_to_wait: timedelta = timedelta(0)
    """How long the services asked us to wait, in all."""
    rate_limit: int | None = None
    """Requests that the REST API allows the token in its current window, as last told."""
    rate_limit_remaining: int | None = None
    rate_limit_reset_at: datetime | None = None
    limit: int | None = None
    """So many requests may be sent, but for those that bring a write to its end."""

    @property
    def total(self) -> int:
        """All requests so far."""
        return self.counts.total()

    def count(self, kind: str, *, again: bool) -> None:
        """Count a request that is about to be sent. Raises UsedUpError if it may not be."""
        if self.limit is not None and self.total >= self.limit and kind not in _ALWAYS:
            raise UsedUpError(RequestsExhausted(self.limit))
        self.counts[kind] += 1
        self.retries += again


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

    async def newest_indexes(self) -> tuple[StoredEntry, ...]:
        """List the indexes that were created last, in all refs, up to a page of them."""

    async def last_used_blobs(self, page: int = 1) -> tuple[StoredEntry, ...]:
        """List the blobs that were used last, in all refs: a page of them, the first by default."""

    async def look_up(self, key: str) -> Found | None:
        """Find the entry with exactly this key in the refs that the token reads."""

    async def look_up_newest(self, prefix: str) -> Found | None:
        """Find the entry created last among those whose keys start with `prefix`."""

    async def read(self, found: Found) -> bytes:
        """Download what a look-up found, looking it up once more if its URL has expired."""

    async def has_content(self, found: Found) -> bool:
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
