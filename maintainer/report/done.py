"""What a run did, or would do, and what was lost: each in one line. Pure."""

import math

from maintainer.model.reason import Unfinished
from maintainer.report.model import Report
from maintainer.report.words import format_count, format_part, format_size

_A_WHILE = 0.25
"""Minutes; anything faster is not mentioned."""


def format_done(report: Report) -> str:
    """Return in one line what a run did."""
    if report.status != "done":
        why = (*report.problems, *(note.sentence for note in report.notes))
        return f"the run {report.status}: {next(iter(why), '')}"
    if not report.planned_writes and not report.planned_deletions.actions:
        return _say_nothing_done(report)
    return f"would {format_plan(report)}" if report.dry_run else format_actions(report)


def format_actions(report: Report) -> str:
    """Return what a run did that had something to do: it "wrote 1 index and deleted 1 entry"."""
    deletes = report.planned_deletions
    written = format_part(report.indexes_written, report.planned_writes, "index", "indexes")
    if not deletes.actions:
        return f"wrote {written}, and had nothing to delete"
    if not report.tried_to_delete:
        entries = f"{format_count(deletes.actions, 'entry')} ({format_size(deletes.size)})"
        later = "the next run" if cut_off(report) else "a run that may delete"
        return f"wrote {written}, and deferred {entries} to {later}"
    deleted = format_part(report.entries_deleted, deletes.actions, "entry")
    freed = format_size(report.bytes_freed)
    return f"wrote {written} and deleted {deleted} ({freed}){_format_gone(report)}"


def _format_gone(report: Report) -> str:
    """Return how many entries to delete did not exist any more, if there were any."""
    gone = report.already_gone
    return f"; {gone:,} {'was' if gone == 1 else 'were'} already gone" if gone else ""


def format_done_blindly(report: Report) -> str:
    """Return what a run did, or would do, that cannot read indexes."""
    deletes = report.planned_deletions
    if not deletes.actions:
        return "it merged and deleted nothing"
    if report.dry_run:
        entries = format_count(deletes.actions, "entry")
        return f"it would merge nothing and delete {entries} ({format_size(deletes.size)})"
    entries = format_count(report.entries_deleted, "entry")
    freed = format_size(report.bytes_freed)
    return f"it merged nothing and deleted {entries} ({freed}){_format_gone(report)}"


def format_plan(report: Report) -> str:
    """Return what a run would do: it would "write 1 index and delete nothing"."""
    writes = report.planned_writes
    written = format_count(writes, "index", "indexes") if writes else "nothing"
    deletes = report.planned_deletions
    if not deletes.actions:
        return f"write {written} and delete nothing"
    entries = f"{format_count(deletes.actions, 'entry')} ({format_size(deletes.size)})"
    return f"write {written} and delete {entries}{_pace(report, deletes.actions)}"


def format_lost(report: Report) -> str:
    """Return how many results were lost, and with what; empty if none was."""
    lost = report.results.lost
    if not lost:
        return ""
    were = "was" if lost == 1 else "were"
    results = format_count(lost, "result")
    return f"{results} {were} lost with blobs that {_who_took(report)}"


def format_broken(indexes: int) -> str:
    """Return what builds meet in so many broken indexes."""
    what = (
        "1 index is invalid or references"
        if indexes == 1
        else f"{format_count(indexes, 'index', 'indexes')} are invalid or reference"
    )
    return f"{what} blobs that are gone, so builds fail or redo steps"


def cut_off(report: Report) -> str | None:
    """Return why the budget ended the run, if it did: what was not reached may be broken."""
    notes = (one.sentence for one in report.notes if isinstance(one.reason, Unfinished))
    return next(notes, None)


def _say_nothing_done(report: Report) -> str:
    if why := cut_off(report):
        return f"nothing was written or deleted; {why}"
    if report.repair and report.indexes_broken:
        return f"nothing could be repaired: {format_broken(report.indexes_broken)}"
    if report.repair:
        return "nothing to repair: every index is valid, and every blob that it references exists"
    if report.blocked and report.blocked.by_export:
        return f"nothing was deleted; {report.blocked.sentence}"
    return "nothing to do: every index is up to date, and nothing is overdue"


def _pace(report: Report, deletions: int) -> str:
    """Return how long deletions take, if the store limits their rate and it takes a while."""
    if not report.deletions_a_minute:
        return ""
    minutes = deletions / report.deletions_a_minute
    if minutes < _A_WHILE:
        return ""
    return f", which takes at least {format_count(math.ceil(minutes), 'minute')}"


def _who_took(report: Report) -> str:
    by = report.store.evicted_by
    if by is None:
        return "are gone or damaged"
    if report.contents.without_content:
        return f"{by} evicted, or whose content it lost"
    if report.changes.previous_run is not None and not report.changes.gone_entries:
        return "are gone"  # It has evicted none of what was stored then.
    return f"{by} evicted"
