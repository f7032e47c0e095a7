"""Fills an emulated cache with the recorded history, day by day, and does runs on it."""

import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import anyio
import msgspec
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from maintainer.cacheconfig import BlobKey, Generation, IndexKey, decode, parse_key
from maintainer.collect import collect
from maintainer.demo.history import (
    RecordedEntry,
    evict_least_recently_used,
    evict_named_layers,
    load_history,
    scale,
)
from maintainer.emulator.server import Running, serve_in_thread
from maintainer.emulator.state import ActionsCache
from maintainer.graph.database import Database
from maintainer.report import Report
from maintainer.report.done import format_done
from maintainer.report.terminal import render_report
from maintainer.report.verdict import LEVELS
from maintainer.report.words import format_count, format_size
from maintainer.settings import GitHubSettings, Settings
from maintainer.stages.run import Collector, Mode
from maintainer.stores.github.client import open_client
from maintainer.stores.github.store import GitHubStore

_DATABASE = Path("maintainer-demo.db")
_QUERY = "SELECT state, count(*) AS blobs, sum(size) AS bytes FROM blobs GROUP BY state"
_MAIN = "refs/heads/main"
_FACTOR = 1_140
"""The recorded images are tiny; their layers are shown so many times as large."""
_QUOTA = 10_000_000_000
_SETTINGS = {"quota": _QUOTA, "verify_after": timedelta(0)}
"""To download a byte of each layer would take longer than all the rest."""
_LOST = 4
_LASTED = timedelta(hours=20)
"""How long the builds of a day take in all."""
_MOMENT = timedelta(microseconds=1)
_SEED = 1


@dataclass(frozen=True, slots=True)
class _Day:
    """What happens on a day: builds, then a run."""

    ago: timedelta
    share: float
    """Of all entries: those that exist at the end of this day."""
    since_builds: timedelta = timedelta(0)
    """How long before the run the last build ended."""
    dry_run: bool = False


_DAYS = (
    _Day(timedelta(days=6), 0.6, timedelta(hours=2), dry_run=True),
    _Day(timedelta(days=4), 0.85, timedelta(hours=2), dry_run=True),
    _Day(timedelta(days=2), 0.97, timedelta(hours=25)),
    _Day(timedelta(days=1), 0.97),
    _Day(timedelta(0), 1.0, timedelta(hours=2)),
)
"""Somebody first looks on, and then lets runs happen."""
_FIRST = 2
"""The first of them that changes the cache."""


def run_demo(console: Console) -> None:
    """Show runs on several days, and leave their database behind. Raises MaintainerError."""
    for leftover in ("", "-wal", "-shm", ".lock"):
        Path(f"{_DATABASE}{leftover}").unlink(missing_ok=True)
    story = _Story(scale(load_history(), _FACTOR))
    size = format_size(story.size)
    console.print(
        "226 builds of four images, recorded from a real BuildKit, store "
        f"{format_count(story.entries, 'entry')}, {size} (shown {_FACTOR:,} times as large as "
        f"they are). GitHub keeps {format_size(_QUOTA)}, and evicts the entries that were used "
        "least recently."
    )
    reports: list[Report] = []
    database = Database(f"sqlite:///{_DATABASE}")
    with closing(database), serve_in_thread(story.cache) as running:
        database.upgrade()
        for number, day in enumerate(_DAYS, 1):
            story.live(day)
            report = anyio.run(_run, running, database, story.clock, day.dry_run)
            reports.append(report)
            console.print(f"\n{number}. {_tell(day, report)}", soft_wrap=True)
            if number == _FIRST + 1:
                console.print(Padding(render_report(report), (1, 0, 0, 3)))
    console.print(_before_and_after(_FIRST + 1, reports[_FIRST]))
    console.print(
        f"The graph is in {_DATABASE}. Look at it with\n"
        f"    {_program()} report --database {_DATABASE}\n"
        f"    {_program()} report --html report.html --open --database {_DATABASE}\n"
        f"    {_program()} diff 1 3 --database {_DATABASE}\n"
        f"    sqlite3 -box {_DATABASE} '{_QUERY}'",
        soft_wrap=True,
    )


class _Story:
    """A cache on which days pass."""

    def __init__(self, history: Sequence[RecordedEntry]) -> None:
        self._history = sorted(history, key=lambda entry: entry.created_at)
        self._layers = {(one.ref, one.key): one for one in history if one.content is None}
        self._ago = _DAYS[0].ago
        self._stored = 0
        self.entries = len(self._history)
        self.size = sum(entry.size_in_bytes for entry in self._history)
        self.cache = ActionsCache(clock=self.clock)

    def clock(self) -> datetime:
        """Return the time on the current day of the story."""
        return datetime.now(UTC) - self._ago

    def live(self, day: _Day) -> None:
        """Let the builds of a day run, and GitHub evict."""
        self._ago = day.ago
        until = round(len(self._history) * day.share)
        new = self._history[self._stored : until]
        if new:
            now = self.clock() - day.since_builds
            self._use(self._history[: self._stored], since=new[0].created_at)
            first, last = new[0].created_at, new[-1].created_at
            for entry in new:
                at = now - _LASTED * ((last - entry.created_at) / max(last - first, _MOMENT))
                self._put(entry, at)
        self._stored = until
        evict_least_recently_used(self.cache, _QUOTA)
        if day is _DAYS[_FIRST]:
            chance = Random(_SEED)  # noqa: S311 - a demo, the same each time
            evict_named_layers(self.cache, _MAIN, count=_LOST, random=chance)

    def _use(self, entries: Iterable[RecordedEntry], since: datetime) -> None:
        """Look up what builds have used since, so that GitHub takes it for used."""
        for entry in entries:
            if entry.last_accessed_at >= since:
                self.cache.look_up([entry.ref], entry.key, [], entry.version)

    def _put(self, entry: RecordedEntry, at: datetime) -> None:
        key = parse_key(entry.key)
        if isinstance(key, IndexKey):
            self._upload_again(entry, at)
            key = self._next(key, entry.ref)
        self.cache.put(
            entry.key if key is None else str(key),
            None if entry.content is None else entry.content.encode(),
            ref=entry.ref,
            version=entry.version,
            size=entry.size_in_bytes,
            created_at=at,
        )

    def _upload_again(self, index: RecordedEntry, at: datetime) -> None:
        """Store what an index references and what is gone, as the build that exports it does."""
        stored = {entry.key for entry in self.cache.entries()}
        for blob in sorted(decode((index.content or "").encode()).blobs):
            layer = self._layers.get((index.ref, str(BlobKey(blob))))
            if layer and layer.created_at < index.created_at and layer.key not in stored:
                self._put(layer, at)

    def _next(self, key: IndexKey, ref: str) -> IndexKey:
        """Return the key that a build takes for an index, after those that are stored."""
        same = [
            other.generation
            for entry in self.cache.entries()
            if entry.ref == ref and entry.key.startswith(key.prefix)
            for other in [parse_key(entry.key)]
            if isinstance(other, IndexKey)
        ]
        return msgspec.structs.replace(
            key, generation=Generation(max([*same, key.generation - 1]) + 1)
        )


def _tell(day: _Day, report: Report) -> str:
    when = f"{day.ago.days} days ago" if day.ago.days > 1 else "Yesterday" if day.ago else "Today"
    verdict, evicted = report.verdict, report.changes.gone_entries
    level = LEVELS[verdict.level] if verdict else report.status
    away = f"GitHub has evicted {format_count(evicted, 'entry')} since. " if evicted else ""
    command = "`maintainer gc --dry-run`" if day.dry_run else "`maintainer gc`"
    return f"{when}. {away}{command}: {format_done(report)}. {level}."


async def _run(
    running: Running, database: Database, clock: Callable[[], datetime], dry_run: bool
) -> Report:
    environment = running.environment(_MAIN)
    async with open_client(GitHubSettings.read(environment)) as client:
        with database.lock():
            settings = Settings.defaults().model_copy(update=_SETTINGS)
            collector = Collector(GitHubStore(client), database, settings, clock=clock)
            return await collect(collector, Mode(dry_run=dry_run))


def _program() -> str:
    """Return how to call this program: by name, or by path if the shell does not find it."""
    name = Path(sys.argv[0]).name
    if name == "__main__.py":
        return "python -m maintainer"
    return name if shutil.which(name) else shlex.quote(sys.argv[0])


def _before_and_after(number: int, report: Report) -> Table:
    title = f"before → after run {number}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_style="bold", pad_edge=False)
    table.title_justify = "left"
    for name in ("scope", "keys with a usable result", "dangling", "generations"):
        table.add_column(name, justify="left" if name == "scope" else "right")
    for index in report.indexes:
        before, after = map(format_size, (index.bytes_dangling_before, index.bytes_dangling_after))
        table.add_row(
            Text(index.scope),
            f"{index.usable_before} → {index.usable_after}",
            f"{before} → {after}" if index.generations else "",
            f"{index.generations} → {index.generations_after}",
        )
    return table
