"""The answer to `maintainer diff`, in two tables."""

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from maintainer.graph.compare import RunDiff
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
    table = _table("entries", "kind", "entries", "size")
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
    table = _table("indexes that changed", "scope", "ref", "generations", "usable", "size")
    for index in diff.indexes:
        table.add_row(
            Text(loggable(f"{index.scope} (signed)" if index.signed else index.scope)),
            Text(loggable(index.ref)),
            _change(index.generations_before, index.generations_after),
            _change(index.usable_before, index.usable_after),
            _change_size(index.bytes_before, index.bytes_after),
        )
    yield table


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        header_style="dim",
    )
    for name in columns:
        is_name = name in {"kind", "scope", "ref"}
        table.add_column(name, justify="left" if is_name else "right", overflow="fold")
    return table


def _change(before: int | None, after: int | None) -> str:
    return _arrow(*("none" if one is None else f"{one:,}" for one in (before, after)))


def _change_size(before: int | None, after: int | None) -> str:
    return _arrow(*("none" if one is None else format_size(one) for one in (before, after)))


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
