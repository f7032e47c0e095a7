"""The result of marking: indexes with their merges, entries with their states. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, Ref, Sink
from maintainer.model.doubt import Cause
from maintainer.model.entry import KnownEntry
from maintainer.model.index import KnownGeneration, UnreadGeneration
from maintainer.model.reason import Overdue, Reason
from maintainer.model.snapshot import Snapshot

_NOTHING = CacheConfig()


class State(StrEnum):
    """The state of an entry."""

    REACHABLE = "reachable"
    """A blob that a live result needs, or the signature of an index that exists."""
    DANGLING = "dangling"
    """An unreferenced blob or signature."""
    WITHOUT_CONTENT = "without content"
    """A blob that is listed and found, but whose content cannot be downloaded."""
    NEWEST = "newest"
    """The newest generation of an index."""
    SUPERSEDED = "superseded"
    """A generation whose live results the newest one contains, or will contain."""
    SIGNED = "signed"
    """A signed generation: read, never rewritten."""
    UNREAD = "unread"
    """A generation that could not be read this time."""
    UNREADABLE = "unreadable ref"
    """In a ref that the token cannot read."""
    CLOSED = "closed ref"
    """In a closed pull request, or in a deleted branch or tag: no build reads it any more."""
    FOREIGN = "foreign"
    """Not an index or a blob, or with a key that builds in its ref do not write."""


@dataclass(frozen=True, slots=True)
class Index:
    """One index, and the merge of its generations."""

    id: IndexId
    generations: tuple[KnownGeneration, ...]
    """Those that exist and were read, oldest first."""
    inputs: tuple[KnownGeneration, ...]
    """The last one that contained all live results, and those after it, including remembered
    ones; oldest first."""
    unread: tuple[UnreadGeneration, ...]
    merged: CacheConfig
    """The merge of all that is remembered of it, pruned to what exists, in normal form."""
    remembered: CacheConfig
    """The merge before pruning, without results that were lost before it was last up to date."""
    usable: CacheConfig
    """The part that builders can use now: the generation that they read, pruned."""
    highest: int
    """The highest generation that is known to have existed; 0 if none."""
    shadowed_by: str | None
    """The key that builders who do not sign read in place of the newest generation."""
    merged_with: int = 0
    """Of a merge: how many other indexes it contains."""
    is_merge: bool = False
    """Whether it is reserved for the merge of all other indexes of its ref."""
    taken_over: CacheConfig = _NOTHING
    """Of a merge: what only it contains, as others have written it."""
    sink: Sink = Sink.REWRITE
    """Its sink when it is written."""
    omitted: int = 0
    """The results used longest ago, which there is no room for."""
    is_forgotten: bool = False
    """Whether its owner had it forgotten: then it is written without any result."""
    used_by_builds: str | None = None
    """Of the index reserved for the merge: the key that a build has exported to it, if so."""

    @property
    def needs(self) -> CacheConfig:
        """What keeps blobs alive: the indexes of which a merge is made need the rest of it."""
        return self.taken_over if self.is_merge else self.merged

    @property
    def newest(self) -> KnownGeneration | None:
        """The generation with the highest number, if it could be read."""
        newest = self.generations[-1] if self.generations else None
        if newest and any(one.number == 0 or one.number > newest.number for one in self.unread):
            return None
        return newest

    @property
    def current(self) -> tuple[KnownGeneration, ...]:
        """What builders may read now: the newest generation, and any that shadows it."""
        return tuple(
            generation
            for generation in self.generations
            if generation is self.generations[-1] or str(generation.key) == self.shadowed_by
        )

    @property
    def generation_ids(self) -> frozenset[int]:
        """All of its generations that exist, or are newer than the last one that was up to date."""
        return frozenset(one.generation_id for one in (*self.generations, *self.inputs))

    @property
    def referenced(self) -> frozenset[Digest]:
        """The blobs that its current generations reference, live or not."""
        return frozenset().union(*(generation.blobs for generation in self.current))

    def is_broken(self, live: frozenset[Digest]) -> bool:
        """Whether what builders read makes them fail, or references blobs that are not live."""
        return not self.referenced <= live or any(one.violation for one in self.current)


class Mark(msgspec.Struct, frozen=True, gc=False):
    """The state of one entry, and the reason."""

    entry: KnownEntry
    state: State
    reason: Reason
    since: datetime | None = None
    """Dangling or superseded since then."""
    index: IndexId | None = None
    """Of a generation: the index that it belongs to."""

    def overdue(self, now: datetime) -> Reason:
        """Return the reason to delete it, with the time since when, if that reason has one."""
        if isinstance(self.reason, Overdue):
            return msgspec.structs.replace(self.reason, since=self.since or now)
        return self.reason


@dataclass(frozen=True, slots=True)
class OpaqueIndex:
    """An index of unknown content, which may need any blob that is older than it."""

    key: str
    ref: Ref
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Marks:
    """Everything that a plan needs besides the settings."""

    snapshot: Snapshot
    indexes: tuple[Index, ...]
    marks: tuple[Mark, ...]
    opaque_indexes: tuple[OpaqueIndex, ...]

    @property
    def certain(self) -> bool:
        """Whether grace periods run: every readable index was read.

        An index that gives the same answer for a whole grace period is unreadable. Until that is
        certain, nothing is deleted, but grace periods run.
        """
        passing = any(one.cause is Cause.TRANSIENT for one in self.snapshot.unread)
        return self.snapshot.listing_complete and not passing
