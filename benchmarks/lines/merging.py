"""Merging. Its peer is BuildKit's own code: docs/benchmarks.md says how to measure it by hand."""

from collections.abc import Iterator, Sequence

from benchmarks.processes import empty_folder, expect, module, run
from benchmarks.table import Line

_COUNTS = (50, 158, 400, 778, 1_556)


def lines(counts: Sequence[int] = _COUNTS) -> Iterator[Line]:
    """Measure it at growing numbers of generations."""
    for count in counts:
        with empty_folder() as folder:
            took, records = run(module("merging", count), folder).output.split()
        expect(int(records) > 0, f"no records were left of {count} generations")
        yield Line(f"decode, merge, prune, encode {count:,} generations", "s", float(took))
