"""A hosted cache of a million entries: a first run, and a second one that has nothing to do."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.databases import last_run, size
from benchmarks.hosted import GC
from benchmarks.processes import MIB, Usage, empty_folder, expect, module, run
from benchmarks.served import Served, served
from benchmarks.table import Goal, Line

_ENTRIES = 1_000_000
_GC = (*GC, "--merged-scope", "")
"""The service takes no writes, so nothing is merged."""


def lines(entries: int = _ENTRIES) -> Iterator[Line]:
    """Measure each once, and a lean client that lists the entries and holds them."""
    with served("many_entries", "serve", entries) as service, empty_folder() as folder:
        floor = run(module("floors.client"), folder, service.variables)
        expect(int(floor.output) == entries, f"the floor listed {floor.output}")
        first, before = _run(service, folder, entries), size(folder)
        second, after = _run(service, folder, entries), size(folder)
    what = f"hosted, {entries:,} entries"
    for name, usage in (("first run", first), ("second run", second)):
        yield Line(f"{what}: {name}; floor: list", "s", usage.user, floor.user, Goal(most=15))
        peaks = usage.peak / MIB, floor.peak / MIB
        yield Line(f"{what}: {name}, peak of memory", "MiB", *peaks, Goal(most=400))
    yield Line(f"{what}: database after the first run", "B", before)
    yield Line(f"{what}: a quiet run adds", "B", after - before, goal=Goal(most=10_000))


def _run(service: Served, folder: Path, entries: int) -> Usage:
    usage, ended = run(_GC, folder, service.variables), last_run(folder)
    expect(ended.status == "done" and ended.entries == entries, f"the run: {ended}")
    expect(not ended.entries_deleted and not ended.indexes_written, f"not quiet: {ended}")
    return usage
