"""What happened, and what happens next?"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from maintainer.model.limits import DEFAULT_GRACE
from maintainer.model.outcome import Done, Planned
from maintainer.model.reason import Grace, WrittenDuringSweep
from maintainer.report.done import cut_off, format_actions, format_lost, format_plan
from maintainer.report.model import (
    ActionReport,
    Report,
    RoomReport,
)
from maintainer.report.page.cells import (
    Cell,
    Table,
    number_cell,
    of_store,
    size_cell,
    table_of,
)
from maintainer.report.reasons import format_cause
from maintainer.report.words import (
    format_count,
    format_digest,
    format_duration,
    format_key,
    format_moment,
    format_size,
)

_MORE_KEPT = "others, maybe kept for longer: the view `entries` of the database has them"


def format_changes(report: Report) -> list[str]:
    """Return in lines what happened since the previous run, and what this run did."""
    if report.saw_nothing:
        return ["The run ended before it had a plan, so nothing was written or deleted."]
    changes = report.changes
    lines = []
    if changes.previous_run is None or changes.previous_at is None:
        lines.append("This is the first run on this cache that the database knows.")
    else:
        ago = format_duration(report.started_at - changes.previous_at)
        came = _entries(changes.new_entries, changes.new_bytes)
        gone = _entries(changes.gone_entries, changes.gone_bytes)
        by = report.store.evicted_by
        removed = f"{gone} {'were' if changes.gone_entries > 1 else 'was'} removed"
        went = f"{by} evicted {gone}" if by else removed
        were = "were" if changes.new_entries > 1 else "was"
        lines.append(
            f"Since run {changes.previous_run}, {ago} earlier, {came} {were} added, and {went}."
        )
    if report.contents.checked:
        lines.append(_format_contents(report))
    if lost := format_lost(report):
        lines.append(f"{lost}: only a build can bring them back.")
    if report.grace_seconds != DEFAULT_GRACE.total_seconds():
        grace = format_duration(timedelta(seconds=report.grace_seconds))
        lines.append(f"The grace period of this run was {grace}.")
    lines.append(_format_actions(report))
    if report.room and (report.room.results or report.room.held):
        lines.append(_format_room(report.room, dry_run=report.dry_run))
    return lines


def _format_room(room: RoomReport, *, dry_run: bool) -> str:
    free = format_size(room.keep_free)
    to_keep = f"To keep {free} of {format_size(room.quota)} free,"
    held = f"{format_count(room.held, 'result')} had to leave indexes that were not written."
    if not room.results:
        return f"{to_keep} {held}"
    results = format_count(room.results, "result")
    leave = "would leave" if dry_run else "left"
    return (
        f"{to_keep} {results} {leave} the indexes: their blobs take {format_size(room.freed)}, and "
        f"are deleted after the grace period.{f' Another {held}' if room.held else ''}"
    )


def _format_contents(report: Report) -> str:
    checked = format_count(report.contents.checked, "blob")
    lost = report.contents.without_content
    if not lost:
        return f"This run checked {checked}: all of them can be downloaded."
    are = "is" if lost == 1 else "are"
    return f"This run checked {checked}: {lost:,} cannot be downloaded and {are} treated as gone."


def _format_no_action(report: Report) -> str:
    if report.status != "done" or cut_off(report):
        return "Nothing was written or deleted."
    if report.dry_run:
        return "A run would have nothing to write or delete."
    return "There was nothing to write or delete."


def _format_actions(report: Report) -> str:
    if not report.planned_writes and not report.planned_deletions.actions:
        return _format_no_action(report)
    if report.dry_run:
        return f"A run would {format_plan(report)}."
    return f"This run {format_actions(report)}."


def written_table(report: Report, limit: int) -> Table:
    """Return which indexes were written."""
    rows = [
        (
            Cell(f"{index.scope} (signed)" if index.signed else index.scope, title=index.written),
            Cell(index.ref),
            Cell(index.written.rpartition("#")[2] if report.store.numbered else ""),
            Cell(index.outcome_sentence),
            Cell(index.sentence),
        )
        for index in report.indexes
        if index.written
    ]
    heals = [one for one in report.actions if isinstance(one.reason, WrittenDuringSweep)]
    rows += [
        (
            Cell(format_key(one.subject), title=one.subject),
            Cell(one.ref),
            Cell(""),
            Cell(one.outcome_sentence),
            Cell(one.sentence),
        )
        for one in heals
    ]
    outcomes = [one.outcome for one in report.indexes] + [one.outcome for one in heals]
    written = any(isinstance(one, Done) for one in outcomes)
    title = "Would be written" if report.dry_run else "Written" if written else "Not written"
    table = table_of(title, ("scope", "ref", "generation", "outcome", "why"), (), rows, limit)
    return of_store(report, table)


def happened_tables(report: Report, limit: int) -> Iterator[Table]:
    """Return the tables of what happened besides what was written, in the order of the report."""
    yield room_table(report, limit)
    yield lost_table(report, limit)
    yield gone_table(report, limit)
    yield deleted_table(report, limit)
    yield deferred_table(report, limit)
    yield next_table(report, limit)
    yield kept_table(report, limit)


def room_table(report: Report, limit: int) -> Table:
    """Return what leaves to make room, in order."""
    room = report.room
    rows = [
        (
            Cell(format_digest(one.digest), title=one.digest),
            number_cell(one.results),
            Cell(format_moment(one.reason.needed_at)),
            size_cell(one.reason.freed),
            Cell(", ".join(one.indexes)),
        )
        for one in (room.departures if room else ())
    ]
    columns = ("topmost layer", "results", "last needed", "frees", "indexes")
    title = "Would leave to make room" if report.dry_run else "Left to make room"
    table = table_of(title, columns, (columns[1], columns[3]), rows, limit)
    return replace(table, omitted=table.omitted + (room.departures_omitted if room else 0))


def lost_table(report: Report, limit: int) -> Table:
    """Return what is lost, and because of which missing blobs."""
    scopes = defaultdict[str, set[str]](set)
    sizes: dict[str, int] = {}
    results = Counter[str]()
    for index in report.indexes:
        for blob in index.lost:
            scopes[blob.digest].add(index.scope)
            sizes[blob.digest] = blob.size
            results[blob.digest] += blob.results
    rows = [
        (
            Cell(format_digest(digest), title=digest),
            size_cell(sizes[digest]),
            number_cell(count),
            Cell(", ".join(sorted(scopes[digest]))),
        )
        for digest, count in sorted(results.items(), key=lambda item: (-item[1], item[0]))
    ]
    columns = ("missing blob", "size", "results lost", "scopes")
    gone = "gone" if report.store.numbered else "gone or damaged"
    return table_of(f"Lost, because a blob is {gone}", columns, columns[1:3], rows, limit)


def gone_table(report: Report, limit: int) -> Table:
    """Return the largest entries that are gone since the previous run without a run's deletion."""
    rows = [
        (Cell(format_key(one.key), title=one.key), Cell(one.ref), size_cell(one.size))
        for one in report.changes.gone_largest[:limit]
    ]
    by = report.store.evicted_by
    how = f"Evicted by {by}" if by else "Deleted by others"
    gone = report.changes.gone_entries
    which = f": the {len(rows)} largest of {gone:,}" if gone > len(rows) else ", largest first"
    return table_of(f"{how} since{which}", ("entry", "ref", "size"), ("size",), rows, limit)


def deleted_table(report: Report, limit: int) -> Table:
    """Return what was deleted, by outcome and cause."""
    deletes = report.deletions if report.dry_run else report.deleted
    groups = _groups((_format_deletion(a), a) for a in deletes)
    title = "Would be deleted" if report.dry_run else "Deleted"
    outcomes = ("done", "already_gone", "planned") if report.dry_run else ("done", "already_gone")
    return _grouped(title, groups, limit, _not_listed(report, outcomes))


def deferred_table(report: Report, limit: int) -> Table:
    """Return planned deletions that were not carried out, by outcome and cause."""
    left = () if report.dry_run else report.undeleted
    groups = _groups((_format_deletion(a), a) for a in left)
    outcomes = () if report.dry_run else ("planned", "failed", "refused", "deferred", "skipped")
    return _grouped("Not deleted", groups, limit, _not_listed(report, outcomes))


def _not_listed(report: Report, outcomes: Collection[str]) -> Iterator[tuple[Cell, ...]]:
    """Return rows for deletions that are too many to list one by one."""
    for total in report.more_actions:
        if total.kind == "delete" and total.outcome in outcomes:
            outcome = total.outcome.replace("_", " ")
            why = f"others, {outcome}: the view `actions` of the database has them"
            yield number_cell(total.actions), size_cell(total.size), Cell(why)


def next_table(report: Report, limit: int) -> Table:
    """Return what will be deleted next, by day: what is in its grace period, the first first."""
    groups = defaultdict[tuple[date, str], list[tuple[datetime, int]]](list)
    for action in report.actions:
        if action.kind == "keep" and isinstance(action.reason, Grace):
            until = max(action.reason.until, report.finished_at).astimezone(UTC)
            groups[until.date(), action.reason.state].append((until, action.size or 0))
    rows = [
        (
            _due(min(until for until, _ in members), report.finished_at),
            Cell(state),
            number_cell(len(members)),
            size_cell(sum(size for _, size in members)),
        )
        for (_, state), members in sorted(groups.items())
    ]
    columns = ("when", "what", "entries", "size")
    title = "Will be deleted next, unless a build uses it"
    table = table_of(title, columns, columns[2:], rows, limit)
    more = [
        (Cell(""), Cell(_MORE_KEPT), number_cell(total.actions), size_cell(total.size))
        for total in report.more_actions
        if rows and total.kind == "keep"
    ]
    return replace(table, rows=(*table.rows, *more))


def _due(first: datetime, now: datetime) -> Cell:
    """Return when the first entry of a day is due, for a reader who may read it much later."""
    title, value = format_moment(first), first.timestamp()
    if first <= now:
        return Cell("in the next run", value, title)
    return Cell(f"{first:%Y-%m-%d}, from {first:%H:%M} UTC", value, title)


def kept_table(report: Report, limit: int) -> Table:
    """Return what else is kept although unreferenced, by the reason."""
    keeps = [a for a in report.actions if a.kind == "keep" and a.store_id is not None]
    kept = [a for a in keeps if not isinstance(a.reason, Grace)]
    # In a grace period or not: if some of those listed are, the table of these says it.
    more = [
        (number_cell(total.actions), size_cell(total.size), Cell(_MORE_KEPT))
        for total in report.more_actions
        if total.kind == "keep" and len(kept) == len(keeps)
    ]
    groups = _groups((a.sentence, a) for a in kept)
    return _grouped("Kept although unreferenced", groups, limit, more)


def actions_table(report: Report, limit: int) -> Table:
    """List all actions and decisions; actions come first."""
    rows = [
        (
            Cell(action.kind),
            Cell(format_key(action.subject), title=action.subject),
            Cell(action.ref),
            Cell("") if action.size is None else size_cell(action.size),
            Cell(action.outcome_sentence),
            Cell(action.sentence),
        )
        for action in report.actions
    ]
    columns = ("action", "what", "ref", "size", "outcome", "why")
    return table_of("All actions and decisions", columns, ("size",), rows, limit)


def _groups(
    actions: Iterable[tuple[str, ActionReport]],
) -> list[tuple[str, list[ActionReport]]]:
    """Group actions of the same name, the largest group first: there may be thousands."""
    groups = defaultdict[str, list[ActionReport]](list)
    for name, action in actions:
        groups[name].append(action)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))


def _grouped(
    title: str,
    groups: Sequence[tuple[str, list[ActionReport]]],
    limit: int,
    more: Iterable[tuple[Cell, ...]] = (),
) -> Table:
    rows = [
        (number_cell(len(members)), size_cell(sum(one.size or 0 for one in members)), Cell(name))
        for name, members in groups
    ]
    columns = ("entries", "size", "why")
    return table_of(title, columns, columns[:2], [*more, *rows], limit)


def _format_deletion(action: ActionReport) -> str:
    """Return the outcome and cause of a deletion, in a form that several deletions share."""
    cause = format_cause(action.reason)
    if isinstance(action.outcome, Done | Planned):
        return cause
    return f"{action.outcome_sentence}: {cause}"


def _entries(entries: int, size: int) -> str:
    return f"{format_count(entries, 'entry')} ({format_size(size)})" if entries else "nothing"
