"""A first run on a directory, and a second one when nothing has changed."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.local import Size, gc, made_directory, scan
from benchmarks.processes import ROUNDS, Usage, measure_start_up, median_user, traced
from benchmarks.table import Goal, Line

_SIZE = Size(blobs=20_000, tags=500)


@dataclass(frozen=True)
class _Round:
    """A first run, a second one, and their floors."""

    first: Usage
    first_floor: Usage
    second: Usage
    second_floor: Usage
    start_up: Usage


def lines(size: Size = _SIZE, rounds: int = ROUNDS) -> Iterator[Line]:
    """Measure both."""
    measured = [_measure(size) for _ in range(rounds)]
    yield Line(
        f"directory, {size}: first run; floor: stat and parse",
        "s",
        median_user([each.first for each in measured]),
        median_user([each.first_floor for each in measured]),
        Goal(times=12),
    )
    start_up = median_user([each.start_up for each in measured])
    yield Line(
        f"directory: second run, nothing changed; floor: stat + start-up ({start_up:.2f} s)",
        "s",
        median_user([each.second for each in measured]),
        median_user([each.second_floor for each in measured]) + start_up,
        Goal(times=1.5),
    )


def _measure(size: Size) -> _Round:
    with made_directory(size) as made:
        first_floor, first = scan(made), gc(made)
        start_up = measure_start_up(gc(made, traced), made.folder)
        return _Round(first, first_floor, gc(made), scan(made, "stat"), start_up)
