"""Rewrite, sweep and heal: carry out the stored plan, and nothing else."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection

from maintainer.cacheconfig import NO_REF, IndexId, IndexKey, Ref
from maintainer.errors import BudgetExhaustedError, StoreError
from maintainer.graph.actions import (
    add_heal,
    defer_rest,
    load_deletions,
    load_writes,
    save_outcomes,
    save_written,
)
from maintainer.graph.contents import save_contents
from maintainer.graph.room import save_departed
from maintainer.graph.runs import save_rewritten, save_swept
from maintainer.heal import Healer
from maintainer.model import reason as reasons
from maintainer.model.decision import Deletion, Plan, RewriteResult
from maintainer.model.marks import Index
from maintainer.report.reasons import format_reason
from maintainer.report.words import format_count
from maintainer.rewrite import rewrite
from maintainer.stages.run import Marked, Run
from maintainer.stores.base import Since
from maintainer.sweep import Sweeper

_DELETIONS = 500
"""How many deletions are read from the plan at a time."""
_FAILURES = 10
"""How many failed deletions are problems of their own; the others are counted in one more."""


async def rewrite_indexes(run: Run, marked: Marked, plan: Plan) -> None:
    """Write the planned indexes, and read them back.

    Raises StoreError if the store is one that this user may not write, and something is to be done.
    """
    _refuse_to_do_nothing(run, plan)
    marks = marked.marks
    with run.database.reading() as connection:
        planned = load_writes(connection, run.report.run)
    positions = {one.index: planned.get((one.index.ref, str(one.key))) for one in plan.writes}
    writes = [one for one in plan.writes if positions[one.index] is not None]
    run.context.progress.stage("rewrite", len(writes))
    indexes = {index.id: index for index in marks.indexes}
    keys = {write.index: write.key for write in writes}
    results: dict[IndexId, RewriteResult] = {}

    def save(result: RewriteResult) -> None:
        results[result.index] = result
        with run.begin() as connection:
            _save_rewritten(run, connection, result, indexes.get(result.index))
            if (position := positions[result.index]) is not None:
                save_written(connection, run.report.run, position, result)
        run.context.progress.advance()

    try:
        await rewrite(run.store, writes, marks, run.context, save)
    finally:
        in_order = [results[one.index] for one in writes if one.index in results]
        _report_rewritten(run, marked, in_order, keys)
    _save_leaving(run)


def _save_rewritten(
    run: Run, connection: Connection, result: RewriteResult, index: Index | None
) -> None:
    """Record what was written, and what it replaces; no run has seen the index before if None."""
    merged = index.generation_ids if index else ()
    now, grace = run.collector.clock(), run.report.grace
    save_rewritten(connection, run.target_id, result, merged, now=now, grace=grace)


def _save_leaving(run: Run) -> None:
    """Record what leaves to make room, as far as the planned indexes do not offer it any more.

    Builds may use what an index offers that was not written: the next run chooses anew then.
    """
    decided = run.report.decided
    if decided is None or not decided.marks.snapshot.leaving:
        return
    departed, leaving = decided.marks.snapshot.departed, set(decided.marks.snapshot.leaving)
    carried_out = run.report.carried_out
    not_written = carried_out.not_written(decided.plan)
    for index in decided.marks.indexes:
        if index.id in not_written:
            leaving -= index.referenced
    leaving -= carried_out.exported
    with run.begin() as connection:
        save_departed(connection, run.target_id, {one: departed[one] for one in leaving})


def _refuse_to_do_nothing(run: Run, plan: Plan) -> None:
    """Raise StoreError where work is left because nobody, or not this user, may write.

    That a token may not write a ref is normal; that a directory may not be written is not.
    """
    held = any(
        isinstance(one.reason, reasons.NotWritable) and one.reason.pending for one in plan.keeps
    )
    if NO_REF in run.store.access.readable - run.store.access.writable and (held or plan.deletes):
        refusal = run.store.access.refusal
        raise StoreError(
            f"{run.store.name}: {refusal.why}, so nothing was changed: {refusal.advice}, or run "
            "with --dry-run"
        )


def _report_rewritten(
    run: Run,
    marked: Marked,
    results: Sequence[RewriteResult],
    keys: Mapping[IndexId, IndexKey],
) -> None:
    """Report what was rewritten, in the order of the plan."""
    stored = _stored_before(marked, results)
    for result in results:
        run.report.rewrite(result, stored)
        if result.error:
            what = "was not written" if result.unverified is None else "could not be read back"
            key = result.unverified or keys[result.index]
            run.report.problems.append(f"{key} {what}: {result.error}")


def _stored_before(marked: Marked, results: Iterable[RewriteResult]) -> frozenset[tuple[Ref, str]]:
    """Return what is in the list, too, of what was written, by ref and key."""
    keys = {key for one in results for key in one.entries}
    return marked.entries.stored(keys)


async def sweep_entries(run: Run, marked: Marked) -> None:
    """Carry out the stored deletions; then heal the indexes that builds wrote concurrently."""
    if not run.mode.sweeps:
        return
    run.context.progress.stage("sweep", run.report.entries.deletions)
    rewritten = run.report.carried_out.rewritten
    since = Since(marked.marks, rewritten, marked.looked_up, marked.entries.accessed)
    sweeper = Sweeper(run.store, since, run.context)
    failures = _Failures()
    try:
        await _sweep_all(run, sweeper, failures)
    finally:
        run.report.problems += failures.problems()
    if run.budget.exhausted:
        with run.begin() as connection:
            defer_rest(connection, run.report.run, run.budget.exhausted)
    if run.report.entries.blobs_deleted and not run.store.abilities.excludes_exports:
        await _heal(run, marked)


class _Failures:
    """The deletions that failed: some of them, and how many others."""

    def __init__(self) -> None:
        self._some: list[str] = []
        self._more = 0

    def add(self, one: Deletion) -> None:
        """Add a deletion, if it failed."""
        if not one.failure:
            return
        if len(self._some) < _FAILURES:
            self._some.append(f"{one.delete.entry.key} was not deleted: {one.failure}")
        else:
            self._more += 1

    def problems(self) -> list[str]:
        """Return the problems to report."""
        if not self._more:
            return self._some
        were = format_count(self._more, "more entry was", "more entries were")
        return [*self._some, f"{were} not deleted: the actions of the report say why"]


async def _sweep_all(run: Run, sweeper: Sweeper, failures: _Failures) -> None:
    """Carry out the stored deletions, batch by batch."""
    after = -1
    while not run.budget.exhausted:
        with run.database.reading() as connection:
            planned = load_deletions(connection, run.report.run, after=after, limit=_DELETIONS)
        if not planned:
            break
        swept: dict[int, Deletion] = {}
        try:
            await sweeper.sweep({one.position: one.delete for one in planned}, swept)
        finally:
            _save_swept(run, swept, failures)
            _save_checked(run, sweeper)
        after = planned[-1].position


def _save_swept(run: Run, swept: Mapping[int, Deletion], failures: _Failures) -> None:
    """Record the deletions in the order of the plan, however the sweep ends."""
    in_order = sorted(swept.items())
    for _, one in in_order:
        run.report.sweep(one)
        failures.add(one)
    with run.begin() as connection:
        now = run.collector.clock()
        save_swept(connection, run.target_id, [one for _, one in in_order], now)
        outcomes = [(position, one.outcome) for position, one in in_order]
        save_outcomes(connection, run.report.run, outcomes)


def _save_checked(run: Run, sweeper: Sweeper) -> None:
    """Record what look-ups before deletions have shown: what has content again counts again."""
    checked = sweeper.contents.checked
    if checked.looked_up:
        with run.begin() as connection:
            save_contents(connection, run.target_id, checked, run.collector.clock())


async def _heal(run: Run, marked: Marked) -> None:
    """Drop the deleted blobs from the indexes that builds have written since the run began."""
    run.context.progress.stage("heal")
    indexes = {index.id: index for index in marked.marks.indexes}
    rewritten = run.report.carried_out.rewritten
    healer = Healer(run.store, marked.marks, rewritten, marked.entries, run.context)
    try:
        async for planned in healer.find():
            with run.begin() as connection:
                position = add_heal(connection, run.report.run, planned)
            heal = await healer.heal(planned)
            run.report.heal(heal, _stored_before(marked, [heal.result] if heal.result else []))
            if heal.result is None:
                continue
            if heal.result.error:
                run.report.problems.append(f"{format_reason(heal.reason)}; {heal.result.error}")
            with run.begin() as connection:
                _save_rewritten(run, connection, heal.result, indexes.get(heal.index))
                save_written(connection, run.report.run, position, heal.result)
    except BudgetExhaustedError as error:
        run.budget.stop(error.reason)
        run.deferred.heals = True
    except StoreError as error:
        run.report.notes.append(reasons.SweepUnchecked(str(error)))
