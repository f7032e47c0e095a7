"""How is it going?"""

from datetime import timedelta

from maintainer.report.model import (
    Report,
    TrendPoint,
)
from maintainer.report.page.cells import (
    Cell,
    Table,
    day_cell,
    number_cell,
    size_cell,
    table_of,
)
from maintainer.report.space import KINDS, kind_of
from maintainer.report.words import (
    format_count,
    format_duration,
    format_moment,
    format_size,
)

_SHORT_NAMES = {"unreadable": "unreadable refs", "foreign": "other tools"}


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
            number_cell(point.run),
            Cell(format_moment(point.at), point.at.timestamp()),
            Cell("not known") if point.usable is None else number_cell(point.usable),
            size_cell(sum(point.bytes.values())),
            *(size_cell(_of_kind(point, kind)) for kind in kinds),
        )
        for point in reversed(report.trend.points)
    ]
    return table_of("Bytes by state and usable results", columns, columns, rows, limit)


def _of_kind(point: TrendPoint, kind: str) -> int:
    return sum(size for state, size in point.bytes.items() if kind_of(state) == kind)


def evictions_table(report: Report, limit: int) -> Table:
    """List the evictions per day, newest first."""
    rows = [
        (day_cell(day.day), number_cell(day.entries), size_cell(day.size))
        for day in reversed(report.trend.evictions)
    ]
    columns = ("day", "entries", "size")
    return table_of("Evictions per day", columns, columns[1:], rows, limit)
