"""What a run has decided, and what it has carried out of that. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from maintainer.cacheconfig import CacheConfig, Digest, IndexId
from maintainer.cacheconfig.timestamps import to_datetime
from maintainer.model.decision import Heal, Plan, RewriteResult, WriteIndex
from maintainer.model.marks import Index, Marks
from maintainer.model.outcome import Kept, Outcome, Planned


@dataclass(frozen=True, slots=True)
class Decided:
    """The plan of a run, and the marks that it was made from."""

    marks: Marks
    plan: Plan
    blocked_since: datetime | None
    """Since when runs have deleted nothing, if they do not."""


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """The indexes that a run has written so far, or tried to."""

    rewritten: Mapping[IndexId, RewriteResult]
    heals: Sequence[Heal]
    dry_run: bool

    def contents(self, decided: Decided) -> dict[IndexId, CacheConfig]:
        """Return what builders can use of each index after the run; for a plan, what they could."""
        writes = {write.index: write for write in decided.plan.writes}
        return {one.id: self._content(one, writes.get(one.id)) for one in decided.marks.indexes}

    def _content(self, index: Index, write: WriteIndex | None) -> CacheConfig:
        for heal in self.heals:
            if heal.index == index.id and heal.result and heal.result.written:
                return heal.result.written.config or index.usable
        result = self.rewritten.get(index.id)
        if write is None or (result and not result.done):
            return index.usable
        written = result.written if result else None
        if written and written.config and written.config != write.content:
            return written.config
        return write.content  # Where both are equal, one of them is counted, and once.

    def outcome(self, write: WriteIndex | None) -> Outcome:
        """Return what has become of what was planned for an index."""
        if write is None:
            return Kept()
        result = self.rewritten.get(write.index)
        return result.outcome if result else Planned()

    def key(self, write: WriteIndex) -> str:
        """Return the key that an index was written to, or would be."""
        result = self.rewritten.get(write.index)
        if result and result.written:
            return str(write.index.key(result.written.number))
        return str(write.key)

    @property
    def written(self) -> frozenset[IndexId]:
        """The indexes that have a new generation."""
        return frozenset(index for index, one in self.rewritten.items() if one.written)

    @property
    def done(self) -> frozenset[IndexId]:
        """The indexes that are now as they were planned."""
        return frozenset(index for index, one in self.rewritten.items() if one.done)

    def not_written(self, plan: Plan) -> frozenset[IndexId]:
        """Return the planned indexes that are not written, or not yet."""
        return frozenset(one.index for one in plan.writes) - self.done

    @property
    def exported(self) -> frozenset[Digest]:
        """The blobs that builds have begun to need since the run began."""
        return frozenset[Digest]().union(*(one.protected for one in self.rewritten.values()))

    def has_written(self, index: IndexId) -> bool:
        """Whether there is a new generation of an index."""
        result = self.rewritten.get(index)
        return bool(result and result.written)

    def has_mended(self, index: IndexId, write: WriteIndex | None) -> bool:
        """Whether an index was written, or would be in a run that is not dry."""
        if self.dry_run:
            return write is not None
        healed = (one.result for one in self.heals if one.index == index)
        results = (self.rewritten.get(index), *healed)
        return any(one is not None and one.done for one in results)

    def newest_at(self, index: Index) -> datetime | None:
        """Return when a build or a run last wrote an index."""
        if index.id.is_named:
            made = [one.created_at for record in index.usable.records for one in record.results]
            return to_datetime(max(made)) if made else None
        result = self.rewritten.get(index.id)
        if result and result.written:
            return result.written.created_at
        return index.generations[-1].created_at if index.generations else None
