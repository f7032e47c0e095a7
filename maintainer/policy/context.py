"""The input and output of policies: the context of a plan, and decisions."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, Self

from maintainer.cacheconfig import Digest, IndexId
from maintainer.exports import find_export
from maintainer.model.decision import DeleteEntry, Keep, Rules, WriteIndex
from maintainer.model.entry import KnownEntry
from maintainer.model.export import Export
from maintainer.model.marks import Index, Mark, Marks
from maintainer.model.reason import Reason
from maintainer.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class PlanContext:
    """Everything that a policy knows besides the subject of its decision."""

    marks: Marks
    """The merges of the indexes; of the entries, only recent ones."""
    rules: Rules
    """What the owner of the cache has decided."""
    referenced_by: Mapping[Digest, AbstractSet[IndexId]]
    """The indexes that reference each blob, or that it contains."""
    export: Export | None
    """The export in progress, if there is one."""
    writes: Mapping[IndexId, WriteIndex] = field(default_factory=dict)
    """The indexes that the run writes; none while policies decide about indexes."""
    up_to_date: AbstractSet[IndexId] = frozenset()
    """The indexes that are up to date; none while policies decide about indexes."""

    @classmethod
    def of(cls, marks: Marks, rules: Rules) -> Self:
        """Return the context before anything was decided."""
        return cls(
            marks=marks,
            rules=rules,
            referenced_by=_referenced_by(marks),
            export=find_export(marks.snapshot, unreadable_too=rules.protects_unreadable_refs),
        )

    @property
    def snapshot(self) -> Snapshot:
        """The cache, from the point of view of the run."""
        return self.marks.snapshot

    @property
    def now(self) -> datetime:
        """The time of the snapshot."""
        return self.snapshot.now

    def since(self, marked: Mark) -> datetime:
        """Return since when an entry is unreferenced: now, if no run has noticed that before."""
        return marked.since or self.now

    def referrers(self, entry: KnownEntry) -> AbstractSet[IndexId]:
        """Return the indexes that reference a blob, or that it contains; none for other entries."""
        return self.referenced_by.get(getattr(entry.parsed, "digest", Digest("")), frozenset())


def _referenced_by(marks: Marks) -> Mapping[Digest, AbstractSet[IndexId]]:
    """Return which indexes reference each blob. Those of one index alone share one set."""
    referenced_by: dict[Digest, AbstractSet[IndexId]] = {}
    several: dict[Digest, set[IndexId]] = {}

    def add(blob: Digest, alone: frozenset[IndexId]) -> None:
        if referenced_by.setdefault(blob, alone) is not alone:
            if blob not in several:
                referenced_by[blob] = several[blob] = set(referenced_by[blob])
            several[blob] |= alone

    for index in marks.indexes:
        alone = frozenset([index.id])
        for blob in index.referenced:
            add(blob, alone)
    for blob, holders in marks.snapshot.facts.manifest_blobs.items():
        add(blob, frozenset(holders))
    return referenced_by


@dataclass(frozen=True, slots=True)
class LeaveAlone:
    """Do not touch an entry, and do not mention it in the plan."""


Decision = DeleteEntry | Keep | LeaveAlone
"""A decision about an entry. Policies may still veto a deletion."""


class IndexDecider(Protocol):
    """A policy that decides about indexes."""

    NAME: str

    def decide(self, index: Index, context: PlanContext, /) -> WriteIndex | Keep:
        """Return how to write an index, or why it stays as it is."""


class Decider(Protocol):
    """A policy that decides about entries."""

    NAME: str

    def decide(self, marked: Mark, context: PlanContext, /) -> Decision | None:
        """Return what to do with an entry; None leaves the decision to later policies."""


class Veto(Protocol):
    """A policy that vetoes deletions."""

    NAME: str

    def veto(self, delete: DeleteEntry, marked: Mark, context: PlanContext, /) -> Reason | None:
        """Return why an entry must not be deleted in this run; None if nothing is against it."""


class Selector(Protocol):
    """A policy whose decisions about entries depend on each other."""

    NAME: str

    def select(
        self, entries: Iterable[KnownEntry], context: PlanContext, /
    ) -> Mapping[int, DeleteEntry | Keep]:
        """Return the decisions about some of these entries, by store id."""
