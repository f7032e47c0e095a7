"""Recording a first run in the database, and raw SQL that writes as much."""

from collections.abc import Iterator
from statistics import median

from benchmarks.databases import count
from benchmarks.hosted import FULL, Size
from benchmarks.processes import ROUNDS, empty_folder, expect, module, run
from benchmarks.table import Goal, Line


def lines(size: Size = FULL, rounds: int = ROUNDS) -> Iterator[Line]:
    """Measure both within the process that does it."""
    floor = median([_write(size) for _ in range(rounds)])
    what = f"recording a first run, {size.indexes:,} indexes; floor: raw SQL"
    yield Line(what, "s", _record(size), floor, Goal(times=3))


def _record(size: Size) -> float:
    with empty_folder() as folder:
        usage = run(module("recording", folder, size.generations, size.others), folder)
        recorded = min(count(file, "generations") for file in folder.glob("*.db"))
    expect(recorded == size.indexes, f"{recorded} of {size.indexes} indexes were recorded")
    return float(usage.output)


def _write(size: Size) -> float:
    with empty_folder() as folder:
        command = module("floors.rows", folder / "floor.db", size.generations, size.others)
        took, written = run(command, folder).output.split()
    expect(int(written) == size.indexes, f"{written} of {size.indexes} indexes were written")
    return float(took)
