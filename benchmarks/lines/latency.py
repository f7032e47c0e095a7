"""A first run on a service whose responses take a tenth of a second."""

from collections.abc import Iterator

from benchmarks.hosted import FULL, Size, first_run, floor_of_first_run
from benchmarks.processes import empty_folder
from benchmarks.served import served
from benchmarks.table import Goal, Line

_DELAY = 0.1


def lines(size: Size = FULL) -> Iterator[Line]:
    """Measure it once: most of the time is the delay."""
    with served(*size.arguments) as service, empty_folder() as folder:
        usage, log = first_run(service, folder, _DELAY)
    floor = floor_of_first_run(size, log, _DELAY)
    what = f"first run at {_DELAY * 1000:.0f} ms, wall; floor: a lean client"
    yield Line(what, "s", usage.wall, floor.wall, Goal(times=1.3))
