"""One run: probe → record → mark → plan → rewrite → sweep → report."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel

from maintainer.budget import Budget
from maintainer.cacheconfig import BlobKey, Digest, Scope
from maintainer.contents import ContentChecker
from maintainer.errors import (
    BudgetExhaustedError,
    MaintainerError,
    MassDeletionError,
    StoreError,
    UnfinishedError,
)
from maintainer.exports import LONGEST_EXPORT, find_export
from maintainer.graph.actions import (
    LISTED,
    add_heal,
    count_deferred,
    count_unlisted,
    defer_rest,
    load_actions,
    load_deletions,
    load_writes,
    number_actions,
    save_outcomes,
    save_plan,
    save_written,
)
from maintainer.graph.contents import save_contents
from maintainer.graph.database import Database
from maintainer.graph.entries import Entries
from maintainer.graph.forget import forget
from maintainer.graph.recall import load_snapshot, recall, recall_entries
from maintainer.graph.record import find_target, record
from maintainer.graph.runs import (
    begin_run,
    finish_run,
    free_moment,
    load_report,
    note_blocked,
    save_index_marks,
    save_marks,
    save_rewritten,
    save_swept,
)
from maintainer.graph.trends import look_back
from maintainer.heal import Healer
from maintainer.logs import StagesInLogs, log_context
from maintainer.mark import Marker, mark
from maintainer.model import reason as reasons
from maintainer.model.checks import CheckTotals
from maintainer.model.decision import Deletion, Plan, Rules
from maintainer.model.entry import StoreLimits
from maintainer.model.export import Export
from maintainer.model.marks import Marks
from maintainer.model.memory import Known, Probe
from maintainer.model.snapshot import Snapshot
from maintainer.plan import Planner
from maintainer.policy.loss import find_loss
from maintainer.probe import probe, wait_for_index
from maintainer.progress import Progress, Unwatched
from maintainer.report import Report
from maintainer.report.build import ReportBuilder
from maintainer.report.reasons import format_reason
from maintainer.rewrite import rewrite
from maintainer.settings import Settings
from maintainer.stores.base import RunContext, Since, Store
from maintainer.sweep import Sweeper

log = logging.getLogger(__name__)

_PAUSE = timedelta(seconds=15)
"""So often it is asked whether an export has ended."""
_MOMENT = timedelta(microseconds=1)
"""No two looks are at the same time."""
_DELETIONS = 500
"""So many deletions are read from the plan at once."""


def now_utc() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Collector:
    """What a run works with."""

    store: Store
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
    run = _begin(collector, _Mode(dry_run, no_sweep or repair, accept_loss, repair))
    with log_context(run=run.report.run, target=collector.store.name):
        log.info("run %d on %s begins", run.report.run, collector.store.name)
        try:
            seen = await _record(run, await _probe(run, run.report.started_at))
            if marked := await _mark(run, seen):
                plan = await _plan(run, marked)
                if not dry_run:
                    await _rewrite(run, marked, plan)
                    await _sweep(run, marked)
        except BudgetExhaustedError as error:
            # Only a list ends like that, of which a part says nothing; so nothing was recorded.
            run.budget.stop(error.reason)
            run.left.listed = False
        except UnfinishedError as error:
            run.report.problems.append(f"{error}: {format_reason(error.reason)}")
        except MaintainerError as error:
            run.report.problems.append(str(error))
        except BaseException:
            _report(run, "interrupted")
            raise
        return _report(run)


@dataclass(frozen=True, slots=True)
class _Mode:
    """What the caller asks for."""

    dry_run: bool
    no_sweep: bool
    accept_loss: bool
    repair: bool


@dataclass(slots=True)
class _Left:
    """What the run did not come to, because of its budget; actions are counted by the graph."""

    listed: bool = True
    indexes: int = 0
    blobs: int = 0
    heals: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    """A run under way."""

    collector: Collector
    context: RunContext
    mode: _Mode
    target_id: int
    report: ReportBuilder
    left: _Left = field(default_factory=_Left)

    @property
    def store(self) -> Store:
        """The cache."""
        return self.collector.store

    @property
    def database(self) -> Database:
        """The graph."""
        return self.collector.database

    @property
    def budget(self) -> Budget:
        """How much the run may still do."""
        return self.context.budget

    @property
    def rules(self) -> Rules:
        """What the owner of the cache has decided."""
        settings = self.collector.settings
        return Rules(
            grace=settings.grace,
            max_index_size=settings.max_index_size,
            protects_unreadable_refs=settings.unreadable_refs == "protect",
            retention=(self.report.limits or StoreLimits()).retention,
            repair=self.mode.repair,
        )


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was known before a look, and what it has shown."""

    known: Known
    probe: Probe


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look has shown, once it is recorded."""

    known: Known
    probe: Probe
    snapshot: Snapshot
    entries: Entries


@dataclass(frozen=True, slots=True)
class _Marked:
    """What the indexes come to, and the entries that are marked against them."""

    marks: Marks
    entries: Entries
    looked_up: frozenset[int]
    """The entries that the run has looked up to check them."""

    def batches(self) -> Iterator[Marks]:
        """Mark the entries, some thousands at a time."""
        marker = Marker(self.marks.snapshot, self.marks.indexes)
        for batch in self.entries.batches():
            yield replace(self.marks, marks=tuple(map(marker.mark, batch)))


def _begin(collector: Collector, mode: _Mode) -> _Run:
    now = collector.clock()
    name, settings = collector.store.name, collector.settings
    with collector.database.begin() as connection:
        target_id = find_target(connection, name)
        now = free_moment(connection, target_id, now)
        number = begin_run(connection, target_id, now, dry_run=mode.dry_run)
    report = ReportBuilder(
        number, name, started_at=now, grace=settings.grace, dry_run=mode.dry_run, repair=mode.repair
    )
    report.deletions_a_minute = collector.store.abilities.deletions_a_minute
    requests = collector.store.requests
    budget = collector.budget or Budget(requests, settings, collector.clock)
    progress = StagesInLogs(collector.progress)
    context = RunContext(settings, budget, progress, collector.clock, collector.sleep)
    return _Run(collector, context, mode, target_id, report)


async def _probe(run: _Run, at: datetime) -> _Looked:
    """Look what there is."""
    with run.database.begin() as connection:
        known = recall(connection, run.target_id, run.store.access)
    seen = await probe(run.store, known, at, run.context)
    run.report.limits = run.report.limits or await run.store.limits(at, run.context)
    return _Looked(known, seen)


async def _record(run: _Run, looked: _Looked) -> _Seen:
    """Record what a probe has shown, after another probe if too much seems to be gone.

    If blobs are due to be deleted, and an export in progress may count on them, wait for it and
    look again. Raises MassDeletionError.
    """
    seen = await _record_once(run, looked)
    if not (run.mode.dry_run or run.mode.no_sweep):
        seen = await _wait_for_exports(run, seen)
    _note_what_was_not_seen(run, seen)
    return seen


async def _record_once(run: _Run, looked: _Looked) -> _Seen:
    try:
        return _write_down(run, looked)
    except MassDeletionError:
        log.warning("most known entries seem to be gone: listing them again")
    return _write_down(run, await _probe(run, looked.probe.at))


def _write_down(run: _Run, looked: _Looked) -> _Seen:
    """Record a probe; nothing of it if implausibly much is gone."""
    probed, target_id = looked.probe, run.target_id
    with run.database.begin() as connection:
        remember_exports = run.collector.settings.remember_exports
        record(connection, target_id, probed, remember_exports=remember_exports)
        snapshot = load_snapshot(
            connection, target_id, probed, merged_scope=_merged_scope(run, probed)
        )
        remembered = recall_entries(connection, target_id, probed.access, probed.at)
        limits = run.report.limits or StoreLimits()
        loss = find_loss(looked.known, remembered, probed, snapshot, limits)
        if loss and not run.mode.accept_loss:
            raise MassDeletionError(loss)
    entries = Entries(run.database, target_id, probed.at, run.report.started_at)
    if not probed.abilities.shows_exports:
        since = probed.at - max(LONGEST_EXPORT, run.collector.settings.grace)
        snapshot = replace(snapshot, entries=entries.created_since(since))
    return _Seen(looked.known, probed, snapshot, entries)


def _merged_scope(run: _Run, probed: Probe) -> Scope | None:
    settings = run.collector.settings
    name = settings.merged_scope if probed.abilities.numbered else settings.merged_tag
    # A repair merges nothing, so the merge is an index like any other.
    return Scope(name) if name and not run.mode.repair else None


async def _wait_for_exports(run: _Run, seen: _Seen) -> _Seen:
    waits = _pauses(run.collector.settings.export_wait)
    while export := _find_deferring(run, seen):
        run.context.progress.stage("wait for an export")
        log.info("waiting for an index: %s", format_reason(export.reason))
        if not await wait_for_index(run.store, export, waits, run.context):
            break
        at = max(run.collector.clock(), seen.probe.at + _MOMENT)
        try:
            seen = await _record_once(run, await _probe(run, at))
        except BudgetExhaustedError as error:
            run.budget.stop(error.reason)
    return seen


def _find_deferring(run: _Run, seen: _Seen) -> Export | None:
    """Return the export that is worth waiting for, if any."""
    if run.budget.exhausted or run.budget.is_limited or seen.probe.unasked_blobs:
        return None
    if find_export(seen.snapshot) is None:
        return None
    marked = _Marked(mark(seen.snapshot), seen.entries, frozenset())
    planner = Planner(marked.marks, run.rules)
    return next((e for m in marked.batches() if (e := planner.plan(m.marks).deferred)), None)


def _pauses(total: timedelta) -> Iterator[timedelta]:
    """Divide a time into the pauses between two probes."""
    while total > timedelta(0):
        yield min(total, _PAUSE)
        total -= _PAUSE


def _note_what_was_not_seen(run: _Run, seen: _Seen) -> None:
    """Record what is still unread; if no index could be read at all, the run has failed."""
    unread = seen.probe.unread
    if run.budget.exhausted:
        if unread:
            run.left.indexes = len(unread)
        if seen.probe.unasked_blobs:
            run.left.blobs = len(seen.probe.unasked_blobs)
    elif unread and not any(generation.exists for generation in seen.snapshot.generations):
        why = format_reason(unread[0].why)
        run.report.problems.append(f"no index could be read, {unread[0].name} for one: {why}")


async def _mark(run: _Run, seen: _Seen) -> _Marked | None:
    """Return what each index comes to, once it is known whether blobs can be downloaded.

    Where a blob has no content, an older result may take the place of the newest: that needs other
    blobs, so there are as many rounds of checks as it takes. None if the budget did not allow to
    ask what exists.
    """
    if seen.probe.unasked_blobs:
        return None
    marks, probed = mark(seen.snapshot), seen.probe
    limits = run.report.limits or StoreLimits()
    accept_loss = run.mode.accept_loss
    checker = ContentChecker(
        run.store, seen.known, run.context, quota=limits.quota, accept_loss=accept_loss
    )
    run.report.checks = checker.totals
    while True:
        checked = await checker.check(marks, seen.entries)
        back = checked.readable_blobs & probed.broken_blobs
        with run.database.begin() as connection:
            save_contents(connection, run.target_id, checked, probed.at)
            if not checked.changes_anything and not back:
                break
            broken = probed.broken_blobs.union(checked.broken_blobs) - back
            live = probed.live_blobs.union(back) - broken
            probed = replace(probed, live_blobs=live, broken_blobs=broken)
            snapshot = load_snapshot(
                connection,
                run.target_id,
                probed,
                entries=seen.snapshot.entries,
                merged_scope=seen.snapshot.merged_scope,
            )
        marks = mark(snapshot)
    _note_what_was_not_checked(run, checker.totals)
    return _Marked(marks, seen.entries, checker.looked_up)


def _note_what_was_not_checked(run: _Run, checks: CheckTotals) -> None:
    notes = run.report.notes
    if checks.outage:
        notes.append(checks.outage)
    if checks.failures:
        notes.append(reasons.ChecksFailed(len(checks.failures), checks.failures[0]))
    if checks.deferred:
        notes.append(reasons.ChecksDeferred(checks.deferred))
    if checks.ambiguous:
        notes.append(reasons.ContentAmbiguous(len(checks.ambiguous)))
    if checks.broken and not run.store.abilities.deletes:
        notes.append(reasons.ContentUndeletable(len(checks.broken)))


async def _plan(run: _Run, marked: _Marked) -> Plan:
    """Decide what to do, and store the plan: a run does only what is stored."""
    run.context.progress.stage("plan")
    marks = run.report.marks = marked.marks
    planner = Planner(marks, run.rules)
    plan = planner.plan(())
    plan = replace(plan, keeps=(*plan.keeps, *run.store.ignored))
    _store_plan(run, replace(marks, marks=()), plan)
    listed = 0
    for batch in marked.batches():
        part = planner.plan(batch.marks)
        run.report.entries.plan(batch.marks, part.deletes)
        keeps = part.keeps[: max(0, LISTED - listed)]
        run.report.count_unlisted(part.keeps[len(keeps) :])
        listed += len(keeps)
        _store_plan(run, batch, replace(part, writes=()), keeps=len(keeps))
        plan = replace(plan, blocked=part.blocked, deferred=part.deferred)
        await anyio.lowlevel.checkpoint()
    run.report.plan = plan
    with run.database.begin() as connection:
        save_index_marks(connection, run.target_id, marks, plan)
        number_actions(connection, run.report.run)
        run.report.blocked_since = note_blocked(
            connection, run.target_id, marks.snapshot.now, blocked=plan.blocked is not None
        )
    return plan


def _store_plan(run: _Run, marks: Marks, plan: Plan, *, keeps: int | None = None) -> None:
    """Store a part of the plan: of what is kept, so many are listed; by default all."""
    with run.database.begin() as connection:
        save_marks(connection, run.target_id, marks, plan)
        save_plan(connection, run.report.run, replace(plan, keeps=plan.keeps[:keeps]))


async def _rewrite(run: _Run, marked: _Marked, plan: Plan) -> None:
    """Write the planned indexes, and read them back."""
    marks = marked.marks
    with run.database.reading() as connection:
        planned = load_writes(connection, run.report.run)
    positions = {one.index: planned.get((one.index.ref, str(one.key))) for one in plan.writes}
    writes = [one for one in plan.writes if positions[one.index] is not None]
    run.context.progress.stage("rewrite", len(writes))
    indexes = {index.id: index for index in marks.indexes}
    keys = {write.index: write.key for write in writes}
    async for result in rewrite(run.store, writes, marks, run.context):
        run.report.rewritten[result.index] = result
        if result.error:
            what = "was not written" if result.unverified is None else "could not be read back"
            key = result.unverified or keys[result.index]
            run.report.problems.append(f"{key} {what}: {result.error}")
        with run.database.begin() as connection:
            now = run.collector.clock()
            merged = indexes[result.index].manifests
            save_rewritten(connection, run.target_id, result, merged, now)
            if (position := positions[result.index]) is not None:
                save_written(connection, run.report.run, position, result)
        run.context.progress.advance()


async def _sweep(run: _Run, marked: _Marked) -> None:
    """Delete what the stored plan says; then heal what builds wrote concurrently."""
    if run.mode.no_sweep:
        return
    run.context.progress.stage("sweep", run.report.entries.deletions)
    rewritten = run.report.rewritten
    since = Since(marked.marks, rewritten, marked.looked_up, marked.entries.accessed)
    sweeper = Sweeper(run.store, since, run.context)
    after = -1
    while not run.budget.exhausted:
        with run.database.reading() as connection:
            planned = load_deletions(connection, run.report.run, after=after, limit=_DELETIONS)
        if not planned:
            break
        swept: list[tuple[int, Deletion]] = []
        try:
            for one in planned:
                # One by one: what is gone is remembered, however the sweep ends.
                swept.append((one.position, await sweeper.sweep(one.delete)))  # noqa: PERF401
        finally:
            _save_swept(run, swept)
        after = planned[-1].position
    if run.budget.exhausted:
        with run.database.begin() as connection:
            defer_rest(connection, run.report.run, run.budget.exhausted)
    if run.report.entries.blobs_deleted and not run.store.abilities.shows_exports:
        await _heal(run, marked)


def _save_swept(run: _Run, swept: Sequence[tuple[int, Deletion]]) -> None:
    """Remember what is gone, however the sweep ends."""
    for _, one in swept:
        run.report.sweep(one)
        if one.failure:
            run.report.problems.append(f"{one.delete.entry.key} was not deleted: {one.failure}")
    with run.database.begin() as connection:
        now = run.collector.clock()
        save_swept(connection, run.target_id, [one for _, one in swept], now)
        outcomes = [(position, one.outcome) for position, one in swept]
        save_outcomes(connection, run.report.run, outcomes)


async def _heal(run: _Run, marked: _Marked) -> None:
    """Remove what was deleted from the indexes that builds have written since the run began."""
    run.context.progress.stage("heal")
    indexes = {index.id: index for index in marked.marks.indexes}
    rewritten = run.report.rewritten
    healer = Healer(run.store, marked.marks, rewritten, marked.entries, run.context)
    try:
        async for planned in healer.find():
            with run.database.begin() as connection:
                position = add_heal(connection, run.report.run, planned)
            heal = await healer.heal(planned)
            run.report.heals.append(heal)
            if heal.result is None:
                continue
            if heal.result.error:
                run.report.problems.append(f"{format_reason(heal.reason)}; {heal.result.error}")
            index = indexes.get(heal.index)
            merged = index.manifests if index else ()
            with run.database.begin() as connection:
                now = run.collector.clock()
                save_rewritten(connection, run.target_id, heal.result, merged, now)
                save_written(connection, run.report.run, position, heal.result)
    except BudgetExhaustedError as error:
        run.budget.stop(error.reason)
        run.left.heals = True
    except StoreError as error:
        run.report.notes.append(reasons.SweepUnchecked(str(error)))


def _report(run: _Run, status: str | None = None) -> Report:
    """Return what the run found, did and kept."""
    run.context.progress.stage("report")
    number, began_at = run.report.run, run.report.started_at
    with run.database.begin() as connection:
        if run.budget.exhausted:
            left = run.left
            run.report.notes.append(
                reasons.Unfinished(
                    cause=run.budget.exhausted,
                    listed=left.listed,
                    indexes=left.indexes,
                    blobs=left.blobs,
                    heals=left.heals,
                    actions=count_deferred(connection, number),
                )
            )
        run.report.blob_sizes = _stored_sizes(run)
        changes = look_back(connection, run.target_id, number, began_at)
        built = run.report.build(
            status or _status(run),
            run.collector.clock(),
            run.store.requests,
            changes,
            actions=load_actions(connection, number),
            more_actions=count_unlisted(connection, number),
        )
        finish_run(connection, built)
        forget(connection, run.target_id, began_at, run.report.grace)
        report = load_report(connection, built.run)
    log.info("run %d on %s: %s", report.run, report.target, report.status)
    return report


def _stored_sizes(run: _Run) -> dict[Digest, int]:
    """Return the sizes of the stored blobs that indexes reference."""
    marks = run.report.marks
    if marks is None:
        return {}
    entries = Entries(run.database, run.target_id, marks.snapshot.now, run.report.started_at)
    referenced = frozenset[Digest]().union(
        *(index.remembered.blobs | index.named for index in marks.indexes)
    )
    return {
        entry.parsed.digest: entry.size
        for entry in entries.holding(referenced)
        if isinstance(entry.parsed, BlobKey)
    }


def _status(run: _Run) -> str:
    if run.budget.interrupted:
        return "interrupted"
    return "failed" if run.report.problems else "done"
