"""Is my cache healthy? The figures that matter most."""

from collections.abc import Iterator
from dataclasses import dataclass

from maintainer.report.model import (
    Report,
)
from maintainer.report.page.storage import format_quota
from maintainer.report.words import (
    format_count,
    format_share,
    format_size,
)


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
