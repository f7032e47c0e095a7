"""The five answers of a report as plain tables, which every form then formats. Pure.

The texts are not escaped; the forms do that.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from maintainer.cacheconfig import NO_REF
from maintainer.model.outcome import Done, Planned
from maintainer.model.reason import Grace
from maintainer.report.model import (
    ActionReport,
    ChainRow,
    IndexReport,
    NamedSpace,
    Report,
    RoomReport,
    Space,
    TrendPoint,
)
from maintainer.report.reasons import format_cause
from maintainer.report.space import KINDS, kind_of
from maintainer.report.verdict import cut_off, format_lost, format_plan
from maintainer.report.words import (
    format_ago,
    format_count,
    format_digest,
    format_duration,
    format_key,
    format_moment,
    format_part,
    format_share,
    format_size,
)

_SHORT_NAMES = {"unreadable": "unreadable refs", "foreign": "other tools"}

COMMAND = re.compile(r"`(maintainer [a-z -]+|--[a-z-]+)`", re.ASCII)
"""Commands between backticks in our own sentences, shown as code."""

SCOPES_NOTE = (
    "Keys: cache keys that builders look up. Usable: those whose result exists. Lost: results that "
    "this run dropped. Own: the part of the size that no other index needs, apart from a merge. "
    "Shared: the rest of it."
)
QUESTIONS = (
    "Is my cache healthy?",
    "What takes the space?",
    "What happened?",
    "What is in each scope?",
    "How is it going?",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A text. If it has a value, it is a number and sorts by the value."""

    text: str
    value: float | None = None
    title: str = ""
    """The full text, if `text` is shortened."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with named columns."""

    title: str
    columns: tuple[str, ...]
    numbers: frozenset[str]
    """The columns that hold numbers."""
    rows: tuple[tuple[Cell, ...], ...]
    omitted: int = 0
    """The number of rows that are not shown."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One of the figures that matter most."""

    name: str
    figure: str
    note: str


def tiles(report: Report) -> tuple[Tile, ...]:
    """Return the four figures that matter most, each about distinct things."""
    if report.saw_nothing:
        return ()
    return (_tile_of_results(report), _tile_of_space(report), *_tiles_of_deletions(report))


def _tile_of_results(report: Report) -> Tile:
    name = "results that builds can use"
    if not report.readable:
        return Tile(name, "not known", "without a runtime token")
    results = report.results
    if report.dry_run:
        note = f"{results.after:,} after a run"
    elif results.before == results.after:
        note = "as before this run"
    else:
        note = f"{results.before:,} when this run began"
    return Tile(name, f"{report.results_usable:,}", note)


def _tile_of_space(report: Report) -> Tile:
    if report.space is None:
        return Tile("stored", format_size(sum(one.size for one in report.entries)), "no quota")
    quota = report.space.quota
    if quota is None:
        return Tile("stored", format_size(report.space.used), "no quota")
    share = report.space.used / quota if quota else 0.0
    note = f"{format_share(share)} of {format_quota(report.space)}"
    return Tile("stored", format_size(report.space.used), note)


def _tiles_of_deletions(report: Report) -> Iterator[Tile]:
    if report.dry_run:
        planned = report.planned_deletions
        entries = format_count(planned.actions, "entry")
        yield Tile("would be freed", format_size(planned.size), entries)
    else:
        entries = format_count(report.entries_deleted, "entry")
        yield Tile("freed by this run", format_size(report.bytes_freed), entries)
    changes, by = report.changes, report.store.evicted_by
    name = "evicted since the last run" if by else "deleted by others since the last run"
    if changes.previous_run is None:
        yield Tile(name, "not known", "this is the first run")
    else:
        entries = format_count(changes.gone_entries, "entry")
        yield Tile(name, format_size(changes.gone_bytes), entries)


def why_no_space(report: Report) -> str:
    """Return why there is no quota to divide; for a directory, also what it stores."""
    if report.saw_nothing:
        return "The run ended before it knew what is stored."
    noun = report.store.noun
    if report.store.evicted_by:
        return f"This {noun} cannot list what it stores."
    entries, sizes = Counter[str](), Counter[str]()
    for one in report.entries:
        entries[kind_of(one.state)] += one.entries
        sizes[kind_of(one.state)] += one.size
    parts = [
        f"{format_size(sizes[kind])} in {format_count(entries[kind], f'{kind} entry')}"
        for kind in KINDS
        if entries[kind]
    ]
    return f"A {noun} has no quota. It stores {', '.join(parts) or 'nothing'}."


def why_no_scopes(report: Report) -> str:
    """Return why there is no index to show."""
    if report.saw_nothing:
        return "The run ended before it had read an index."
    if not report.store.numbered:
        return f"The {report.store.noun} has no tags."
    if not report.readable:
        return "Without a runtime token, a run cannot read indexes."
    return "The token cannot read any index."


def format_quota(space: Space) -> str:
    """Return how much may be stored, and whether that is only assumed."""
    size = format_size(space.quota or 0)
    return f"an assumed {size}" if space.quota_is_assumed else size


def format_use(space: Space) -> str:
    """Return what follows the size of what is stored, in a sentence."""
    return "are stored." if space.quota is None else f"of {format_quota(space)} are used."


def space_table(report: Report) -> Table | None:
    """Return what takes the space; None where the store cannot list."""
    if report.space is None:
        return None
    quota = report.space.quota
    whole = report.space.used if quota is None else quota
    whose = " (another tool)" if report.store.numbered else ""  # Names may expire by rules, too.
    rows = []
    for part in report.space.parts:
        name = f"{part.name}…{whose}" if part.kind == "foreign" else part.name
        entries = Cell("", 0) if part.kind == "free" else _number(part.entries)
        share = part.size / whole if whole else 0.0
        rows.append((Cell(name), entries, _size(part.size), Cell(format_share(share), share)))
    columns = ("what", "entries", "size", "of all" if quota is None else "of the quota")
    return _table("", columns, columns[1:], rows, len(rows))


def refs_table(report: Report) -> Table:
    """Return which refs take the space; nothing if it is all in one."""
    refs = report.space.refs if report.space else ()
    title = "By branch, tag and pull request"
    return _named_table(title, "ref", refs if len(refs) > 1 else ())


def listed_scopes_table(report: Report) -> Table:
    """Return what the indexes of each scope take, if the list of entries is all that is known."""
    scopes = report.space.scopes if report.space and not report.indexes else ()
    return _named_table("Indexes by scope, without layers", "scope", scopes)


def _named_table(title: str, name: str, parts: Sequence[NamedSpace]) -> Table:
    """Return what each part takes, and its share of all of them."""
    used = sum(one.size for one in parts)
    rows = [
        (
            Cell(one.name or f"all other {name}s"),
            _number(one.entries),
            _size(one.size),
            Cell(format_share(one.size / used), one.size / used) if used else Cell("", 0),
        )
        for one in parts
    ]
    columns = (name, "entries", "size", "share")
    return _table(title, columns, columns[1:], rows, len(rows))


def used_table(report: Report) -> Table:
    """Return when what is stored was last used, the newest first."""
    days = report.space.used_days if report.space else ()
    used = sum(day.size for day in days)
    rows = [
        (
            Cell("earlier", 0) if one.day is None else _day(one.day),
            _number(one.entries),
            _size(one.size),
            Cell(format_share(one.size / used), one.size / used) if used else Cell("", 0),
        )
        for one in days
    ]
    columns = ("day", "entries", "size", "share")
    return _table("When it was last used", columns, columns[1:], rows, len(rows))


def format_changes(report: Report) -> list[str]:
    """Return in lines what happened since the previous run, and what this run did."""
    if report.saw_nothing:
        return ["The run ended before it had a plan."]
    changes = report.changes
    lines = []
    if changes.previous_run is None or changes.previous_at is None:
        lines.append("This is the first run on this cache.")
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
    lines.append(_format_actions(report))
    if report.room and report.room.departures:
        lines.append(_format_room(report.room, dry_run=report.dry_run))
    return lines


def _format_room(room: RoomReport, *, dry_run: bool) -> str:
    free = format_size(room.keep_free)
    results = format_count(room.results, "result")
    leave = "would leave" if dry_run else "left"
    return (
        f"To keep {free} of {format_size(room.quota)} free, {results} {leave} the indexes: their "
        f"blobs take {format_size(room.freed)}, and are deleted after the grace period."
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
    writes = [a for a in report.actions if a.kind == "write"]
    deletes = report.planned_deletions
    if not writes and not deletes.actions:
        return _format_no_action(report)
    if report.dry_run:
        return f"A run would {format_plan(report)}."
    wrote = format_part(report.indexes_written, len(writes), "index", "indexes")
    if not deletes.actions:
        return f"This run wrote {wrote}, and had nothing to delete."
    if not report.tried_to_delete:
        entries = f"{format_count(deletes.actions, 'entry')} ({format_size(deletes.size)})"
        return f"This run wrote {wrote}, and deferred {entries} to a run that may delete."
    entries = format_part(report.entries_deleted, deletes.actions, "entry")
    return f"This run wrote {wrote} and deleted {entries} ({format_size(report.bytes_freed)})."


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
    written = any(isinstance(index.outcome, Done) for index in report.indexes)
    title = "Would be written" if report.dry_run else "Written" if written else "Not written"
    table = _table(title, ("scope", "ref", "generation", "outcome", "why"), (), rows, limit)
    return _of_store(report, table)


def room_table(report: Report, limit: int) -> Table:
    """Return what leaves to make room, in order."""
    room = report.room
    rows = [
        (
            Cell(format_digest(one.digest), title=one.digest),
            _number(one.results),
            Cell(format_moment(one.reason.needed_at)),
            _size(one.reason.freed),
            Cell(", ".join(one.indexes)),
        )
        for one in (room.departures if room else ())
    ]
    columns = ("topmost layer", "results", "last needed", "frees", "indexes")
    title = "Would leave to make room" if report.dry_run else "Left to make room"
    table = _table(title, columns, (columns[1], columns[3]), rows, limit)
    return replace(table, omitted=table.omitted + (room.departures_omitted if room else 0))


def lost_table(report: Report, limit: int) -> Table:
    """Return what was dropped, and because of which missing blobs."""
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
            _size(sizes[digest]),
            _number(count),
            Cell(", ".join(sorted(scopes[digest]))),
        )
        for digest, count in sorted(results.items(), key=lambda item: (-item[1], item[0]))
    ]
    columns = ("missing blob", "size", "results lost", "scopes")
    dropped = "Would be dropped" if report.dry_run else "Dropped"
    gone = "gone" if report.store.numbered else "gone or damaged"
    return _table(f"{dropped}, because a blob is {gone}", columns, columns[1:3], rows, limit)


def gone_table(report: Report, limit: int) -> Table:
    """Return the largest entries that vanished since the previous run without a run's deletion."""
    rows = [
        (Cell(format_key(one.key), title=one.key), Cell(one.ref), _size(one.size))
        for one in report.changes.gone_largest
    ]
    by = report.store.evicted_by
    how = f"Evicted by {by}" if by else "Deleted by others"
    gone = report.changes.gone_entries
    which = f": the {len(rows)} largest of {gone:,}" if gone > len(rows) else ", largest first"
    return _table(f"{how} since{which}", ("entry", "ref", "size"), ("size",), rows, limit)


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
    outcomes = () if report.dry_run else ("planned", "failed", "deferred", "skipped")
    return _grouped("Not deleted", groups, limit, _not_listed(report, outcomes))


def _not_listed(report: Report, outcomes: Collection[str]) -> Iterator[tuple[Cell, ...]]:
    """Return rows for deletions that are too many to list one by one."""
    for total in report.more_actions:
        if total.kind == "delete" and total.outcome in outcomes:
            outcome = total.outcome.replace("_", " ")
            why = f"others, {outcome}: the view `actions` of the database has them"
            yield _number(total.actions), _size(total.size), Cell(why)


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
            _number(len(members)),
            _size(sum(size for _, size in members)),
        )
        for (_, state), members in sorted(groups.items())
    ]
    columns = ("when", "what", "entries", "size")
    return _table("Will be deleted next, unless a build uses it", columns, columns[2:], rows, limit)


def _due(first: datetime, now: datetime) -> Cell:
    """Return when the first entry of a day is due, for a reader who may read it much later."""
    title, value = format_moment(first), first.timestamp()
    if first <= now:
        return Cell("in the next run", value, title)
    return Cell(f"{first:%Y-%m-%d}, from {first:%H:%M} UTC", value, title)


def kept_table(report: Report, limit: int) -> Table:
    """Return what else is kept although unreferenced, by the reason."""
    kept = (
        a
        for a in report.actions
        if a.kind == "keep" and a.store_id is not None and not isinstance(a.reason, Grace)
    )
    return _grouped("Kept although unreferenced", _groups((a.sentence, a) for a in kept), limit)


def actions_table(report: Report, limit: int) -> Table:
    """List all actions and decisions; actions come first."""
    rows = [
        (
            Cell(action.kind),
            Cell(format_key(action.subject), title=action.subject),
            Cell(action.ref),
            Cell("") if action.size is None else _size(action.size),
            Cell(action.outcome_sentence),
            Cell(action.sentence),
        )
        for action in report.actions
    ]
    columns = ("action", "what", "ref", "size", "outcome", "why")
    return _table("All actions and decisions", columns, ("size",), rows, limit)


_OF_SCOPES = (
    "scope",
    "ref",
    "generations",
    "keys",
    "usable",
    "lost",
    "size",
    "own",
    "shared",
    "newest",
)


def scopes_table(report: Report, limit: int) -> Table:
    """Return the state of each scope in each ref."""
    rows = [
        (
            Cell(f"{index.scope} (signed)" if index.signed else index.scope),
            Cell(index.ref),
            _change(index.generations, index.generations_after),
            _number(index.keys),
            _change(index.usable_before, index.usable_after),
            _number(index.results_lost),
            _size(index.bytes_usable),
            _size(index.bytes_own),
            _size(index.bytes_usable - index.bytes_own),
            _age(index.newest_at, report.finished_at),
        )
        for index in report.indexes
    ]
    return _of_store(report, _table("", _OF_SCOPES, _OF_SCOPES[2:], rows, limit))


_OF_NUMBERED = frozenset({"ref", "generation", "generations"})
"""The columns that are only about stores with refs and generations."""


def _of_store(report: Report, table: Table) -> Table:
    """Return a table of indexes with the columns and words of its store."""
    if report.store.numbered:
        return table
    kept = [at for at, name in enumerate(table.columns) if name not in _OF_NUMBERED]
    names = tuple("tag" if at == 0 else table.columns[at] for at in kept)
    rows = tuple(tuple(row[at] for at in kept) for row in table.rows)
    return replace(table, columns=names, rows=rows)


def format_place(index: IndexReport) -> str:
    """Return the name of an index, with its ref if there are refs."""
    return index.scope if index.ref == NO_REF else f"{index.scope} in {index.ref}"


def chains_table(index: IndexReport) -> Table:
    """Draw the largest layer chains of an index; a layer is indented below its parent."""
    rows = [
        (
            Cell(
                f"{'    ' * row.depth}{format_digest(row.digest)}{_and_more(row.layers - 1)}",
                title=row.digest,
            ),
            _size(row.size),
            Cell(format_share(row.share), row.share),
            _number(row.results),
            Cell(format_needed_by(row)),
        )
        for row in index.chains
    ]
    columns = ("layers", "size", "share", "results here", "needed by")
    return _table("", columns, columns[1:4], rows, len(rows))


def format_needed_by(row: ChainRow) -> str:
    """Return the scopes that need a chain."""
    more = f" and {row.needed_by_omitted:,} more" if row.needed_by_omitted else ""
    return f"{', '.join(row.needed_by)}{more}"


def format_scopes(report: Report) -> str:
    """Return in one line what all indexes have together; nothing if that is one index."""
    if len(report.indexes) < 2:  # noqa: PLR2004 - together they are several
        return ""
    results = report.results
    began = "" if results.before == results.after else f" ({results.before:,} when the run began)"
    have = "would have" if report.dry_run else "have"
    return (
        f"Together they {have} {format_count(results.after, 'result')} that builds can use{began}, "
        f"in {format_size(results.size)}: each counts once here, although indexes share them."
    )


def format_trend(report: Report) -> str:
    """Return in one line how the cache has changed over the last runs."""
    points = report.trend.points
    if not points:
        return "The database has no completed run on this cache."
    if len(points) == 1 and points[0].run != report.run:
        return f"Run {points[0].run} is the only completed run on this cache so far."
    if len(points) == 1:
        return "This is the first run: there is no earlier one to compare it with."
    first, last = points[0], points[-1]
    usable = ""
    if first.usable is not None and last.usable is not None:
        usable = f"{first.usable:,} → {last.usable:,} usable results, "
    runs, time = format_count(report.trend.runs, "run"), format_duration(last.at - first.at)
    return (
        f"Over {runs} in {time}: {usable}"
        f"{format_size(sum(first.bytes.values()))} → "
        f"{format_size(sum(last.bytes.values()))} stored."
    )


def format_headroom(report: Report) -> str:
    """Return in one line what is expected until the next run, and what became of the last forecast;
    nothing if that is not known.
    """
    found = report.trend.headroom
    if found is None:
        return ""
    by = report.store.evicted_by or "The store"
    line = (
        f"Until the next run, {format_size(found.expected)} are expected: no more arrived in 9 of "
        f"10 of the last {format_count(found.intervals, 'interval')} between two runs."
    )
    if found.expected_before is not None:
        before, arrived = format_size(found.expected_before), format_size(found.arrived)
        line += f" The last forecast was {before}, and {arrived} arrived."
    quota = report.space.quota if report.space else None
    free = found.expected if report.space is None or quota is None else quota - report.space.used
    if free < found.expected:
        line += f" Only {format_size(max(free, 0))} are free, so {by} may evict."
    return line


def format_evictions(report: Report) -> str:
    """Return in one line how much the store evicts."""
    days = report.trend.evictions
    if not days:
        if report.store.evicted_by is None:
            return (
                "Only runs, and jobs or rules of your own, delete anything from a "
                f"{report.store.noun}."
            )
        if report.changes.previous_run is None:
            return "No eviction history before the first run."
        return "The database records no evictions."
    first = min([days[0].day, *(point.at.date() for point in report.trend.points[:1])])
    span = (report.started_at.date() - first).days + 1
    entries, size = sum(day.entries for day in days), sum(day.size for day in days)
    by = report.store.evicted_by or "The store"
    return (
        f"{by} evicted {format_count(entries, 'entry')} ({format_size(size)}) in "
        f"{format_count(span, 'day')}: {entries / span:,.1f} entries "
        f"({format_size(size // span)}) per day."
    )


def format_took(report: Report) -> str:
    """Return how long the run took."""
    took = report.finished_at - report.started_at
    second = timedelta(seconds=1)
    return "in less than a second" if took < second else f"in {format_duration(took)}"


def format_requests(report: Report) -> str:
    """Return in one line which requests the run sent."""
    asked = report.requests
    if not asked.total:
        return "no requests"
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in asked.counts.items())
    again = format_count(asked.retries, "retry")
    return f"{format_count(asked.total, 'request')}: {kinds}; {again}"


def trend_table(report: Report, limit: int) -> Table:
    """List how the runs left the cache, newest first."""
    present = {kind_of(state) for point in report.trend.points for state in point.bytes}
    kinds = [kind for kind in KINDS if kind in present]
    columns = ("run", "time", "usable", "stored", *(_SHORT_NAMES.get(kind, kind) for kind in kinds))
    rows = [
        (
            _number(point.run),
            Cell(format_moment(point.at), point.at.timestamp()),
            Cell("not known") if point.usable is None else _number(point.usable),
            _size(sum(point.bytes.values())),
            *(_size(_of_kind(point, kind)) for kind in kinds),
        )
        for point in reversed(report.trend.points)
    ]
    return _table("Bytes by state and usable results", columns, columns, rows, limit)


def _of_kind(point: TrendPoint, kind: str) -> int:
    return sum(size for state, size in point.bytes.items() if kind_of(state) == kind)


def evictions_table(report: Report, limit: int) -> Table:
    """List the evictions per day, newest first."""
    rows = [
        (_day(day.day), _number(day.entries), _size(day.size))
        for day in reversed(report.trend.evictions)
    ]
    columns = ("day", "entries", "size")
    return _table("Evictions per day", columns, columns[1:], rows, limit)


def _table(
    title: str,
    columns: Sequence[str],
    numbers: Iterable[str],
    rows: Sequence[tuple[Cell, ...]],
    limit: int,
) -> Table:
    left = max(0, len(rows) - limit)
    return Table(title, tuple(columns), frozenset(numbers), tuple(rows[:limit]), left)


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
        (_number(len(members)), _size(sum(one.size or 0 for one in members)), Cell(name))
        for name, members in groups
    ]
    columns = ("entries", "size", "why")
    return _table(title, columns, columns[:2], [*more, *rows], limit)


def _format_deletion(action: ActionReport) -> str:
    """Return the outcome and cause of a deletion, in a form that several deletions share."""
    cause = format_cause(action.reason)
    if isinstance(action.outcome, Done | Planned):
        return cause
    return f"{action.outcome_sentence}: {cause}"


def _entries(entries: int, size: int) -> str:
    return f"{format_count(entries, 'entry')} ({format_size(size)})" if entries else "nothing"


def _day(day: date) -> Cell:
    return Cell(day.isoformat(), day.toordinal())


def _number(number: int) -> Cell:
    return Cell(f"{number:,}", number)


def _size(size: int) -> Cell:
    return Cell(format_size(size), size)


def _change(before: int, after: int) -> Cell:
    return Cell(f"{after:,}" if before == after else f"{before:,} → {after:,}", after)


def _age(moment: datetime | None, now: datetime) -> Cell:
    if moment is None:
        return Cell("", 0)
    age = max(now - moment, timedelta(0)).total_seconds()
    return Cell(format_ago(moment, now), age, format_moment(moment))


def _and_more(layers: int) -> str:
    return f" and {format_count(layers, 'smaller layer')}" if layers else ""
