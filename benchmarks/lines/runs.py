"""A first run on a hosted cache, and a second one that has nothing to do."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.hosted import FULL, GC, Size, first_run, floor_of_first_run, list_all, quiet_run
from benchmarks.processes import (
    ROUNDS,
    Usage,
    empty_folder,
    measure_start_up,
    median_user,
    traced,
)
from benchmarks.served import RequestLog, served
from benchmarks.table import Goal, Line


@dataclass(frozen=True)
class _Round:
    """A first run, a second one, and their floors."""

    log: RequestLog
    first: Usage
    first_floor: Usage
    second: Usage
    list_all: Usage
    start_up: Usage


def lines(size: Size = FULL, rounds: int = ROUNDS) -> Iterator[Line]:
    """Measure both."""
    measured = [_measure(size) for _ in range(rounds)]
    log = measured[0].log
    counts = f"{log.entries:,} entries, {size.indexes:,} indexes, {len(log.deleted):,} deletions"
    yield Line(
        f"first run: {counts}; floor: a lean client",
        "s",
        median_user([each.first for each in measured]),
        median_user([each.first_floor for each in measured]),
        Goal(times=4),
    )
    start_up = median_user([each.start_up for each in measured])
    yield Line(
        f"second run, nothing to do; floor: the list + start-up ({start_up:.2f} s)",
        "s",
        median_user([each.second for each in measured]),
        median_user([each.list_all for each in measured]) + start_up,
        Goal(times=1.2),
    )


def _measure(size: Size) -> _Round:
    with served(*size.arguments) as service, empty_folder() as folder:
        first, log = first_run(service, folder)
        start_up = measure_start_up(quiet_run(service, folder, traced(GC)), folder)
        second, listed = quiet_run(service, folder), list_all(service, folder)
    return _Round(log, first, floor_of_first_run(size, log), second, listed, start_up)
