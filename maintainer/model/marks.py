"""What marking makes of a snapshot: indexes with their merges, entries with their states. Pure."""

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


class State(StrEnum):
    """What an entry is to us."""

    REACHABLE = "reachable"
    """A blob that a live result needs, or the signature of an index that exists."""
    DANGLING = "dangling"
    """A blob or signature that nothing needs."""
    WITHOUT_CONTENT = "without content"
    """A blob that is listed and found, but whose content cannot be downloaded."""
    NEWEST = "newest"
    """The newest generation of an index."""
    SUPERSEDED = "superseded"
    """A generation whose live results the newest one has, or will have."""
    SIGNED = "signed"
    """A signed generation: read, never rewritten."""
    UNREAD = "unread"
    """A generation that could not be read this time."""
    UNREADABLE = "unreadable ref"
    """In a ref that the token cannot read."""
    FOREIGN = "foreign"
    """Not of our two kinds, or under a key that its ref does not write."""


@dataclass(frozen=True, slots=True)
class Index:
    """One index, and what its generations come to."""

    id: IndexId
    generations: tuple[KnownGeneration, ...]
    """Those that exist and were read, oldest first."""
    inputs: tuple[KnownGeneration, ...]
    """Those that have come since one was seen to hold all that was live, that one too; remembered
    ones as well, oldest first."""
    unread: tuple[UnreadGeneration, ...]
    merged: CacheConfig
    """The merge of all that is remembered of it, pruned to what exists, in normal form."""
    remembered: CacheConfig
    """The same before it was pruned: what there was to lose since it was last up to date."""
    usable: CacheConfig
    """What of it builders can use now: the generation that they read, pruned to what exists."""
    highest: int
    """The highest generation that is known to have existed; 0 if none."""
    shadowed_by: str | None
    """The key that builders who do not sign read in place of the newest generation."""
    merged_with: int = 0
    """Of a merge: how many other indexes have a part in it."""
    is_merge: bool = False
    """Whether it holds the merge of all other indexes of its ref, and no build's own."""
    sink: Sink = Sink.REWRITE
    """The sink that it gets when it is written."""
    omitted: int = 0
    """Of a tag: the results of the merge for which importers have no room."""
    used_by_builds: str | None = None
    """Of the index that is to hold the merge: the key that a build has exported to it, if so."""

    @property
    def newest(self) -> KnownGeneration | None:
        """The generation with the highest number, if it could be read."""
        newest = self.generations[-1] if self.generations else None
        if newest and any(one.number == 0 or one.number > newest.number for one in self.unread):
            return None
        return newest

    @property
    def current(self) -> tuple[KnownGeneration, ...]:
        """What builders may be reading now: the newest generation, and what hides it."""
        return tuple(
            generation
            for generation in self.generations
            if generation is self.generations[-1] or str(generation.key) == self.shadowed_by
        )

    @property
    def generation_ids(self) -> frozenset[int]:
        """All of its generations that exist, or have come since it was up to date."""
        return frozenset(one.generation_id for one in (*self.generations, *self.inputs))

    @property
    def named(self) -> frozenset[Digest]:
        """The blobs that its current generations name, live or not."""
        return frozenset().union(*(generation.blobs for generation in self.current))


@dataclass(frozen=True, slots=True)
class Mark:
    """What one entry is, and why."""

    entry: KnownEntry
    state: State
    reason: Reason
    since: datetime | None = None
    """Dangling or superseded since then."""
    index: IndexId | None = None
    """Of a generation: the index that it belongs to."""

    def overdue(self, now: datetime) -> Reason:
        """Return why it goes, with the time since when, for a reason that tells one."""
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
    """Everything that a plan is made from, besides the settings."""

    snapshot: Snapshot
    indexes: tuple[Index, ...]
    marks: tuple[Mark, ...]
    opaque_indexes: tuple[OpaqueIndex, ...]

    @property
    def certain(self) -> bool:
        """Whether the clock of what looks unreferenced runs: all that can be read was read.

        What gives the same answer for a whole grace period turns out to be unreadable: until then
        nothing goes, but the clock runs.
        """
        passing = any(one.cause is Cause.TRANSIENT for one in self.snapshot.unread)
        return self.snapshot.listing_complete and not passing
