"""One run: probe → record → mark → plan → rewrite → sweep → heal → report."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel
from sqlalchemy import Connection

from maintainer.budget import Budget
from maintainer.cache import Cache, Conditions
from maintainer.cacheconfig import Scope
from maintainer.contents import CheckTotals
from maintainer.errors import (
    MaintainerError,
    MassDisappearanceError,
    StoreError,
    UnfinishedError,
    UsedUpError,
)
from maintainer.exports import find_export
from maintainer.graph.contents import save_contents
from maintainer.graph.database import Database
from maintainer.graph.forget import forget
from maintainer.graph.recall import load_snapshot, recall, recall_entries
from maintainer.graph.record import find_target, record, record_entries
from maintainer.graph.runs import (
    begin_run,
    finish_run,
    load_report,
    note_blocked,
    reinstate,
    save_actions,
    save_marks,
    save_rewritten,
    save_swept,
    supersede,
)
from maintainer.graph.trends import look_back
from maintainer.hosted import HostedCache
from maintainer.logs import StagesInLogs, log_context
from maintainer.mark import mark
from maintainer.model import reason as reasons
from maintainer.model.decision import Plan, Rules, Swept
from maintainer.model.entry import StoreLimits
from maintainer.model.export import Export
from maintainer.model.marks import Marks
from maintainer.model.memory import Known, Probe
from maintainer.model.snapshot import Snapshot
from maintainer.parts import Parts
from maintainer.plan import make_plan
from maintainer.progress import Progress, Unwatched
from maintainer.report import Report
from maintainer.report.build import ReportBuilder
from maintainer.report.reasons import format_reason
from maintainer.settings import Settings
from maintainer.stores.base import Store
from maintainer.stores.local import Directory
from maintainer.sweep import Sweeper

log = logging.getLogger(__name__)

_PAUSE = timedelta(seconds=15)
"""So often it is asked whether an export has ended."""
_MOMENT = timedelta(microseconds=1)
"""No two looks are at the same time."""


def now_utc() -> datetime:
    """Give the time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Collector:
    """What a run works with."""

    store: Store | Directory
    database: Database
    settings: Settings
    clock: Callable[[], datetime] = now_utc
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    progress: Progress = field(default_factory=Unwatched)
    budget: Budget | None = None
    """What an interrupt may end; by default the one that the settings give."""


async def collect(
    collector: Collector,
    *,
    dry_run: bool = False,
    no_sweep: bool = False,
    accept_loss: bool = False,
    repair: bool = False,
) -> Report:
    """Do one run, on a database that the caller holds.

    A dry run is the same run, which stops after the plan. `accept_loss` goes on even if most of
    what was known is gone. `repair` only rewrites what is not valid or names missing blobs. What
    goes wrong is in the report, whose status then is `failed`; only a database that cannot be used
    raises (DatabaseError).
    """
    collector = replace(collector, progress=StagesInLogs(collector.progress))
    run = _begin(collector, dry_run=dry_run)
    run.report.repair = repair
    no_sweep = no_sweep or repair
    with log_context(run=run.report.run, target=collector.store.name):
        log.info("run %d on %s begins", run.report.run, collector.store.name)
        try:
            seen = await _look(run, accept_loss=accept_loss)
            if not (dry_run or no_sweep):
                seen = await _wait_for_exports(run, seen, accept_loss=accept_loss)
            known, probe, snapshot = seen
            _note_what_was_not_seen(run, probe, snapshot)
            if not probe.unasked_blobs:
                marks = await _check_contents(run, known, probe, mark(snapshot), accept_loss)
                marks, plan = _plan(run, marks)
                parts = _parts(run, marks)
                await _plan_parts(run, parts)
                if not dry_run:
                    await _rewrite(run, marks, plan)
                    if not no_sweep:
                        await _sweep(run, marks, plan, parts)
                        await _heal(run, marks)
        except UsedUpError as error:
            # Only a list ends like that, of which a part says nothing; so nothing was recorded.
            run.budget.stop(error.reason)
            run.left.listed = False
        except UnfinishedError as error:
            run.report.problems.append(f"{error}: {format_reason(error.reason)}")
        except MaintainerError as error:
            run.report.problems.append(str(error))
        except BaseException:
            _finish(run, "interrupted")
            raise
        return _finish(run, _status(run))


def _status(run: "_Run") -> str:
    if run.budget.interrupted:
        return "interrupted"
    return "failed" if run.report.problems else "done"


@dataclass(slots=True)
class _Left:
    """What the run did not come to, because of its budget; actions are counted by the report."""

    listed: bool = True
    indexes: int = 0
    blobs: int = 0
    heals: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    """A run under way."""

    collector: Collector
    cache: Cache
    target_id: int
    budget: Budget
    report: ReportBuilder
    left: _Left = field(default_factory=_Left)
    places: list[int] = field(default_factory=list)
    """Where the actions of each further part of the plan begin."""

    @property
    def rules(self) -> Rules:
        """What the owner of the cache has decided."""
        settings = self.collector.settings
        return Rules(
            grace=settings.grace,
            max_index_size=settings.max_index_size,
            protects_unreadable_refs=settings.unreadable_refs == "protect",
            retention=(self.report.limits or StoreLimits()).retention,
            repair=self.report.repair,
        )

    @property
    def conditions(self) -> Conditions:
        """What every stage depends on."""
        collector = self.collector
        return Conditions(
            collector.settings, self.budget, collector.progress, collector.clock, collector.sleep
        )


def _begin(collector: Collector, *, dry_run: bool) -> _Run:
    now = collector.clock()
    with collector.database.begin() as connection:
        target_id = find_target(connection, collector.store.name)
        number = begin_run(connection, target_id, now, dry_run=dry_run)
    report = ReportBuilder(
        number,
        collector.store.name,
        started_at=now,
        grace=collector.settings.grace,
        dry_run=dry_run,
    )
    cache = _cache(collector)
    report.deletions_a_minute = cache.deletions_a_minute
    return _Run(collector, cache, target_id, collector.budget or _budget(collector), report)


def _cache(collector: Collector) -> Cache:
    if isinstance(collector.store, Directory):
        return collector.store
    return HostedCache(collector.store)


def _budget(collector: Collector) -> Budget:
    return Budget(collector.store.requests, collector.settings, collector.clock)


_Seen = tuple[Known, Probe, Snapshot]


async def _look(run: _Run, *, accept_loss: bool, at: datetime | None = None) -> _Seen:
    """Probe and record. Look a second time if too much is gone; go no further if it stays so."""
    at = at or run.report.started_at
    access = run.cache.access
    with run.collector.database.begin() as connection:
        known = recall(connection, run.target_id, access)
        remembered = recall_entries(connection, run.target_id, access) if run.cache.evicts else []

    async def look() -> tuple[Probe, Snapshot]:
        probe = await run.cache.probe(known, at, run.conditions)
        run.report.limits = run.report.limits or await run.cache.limits(probe, run.conditions)
        run.collector.progress.stage("record")
        with run.collector.database.begin() as connection:
            await _record(run, connection, probe)
            snapshot = load_snapshot(
                connection,
                run.target_id,
                probe,
                began_at=run.report.started_at,
                merged_scope=_merged_scope(run, probe),
            )
            outage = run.cache.find_outage(known, remembered, probe, snapshot, run.report.limits)
            if outage and not accept_loss:
                # What was written down is taken back: it may not be so.
                raise MassDisappearanceError(outage)
        return probe, snapshot

    try:
        return known, *await look()
    except MassDisappearanceError:
        log.warning("most of what was known seems to be gone: looking again")
    return known, *await look()


async def _check_contents(
    run: _Run, known: Known, probe: Probe, marks: Marks, accept_loss: bool
) -> Marks:
    """Check whether what the indexes need can be downloaded, and mark again what that changes.

    Where a blob has no content, an older result may take the place of the newest: that needs other
    blobs, so there are as many rounds as it takes.
    """
    limits = run.report.limits or StoreLimits()
    checker = run.cache.checker(known, run.conditions, quota=limits.quota, accept_loss=accept_loss)
    run.report.checks = checker.totals if checker else None
    while checker:
        checked = await checker.check(marks)
        back = checked.readable_blobs & probe.broken_blobs
        with run.collector.database.begin() as connection:
            save_contents(connection, run.target_id, checked, probe.at)
            if not checked.changes_anything and not back:
                break
            broken = probe.broken_blobs.union(checked.broken_blobs) - back
            probe = replace(
                probe, live_blobs=probe.live_blobs.union(back) - broken, broken_blobs=broken
            )
            snapshot = load_snapshot(
                connection,
                run.target_id,
                probe,
                began_at=run.report.started_at,
                merged_scope=marks.snapshot.merged_scope,
            )
        marks = mark(snapshot)
    _note_what_was_not_checked(run, checker.totals if checker else CheckTotals())
    return marks


def _note_what_was_not_checked(run: _Run, checks: CheckTotals) -> None:
    if checks.outage:
        run.report.notes.append(checks.outage)
    if checks.failures:
        run.report.notes.append(reasons.ChecksFailed(len(checks.failures), checks.failures[0]))
    if checks.deferred:
        run.report.notes.append(reasons.ChecksDeferred(checks.deferred))
    if checks.ambiguous:
        run.report.notes.append(reasons.ContentAmbiguous(len(checks.ambiguous)))
    if checks.broken and not run.cache.deletes:
        run.report.notes.append(reasons.ContentUndeletable(len(checks.broken)))


async def _wait_for_exports(run: _Run, seen: _Seen, *, accept_loss: bool) -> _Seen:
    """Wait for exports in progress that keep blobs from being deleted; then look again."""
    waits = _pauses(run.collector.settings.export_wait)
    known, probe, snapshot = seen
    while export := _deferred_by(run, probe, snapshot):
        run.collector.progress.stage("wait for an export")
        log.info("waiting for an index: %s", format_reason(export.reason))
        if not await run.cache.wait_for_index(export, snapshot, waits, run.conditions):
            break
        at = max(run.collector.clock(), snapshot.now + _MOMENT)
        try:
            known, probe, snapshot = await _look(run, accept_loss=accept_loss, at=at)
        except UsedUpError as error:
            run.budget.stop(error.reason)
    return known, probe, snapshot


def _deferred_by(run: _Run, probe: Probe, snapshot: Snapshot) -> Export | None:
    """Return the export that it is worth to wait for, if there is one."""
    if run.budget.used_up or run.budget.is_limited or probe.unasked_blobs:
        return None
    if find_export(snapshot) is None:
        return None
    return make_plan(mark(snapshot), run.rules).deferred


def _pauses(total: timedelta) -> Iterator[timedelta]:
    """Divide a time into the pauses after which to look again."""
    while total > timedelta(0):
        yield min(total, _PAUSE)
        total -= _PAUSE


def _merged_scope(run: _Run, probe: Probe) -> Scope | None:
    settings = run.collector.settings
    name = settings.merged_tag if probe.layout else settings.merged_scope
    # A repair merges nothing, so the merge is an index like any other.
    return Scope(name) if name and not run.report.repair else None


async def _record(run: _Run, connection: Connection, probe: Probe) -> None:
    for some in run.cache.further_entries():
        record_entries(connection, run.target_id, probe, some)
        await anyio.lowlevel.checkpoint()
        if reason := run.budget.take(0):
            raise UnfinishedError("the entries could not all be listed", reason)
    record(connection, run.target_id, probe)


def _note_what_was_not_seen(run: _Run, probe: Probe, snapshot: Snapshot) -> None:
    """Say what is left to see; if no index could be read at all, the run did not do its work."""
    if run.budget.used_up:
        if probe.unread:
            run.left.indexes = len(probe.unread)
        if probe.unasked_blobs:
            run.left.blobs = len(probe.unasked_blobs)
    elif probe.unread and not any(generation.exists for generation in snapshot.generations):
        unread = probe.unread[0]
        why = format_reason(unread.why)
        problem = f"no index could be read, {unread.name} for one: {why}"
        run.report.problems.append(problem)


def _plan(run: _Run, marks: Marks) -> tuple[Marks, Plan]:
    run.collector.progress.stage("plan")
    plan = make_plan(marks, run.rules)
    plan = replace(plan, keeps=(*plan.keeps, *run.cache.left_alone))
    run.report.marks, run.report.plan = marks, plan
    with run.collector.database.begin() as connection:
        save_marks(connection, run.target_id, marks, plan)
        save_actions(connection, run.report.run, run.report.actions())
        run.report.blocked_since = note_blocked(
            connection, run.target_id, marks.snapshot.now, blocked=plan.blocked is not None
        )
        settled = set(plan.settled)
        for index in marks.indexes:
            if index.id in settled and index.newest:
                others = index.manifests - {index.newest.manifest_id}
                supersede(connection, others, marks.snapshot.now)
                reinstate(connection, index.newest.manifest_id)
    return marks, plan


def _parts(run: _Run, marks: Marks) -> Iterable[tuple[Marks, Plan]]:
    """Give the parts of the plan that hold the entries of a directory; a host has no such many."""
    if marks.snapshot.layout is None:
        return ()
    return Parts(run.collector.database, run.target_id, marks, run.rules)


async def _plan_parts(run: _Run, parts: Iterable[tuple[Marks, Plan]]) -> None:
    """Decide of the entries that are too many to hold at once."""
    behind = len(run.report.actions())
    for marks, plan in parts:
        actions = run.report.further.plan(marks.marks, plan)
        with run.collector.database.begin() as connection:
            save_marks(connection, run.target_id, marks, plan)
            save_actions(connection, run.report.run, actions, behind=behind)
        run.places.append(behind)
        behind += len(actions)
        await anyio.lowlevel.checkpoint()


async def _rewrite(run: _Run, marks: Marks, plan: Plan) -> None:
    collector = run.collector
    collector.progress.stage("rewrite", len(plan.writes))
    indexes = {index.id: index for index in marks.indexes}
    async for rewritten in run.cache.rewrite(plan.writes, marks, run.conditions):
        index = indexes[rewritten.index]
        run.report.rewritten[index.id] = rewritten
        if rewritten.error:
            key = next(write.key for write in plan.writes if write.index == index.id)
            what = "was not written" if rewritten.unproven is None else "could not be read back"
            run.report.problems.append(f"{rewritten.unproven or key} {what}: {rewritten.error}")
        with collector.database.begin() as connection:
            save_rewritten(connection, run.target_id, rewritten, index.manifests, collector.clock())
        collector.progress.advance()


async def _sweep(run: _Run, marks: Marks, plan: Plan, parts: Iterable[tuple[Marks, Plan]]) -> None:
    run.collector.progress.stage("sweep", run.report.deletions)
    sweeper = Sweeper(
        run.cache.delete,
        run.cache.recheck(marks, run.report.rewritten, run.conditions),
        run.report.rewritten,
        budget=run.budget,
        progress=run.collector.progress,
    )
    await _sweep_part(run, sweeper, plan, run.report.swept)
    further = zip(run.places, parts, strict=True) if run.report.further.deletions else ()
    for place, (part, planned) in further:
        if run.budget.used_up:
            break
        swept: list[Swept] = []
        try:
            await _sweep_part(run, sweeper, planned, swept)
        finally:
            actions = run.report.sweep(part, swept)
            with run.collector.database.begin() as connection:
                save_actions(connection, run.report.run, actions, behind=place)


async def _sweep_part(run: _Run, sweeper: Sweeper, plan: Plan, swept: list[Swept]) -> None:
    """Delete some entries, and remember what is gone, however it ends."""
    try:
        async for one in sweeper.sweep(plan.deletes):
            swept.append(one)
            if one.failure:
                run.report.problems.append(f"{one.delete.entry.key} was not deleted: {one.failure}")
    finally:
        with run.collector.database.begin() as connection:
            save_swept(connection, run.target_id, swept, run.collector.clock())


async def _heal(run: _Run, marks: Marks) -> None:
    """Take what was deleted out of the indexes that builds have written meanwhile."""
    deleted = [one.delete.entry for one in run.report.swept if one.is_gone]
    indexes = {index.id: index for index in marks.indexes}
    try:
        async for heal in run.cache.heal(marks, run.report.rewritten, deleted, run.conditions):
            run.report.heals.append(heal)
            if heal.result is None:
                continue
            if heal.result.error:
                run.report.problems.append(f"{format_reason(heal.reason)}; {heal.result.error}")
            index = indexes.get(heal.index)
            merged = index.manifests if index else ()
            with run.collector.database.begin() as connection:
                now = run.collector.clock()
                save_rewritten(connection, run.target_id, heal.result, merged, now)
    except UsedUpError as error:
        run.budget.stop(error.reason)
        run.left.heals = True
    except StoreError as error:
        run.report.notes.append(reasons.SweepUnchecked(str(error)))


def _finish(run: _Run, status: str) -> Report:
    run.collector.progress.stage("report")
    if run.budget.used_up:
        left = run.left
        run.report.notes.append(
            reasons.Unfinished(
                cause=run.budget.used_up,
                listed=left.listed,
                indexes=left.indexes,
                blobs=left.blobs,
                heals=left.heals,
                actions=run.report.left,
            )
        )
    with run.collector.database.begin() as connection:
        changes = look_back(connection, run.target_id, run.report.run, run.report.started_at)
        built = run.report.build(
            status, run.collector.clock(), run.collector.store.requests, changes
        )
        finish_run(connection, built, told=len(run.report.actions()))
        forget(connection, run.target_id, run.report.started_at, run.report.grace)
        report = load_report(connection, built.run)
    log.info("run %d on %s: %s", report.run, report.target, report.status)
    return report
