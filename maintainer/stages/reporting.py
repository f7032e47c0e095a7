"""Report: what the run found, did, and deferred to the next run."""

import logging

from maintainer.cacheconfig import Digest
from maintainer.graph.actions import count_deferred
from maintainer.graph.entries import Entries
from maintainer.graph.expire import expire
from maintainer.graph.reports import count_unlisted, load_actions
from maintainer.graph.runs import finish_run
from maintainer.graph.trends import compare_with_previous, with_trend
from maintainer.graph.tried import save_tried
from maintainer.model import reason as reasons
from maintainer.report import Report
from maintainer.stages.run import Run

log = logging.getLogger(__name__)


def report_run(run: Run, status: str | None = None) -> Report:
    """Return what the run found, did and kept."""
    run.context.progress.stage("report")
    number, began_at = run.report.run, run.report.started_at
    with run.begin() as connection:
        if run.budget.exhausted:
            deferred = run.deferred
            run.report.notes.append(
                reasons.Unfinished(
                    cause=run.budget.exhausted,
                    listed=deferred.listed,
                    indexes=deferred.indexes,
                    blobs=deferred.blobs,
                    heals=deferred.heals,
                    actions=count_deferred(connection, number),
                )
            )
        changes = compare_with_previous(connection, run.target_id, number, began_at)
        # A clock that was set back gives no negative time.
        ended_at = max(began_at, run.collector.clock())
        built = run.report.build(
            status or _status(run),
            ended_at,
            run.store.requests,
            changes,
            blob_sizes=_stored_sizes(run),
            actions=load_actions(connection, number),
            more_actions=count_unlisted(connection, number),
        )
        finish_run(connection, built)
        expire(connection, run.target_id, began_at, run.report.grace)
        save_tried(connection, run.target_id, run.context.tried)
        report = with_trend(connection, built)
    log.info("run %d on %s: %s", report.run, report.target, report.status)
    return report


def _stored_sizes(run: Run) -> dict[Digest, int]:
    """Return the sizes of the stored blobs that indexes reference."""
    if run.report.decided is None:
        return {}
    marks = run.report.decided.marks
    entries = Entries(run.database, run.target_id, marks.snapshot.now, run.report.started_at)
    referenced = frozenset[Digest]().union(
        *(index.remembered.blobs | index.referenced for index in marks.indexes)
    )
    return entries.sizes(referenced)


def _status(run: Run) -> str:
    if run.budget.interrupted:
        return "interrupted"
    return "failed" if run.report.problems else "done"
