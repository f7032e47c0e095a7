"""Mark: the merge of each index, once it is known which blobs can be downloaded."""

from dataclasses import replace

from maintainer.contents import ContentChecker
from maintainer.graph.contents import save_contents
from maintainer.mark import mark
from maintainer.model import reason as reasons
from maintainer.model.checks import CheckTotals, next_reading
from maintainer.stages.run import Marked, Recorded, Run


async def mark_cache(run: Run, seen: Recorded) -> Marked | None:
    """Return the merge of each index, once it is known which blobs can be downloaded.

    If a blob has no content, an older result may replace the newest one. The older one needs other
    blobs, so there are as many rounds of checks as necessary. None if the budget did not allow to
    find out what exists.
    """
    if seen.probe.unasked_blobs:
        return None
    run.context.progress.stage("mark")
    marks, probed = mark(seen.snapshot), seen.probe
    quota, accept_loss = run.report.limits.quota, run.mode.accept_loss
    checker = ContentChecker(
        run.store,
        seen.known,
        run.context,
        quota=quota,
        accept_loss=accept_loss,
        every=run.mode.repair,
    )
    run.report.checks = checker.totals
    while True:
        checked = await checker.check(marks, seen.entries)
        back = checked.readable_blobs & probed.broken_blobs
        with run.begin() as connection:
            save_contents(connection, run.target_id, checked, probed.at)
            if not checked.changes_anything and not back:
                break
            broken = probed.broken_blobs.union(checked.broken_blobs) - back
            live = probed.live_blobs.union(back) - broken
            probed = replace(probed, live_blobs=live, broken_blobs=broken)
            snapshot = run.load_snapshot(
                connection,
                probed,
                merged=seen.snapshot.memory,
                merged_scope=seen.snapshot.merged_scope,
                entries=seen.snapshot.entries,
            )
        marks = mark(snapshot)
    run.outlook.expect(checker.next_at)
    if run.store.abilities.checks_contents and (every := run.collector.settings.verify_after):
        run.outlook.expect(next_reading(run.report.started_at, every))
    _note_what_was_not_checked(run, checker.totals)
    return Marked(marks, seen.entries, checker.looked_up)


def _note_what_was_not_checked(run: Run, checks: CheckTotals) -> None:
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
