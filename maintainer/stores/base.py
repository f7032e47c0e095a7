"""The store protocol: everything that a run needs from a store."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from maintainer.budget import Budget
from maintainer.cacheconfig import CacheConfig, Digest, IndexId, Ref, Sink, with_sink
from maintainer.model.decision import Keep, RewriteResult
from maintainer.model.entry import Access, KnownEntry, Listing, StoredEntry, StoreLimits
from maintainer.model.index import ReadGeneration, UnreadGeneration
from maintainer.model.marks import Marks
from maintainer.model.memory import Memory
from maintainer.model.reason import Reason
from maintainer.model.store import NO_FACTS, Abilities, StoreFacts
from maintainer.progress import Progress
from maintainer.settings import Settings
from maintainer.stores.http.requests import RequestLog


@dataclass(frozen=True, slots=True)
class RunContext:
    """The shared state of all stages of a run."""

    settings: Settings
    budget: Budget
    progress: Progress
    clock: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]
    tried: dict[str, datetime] = field(default_factory=dict)
    """What the store has found out by trying that it can do, and when. Later runs know it, too."""
    remembered: Callable[[], Mapping[str, datetime]] = dict
    """Returns when the entries that were stored at the last probe were created, by key, and the
    indexes that were read or written since, by their locations: for a store that cannot list what
    nothing references.
    """
    swept: Callable[[str], Mapping[str, datetime]] = lambda _prefix: {}
    """Returns which entries whose keys begin like this runs have deleted, and when, if nobody has
    stored them again; also those that a run may have deleted that was cut off.
    """
    confirm: Callable[[], None] = lambda: None
    """Called before each change of the cache: raises LeaseLostError if this run may make none."""


@dataclass(frozen=True, slots=True)
class Versions:
    """The known indexes of a store, and the content of the new ones."""

    read: tuple[ReadGeneration, ...] = ()
    unread: tuple[UnreadGeneration, ...] = ()
    adopted: Mapping[int, int] = field(default_factory=dict)
    """The entries of generations that an earlier run wrote: store ids by generation."""
    found: frozenset[int] = frozenset()
    """Known generations that are unchanged, if entries do not show it."""
    gone: frozenset[int] = frozenset()
    """Known generations that are gone, if entries do not show it."""
    read_by_builders: Mapping[IndexId, str] = field(default_factory=dict)
    """The key that an unsigned build reads for an index: the one created last."""
    facts: StoreFacts = NO_FACTS


@dataclass(frozen=True, slots=True)
class Existing:
    """Which of some blobs exist."""

    found: frozenset[Digest]
    unasked: frozenset[Digest] = frozenset()
    """Those that the budget did not allow to look up."""
    damaged: frozenset[Digest] = frozenset()
    """Those that this look found with another content than they should have: not among `found`."""
    unstored: frozenset[int] = frozenset()
    """The entries, by their numbers, that were listed, and turn out not to be stored."""


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
    """The number of the new generation, if the store numbers them."""
    content: CacheConfig
    sink: Sink
    stamp: str
    """What sets it apart from other indexes."""
    known: frozenset[int]
    """The numbers of the generations that are merged into it."""

    @property
    def stored(self) -> CacheConfig:
        """The content as it is stored: with its stamp and its sink."""
        return with_sink(self.content, self.sink, self.stamp)


@dataclass(frozen=True, slots=True)
class Swapped:
    """An index that was written, and read back."""

    written: ReadGeneration
    entries: Mapping[str, int]
    """Bytes of each of its entries, by key."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A build has written the index concurrently, so nothing was written."""

    found: ReadGeneration
    is_newest: bool = True
    """Whether builders would read it instead of lower numbers."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An index that was not written, or may not have been written."""

    problem: str = ""
    """The error, if there was one."""
    reason: Reason | None = None
    """Why it is deferred to the next run, if there was no error."""
    unverified: str | None = None
    """The key of what was written, but could not be read back."""


SwapResult = Swapped | Conflict | Refused


REQUESTS_TO_CHECK = 2
"""What the check of a content takes."""


@dataclass(frozen=True, slots=True)
class ContentCheck:
    """The result of a look-up of a blob and of its first byte."""

    is_found: bool
    is_readable: bool = False
    ref: Ref | None = None
    """The ref of the entry, if the store reports it."""


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
    """Checks before a deletion what builds and the store have done since the run began."""

    def requests(self, entry: KnownEntry) -> int:
        """Return how many requests the check of an entry takes."""

    async def veto(self, entry: KnownEntry) -> Reason | None:
        """Return why an entry must not be deleted, if so. Raises BudgetExhaustedError."""


class Store(Protocol):
    """A cache that can be probed, rewritten and swept.

    A run calls `limits` and `entries`, then `versions`, and only then all that comes below. It may
    list and probe again. `abilities` and `ignored` may change with each of these calls.
    Every method may raise StoreError: the store could not be reached.
    """

    @property
    def name(self) -> str:
        """Its name for people, and the key of its part of the graph."""

    @property
    def access(self) -> Access:
        """The refs that may be read and written."""

    @property
    def abilities(self) -> Abilities:
        """Its abilities."""

    @property
    def requests(self) -> RequestLog:
        """The requests so far."""

    @property
    def ignored(self) -> Sequence[Keep]:
        """What the last probe ignored: entries that runs do not recognize and never touch."""

    async def limits(self, now: datetime, context: RunContext) -> StoreLimits:
        """Return when it evicts: as configured, reported or assumed."""

    async def entries(self, now: datetime, context: RunContext) -> Listing:
        """List all entries, which may be too many for memory."""

    async def versions(self, known: Memory, now: datetime, context: RunContext) -> Versions:
        """Return the existing indexes, and read the new ones."""

    async def existing(self, blobs: frozenset[Digest], context: RunContext) -> Existing:
        """Look up which of some blobs exist."""

    async def check(self, blob: Digest) -> ContentCheck:
        """Look a blob up and read its first byte."""

    async def touch(self, key: str) -> bool:
        """Look an entry up, which counts as a use; return whether it exists."""

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

    async def delete(self, entry: KnownEntry, context: RunContext) -> bool:
        """Delete an entry, if the run may do so (`context.confirm`) by the time it is sent; return
        False if it was gone already.

        Raises ChangedError if it has changed since the run saw it, RefusedError if the store
        refuses to delete it, and EntryError if it alone is refused, so that the sweep goes on.
        """
