"""The answer to `maintainer diff`, in two tables."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from maintainer.graph.compare import RunDiff
from maintainer.report.grid import make_grid
from maintainer.report.words import format_count, format_duration, format_moment, format_size
from maintainer.sanitize import loggable


def render_diff(diff: RunDiff) -> Group:
    """Format a comparison."""
    return Group(*_parts(diff))


def _parts(diff: RunDiff) -> Iterator[RenderableType]:
    took = format_duration(diff.after_at - diff.before_at)
    yield Text(
        f"Run {diff.before} ({format_moment(diff.before_at)}) → run {diff.after} "
        f"({format_moment(diff.after_at)}), {took} later, on {loggable(diff.target)}"
    )
    usable = (diff.usable_before, diff.usable_after)
    if None in usable:
        yield Text("usable results: unknown, because an index could not be read", style="bold")
    else:
        yield Text(f"usable results: {_change(*usable)}", style="bold")
    for tally in diff.happened:
        entries = format_count(tally.entries, "entry")
        yield Text(f"{tally.what}: {entries}, {format_size(tally.size)}")
    table = make_grid(("kind", "entries", "size"), ("entries", "size"), title="entries")
    for kind in diff.kinds:
        table.add_row(
            kind.kind,
            _change(kind.entries_before, kind.entries_after),
            _change_size(kind.bytes_before, kind.bytes_after),
        )
    yield table
    yield from _indexes(diff)


def _indexes(diff: RunDiff) -> Iterator[RenderableType]:
    if not diff.indexes:
        yield Text("No index has changed.")
        return
    numbers = ("generations", "usable", "size")
    table = make_grid(("scope", "ref", *numbers), numbers, title="indexes that changed")
    for index in diff.indexes:
        table.add_row(
            Text(loggable(f"{index.scope} (signed)" if index.signed else index.scope)),
            Text(loggable(index.ref)),
            _change(index.generations_before, index.generations_after),
            _change(index.usable_before, index.usable_after),
            _change_size(index.bytes_before, index.bytes_after),
        )
    yield table


def _change(before: int | None, after: int | None) -> str:
    return _arrow(*("none" if one is None else f"{one:,}" for one in (before, after)))


def _change_size(before: int | None, after: int | None) -> str:
    return _arrow(*("none" if one is None else format_size(one) for one in (before, after)))


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
