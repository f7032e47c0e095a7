"""Commands that have next to nothing to do."""

import sys
from collections.abc import Iterator

from benchmarks.hosted import GC
from benchmarks.processes import MAINTAINER, Usage, empty_folder, expect, median_user, run
from benchmarks.served import served
from benchmarks.table import Goal, Line

_ROUNDS = 5
_COMMANDS = (
    (("--help",), 0, 0.15),
    (("gc", "--unknown"), 2, 0.15),
    (("report",), 0, 0.3),
)
"""Their arguments, exit status and goal."""


def lines(rounds: int = _ROUNDS) -> Iterator[Line]:
    """Measure them, and Python that does nothing."""
    with served("service", 50, 0) as service, empty_folder() as folder:
        run((*GC, "--dry-run"), folder, service.variables)

        def repeat(*command: str, status: int = 0) -> list[Usage]:
            return [run(command, folder, status=status) for _ in range(rounds)]

        floor = median_user(repeat(sys.executable, "-c", "pass"))
        for arguments, status, goal in _COMMANDS:
            usages = repeat(*MAINTAINER, *arguments, status=status)
            expect(usages[0].output or status, f"{arguments} printed nothing")
            what = f"`maintainer {' '.join(arguments)}`; floor: Python"
            yield Line(what, "s", median_user(usages), floor, Goal(most=goal))
