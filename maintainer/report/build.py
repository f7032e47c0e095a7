"""Builds a report from what a run has seen and done."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import msgspec

from maintainer import __version__
from maintainer.cacheconfig import CacheConfig, Digest, IndexId, Ref, count_results, prune
from maintainer.cacheconfig.timestamps import to_datetime
from maintainer.model.checks import CheckTotals
from maintainer.model.decision import Deletion, Heal, Keep, Plan, RewriteResult, WriteIndex
from maintainer.model.entry import StoreLimits
from maintainer.model.marks import Index, Marks
from maintainer.model.outcome import Kept, Outcome, Planned
from maintainer.model.reason import Note, Reason, UnreadIndex, code_of
from maintainer.model.room import RoomDecision
from maintainer.model.store import Abilities
from maintainer.report.chains import find_losses, largest_chains
from maintainer.report.model import (
    ActionReport,
    ActionTotal,
    Blocked,
    BrokenTagReport,
    Changes,
    ContentReport,
    EntryTotal,
    IndexReport,
    NoteReport,
    Report,
    RequestReport,
    ResultTotals,
    RoomReport,
    Space,
    StoreReport,
)
from maintainer.report.reasons import format_outcome, format_reason
from maintainer.report.room import report_room
from maintainer.report.space import divide
from maintainer.report.totals import EntryTotals
from maintainer.report.verdict import judge
from maintainer.sanitize import printable
from maintainer.stores.http.requests import RequestLog


@dataclass(frozen=True, slots=True)
class Decided:
    """The plan of a run, and the marks that it was made from."""

    marks: Marks
    plan: Plan
    blocked_since: datetime | None
    """Since when runs have deleted nothing, if they do not."""


class ReportBuilder:
    """Collects what is known of a run so far; `build` works at any time."""

    def __init__(
        self,
        run: int,
        target: str,
        abilities: Abilities,
        *,
        started_at: datetime,
        grace: timedelta,
        dry_run: bool,
        repair: bool,
    ) -> None:
        self.run = run
        self.target = target
        self.started_at = started_at
        self.grace = grace
        self.limits = StoreLimits()
        """When the store evicts, as far as that is known."""
        self.abilities = abilities
        self.dry_run = dry_run
        self.repair = repair
        self.decided: Decided | None = None
        """None as long as the run has no plan, which it may never have."""
        self.rewritten: dict[IndexId, RewriteResult] = {}
        self.heals: list[Heal] = []
        self.checks = CheckTotals()
        self.entries = EntryTotals()
        self.problems: list[str] = []
        self.notes: list[Note] = []
        self._unlisted = ActionTotal("keep", code_of(Kept()), 0, 0)
        self.room: RoomDecision | None = None
        """How full the cache may be, and what is to leave it for that; None without a quota."""

    def build(
        self,
        status: str,
        finished_at: datetime,
        requests: RequestLog,
        changes: Changes,
        *,
        blob_sizes: Mapping[Digest, int],
        actions: tuple[ActionReport, ...],
        more_actions: tuple[ActionTotal, ...],
    ) -> Report:
        """Return the report, with a verdict.

        `actions` are those to list one by one; `blob_sizes` are the bytes of the stored blobs that
        indexes reference, where the store lists them.
        """
        decided = self.decided
        # Without a plan, only some of what is stored has been counted.
        totals = self._totals() if decided else ()
        access = decided.marks.snapshot.access if decided else None
        sizes = _Sizes(decided.marks, blob_sizes) if decided else None
        report = Report(
            run=self.run,
            target=self.target,
            store=_store(self.abilities),
            version=__version__,
            started_at=self.started_at,
            finished_at=finished_at,
            dry_run=self.dry_run,
            repair=self.repair,
            status=status,
            problems=tuple(self.problems),
            notes=tuple(NoteReport(note, format_reason(note)) for note in self.notes),
            grace_seconds=int(self.grace.total_seconds()),
            readable=tuple(sorted(access.readable)) if access else (),
            writable=tuple(sorted(access.writable)) if access else (),
            entries=totals,
            indexes=self._indexes(decided, sizes) if decided and sizes else (),
            actions=actions,
            more_actions=(*more_actions, *([self._unlisted] if self._unlisted.actions else ())),
            results=self._results(decided, sizes) if decided and sizes else ResultTotals(),
            contents=_contents(self.checks),
            blocked=_blocked(decided) if decided else None,
            deletions_a_minute=self.abilities.deletions_a_minute,
            broken_tags=self._broken_tags(decided.marks) if decided else (),
            indexes_broken=_count_broken(decided.marks) if decided else 0,
            requests=RequestReport(dict(sorted(requests.counts.items())), requests.retries),
            space=self._space(totals) if decided and self._divides_space(requests) else None,
            changes=changes,
            room=self._room(),
        )
        return msgspec.structs.replace(report, verdict=judge(report))

    def _room(self) -> RoomReport | None:
        """Return what has left the cache, or would in a run that is not dry."""
        if self.room is None:
            return None
        if self.dry_run:
            return report_room(self.room)
        if self.decided is None:
            departures = self.room.room.departures
            return report_room(
                self.room, {x.index for one in departures for x in one.branch.results}
            )
        stays = self.not_written
        merges = (one for one in self.decided.marks.indexes if one.is_merge and one.id in stays)
        merged = frozenset[Digest]().union(*(one.referenced for one in merges))
        return report_room(self.room, stays, merged, self.exported)

    @property
    def not_written(self) -> frozenset[IndexId]:
        """The planned indexes that are not written, or not yet."""
        planned = self.decided.plan.writes if self.decided else ()
        done = {index for index, one in self.rewritten.items() if one.done}
        return frozenset(one.index for one in planned) - done

    @property
    def exported(self) -> frozenset[Digest]:
        """The blobs that builds have begun to need since the run began."""
        return frozenset[Digest]().union(*(one.protected for one in self.rewritten.values()))

    def _broken_tags(self, marks: Marks) -> tuple[BrokenTagReport, ...]:
        snapshot = marks.snapshot
        repaired = {index for index, one in self.rewritten.items() if one.done}
        names = {printable(str(index)) for index in repaired}
        return (
            *(
                BrokenTagReport(printable(one.name), format_reason(one.why), blocks_sweep=True)
                for one in snapshot.unread
                if one.index.is_named
            ),
            *(
                BrokenTagReport(one.name, one.problem)
                for one in snapshot.facts.broken
                if one.name not in names
            ),
            *(
                BrokenTagReport(printable(str(index.id)), index.newest.violation)
                for index in marks.indexes
                if index.id.is_named and index.newest and index.newest.violation
                if index.id not in repaired
            ),
        )

    def count_unlisted(self, keeps: Sequence[Keep]) -> None:
        """Count kept entries that are too many to be listed."""
        known = self._unlisted
        size = known.size + sum(one.size or 0 for one in keeps)
        self._unlisted = ActionTotal(known.kind, known.outcome, known.actions + len(keeps), size)

    def rewrite(self, one: RewriteResult, stored: Collection[tuple[Ref, str]]) -> None:
        """Add the result of writing an index; `stored` are entries that existed before."""
        self.rewritten[one.index] = one
        self.entries.write(one, stored)

    def heal(self, heal: Heal, stored: Collection[tuple[Ref, str]]) -> None:
        """Add what was healed; `stored` are entries that existed before."""
        self.heals.append(heal)
        if heal.result:
            self.entries.write(heal.result, stored)

    def sweep(self, one: Deletion) -> None:
        """Add the outcome of a deletion."""
        self.entries.sweep(one, self._named)

    @cached_property
    def _named(self) -> frozenset[Digest]:
        indexes = self.decided.marks.indexes if self.decided else ()
        return frozenset().union(*(index.remembered.blobs | index.referenced for index in indexes))

    def _indexes(self, decided: Decided, sizes: "_Sizes") -> tuple[IndexReport, ...]:
        marks, plan = decided.marks, decided.plan
        writes = {write.index: write for write in plan.writes}
        after = {index.id: self._after(index, writes.get(index.id)) for index in marks.indexes}
        way_before = frozenset().union(*(index.usable.blobs for index in marks.indexes))
        way_after = frozenset().union(*(config.blobs for config in after.values()))
        way_after |= self.entries.deleted_blobs
        context = _Context(
            live=marks.snapshot.live_blobs,
            sizes=sizes,
            way_before=way_before,
            way_after=way_after,
            gone=self.entries.deleted_generations,
            needs=_needs(marks.indexes, after),
            reasons={(keep.subject, keep.ref): keep.reason for keep in plan.keeps},
        )
        return tuple(
            self._index(index, after[index.id], writes.get(index.id), context)
            for index in marks.indexes
        )

    def _results(self, decided: Decided, sizes: "_Sizes") -> ResultTotals:
        writes = {write.index: write for write in decided.plan.writes}
        indexes = decided.marks.indexes
        before = [index.usable for index in indexes]
        after = [self._after(index, writes.get(index.id)) for index in indexes]
        blobs = frozenset[Digest]().union(*(config.blobs for config in after))
        counts = _ResultCounts()
        results = ResultTotals(
            before=counts.of(before),
            after=counts.of(after),
            possible=counts.of(index.merged for index in indexes),
            size=sizes.of(blobs),
            lost=_count_lost(decided.marks),
        )
        # Under names, a merge loses what expired with a name, or was overwritten long ago, and so
        # does a name that a run has written. What is forgotten leaves at its owner's wish, merges
        # included.
        forgets = any(one.is_forgotten for one in indexes)
        builds = [
            one.merged if _is_rewritten(one) else one.usable
            for one in indexes
            if not (one.is_forgotten or (one.is_merge and (one.id.is_named or forgets)))
        ]
        dropped = counts.of([*builds, *after]) - results.after
        return msgspec.structs.replace(results, dropped=dropped)

    def _index(
        self, index: Index, after: CacheConfig, write: WriteIndex | None, context: "_Context"
    ) -> IndexReport:
        outcome_of_write = self.rewritten.get(index.id)
        named = index.remembered.blobs | index.referenced
        stored = len(index.generations) + len(index.unread)
        results_lost, lost = find_losses(index.remembered, index.merged, context.live)
        bytes_usable = context.sizes.of(after.blobs)
        outcome = _outcome(outcome_of_write) if write else Kept()
        reason = write.reason if write else context.reasons[_place(index)]
        chains, chains_omitted = largest_chains(
            after, context.sizes.of_blob, bytes_usable, context.scopes_of
        )
        ages = [one.created_at for one in index.generations]
        return IndexReport(
            scope=index.id.scope,
            ref=index.id.ref,
            signed=index.id.signed,
            generations=stored,
            generations_after=self._left_of(index, context),
            merged_from=() if index.id.is_named else tuple(one.number for one in index.inputs),
            usable_before=index.usable.result_count,
            usable_after=after.result_count,
            blobs_missing=len(index.referenced - context.live),
            bytes_usable=bytes_usable,
            bytes_own=context.sizes.of(context.own_of(index.id, after)),
            bytes_dangling_before=context.sizes.of(named - context.way_before),
            bytes_dangling_after=context.sizes.of(named - context.way_after),
            written=_written_key(write, outcome_of_write) if write else None,
            outcome=outcome,
            outcome_sentence=format_outcome(outcome),
            reason=reason,
            sentence=format_reason(reason),
            keys=len(index.merged.records),
            usable_possible=index.merged.result_count,
            results_lost=max(0, results_lost - index.omitted),
            omitted=index.omitted,
            lost=lost,
            newest_at=_newest_at(index, outcome_of_write),
            oldest_at=min(ages, default=None),
            chains=chains,
            chains_omitted=chains_omitted,
            is_merge=index.is_merge,
            used_by_builds=index.used_by_builds,
            still_broken=index.is_broken(context.live) and not self._is_mended(index.id, write),
        )

    def _is_mended(self, index: IndexId, write: WriteIndex | None) -> bool:
        """Whether an index was written, or would be in a run that is not dry."""
        if self.dry_run:
            return write is not None
        healed = (one.result for one in self.heals if one.index == index)
        results = (self.rewritten.get(index), *healed)
        return any(one is not None and one.done for one in results)

    def _left_of(self, index: Index, context: "_Context") -> int:
        """Count the generations that are stored when the run ends; a tag has one, always."""
        outcome_of_write = self.rewritten.get(index.id)
        written = bool(outcome_of_write and outcome_of_write.written)
        stored = len(index.generations) + len(index.unread)
        if index.id.is_named:
            return max(stored, int(written))
        return stored - context.gone[index.id] + written

    def _divides_space(self, requests: RequestLog) -> bool:
        """Whether there is a list to add up; where nobody evicts, one may take no request."""
        is_limited = self.limits.quota is not None and self.abilities.evicted_by is None
        return requests.counts["list"] > 0 or is_limited

    def _space(self, totals: Iterable[EntryTotal]) -> Space:
        limits = self.limits
        due = self.entries.due(self._written)
        space = divide(limits.quota, totals, due=due, foreign=self.entries.foreign.values())
        days = self.entries.used_days(self.started_at) if self.abilities.evicted_by else ()
        return msgspec.structs.replace(
            space,
            quota_is_assumed=limits.is_assumed,
            used_days=tuple(days),
            refs=tuple(self.entries.refs()),
            scopes=tuple(self.entries.scopes()),
        )

    def _after(self, index: Index, write: WriteIndex | None) -> CacheConfig:
        """Return what builders can use after the run; for a plan, what they could."""
        for heal in self.heals:
            if heal.index == index.id and heal.result and heal.result.written:
                return heal.result.written.config or index.usable
        outcome_of_write = self.rewritten.get(index.id)
        if write is None or (outcome_of_write and not outcome_of_write.done):
            return index.usable
        written = outcome_of_write.written if outcome_of_write else None
        if written and written.config and written.config != write.content:
            return written.config
        return write.content  # Where both are equal, one of them is counted, and once.

    def _totals(self) -> tuple[EntryTotal, ...]:
        totals = {one.state: one for one in self.entries.stored(self._written)}
        return tuple(totals[state] for state in sorted(totals))

    @property
    def _written(self) -> set[IndexId]:
        return {index for index, one in self.rewritten.items() if one.written}


@dataclass(frozen=True, slots=True)
class _Context:
    """What the report of an index needs from the others."""

    live: frozenset[Digest]
    sizes: "_Sizes"
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


class _Sizes:
    """The sizes of blobs: as listed, or as an index says if the store cannot list."""

    def __init__(self, marks: Marks, stored: Mapping[Digest, int]) -> None:
        self._stored = stored
        self._sizes: dict[Digest, int] = {}
        """Of indexes that reference others, as they state it."""
        self._live = marks.snapshot.live_blobs
        for index in marks.indexes:
            current = (one.config for one in index.current if one.config)
            for config in (index.remembered, *current):
                if not config.blobs <= stored.keys():
                    self._sizes |= {one.blob: one.size for one in config.layers}

    def of(self, blobs: frozenset[Digest]) -> int:
        """Add up those that exist."""
        return sum(map(self.of_blob, blobs & self._live))

    def of_blob(self, blob: Digest) -> int:
        """Return the size of one."""
        size = self._stored.get(blob)
        return self._sizes.get(blob, 0) if size is None else size


def _store(abilities: Abilities) -> StoreReport:
    return StoreReport(
        noun=abilities.noun,
        noun_of_name=abilities.noun_of_name,
        evicted_by=abilities.evicted_by,
        numbered=abilities.numbered,
    )


def _blocked(decided: Decided) -> Blocked | None:
    reason, since = decided.plan.blocked, decided.blocked_since
    if reason is None or since is None:
        return None
    unread = decided.marks.snapshot.unread if isinstance(reason, UnreadIndex) else ()
    cause = format_reason(unread[0].why) if unread else ""
    return Blocked(reason, format_reason(reason), since, cause)


def _count_broken(marks: Marks) -> int:
    live = marks.snapshot.live_blobs
    return sum(index.is_broken(live) for index in marks.indexes)


def _contents(checks: CheckTotals) -> ContentReport:
    return ContentReport(
        checked=checks.readable + len(checks.broken),
        without_content=len(checks.broken),
        unverified=len(checks.failures),
        deferred=checks.deferred,
    )


class _ResultCounts:
    """Counts the keys with a result in some indexes, each once, and the same indexes once."""

    def __init__(self) -> None:
        self._known: dict[frozenset[int], int] = {}

    def of(self, configs: Iterable[CacheConfig]) -> int:
        distinct = {id(config): config for config in configs if config.records}
        which = frozenset(distinct)
        if which not in self._known:
            self._known[which] = count_results(distinct.values())
        return self._known[which]


def _count_lost(marks: Marks) -> int:
    """Count the results of which no index has a live one left."""
    indexes, live = marks.indexes, marks.snapshot.live_blobs
    if all(one.remembered.result_count <= one.merged.result_count + one.omitted for one in indexes):
        return 0
    left = [prune(one.remembered, live) if one.omitted else one.merged for one in indexes]
    return max(0, count_results(one.remembered for one in indexes) - count_results(left))


def _newest_at(index: Index, outcome_of_write: RewriteResult | None) -> datetime | None:
    if index.id.is_named:
        made = [one.created_at for record in index.usable.records for one in record.results]
        return to_datetime(max(made)) if made else None
    if outcome_of_write and outcome_of_write.written:
        return outcome_of_write.written.created_at
    return index.generations[-1].created_at if index.generations else None


def _place(index: Index) -> tuple[str, Ref]:
    return str(index.id), index.id.ref


def _written_key(write: WriteIndex, outcome_of_write: RewriteResult | None) -> str:
    if outcome_of_write and outcome_of_write.written:
        return str(write.index.key(outcome_of_write.written.number))
    return str(write.key)


def _is_rewritten(index: Index) -> bool:
    """Whether a name holds what a run has written: also what builds overwrote before that."""
    return index.id.is_named and bool(index.generations) and index.generations[-1].sink is not None


def _outcome(outcome_of_write: RewriteResult | None) -> Outcome:
    return outcome_of_write.outcome if outcome_of_write else Planned()
