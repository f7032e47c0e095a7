"""A first run on a hosted cache, and a second one that has nothing to do."""

from collections.abc import Iterator

from benchmarks.hosted import FULL, GC, Size, first_run, floor_of_first_run, list_all, quiet_run
from benchmarks.processes import ROUNDS, empty_folder, measure_start_up, traced
from benchmarks.served import RequestLog, served
from benchmarks.table import Line
from benchmarks.two_runs import TwoRuns, compare


def lines(size: Size = FULL, rounds: int = ROUNDS) -> Iterator[Line]:
    """Measure both."""
    measured = [_measure(size) for _ in range(rounds)]
    log, _ = measured[0]
    counts = f"{log.entries:,} entries, {size.indexes:,} indexes, {len(log.deleted):,} deletions"
    yield from compare(
        [runs for _, runs in measured],
        f"first run: {counts}; floor: a lean client",
        "second run, nothing to do; floor: the list",
        first_times=4,
        second_times=1.2,
    )


def _measure(size: Size) -> tuple[RequestLog, TwoRuns]:
    with served(*size.arguments) as service, empty_folder() as folder:
        first, log = first_run(service, folder)
        start_up = measure_start_up(quiet_run(service, folder, traced(GC)), folder)
        second, listed = quiet_run(service, folder), list_all(service, folder)
    return log, TwoRuns(first, floor_of_first_run(size, log), second, listed, start_up)
