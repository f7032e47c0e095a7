"""The report on a terminal: one page with the five answers, or a summary of at most ten lines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.text import Text

from maintainer.graph.reports import RunSummary
from maintainer.report.grid import make_grid
from maintainer.report.model import IndexReport, Report, Space, SpacePart
from maintainer.report.page import QUESTIONS, changes, scopes, storage, trend
from maintainer.report.page.cells import Cell, Table
from maintainer.report.verdict import LEVELS, judge
from maintainer.report.words import format_count, format_moment, format_size
from maintainer.sanitize import loggable

_ROWS = 8
"""The maximum number of rows of a table; of the others, only the number is shown."""
_LINES, _PROBLEMS = 8, 3
"""Of a summary: the lines above the two of the verdict, and the problems among them."""
_BAR = 60
"""The width of the quota bar."""
_FEW_COLUMNS = 5
"""So many columns fit on a narrow terminal, if it wraps their texts."""
_UNBOUNDED = 10_000
_STEPS = "▁▂▃▄▅▆▇█"
_STYLES = {"good": "bold green", "attention": "bold yellow", "bad": "bold red"}
_COLOURS = {
    "reachable": "green",
    "due": "red",
    "dangling": "yellow",
    "superseded": "magenta",
    "unread": "red",
    "unreadable": "blue",
    "foreign": "cyan",
    "others": "cyan",
    "free": "bright_black",
}

_BLOCKS = {
    "reachable": "█",
    "due": "▞",
    "dangling": "▓",
    "superseded": "▒",
    "unreadable": "▤",
    "free": "░",
}
"""Patterns in addition to colours, which not everyone sees."""


def render_report(report: Report) -> RenderableType:
    """Format a report."""
    return Group(*_parts(report))


def render_summary(report: Report) -> RenderableType:
    """Format what matters most in at most ten lines, the verdict last, where it stays visible."""
    lines = [*_summary(report), *_more(report)]
    return Group(*lines[-_LINES:], *_verdict_lines(report))


def render_verdict(report: Report) -> RenderableType:
    """Format the verdict alone, to end a long output with it."""
    return Group(Text(""), *_verdict_lines(report))


def render_runs(runs: Iterable[RunSummary]) -> RenderableType:
    """Format a list of runs, newest first."""
    columns = ("run", "target", "started", "took", "status", "written", "deleted", "freed")
    numbers = frozenset({"run", "took", "written", "deleted", "freed"})
    rows = tuple(tuple(map(Cell, _texts_of(run))) for run in runs)
    return _Fitting(Table("", columns, numbers, rows))


def _texts_of(run: RunSummary) -> Iterator[str]:
    yield str(run.run)
    yield run.target
    yield format_moment(run.started_at)
    yield f"{(run.finished_at - run.started_at).total_seconds():.1f} s" if run.finished_at else ""
    yield f"{run.status}{', dry run' if run.dry_run else ''}"
    yield str(run.indexes_written)
    yield str(run.entries_deleted)
    yield format_size(run.bytes_freed)


def _parts(report: Report) -> Iterator[RenderableType]:
    yield from _verdict(report)
    yield _question(1)
    yield from _space(report)
    yield _question(2)
    yield from _happened(report)
    yield _question(3)
    yield from _scopes(report)
    yield _question(4)
    yield from _trend(report)
    yield Text(f"\n{trend.format_requests(report)}", style="dim")


def _question(number: int) -> Text:
    return Text(f"\n{QUESTIONS[number]}", style="bold")


def _verdict(report: Report) -> Iterator[RenderableType]:
    yield from _verdict_lines(report)
    yield Text(_which(report), style="dim")
    for problem in report.problems:
        yield _problem(problem)
    for note in report.notes:
        yield Text(f"Note: {loggable(note.sentence, limit=1_000)}")


def _verdict_lines(report: Report) -> Iterator[Text]:
    verdict = report.verdict or judge(report)
    level = LEVELS[verdict.level]
    yield Text.assemble(
        (f"{level}: ", _STYLES[verdict.level]), loggable(verdict.message, limit=1_000)
    )
    if verdict.advice:
        yield Text(f"To do: {loggable(verdict.advice, limit=1_000)}", style="bold")


def _which(report: Report) -> str:
    dry = ", a dry run" if report.dry_run else ""
    moment = format_moment(report.started_at)
    return f"Run {report.run}{dry} on {loggable(report.target)}, {moment}."


def _problem(text: str) -> Text:
    return Text(f"Problem: {loggable(text, limit=1_000)}", style="red")


def _summary(report: Report) -> Iterator[Text]:
    yield Text(_which(report), style="dim")
    if report.space:
        yield _used(report.space)
    for line in changes.format_changes(report):
        yield Text(loggable(line, limit=1_000))
    if report.trend.evictions:
        yield Text(trend.format_evictions(report))


def _more(report: Report) -> Iterator[Text]:
    """Return what went wrong, and where the rest is."""
    for problem in report.problems[:_PROBLEMS]:
        yield _problem(problem)
    omitted = len(report.problems) + len(report.notes) - _PROBLEMS
    for note in report.notes[: max(0, _PROBLEMS - len(report.problems))]:
        yield Text(f"Note: {loggable(note.sentence, limit=1_000)}")
    others = f" ({format_count(omitted, 'more problem or note', 'more problems or notes')})"
    yield Text(f"More: `maintainer report`, or -v{others if omitted > 0 else ''}", style="dim")


def _space(report: Report) -> Iterator[RenderableType]:
    table = storage.space_table(report)
    if report.space is None or table is None:
        yield Text(storage.why_no_space(report))
        return
    yield _used(report.space)
    yield _bar(report.space)
    grid = make_grid(("", *table.columns), table.numbers)
    for part, row in zip(report.space.parts, table.rows, strict=True):
        grid.add_row(Text(_block(part), style=_COLOURS[part.kind]), *map(_cell, row))
    yield grid
    yield from titled(storage.refs_table(report))
    yield from titled(storage.used_table(report))


def _used(space: Space) -> Text:
    return Text(f"{format_size(space.used)} {storage.format_use(space)}")


def _bar(space: Space) -> Text:
    """Draw the parts; each part that is not empty gets at least one character."""
    whole = max(space.quota or 0, space.used) or 1
    bar = Text()
    for part in space.parts:
        if part.kind == "free":
            continue
        width = max(1, round(part.size / whole * _BAR)) if part.size else 0
        bar.append(_block(part) * width, style=_COLOURS[part.kind])
    bar.truncate(_BAR)
    bar.append("░" * (_BAR - len(bar)), style=_COLOURS["free"])
    return bar


def _block(part: SpacePart) -> str:
    return _BLOCKS.get(part.kind, "▚")


def _happened(report: Report) -> Iterator[RenderableType]:
    for line in changes.format_changes(report):
        yield Text(loggable(line, limit=1_000))
    yield from _written(report)
    for table in changes.happened_tables(report, _ROWS):
        yield from titled(table)


def _written(report: Report) -> Iterator[RenderableType]:
    """Return written indexes as lines: the reasons are too long for a column."""
    table = changes.written_table(report, _ROWS)
    if not table.rows:
        return
    yield Text(f"\n{table.title}", style="italic")
    for row in table.rows:
        one = {name: cell.text for name, cell in zip(table.columns, row, strict=True)}
        place = f" in {one['ref']}, generation {one['generation']}" if "ref" in one else ""
        ours = f"{row[0].text}{place}, {one['outcome']}: {one['why']}"
        yield Padding(Text(loggable(ours, limit=400)), (0, 0, 0, 2))
    yield from _left(table)


def _scopes(report: Report) -> Iterator[RenderableType]:
    if not report.indexes:
        yield Text(scopes.why_no_scopes(report))
        yield from titled(storage.listed_scopes_table(report))
        return
    if line := scopes.format_scopes(report):
        yield Text(line)
    yield from titled(scopes.scopes_table(report, _ROWS * 2))
    yield Text(scopes.SCOPES_NOTE, style="dim")
    largest = max(report.indexes, key=lambda index: index.bytes_usable)
    if largest.chains:
        yield from _chains(largest)
        if len(report.indexes) > 1:
            yield Text("  … and so on for the others: see `maintainer tree`", style="dim")


def _chains(index: IndexReport) -> Iterator[RenderableType]:
    left = (
        f", without {format_count(index.chains_omitted, 'smaller one')}"
        if index.chains_omitted
        else ""
    )
    yield Text(
        f"\nThe largest layer chains of {loggable(scopes.format_place(index))}{left}",
        style="italic",
    )
    table = scopes.chains_table(index)
    grid = make_grid(table.columns, table.numbers)
    for row in table.rows[:_ROWS]:
        grid.add_row(*map(_cell, row))
    yield grid


def _trend(report: Report) -> Iterator[RenderableType]:
    yield Text(trend.format_trend(report))
    points = report.trend.points
    if len(points) > 1:
        if usable := [point.usable for point in points if point.usable is not None]:
            yield Text(f"usable  {_spark(usable)}")
        yield Text(f"stored  {_spark([sum(point.bytes.values()) for point in points])}")
    yield Text(trend.format_evictions(report))
    if line := trend.format_headroom(report):
        yield Text(line)


def _spark(values: list[int]) -> str:
    """Draw the last values as a row of bars that start at zero."""
    shown = values[-_BAR:]
    most = max(*shown, 1)
    return "".join(_STEPS[value * (len(_STEPS) - 1) // most] for value in shown)


def titled(table: Table) -> Iterator[RenderableType]:
    """Format a table with its title; nothing if it has no rows."""
    if not table.rows:
        return
    if table.title:
        yield Text(f"\n{table.title}", style="italic")
    yield _Fitting(table)
    yield from _left(table)


@dataclass(frozen=True, slots=True)
class _Fitting:
    """A table. If a terminal is too narrow for many columns, each row is a few words instead."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        grid = make_grid(self.table.columns, self.table.numbers)
        for row in self.table.rows:
            grid.add_row(*map(_cell, row))
        needed = console.measure(grid, options=options.update_width(_UNBOUNDED)).maximum
        if len(self.table.columns) <= _FEW_COLUMNS or needed <= options.max_width:
            yield grid
            return
        first, *others = self.table.columns
        number = f"{first} " if first in self.table.numbers else ""
        for row in self.table.rows:
            cells = zip(others, row[1:], strict=True)
            yield Text.assemble((f"{number}{loggable(row[0].text, limit=300)}", "bold"))
            words = ", ".join(f"{name} {cell.text}" for name, cell in cells if cell.text)
            yield Padding(Text(loggable(words, limit=1_000)), (0, 0, 0, 2))


def _left(table: Table) -> Iterator[Text]:
    if table.omitted:
        yield Text(
            f"  … and {table.omitted:,} more: see `maintainer report --html FILE`", style="dim"
        )


def _cell(cell: Cell) -> Text:
    return _text(cell.text)


def _text(text: str) -> Text:
    """Show untrusted text as it is, without markup or control characters."""
    return Text(loggable(text, limit=300))
