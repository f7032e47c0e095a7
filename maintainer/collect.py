"""One run: probe → record → mark → plan → rewrite → sweep → report."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import anyio

from maintainer.budget import Budget
from maintainer.errors import MaintainerError, MassDisappearanceError
from maintainer.graph.database import Database
from maintainer.graph.recall import load_snapshot, recall, recall_entries
from maintainer.graph.record import find_target, record
from maintainer.graph.runs import (
    begin_run,
    finish_run,
    load_report,
    reinstate,
    save_actions,
    save_marks,
    save_rewritten,
    save_swept,
    supersede,
)
from maintainer.graph.trends import look_back
from maintainer.logs import StagesInLogs, log_context
from maintainer.mark import Marks, mark
from maintainer.outage import find_outage
from maintainer.plan import Plan, make_plan
from maintainer.probe import Known, Probe, probe_store
from maintainer.progress import Progress, Unwatched
from maintainer.report import Report
from maintainer.report.build import ReportBuilder
from maintainer.report.words import say_count
from maintainer.rewrite import Rewriter
from maintainer.settings import Settings
from maintainer.snapshot import Snapshot
from maintainer.stores import Store
from maintainer.sweep import sweep

log = logging.getLogger(__name__)


def now_utc() -> datetime:
    """Give the time."""
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
) -> Report:
    """Do one run, on a database that the caller holds.

    A dry run is the same run, which stops behind the plan. `accept_loss` goes on even if most of
    what was known is gone. What goes wrong is in the report, whose
    status then is `failed`; only a database that cannot be used raises (DatabaseError).
    """
    collector = replace(collector, progress=StagesInLogs(collector.progress))
    run = _begin(collector, dry_run=dry_run)
    with log_context(run=run.report.run, target=collector.store.name):
        log.info("run %d on %s begins", run.report.run, collector.store.name)
        try:
            probe = await _probe(run, accept_loss=accept_loss)
            snapshot = _record(run, probe)
            _note_what_was_not_seen(run, probe, snapshot)
            if not probe.unasked_blobs:
                marks, plan = _plan(run, mark(snapshot))
                if not dry_run:
                    await _rewrite(run, marks, plan)
                    if not no_sweep:
                        await _sweep(run, marks, plan)
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


@dataclass(frozen=True, slots=True)
class _Run:
    """A run under way."""

    collector: Collector
    target_id: int
    budget: Budget
    report: ReportBuilder
    left: list[str] = field(default_factory=list)
    """What the run did not come to, because of its budget."""


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
        quota=collector.settings.quota,
        dry_run=dry_run,
    )
    return _Run(collector, target_id, collector.budget or _budget(collector), report)


def _budget(collector: Collector) -> Budget:
    return Budget(collector.store.requests, collector.settings, collector.clock)


async def _probe(run: _Run, *, accept_loss: bool) -> Probe:
    """Look; look a second time if too much is gone, and go no further if it stays so."""
    access = run.collector.store.access
    with run.collector.database.begin() as connection:
        known = recall(connection, run.target_id, access)
        remembered = recall_entries(connection, run.target_id, access)
    quota = run.collector.settings.quota
    probe = await _probe_once(run, known)
    if accept_loss or find_outage(known, remembered, probe, quota=quota) is None:
        return probe
    log.warning("most of what was known seems to be gone: looking again")
    probe = await _probe_once(run, known)
    if outage := find_outage(known, remembered, probe, quota=quota):
        raise MassDisappearanceError(outage)
    return probe


async def _probe_once(run: _Run, known: Known) -> Probe:
    return await probe_store(
        run.collector.store,
        known,
        now=run.report.started_at,
        scopes=run.collector.settings.scopes,
        generation_gap=run.collector.settings.generation_gap,
        budget=run.budget,
        progress=run.collector.progress,
    )


def _record(run: _Run, probe: Probe) -> Snapshot:
    run.collector.progress.stage("record")
    with run.collector.database.begin() as connection:
        record(connection, run.target_id, probe)
        return load_snapshot(connection, run.target_id, probe)


def _note_what_was_not_seen(run: _Run, probe: Probe, snapshot: Snapshot) -> None:
    """Say what is left to see; if no index could be read at all, the run did not do its work."""
    if run.budget.used_up:
        if probe.unread:
            run.left.append(f"{say_count(len(probe.unread), 'index', 'indexes')} to read")
        if probe.unasked_blobs:
            run.left.append(f"{say_count(len(probe.unasked_blobs), 'blob')} to look for")
    elif probe.unread and not any(generation.exists for generation in snapshot.generations):
        unread = probe.unread[0]
        problem = f"no index could be read, {unread.name} for one: {unread.problem}"
        run.report.problems.append(problem)


def _plan(run: _Run, marks: Marks) -> tuple[Marks, Plan]:
    run.collector.progress.stage("plan")
    plan = make_plan(marks, grace=run.collector.settings.grace)
    run.report.marks, run.report.plan = marks, plan
    with run.collector.database.begin() as connection:
        save_marks(connection, run.target_id, marks, plan)
        save_actions(connection, run.report.run, run.report.actions())
        settled = set(plan.settled)
        for index in marks.indexes:
            if index.id in settled and index.newest:
                others = index.manifests - {index.newest.manifest_id}
                supersede(connection, others, marks.snapshot.now)
                reinstate(connection, index.newest.manifest_id)
    return marks, plan


async def _rewrite(run: _Run, marks: Marks, plan: Plan) -> None:
    collector = run.collector
    collector.progress.stage("rewrite", len(plan.writes))
    rewriter = Rewriter(
        collector.store,
        marks.snapshot.live_blobs,
        budget=run.budget,
        reservation_wait=collector.settings.reservation_wait,
        clock=collector.clock,
        sleep=collector.sleep,
    )
    indexes = {index.id: index for index in marks.indexes}
    for write in plan.writes:
        index = indexes[write.index]
        rewritten = await rewriter.rewrite(write, index)
        run.report.rewritten[write.index] = rewritten
        if rewritten.error:
            run.report.problems.append(f"{write.key} was not written: {rewritten.error}")
        with collector.database.begin() as connection:
            save_rewritten(connection, run.target_id, rewritten, index.manifests, collector.clock())
        collector.progress.advance()


async def _sweep(run: _Run, marks: Marks, plan: Plan) -> None:
    collector = run.collector
    swept = sweep(
        collector.store,
        plan.deletes,
        run.report.rewritten,
        {entry.store_id: entry.last_accessed_at for entry in marks.snapshot.entries},
        budget=run.budget,
        progress=collector.progress,
    )
    try:
        async for one in swept:
            run.report.swept.append(one)
            if one.failure:
                run.report.problems.append(f"{one.delete.entry.key} was not deleted: {one.failure}")
    finally:
        with collector.database.begin() as connection:
            save_swept(connection, run.target_id, run.report.swept, collector.clock())


def _finish(run: _Run, status: str) -> Report:
    run.collector.progress.stage("report")
    if run.budget.used_up:
        actions = sum(action.outcome.startswith("left") for action in run.report.actions())
        left = [*run.left, *([say_count(actions, "action")] if actions else [])]
        said = f": left for the next run: {', '.join(left)}" if left else ""
        run.report.notes.append(f"{run.budget.used_up}{said}")
    with run.collector.database.begin() as connection:
        changes = look_back(connection, run.target_id, run.report.run, run.report.started_at)
        built = run.report.build(
            status, run.collector.clock(), run.collector.store.requests, changes
        )
        finish_run(connection, built)
        report = load_report(connection, built.run)
    log.info("run %d on %s: %s", report.run, report.target, report.status)
    return report
