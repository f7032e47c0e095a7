"""Measure the program against the least that any program needs, and print a table: `make bench`.

Without names, everything is measured. Times are medians of user CPU seconds, unless a line says
wall. Each floor is measured in the same run as what it is compared to.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping

from benchmarks.lines import (
    demo,
    directory,
    growth,
    latency,
    lists,
    memory,
    merging,
    million,
    recording,
    runs,
    start_up,
)
from benchmarks.processes import UnexpectedError
from benchmarks.table import HEAD, Line, format_row

_LINES: Mapping[str, Callable[[], Iterator[Line]]] = {
    "runs": runs.lines,
    "latency": latency.lines,
    "lists": lists.lines,
    "start-up": start_up.lines,
    "demo": demo.lines,
    "directory": directory.lines,
    "memory": memory.lines,
    "million": million.lines,
    "recording": recording.lines,
    "growth": growth.lines,
    "merging": merging.lines,
}


def main() -> int:
    """Print a row as soon as it is measured; return 1 if something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_LINES))
    names = parser.parse_args().names or [*_LINES]
    if unknown := set(names) - _LINES.keys():
        parser.error(f"no such name: {', '.join(sorted(unknown))}; use {', '.join(_LINES)}")
    print(HEAD, flush=True)
    return max([_measure(name) for name in names])


def _measure(name: str) -> int:
    try:
        for line in _LINES[name]():
            print(format_row(line.cells), flush=True)
    except UnexpectedError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
