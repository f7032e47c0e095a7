"""A list whose pages are delayed."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.hosted import GC, Size
from benchmarks.processes import empty_folder, expect, module, run
from benchmarks.served import RequestLog, Served, served
from benchmarks.table import Goal, Line

_SIZE = Size(522)
"""Fills 29 pages."""
_GOALS = {0.1: 0.6, 0.3: 1.6}
"""Seconds, by delay."""


def lines(size: Size = _SIZE) -> Iterator[Line]:
    """Measure from the start of the first page to the end of the last."""
    with served(*size.arguments) as service, empty_folder() as folder:
        dry_run = (*GC, "--dry-run")
        run(dry_run, folder, service.variables)
        for delay, goal in _GOALS.items():
            log = _list(service, folder, dry_run, delay)
            floor = _list(service, folder, module("floors.client"), delay)
            pages = -(-log.entries // 100)
            expect(log.count("list") >= pages == floor.count("list"), f"{log} {floor}")
            what = f"{pages} list pages at {delay * 1000:.0f} ms, wall; floor: a lean client"
            yield Line(what, "s", log.listing, floor.listing, Goal(most=goal))


def _list(service: Served, folder: Path, command: tuple[str, ...], delay: float) -> RequestLog:
    service.restart_log(delay)
    run(command, folder, service.variables)
    return service.restart_log()
