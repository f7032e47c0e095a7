"""The look of all tables on a terminal."""

from collections.abc import Iterable

from rich import box
from rich.table import Table
from rich.text import Text


def make_grid(columns: Iterable[str], numbers: Iterable[str], *, title: str = "") -> Table:
    """Return an empty table; the columns that hold numbers are aligned on the right."""
    right = set(numbers)
    grid = Table(
        title=Text(f"\n{title}", style="italic") if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        header_style="dim",
        show_edge=False,
    )
    for name in columns:
        # The longest texts are wrapped first, so that numbers stay on one line.
        grid.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="fold",
            no_wrap=name in right,
        )
    return grid
