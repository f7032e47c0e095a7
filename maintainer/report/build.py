"""Builds a report from what a run has seen and done."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property

import msgspec

from maintainer import __version__
from maintainer.cacheconfig import Digest, IndexId, Ref
from maintainer.model.checks import CheckTotals
from maintainer.model.decision import Deletion, Heal, Keep, RewriteResult
from maintainer.model.entry import StoreLimits
from maintainer.model.marks import Marks
from maintainer.model.outcome import Kept
from maintainer.model.reason import Note, UnreadIndex, code_of
from maintainer.model.room import RoomDecision
from maintainer.model.store import Abilities
from maintainer.report.carried_out import CarriedOut, Decided
from maintainer.report.indexes import report_indexes
from maintainer.report.model import (
    ActionReport,
    ActionTotal,
    Blocked,
    BrokenTagReport,
    Changes,
    ContentReport,
    EntryTotal,
    NoteReport,
    Report,
    RequestReport,
    RoomReport,
    Space,
    StoreReport,
)
from maintainer.report.reasons import format_reason
from maintainer.report.results import total_results
from maintainer.report.room import report_room
from maintainer.report.sizes import BlobSizes
from maintainer.report.space import divide
from maintainer.report.totals import EntryTotals
from maintainer.report.verdict import judge
from maintainer.sanitize import printable
from maintainer.stores.http.requests import RequestLog


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
        self._rewritten: dict[IndexId, RewriteResult] = {}
        self._heals: list[Heal] = []
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
            readable=(),
            writable=(),
            entries=(),
            indexes=(),
            actions=actions,
            more_actions=(*more_actions, *([self._unlisted] if self._unlisted.actions else ())),
            contents=_contents(self.checks),
            deletions_a_minute=self.abilities.deletions_a_minute,
            requests=RequestReport(dict(sorted(requests.counts.items())), requests.retries),
            changes=changes,
            room=self._room(),
        )
        # Without a plan, only some of what is stored has been counted.
        if self.decided:
            report = self._add_plan(report, self.decided, blob_sizes, requests)
        return msgspec.structs.replace(report, verdict=judge(report))

    def _add_plan(
        self,
        report: Report,
        decided: Decided,
        blob_sizes: Mapping[Digest, int],
        requests: RequestLog,
    ) -> Report:
        marks, done = decided.marks, self.carried_out
        access, sizes = marks.snapshot.access, BlobSizes(marks, blob_sizes)
        contents = done.contents(decided)
        totals = self._totals()
        return msgspec.structs.replace(
            report,
            readable=tuple(sorted(access.readable)),
            writable=tuple(sorted(access.writable)),
            entries=totals,
            indexes=report_indexes(decided, done, contents, self.entries, sizes),
            results=total_results(marks, contents, sizes),
            blocked=_blocked(decided),
            broken_tags=_broken_tags(marks, done.done),
            indexes_broken=_count_broken(marks),
            space=self._space(totals) if self._divides_space(requests) else None,
        )

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
        done, plan = self.carried_out, self.decided.plan
        stays = done.not_written(plan)
        merges = (one for one in self.decided.marks.indexes if one.is_merge and one.id in stays)
        merged = frozenset[Digest]().union(*(one.referenced for one in merges))
        return report_room(self.room, stays, merged, done.exported)

    @property
    def carried_out(self) -> CarriedOut:
        """The indexes that the run has written so far, or tried to."""
        return CarriedOut(dict(self._rewritten), tuple(self._heals), self.dry_run)

    def count_unlisted(self, keeps: Sequence[Keep]) -> None:
        """Count kept entries that are too many to be listed."""
        known = self._unlisted
        size = known.size + sum(one.size or 0 for one in keeps)
        self._unlisted = ActionTotal(known.kind, known.outcome, known.actions + len(keeps), size)

    def rewrite(self, one: RewriteResult, stored: Collection[tuple[Ref, str]]) -> None:
        """Add the result of writing an index; `stored` are entries that existed before."""
        self._rewritten[one.index] = one
        self.entries.write(one, stored)

    def heal(self, heal: Heal, stored: Collection[tuple[Ref, str]]) -> None:
        """Add what was healed; `stored` are entries that existed before."""
        self._heals.append(heal)
        if heal.result:
            self.entries.write(heal.result, stored)

    def sweep(self, one: Deletion) -> None:
        """Add the outcome of a deletion."""
        self.entries.sweep(one, self._named)

    @cached_property
    def _named(self) -> frozenset[Digest]:
        indexes = self.decided.marks.indexes if self.decided else ()
        return frozenset().union(*(index.remembered.blobs | index.referenced for index in indexes))

    def _divides_space(self, requests: RequestLog) -> bool:
        """Whether there is a list to add up; where nobody evicts, one may take no request."""
        is_limited = self.limits.quota is not None and self.abilities.evicted_by is None
        return requests.counts["list"] > 0 or is_limited

    def _space(self, totals: Iterable[EntryTotal]) -> Space:
        limits = self.limits
        due = self.entries.due(self.carried_out.written)
        space = divide(limits.quota, totals, due=due, foreign=self.entries.foreign.values())
        days = self.entries.used_days(self.started_at) if self.abilities.evicted_by else ()
        return msgspec.structs.replace(
            space,
            quota_is_assumed=limits.is_assumed,
            used_days=tuple(days),
            refs=tuple(self.entries.refs()),
            scopes=tuple(self.entries.scopes()),
        )

    def _totals(self) -> tuple[EntryTotal, ...]:
        totals = {one.state: one for one in self.entries.stored(self.carried_out.written)}
        return tuple(totals[state] for state in sorted(totals))


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


def _broken_tags(marks: Marks, repaired: Collection[IndexId]) -> tuple[BrokenTagReport, ...]:
    snapshot = marks.snapshot
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
