"""What a report says of each index. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, Ref
from maintainer.model.decision import WriteIndex
from maintainer.model.marks import Index
from maintainer.model.reason import Reason
from maintainer.report.carried_out import CarriedOut, Decided
from maintainer.report.chains import find_losses, largest_chains
from maintainer.report.model import IndexReport
from maintainer.report.reasons import format_outcome, format_reason
from maintainer.report.sizes import BlobSizes
from maintainer.report.totals import EntryTotals


def report_indexes(
    decided: Decided,
    carried_out: CarriedOut,
    contents: Mapping[IndexId, CacheConfig],
    entries: EntryTotals,
    sizes: BlobSizes,
) -> tuple[IndexReport, ...]:
    """Return what builders can use of each index, before the run and after it, and why.

    `contents` are what they can use of each after the run.
    """
    marks, plan = decided.marks, decided.plan
    writes = {write.index: write for write in plan.writes}
    way_before = frozenset().union(*(index.usable.blobs for index in marks.indexes))
    way_after = frozenset().union(*(config.blobs for config in contents.values()))
    way_after |= entries.deleted_blobs
    context = _Context(
        live=marks.snapshot.live_blobs,
        sizes=sizes,
        carried_out=carried_out,
        way_before=way_before,
        way_after=way_after,
        gone=entries.deleted_generations,
        needs=_needs(marks.indexes, contents),
        reasons={(keep.subject, keep.ref): keep.reason for keep in plan.keeps},
    )
    return tuple(
        _report_index(index, contents[index.id], writes.get(index.id), context)
        for index in marks.indexes
    )


@dataclass(frozen=True, slots=True)
class _Context:
    """What the report of an index needs from the others."""

    live: frozenset[Digest]
    sizes: BlobSizes
    carried_out: CarriedOut
    way_before: frozenset[Digest]
    """The blobs that builders could reach when the run began, by any index."""
    way_after: frozenset[Digest]
    """The blobs that they can reach now, or that are gone."""
    gone: Counter[IndexId | None]
    """How many generations the sweep deleted."""
    needs: Mapping[Digest, Sequence[IndexId]]
    """The indexes that need a blob, without merges of others."""
    reasons: Mapping[tuple[str, Ref], Reason]
    """Why indexes are not written, by name and ref."""

    def scopes_of(self, blob: Digest) -> frozenset[str]:
        """Return the scopes that need a blob."""
        return frozenset(index.scope for index in self.needs.get(blob, ()))

    def own_of(self, index: IndexId, after: CacheConfig) -> frozenset[Digest]:
        """Return the blobs that only this index needs."""
        none: Sequence[IndexId] = ()
        needs = ((blob, self.needs.get(blob, none)) for blob in after.blobs)
        return frozenset(blob for blob, who in needs if not who or (len(who) == 1 and index in who))

    def left_of(self, index: Index) -> int:
        """Count the generations that are stored when the run ends; a tag has one, always."""
        written = self.carried_out.has_written(index.id)
        stored = len(index.generations) + len(index.unread)
        if index.id.is_named:
            return max(stored, int(written))
        return stored - self.gone[index.id] + written


def _needs(
    indexes: Iterable[Index], after: Mapping[IndexId, CacheConfig]
) -> Mapping[Digest, Sequence[IndexId]]:
    needs: dict[Digest, Sequence[IndexId]] = {}
    several: dict[Digest, list[IndexId]] = {}
    for index in indexes:
        alone = (index.id,)  # Most blobs have one, and share this.
        blobs = after[index.id].blobs
        for blob in blobs & index.needs.blobs if index.is_merge else blobs:
            if blob in several:
                several[blob].append(index.id)
            elif blob in needs:
                needs[blob] = several[blob] = [*needs[blob], index.id]
            else:
                needs[blob] = alone
    return needs


def _report_index(
    index: Index, after: CacheConfig, write: WriteIndex | None, context: _Context
) -> IndexReport:
    carried_out, sizes = context.carried_out, context.sizes
    named = index.remembered.blobs | index.referenced
    results_lost, lost = find_losses(index.remembered, index.merged, context.live)
    bytes_usable = sizes.of(after.blobs)
    outcome = carried_out.outcome(write)
    reason = write.reason if write else context.reasons[str(index.id), index.id.ref]
    chains, chains_omitted = largest_chains(after, sizes.of_blob, bytes_usable, context.scopes_of)
    ages = [one.created_at for one in index.generations]
    return IndexReport(
        scope=index.id.scope,
        ref=index.id.ref,
        signed=index.id.signed,
        generations=len(index.generations) + len(index.unread),
        generations_after=context.left_of(index),
        merged_from=() if index.id.is_named else tuple(one.number for one in index.inputs),
        usable_before=index.usable.result_count,
        usable_after=after.result_count,
        blobs_missing=len(index.referenced - context.live),
        bytes_usable=bytes_usable,
        bytes_own=sizes.of(context.own_of(index.id, after)),
        bytes_dangling_before=sizes.of(named - context.way_before),
        bytes_dangling_after=sizes.of(named - context.way_after),
        written=carried_out.key(write) if write else None,
        outcome=outcome,
        outcome_sentence=format_outcome(outcome),
        reason=reason,
        sentence=format_reason(reason),
        keys=len(index.merged.records),
        usable_possible=index.merged.result_count,
        results_lost=max(0, results_lost - index.omitted),
        omitted=index.omitted,
        lost=lost,
        newest_at=carried_out.newest_at(index),
        oldest_at=min(ages, default=None),
        chains=chains,
        chains_omitted=chains_omitted,
        is_merge=index.is_merge,
        used_by_builds=index.used_by_builds,
        still_broken=index.is_broken(context.live) and not carried_out.has_mended(index.id, write),
    )
