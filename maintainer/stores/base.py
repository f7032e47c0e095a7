"""The seam: what a run needs from a store, and nothing more."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from maintainer.budget import Budget
from maintainer.cacheconfig import CacheConfig, Digest, IndexId, Ref, Sink
from maintainer.model.decision import Keep, RewriteResult
from maintainer.model.entry import Access, KnownEntry, Listing, StoredEntry, StoreLimits
from maintainer.model.index import ReadGeneration, UnreadGeneration
from maintainer.model.marks import Marks
from maintainer.model.memory import Memory
from maintainer.model.reason import Reason
from maintainer.model.store import NO_FACTS, Abilities, StoreFacts
from maintainer.progress import Progress
from maintainer.settings import Settings
from maintainer.stores.requests import RequestLog


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every stage of a run depends on."""

    settings: Settings
    budget: Budget
    progress: Progress
    clock: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Versions:
    """Which indexes a store has, as far as it knows, and the content of the new ones."""

    read: tuple[ReadGeneration, ...] = ()
    unread: tuple[UnreadGeneration, ...] = ()
    adopted: Mapping[int, int] = field(default_factory=dict)
    """The entries of generations that an earlier run wrote: store ids by generation."""
    found: frozenset[int] = frozenset()
    """Known generations that are unchanged, if entries do not show it."""
    gone: frozenset[int] = frozenset()
    """Known generations that are gone, if entries do not show it."""
    read_by_builders: Mapping[IndexId, str] = field(default_factory=dict)
    """The key that a builder which does not sign gets for an index: what was created last."""
    facts: StoreFacts = NO_FACTS


@dataclass(frozen=True, slots=True)
class Existing:
    """Which of some blobs exist."""

    found: frozenset[Digest]
    unasked: frozenset[Digest] = frozenset()
    """Those that the budget did not allow to look up."""


@dataclass(frozen=True, slots=True)
class NewVersion:
    """An index that a build has written since the entries were listed."""

    index: IndexId
    number: int
    entry: StoredEntry


@dataclass(frozen=True, slots=True)
class Change:
    """An index to write in place of its known generations."""

    index: IndexId
    number: int
    """Its own, where indexes are numbered."""
    content: CacheConfig
    sink: Sink
    known: frozenset[int]
    """The numbers of the generations that are merged into it."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """An index that was written, and read back."""

    written: ReadGeneration
    sizes: tuple[int, ...]
    """Bytes of each of the entries that hold it."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A build has written the index concurrently, so nothing was written."""

    found: ReadGeneration
    is_newest: bool = True
    """Whether builders would read it rather than anything under a lower number."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An index that was not written, or is not known to have been."""

    problem: str = ""
    """What went wrong, if anything did."""
    reason: Reason | None = None
    """Why it is deferred to the next run, if nothing went wrong."""
    unverified: str | None = None
    """The key of what was written, but could not be read back."""


SwapResult = Swapped | Conflict | Refused


@dataclass(frozen=True, slots=True)
class ContentCheck:
    """What a look-up of a blob, and of its first byte, has shown."""

    is_found: bool
    is_readable: bool = False
    ref: Ref | None = None
    """Which ref the entry is in, if the store says so."""


@dataclass(frozen=True, slots=True)
class Since:
    """What a run knows, for a store that reports what builds have done since."""

    marks: Marks
    rewritten: Mapping[IndexId, RewriteResult]
    looked_up: Collection[int]
    """The entries that the run itself has looked up."""
    accessed: Callable[[Collection[int]], Mapping[int, datetime]]
    """Returns when entries were last accessed, according to the list."""


class Recheck(Protocol):
    """Checks, before a deletion, what builds and the store have done since the run began."""

    def requests(self, entry: KnownEntry) -> int:
        """Return how many requests it takes to check this one."""

    async def veto(self, entry: KnownEntry) -> Reason | None:
        """Return why an entry must not be deleted, if so. Raises BudgetExhaustedError."""


class Store(Protocol):
    """A cache that can be probed, rewritten and swept.

    Every method may raise StoreError: the store could not be reached.
    """

    @property
    def name(self) -> str:
        """Its name for people; the key of its part of the graph."""

    @property
    def access(self) -> Access:
        """What may be read and written."""

    @property
    def abilities(self) -> Abilities:
        """What it can do."""

    @property
    def requests(self) -> RequestLog:
        """The requests so far."""

    @property
    def ignored(self) -> Sequence[Keep]:
        """What the last probe saw and ignored: runs do not recognize or touch it."""

    async def limits(self, now: datetime, context: RunContext) -> StoreLimits:
        """Return when it evicts: as configured, as it reports, or as assumed."""

    async def entries(self, now: datetime, context: RunContext) -> Listing:
        """List all entries. They may be too many for memory."""

    async def versions(self, known: Memory, now: datetime, context: RunContext) -> Versions:
        """Return which indexes exist, and read those that are new. Comes after `entries`."""

    async def existing(self, blobs: frozenset[Digest], context: RunContext) -> Existing:
        """Look up which of some blobs exist."""

    async def check(self, blob: Digest) -> ContentCheck:
        """Look a blob up and read its first byte."""

    async def touch(self, key: str) -> bool:
        """Look an entry up, which makes it look used; return whether it exists."""

    async def new_versions(self) -> Sequence[NewVersion]:
        """Return the indexes that builds wrote since `entries`; the newest of each is last."""

    async def read(self, version: NewVersion) -> ReadGeneration:
        """Read such an index."""

    async def swap(self, changes: Sequence[Change], context: RunContext) -> Sequence[SwapResult]:
        """Write indexes in place of their known generations, each only if nobody has written it
        since the run began, and read them back. One result for each.
        """

    def activity(self, since: Since, context: RunContext) -> Recheck | None:
        """Return a check of whether a build has begun to need an entry since the run began.

        None if `delete` checks that itself.
        """

    async def delete(self, entry: KnownEntry) -> bool:
        """Delete an entry; return False if it was gone already.

        Raises ChangedError if it has changed since the run saw it.
        """
