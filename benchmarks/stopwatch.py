"""Runs on an emulated cache, timed stage by stage."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from benchmarks.grown import MAIN, fill, generations
from benchmarks.processes import user_seconds
from maintainer.collect import collect
from maintainer.emulator import ActionsCache, Running, serve_in_thread
from maintainer.graph.database import Database
from maintainer.report import Report
from maintainer.settings import GitHubSettings, Settings
from maintainer.stages.run import Collector, Mode
from maintainer.stores.github.client import open_client
from maintainer.stores.github.store import GitHubStore


class Stopwatch:
    """Watches a run, and keeps the CPU seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._stage: str | None = None
        self._since = 0.0

    def stage(self, name: str | None, total: int | None = None) -> None:
        """Begin a stage; None ends the last one."""
        del total
        now = user_seconds()
        if self._stage is not None:
            self.seconds[self._stage] += now - self._since
        self._stage, self._since = name, now

    def advance(self, steps: int = 1) -> None:
        """Count nothing."""


@contextmanager
def grown_cache(count: int) -> Iterator[tuple[Running, int]]:
    """Serve a cache of so many generations, the last of them a day and a half old; its entries."""
    cache = ActionsCache()
    entries = fill(cache, generations(count), datetime.now(UTC) - timedelta(hours=36))
    with serve_in_thread(cache) as running:
        yield running, entries


def run(running: Running, database: Path, *, dry_run: bool = False) -> tuple[Report, Stopwatch]:
    """Do one run, and time it."""
    stopwatch = Stopwatch()

    async def run_once() -> Report:
        opened = Database(f"sqlite:///{database}")
        try:
            opened.upgrade()
            async with open_client(GitHubSettings.read(running.environment(MAIN))) as store:
                with opened.lock():
                    collector = Collector(
                        GitHubStore(store), opened, Settings.defaults(), progress=stopwatch
                    )
                    return await collect(collector, Mode(dry_run=dry_run))
        finally:
            opened.close()

    report = anyio.run(run_once)
    stopwatch.stage(None)
    return report, stopwatch
