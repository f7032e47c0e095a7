"""The table of what was measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Unit = Literal["s", "B", "MiB"]

HEAD = "| what | floor | measured | ratio | goal | |\n|---|--:|--:|--:|---|---|"


@dataclass(frozen=True)
class Goal:
    """The most that a line may be: `times` its floor, or `most` of its unit."""

    times: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Line:
    """What was measured. The floor is the least that any program needs for the same."""

    what: str
    unit: Unit
    measured: float
    floor: float | None = None
    goal: Goal = Goal()

    @property
    def ratio(self) -> float | None:
        """How many times the floor it is."""
        return self.measured / self.floor if self.floor else None

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of the row."""
        floor = "" if self.floor is None else format_amount(self.floor, self.unit)
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        measured = format_amount(self.measured, self.unit)
        return self.what, floor, measured, ratio, *self._compare()

    def _compare(self) -> tuple[str, str]:
        """Return the goal, and whether it is met."""
        if self.goal.times is not None and self.ratio is not None:
            return f"≤ {self.goal.times:g} floors", _met(self.ratio <= self.goal.times)
        if self.goal.most is not None:
            most = format_amount(self.goal.most, self.unit)
            return f"≤ {most}", _met(self.measured <= self.goal.most)
        return "", ""


def _met(met: bool) -> str:
    return "met" if met else "missed"


def format_amount(amount: float, unit: Unit) -> str:
    """Return an amount with three digits and its unit; bytes in a unit that suits them."""
    if unit == "s":
        return f"{amount:.0f} s" if amount >= 100 else f"{amount:.3g} s"
    if unit == "MiB":
        return f"{amount:,.0f} MiB"
    for name, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(amount) >= size:
            return f"{amount / size:.3g} {name}"
    return f"{amount:.0f} B"


def format_row(cells: Iterable[str]) -> str:
    """Return a row of the table."""
    return f"| {' | '.join(cells)} |"
