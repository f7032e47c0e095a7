"""The schedule, and the targets, on a terminal."""

from collections.abc import Iterable
from datetime import datetime

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from maintainer.graph.schedule import TargetStatus
from maintainer.report.trouble import format_trouble
from maintainer.report.words import format_count
from maintainer.sanitize import printable
from maintainer.serve.listing import TargetList


def render_schedule(statuses: Iterable[TargetStatus], now: datetime) -> RenderableType:
    """Return a table: the status of each target, and when it runs next."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("target", "rule", "last result", "at", "next run", "problem"):
        table.add_column(name, overflow="fold")
    for status in statuses:
        table.add_row(
            Text(status.name),
            Text(status.rule),
            Text(_result(status)),
            _time(status.last_finished_at),
            _time(status.next_run_at),
            Text(printable(format_trouble(status, now) or "", limit=1_000)),
        )
    return table


def render_targets(found: TargetList, *, show_ignored: bool) -> RenderableType:
    """Return a table of the targets, then what searches have missed and ignored."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("target", "cache", "rule", "found by"):
        table.add_column(name, overflow="fold")
    for one in found.targets:
        table.add_row(*map(Text, (one.name, one.cache, one.rule, one.discovery or "")))
    lines = [f"discovery {one.discovery}: {one.problem}" for one in found.problems]
    if show_ignored:
        lines += [
            f"{one.discovery} ignores {printable(one.name)}: {one.reason}" for one in found.ignored
        ]
    elif found.ignored:
        lines.append(f"ignored: {format_count(len(found.ignored), 'cache')}; --verbose shows why")
    counted = format_count(len(found.targets), "target")
    return Group(table, *(Text(line) for line in [*lines, counted]))


def _result(status: TargetStatus) -> str:
    run = f" (run {status.last_run})" if status.last_run else ""
    after = f", {format_count(status.failures, 'failure')} in a row" if status.failures > 1 else ""
    active = "running; before: " if status.running_since else ""
    return f"{active}{status.last_status or 'never run'}{run}{after}"


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
