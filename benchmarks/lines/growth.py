"""The size of a database after many runs that had nothing to do."""

from collections.abc import Iterator

from benchmarks.databases import size as size_of
from benchmarks.hosted import Size, first_run, quiet_run
from benchmarks.processes import empty_folder
from benchmarks.served import served
from benchmarks.table import Goal, Line

_SIZE = Size(272)
_RUNS = 200


def lines(size: Size = _SIZE, runs: int = _RUNS) -> Iterator[Line]:
    """Measure the bytes."""
    with served(*size.arguments) as service, empty_folder() as folder:
        _, log = first_run(service, folder)
        first = size_of(folder)
        for _ in range(runs - 1):
            quiet_run(service, folder)
        last = size_of(folder)
    yield Line(f"database after the first run, {log.entries:,} entries", "B", first)
    yield Line(f"database after {runs} runs", "B", last, goal=Goal(most=4_000_000))
