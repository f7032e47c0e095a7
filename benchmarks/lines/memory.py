"""The memory of a run on a large directory."""

from collections.abc import Iterator

from benchmarks.local import Size, gc, made_directory, scan
from benchmarks.processes import MIB
from benchmarks.table import Goal, Line

_SIZE = Size(blobs=100_000, tags=2_000)


def lines(size: Size = _SIZE) -> Iterator[Line]:
    """Measure its peak."""
    with made_directory(size) as made:
        floor, usage = scan(made), gc(made)
    what = f"directory, {size}: peak of memory; floor: stat and parse"
    yield Line(what, "MiB", usage.peak / MIB, floor.peak / MIB, Goal(most=120))
