"""Fills an emulated cache with the recorded history, and does a run on it."""

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import anyio
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maintainer.collect import collect
from maintainer.demo.history import (
    evict_least_recently_used,
    evict_named_layers,
    load_history,
    seed,
)
from maintainer.emulator.server import Running, serve_in_thread
from maintainer.emulator.state import ActionsCache
from maintainer.graph.database import Database
from maintainer.report import Report
from maintainer.report.terminal import render_report
from maintainer.report.verdict import format_done
from maintainer.report.words import format_size
from maintainer.settings import GitHubSettings, Settings
from maintainer.stages.run import Collector
from maintainer.stores.github.cache import GitHubCache
from maintainer.stores.github.store import open_store

_DATABASE = Path("maintainer-demo.db")
_QUERY = "SELECT state, count(*) AS blobs, sum(size) AS bytes FROM blobs GROUP BY state"
_MAIN = "refs/heads/main"
_LOST = 4
_SEED = 1
_QUOTA_SHARE = 0.8
"""The quota of the demo, as a share of all bytes of the history."""


def run_demo(console: Console) -> None:
    """Show a run, and leave its database behind. Raises MaintainerError."""
    for leftover in ("", "-wal", "-shm", ".lock"):
        Path(f"{_DATABASE}{leftover}").unlink(missing_ok=True)
    history = load_history()
    cache = ActionsCache()
    ends_at = datetime.now(UTC) - timedelta(hours=30)
    seed(cache, history, ends_at=ends_at, lasted=timedelta(days=5))
    console.print(
        f"1. A repository's cache: {len(history)} entries, {format_size(cache.usage)}, "
        "written by 226 builds of four images (recorded from a real BuildKit)."
    )
    quota = int(cache.usage * _QUOTA_SHARE)
    evicted = evict_least_recently_used(cache, quota)
    lost = evict_named_layers(cache, _MAIN, count=_LOST, random=Random(_SEED))  # noqa: S311 - a demo, the same each time
    console.print(
        f"2. Its quota is {format_size(quota)}, so GitHub evicts the {len(evicted)} entries that "
        f"were used least recently, even if an index references them; to show the effect, also "
        f"{len(lost)} layers that the newest indexes reference."
    )
    with serve_in_thread(cache) as running:
        first = anyio.run(_run, running, quota)
        console.print("3. `maintainer gc`, over HTTP:\n")
        console.print(render_report(first))
        second = anyio.run(_run, running, quota)
    console.print(f"\n4. `maintainer gc` once more: {format_done(second)}.\n")
    console.print(_before_and_after(first))
    console.print(
        f"The graph is in {_DATABASE}. Look at it with\n"
        f"    {_program()} report --run 1 --database sqlite:///{_DATABASE}\n"
        f"    sqlite3 -box {_DATABASE} '{_QUERY}'",
        soft_wrap=True,
    )


async def _run(running: Running, quota: int) -> Report:
    environment = running.environment(_MAIN)
    database = Database(f"sqlite:///{_DATABASE}")
    try:
        database.upgrade()
        async with open_store(GitHubSettings.read(environment)) as store:
            with database.lock():
                settings = Settings.defaults().model_copy(update={"quota": quota})
                return await collect(Collector(GitHubCache(store), database, settings))
    finally:
        database.close()


def _program() -> str:
    """Return how to call this program: by name, or by path if the shell does not find it."""
    name = Path(sys.argv[0]).name
    return name if shutil.which(name) else sys.argv[0]


def _before_and_after(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="before → after", title_style="bold", pad_edge=False)
    table.title_justify = "left"
    for name in ("scope", "keys with a usable result", "dangling", "generations"):
        table.add_column(name, justify="left" if name == "scope" else "right")
    for index in report.indexes:
        table.add_row(
            Text(index.scope),
            f"{index.usable_before} → {index.usable_after}",
            f"{format_size(index.bytes_dangling_before)} → "
            f"{format_size(index.bytes_dangling_after)}",
            f"{index.generations} → {index.generations_after}",
        )
    return table
