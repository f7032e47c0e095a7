"""Idle runs: nothing has changed since a run that had nothing to do, and nothing is due."""

import logging

import msgspec

from maintainer.graph.idle import load_idle, next_forgetting, note_look, save_idle
from maintainer.graph.reports import read_report
from maintainer.graph.runs import finish_idle_run
from maintainer.graph.trends import compare_with_previous, with_trend
from maintainer.model.reason import NothingChanged, StoreNote
from maintainer.report import Report
from maintainer.report.model import NoteReport, RequestReport
from maintainer.report.reasons import format_reason
from maintainer.stages.run import Run

log = logging.getLogger(__name__)


def repeat_report(run: Run) -> Report | None:
    """End a run that has nothing to do, with the report of the last one; None if it may have."""
    if run.mode.repair:
        return None
    number, now = run.report.run, run.report.started_at
    with run.begin() as connection:
        idle = load_idle(connection, run.target_id)
        if idle is None or not idle.holds(run.outlook.fingerprint, now):
            return None
        last = read_report(connection, idle.run)
        if last is None:
            return None
        note = NothingChanged(idle.run, idle.until)
        # What the owner should change at the store is as it was, and the verdict may be about it.
        still = (one for one in last.notes if isinstance(one.reason, StoreNote))
        requests = run.store.requests
        report = msgspec.structs.replace(
            last,
            run=number,
            started_at=now,
            finished_at=max(now, run.collector.clock()),
            requests=RequestReport(dict(sorted(requests.counts.items())), requests.retries),
            changes=compare_with_previous(connection, run.target_id, number, now),
            notes=(*still, NoteReport(note, format_reason(note))),
        )
        note_look(connection, run.target_id, now, listed=True)
        finish_idle_run(connection, report, idle.run)
        report = with_trend(connection, report)
    log.info("run %d on %s: %s", number, report.target, format_reason(note))
    return report


def remember_idle(run: Run, report: Report) -> None:
    """Remember what the run saw, if it had nothing to do, and until when that stays so."""
    if not _had_nothing_to_do(run, report):
        return
    settings, now = run.collector.settings, run.report.started_at
    with run.begin() as connection:
        forgets_at = next_forgetting(connection, run.target_id, now, settings.remember_exports)
        run.outlook.expect(forgets_at)
        save_idle(connection, run.target_id, run.outlook.idle(report.run))


def _had_nothing_to_do(run: Run, report: Report) -> bool:
    """Whether a run saw everything, and neither did anything nor left anything to the next."""
    decided = run.report.decided
    if decided is None:
        return False
    plan = decided.plan
    left = [note for note in report.notes if not isinstance(note.reason, StoreNote)]
    return bool(
        decided.marks.certain
        and not (plan.writes or plan.blocked or plan.deferred)
        and not run.report.entries.deletions
        and not run.mode.repair
        and report.status == "done"
        and not (report.problems or left or report.contents.checked)
    )
