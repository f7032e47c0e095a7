"""A first run on a directory, and a second one when nothing has changed."""

from collections.abc import Iterator

from benchmarks.local import Size, gc, made_directory, scan
from benchmarks.processes import ROUNDS, measure_start_up, traced
from benchmarks.table import Line
from benchmarks.two_runs import TwoRuns, compare

_SIZE = Size(blobs=20_000, tags=500)


def lines(size: Size = _SIZE, rounds: int = ROUNDS) -> Iterator[Line]:
    """Measure both."""
    yield from compare(
        [_measure(size) for _ in range(rounds)],
        f"directory, {size}: first run; floor: stat and parse",
        "directory: second run, nothing changed; floor: stat",
        first_times=12,
        second_times=1.5,
    )


def _measure(size: Size) -> TwoRuns:
    with made_directory(size) as made:
        first_floor, first = scan(made), gc(made)
        start_up = measure_start_up(gc(made, traced), made.folder)
        return TwoRuns(first, first_floor, gc(made), scan(made, "stat"), start_up)
