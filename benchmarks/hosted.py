"""Runs on a hosted cache, and what a lean client does on the same."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.databases import last_run
from benchmarks.processes import MAINTAINER, Usage, empty_folder, expect, module, run
from benchmarks.served import RequestLog, Served, served

GC = (*MAINTAINER, "gc", "--quiet")
_CHANGES = ("delete", "reserve", "upload")


@dataclass(frozen=True)
class Size:
    """The size of a cache."""

    generations: int
    """Of one scope."""
    others: int = 0
    """Generations of other scopes."""

    @property
    def indexes(self) -> int:
        """The number of indexes."""
        return self.generations + self.others

    @property
    def arguments(self) -> tuple[str, int, int]:
        """What starts the service."""
        return "service", self.generations, self.others


FULL = Size(778, 249)
"""As many as a busy repository has: about 5,000 entries."""


def first_run(service: Served, folder: Path, delay: float = 0.0) -> tuple[Usage, RequestLog]:
    """Return what a first run took, and the requests that it sent."""
    service.restart_log(delay)
    usage = run(GC, folder, service.variables)
    log, ended = service.restart_log(), last_run(folder)
    expect(ended.status == "done" and ended.number == 1, f"the first run: {ended}")
    expect(len(log.deleted) == ended.entries_deleted > 0, f"{len(log.deleted)} deleted: {ended}")
    remaining = log.entries - ended.entries_deleted + ended.indexes_written
    expect(ended.entries == remaining, f"not about {log.entries:,} entries: {ended}")
    return usage, log


def quiet_run(service: Served, folder: Path, command: Sequence[str] = GC) -> Usage:
    """Return what a run took that had nothing to do."""
    service.restart_log()
    before = last_run(folder)
    usage = run(command, folder, service.variables)
    log, ended = service.restart_log(), last_run(folder)
    expect(ended.status == "done" and ended.number == before.number + 1, f"a quiet run: {ended}")
    expect(ended.entries == log.entries, f"not about {log.entries:,} entries: {ended}")
    expect(log.count("list") and not log.count(*_CHANGES), f"not quiet: {log.requests}")
    return usage


def list_all(service: Served, folder: Path) -> Usage:
    """Return what it took the lean client to list all entries."""
    service.restart_log()
    usage = run(module("floors.client"), folder, service.variables)
    log = service.restart_log()
    expect(int(usage.output) == log.entries, f"listed {usage.output} of {log.entries}")
    expect({*log.requests} == {"list"}, f"did more than list: {log.requests}")
    return usage


def floor_of_first_run(size: Size, first: RequestLog, delay: float = 0.0) -> Usage:
    """Return what it took the lean client to do on a new cache what a first run did."""
    with served(*size.arguments) as service, empty_folder() as folder:
        file = folder / "delete.json"
        file.write_text(json.dumps(first.deleted))
        service.restart_log(delay)
        usage = run(module("floors.client", file), folder, service.variables)
        log = service.restart_log()
    expect(log.entries == first.entries == int(usage.output), "the floor listed other entries")
    expect({*log.deleted} == {*first.deleted}, "the floor deleted other entries")
    for kind in ("look-up", "download"):
        expect(log.count(kind) == size.indexes, f"the floor: {log.requests}")
        expect(first.count(kind) >= size.indexes, f"the first run: {first.requests}")
    return usage
