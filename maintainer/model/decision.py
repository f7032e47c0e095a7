"""Decisions: what to write, what to delete, what to keep, and the results. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

import msgspec

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, IndexKey, Ref, Sink, UploadKey
from maintainer.model.entry import KnownEntry
from maintainer.model.export import Export
from maintainer.model.index import ReadGeneration
from maintainer.model.limits import KeepFree, ToolRule
from maintainer.model.marks import Index, State
from maintainer.model.outcome import CARRIED_OUT, Deferred, Done, Failed, Outcome, Refused, Skipped
from maintainer.model.reason import (
    NothingLeft,
    NotWritable,
    Reason,
    Signed,
    UpToDate,
    UsedByBuilds,
    WriteReason,
    WrittenByOtherRun,
    WrittenDuringSweep,
)


@dataclass(frozen=True, slots=True)
class WriteIndex:
    """Write this index as the next generation."""

    index: IndexId
    key: IndexKey
    content: CacheConfig
    reason: WriteReason
    sink: Sink = Sink.REWRITE


class DeleteEntry(msgspec.Struct, frozen=True, gc=False):
    """Delete this entry, after the indexes in `after` were rewritten and read back."""

    entry: KnownEntry
    state: State
    reason: Reason
    after: frozenset[IndexId] = frozenset()

    @property
    def rank(self) -> int:
        """Its place in the order: harmful entries first, then superseded indexes, dangling ones,
        closed refs, and what rules of other tools select.

        In a closed ref, indexes come before what they reference: somebody may use the ref again
        before all of it is deleted. Uploads come last: to the sweep, deleting one looks like an
        active build.
        """
        if isinstance(self.entry.parsed, UploadKey):
            return 2 * len(_ORDER)
        is_index = isinstance(self.entry.parsed, IndexKey)
        return 2 * _ORDER.index(self.state) + (self.state is State.CLOSED and not is_index)


_ORDER = (
    State.WITHOUT_CONTENT,
    State.SUPERSEDED,
    State.DANGLING,
    State.CLOSED,
    State.FOREIGN,
)


class Keep(msgspec.Struct, frozen=True, gc=False):
    """Keep this as it is."""

    subject: str
    """A key, or what the decision is about."""
    ref: Ref
    reason: Reason
    size: int | None = None
    """Bytes."""
    store_id: int | None = None

    @classmethod
    def of(cls, entry: KnownEntry, reason: Reason) -> Self:
        """Return the decision to keep an entry."""
        return cls(entry.key, entry.ref, reason, entry.size, entry.store_id)

    @property
    def is_up_to_date(self) -> bool:
        """Whether it is an index, kept because there is nothing to write."""
        return isinstance(self.reason, UpToDate | NothingLeft)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run will do; what a dry run prints."""

    writes: tuple[WriteIndex, ...]
    deletes: tuple[DeleteEntry, ...]
    """In the order of deletion: entries without content, superseded generations, dangling ones."""
    keeps: tuple[Keep, ...]
    up_to_date: tuple[IndexId, ...]
    """The indexes whose newest generation already equals their merge."""
    blocked: Reason | None = None
    """Why no blob may be deleted, if so."""
    deferred: Export | None = None
    """The export in progress that keeps due blobs from being deleted, if any."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the owner of a cache has decided."""

    grace: timedelta
    """How long an entry must be unreferenced before it is deleted."""
    max_index_size: int | None = None
    """Bytes. A larger merged index is not written: no run could read it again."""
    protects_unreadable_refs: bool = True
    """Whether indexes in refs that the token cannot read may need blobs."""
    retention: timedelta | None = None
    """The store evicts entries that were unused for this long; None if unknown."""
    repair: bool = False
    """Write only indexes that are invalid or reference missing blobs, and delete nothing."""
    keep_free: KeepFree | None = None
    """How much of the quota must stay free; None if no needed blob leaves for that."""
    tools: tuple[ToolRule, ...] = ()
    """What other tools may store."""


@dataclass(frozen=True, slots=True)
class RewriteResult:
    """The result of writing one index."""

    index: IndexId
    written: ReadGeneration | None
    """The generation that was written and read back; None if it was not."""
    concurrent: tuple[ReadGeneration, ...]
    """The concurrent generations of builds, which were merged in."""
    error: str | None = None
    """What went wrong, if it did."""
    deferred: Reason | None = None
    """Why it was deferred to the next run, if it was."""
    missing: frozenset[Digest] = frozenset()
    """The blobs that builds have referenced since the run began, and that were not found."""
    unverified: str | None = None
    """The key of what was written, but could not be read back."""
    entries: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each of the entries that hold what was written, by key."""

    @property
    def done(self) -> bool:
        """Whether the newest generation now contains everything that can be used."""
        return self.error is None and self.deferred is None

    @property
    def outcome(self) -> Outcome:
        """The outcome."""
        if self.error is not None:
            return Failed(self.error)
        if self.deferred is not None:
            return Deferred(self.deferred)
        return Done() if self.written else Skipped(WrittenByOtherRun())

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each of the entries that were written."""
        return tuple(self.entries.values())

    @property
    def protected(self) -> frozenset[Digest]:
        """The blobs that builds have begun to need since the run began."""
        return frozenset().union(*(one.config.blobs for one in self.concurrent if one.config))


@dataclass(frozen=True, slots=True)
class Deletion:
    """The result of deleting one entry."""

    delete: DeleteEntry
    outcome: Outcome

    @property
    def is_gone(self) -> bool:
        """Whether the entry no longer exists."""
        return isinstance(self.outcome, CARRIED_OUT)

    @property
    def failure(self) -> str | None:
        """Why the deletion failed, or was refused, if so."""
        return self.outcome.problem if isinstance(self.outcome, Failed | Refused) else None


@dataclass(frozen=True, slots=True)
class Heal:
    """An index that references blobs which this run has deleted, and the result of its rewrite."""

    generation: ReadGeneration
    """What a build has written."""
    blobs: frozenset[Digest]
    """The deleted blobs that it references."""
    write: WriteIndex | None = None
    """How to rewrite it; None if it is not rewritten."""
    base: Index | None = None
    """The known state of the index that is rewritten."""
    result: RewriteResult | None = None
    """The result of the rewrite, once it was tried."""
    blocked_by: Signed | NotWritable | UsedByBuilds | None = None
    """Why it is not rewritten, if so."""

    @property
    def index(self) -> IndexId:
        """Which index it is."""
        return self.generation.index

    @property
    def key(self) -> str:
        """The key of what a build has written."""
        return str(self.index.key(self.generation.number))

    @property
    def reason(self) -> WrittenDuringSweep:
        """What is wrong with it."""
        return WrittenDuringSweep(self.key, len(self.blobs))
