"""Tables of texts and numbers, which every form of a report then formats. Pure.

The texts are not escaped; the forms do that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from maintainer.report.model import Report
from maintainer.report.words import (
    format_ago,
    format_moment,
    format_size,
)

_OF_NUMBERED = frozenset({"ref", "generation", "generations"})
"""The columns that are only about stores with refs and generations."""


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


def table_of(
    title: str,
    columns: Sequence[str],
    numbers: Iterable[str],
    rows: Sequence[tuple[Cell, ...]],
    limit: int,
) -> Table:
    left = max(0, len(rows) - limit)
    return Table(title, tuple(columns), frozenset(numbers), tuple(rows[:limit]), left)


def day_cell(day: date) -> Cell:
    return Cell(day.isoformat(), day.toordinal())


def number_cell(number: int) -> Cell:
    return Cell(f"{number:,}", number)


def size_cell(size: int) -> Cell:
    return Cell(format_size(size), size)


def change_cell(before: int, after: int) -> Cell:
    return Cell(f"{after:,}" if before == after else f"{before:,} → {after:,}", after)


def age_cell(moment: datetime | None, now: datetime) -> Cell:
    if moment is None:
        return Cell("", 0)
    age = max(now - moment, timedelta(0)).total_seconds()
    return Cell(format_ago(moment, now), age, format_moment(moment))


def of_store(report: Report, table: Table) -> Table:
    """Return a table of indexes with the columns and words of its store."""
    if report.store.numbered:
        return table
    kept = [at for at, name in enumerate(table.columns) if name not in _OF_NUMBERED]
    names = tuple(report.store.noun_of_name if at == 0 else table.columns[at] for at in kept)
    rows = tuple(tuple(row[at] for at in kept) for row in table.rows)
    return replace(table, columns=names, rows=rows)
