"""Does dry runs on a new cache, and prints the CPU seconds in which the first recorded it.

python -m benchmarks.recording FOLDER GENERATIONS OTHERS
"""

import gc
import sys
from pathlib import Path
from statistics import median

from benchmarks.processes import ROUNDS, expect
from benchmarks.service import make_cache
from benchmarks.stopwatch import run
from maintainer.__main__ import NEW_OBJECTS
from maintainer.emulator import serve_in_thread

_STAGE = "record"


def main(folder: Path, count: int, others: int) -> None:
    """Measure it, in a few new databases."""
    took = []
    gc.set_threshold(NEW_OBJECTS)  # as the command does
    with serve_in_thread(make_cache(count, others)) as running:
        for number in range(ROUNDS):
            report, stopwatch = run(running, folder / f"{number}.db", dry_run=True)
            expect(report.status == "done", f"the run ended as {report.status}")
            took.append(stopwatch.seconds[_STAGE])
    print(median(took))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
