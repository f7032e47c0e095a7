"""Plan: decide what to do, and store that before doing anything."""

from dataclasses import replace

import anyio.lowlevel

from maintainer.graph.actions import number_actions, save_keeps, save_plan
from maintainer.graph.reports import LISTED
from maintainer.graph.room import forget_departed
from maintainer.graph.runs import note_blocked, save_index_marks, save_marks
from maintainer.model.decision import Plan
from maintainer.model.marks import Marks
from maintainer.report.carried_out import Decided
from maintainer.stages.room import begin_plan, find_room
from maintainer.stages.run import Marked, Run


async def plan_actions(run: Run, marked: Marked) -> Plan:
    """Decide what to do, and store the plan: a run does nothing else."""
    run.context.progress.stage("plan")
    marked = await find_room(run, marked)
    marks = marked.marks
    planner = begin_plan(run, marked)
    plan = planner.plan(())
    plan = replace(plan, keeps=(*plan.keeps, *run.store.ignored))
    _store_plan(run, replace(marks, marks=()), plan)
    run.outlook.keep(plan.keeps)
    kept, unlisted = list(plan.keeps), LISTED
    for batch in marked.batches():
        part = planner.plan(batch.marks)
        run.report.entries.plan(batch.marks, part.deletes)
        run.outlook.keep(part.keeps)
        kept += part.keeps[:unlisted]
        run.report.count_unlisted(part.keeps[unlisted:])
        unlisted -= len(part.keeps[:unlisted])
        _store_plan(run, batch, replace(part, writes=()))
        plan = replace(plan, blocked=part.blocked, deferred=part.deferred)
        await anyio.lowlevel.checkpoint()
    with run.begin() as connection:
        save_index_marks(connection, run.target_id, marks, plan)
        number_actions(connection, run.report.run)
        if not (run.mode.dry_run or run.mode.repair or marks.snapshot.departed):
            forget_departed(connection, run.target_id)  # What still exists may be there again.
        save_keeps(connection, run.report.run, kept)
        blocked_since = note_blocked(
            connection,
            run.target_id,
            marks.snapshot.now,
            blocked=plan.blocked is not None,
            for_good=run.mode.sweeps and run.budget.exhausted is None,
        )
    run.report.decided = Decided(marks, plan, blocked_since)
    return plan


def _store_plan(run: Run, marks: Marks, plan: Plan) -> None:
    """Store a part of the plan, and what was marked."""
    with run.begin() as connection:
        save_marks(connection, run.target_id, marks, plan)
        save_plan(connection, run.report.run, plan)
