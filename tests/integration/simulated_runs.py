"""Runs of `maintainer gc` in one process: one at a time, or two that take turns at the store."""

import shutil
import weakref
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import anyio

from maintainer.cacheconfig import Ref
from maintainer.collect import collect
from maintainer.emulator import Running
from maintainer.emulator.server import Service
from maintainer.graph.database import Database
from maintainer.model.entry import Access, Listing, StoredEntry, StoreLimits
from maintainer.model.reason import ClosedRef
from maintainer.report import Report
from maintainer.settings import GitHubSettings, Settings
from maintainer.stages.run import Collector, Mode
from maintainer.stores.github.client import open_client
from maintainer.stores.github.keyed import CacheHit, ClosedRefs, KeyedService, MayAsk
from maintainer.stores.github.store import GitHubStore
from maintainer.stores.http.requests import RequestLog
from tests.chosen import choose
from tests.empty_database import make_empty, need_sqlite, url_of
from tests.integration.world import AT_ONCE, MAIN

MERGED = "maintained"
"""The scope that holds the merge of all others."""


@dataclass(frozen=True)
class Workflow:
    """How somebody runs `maintainer gc`."""

    ref: str = MAIN
    rest: bool = True
    service: Service = "v2"
    grace: timedelta = timedelta(days=1)
    dry_run: bool = False
    no_sweep: bool = False
    accept_loss: bool = True
    repair: bool = False
    max_requests: int | None = None
    generation_gap: int = 20
    scopes: tuple[str, ...] = ("buildkit", "web")
    merged_scope: str = MERGED
    export_wait: timedelta = timedelta(0)
    verify_after: timedelta = timedelta(days=3)
    more: Mapping[str, object] = field(default_factory=dict)
    """Other settings."""

    @property
    def readable(self) -> tuple[str, ...]:
        """The refs that its token reads, in order."""
        return tuple(dict.fromkeys((self.ref, MAIN)))

    @property
    def settings(self) -> Settings:
        """What is set."""
        return choose(
            {
                "grace": self.grace,
                "max_requests": self.max_requests,
                "generation_gap": self.generation_gap,
                "scopes": self.scopes,
                "merged_scope": self.merged_scope,
                "quota": 10_000_000_000,
                "export_wait": self.export_wait,
                "verify_after": self.verify_after,
                **self.more,
            }
        )


class Memory:
    """A database that can be lost, and put back to what it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lose()
        # Kept open for all sequences: so statements are compiled once.
        self.database = Database(url_of(path))
        # A server's connections must be closed, and stories of all kinds forget their memories.
        weakref.finalize(self, self.database.close)

    @classmethod
    def make(cls, folder: Path, count: int) -> list["Memory"]:
        """Make so many, all of them empty."""
        return [cls(folder / f"{number}.db") for number in range(count)]

    def lose(self) -> None:
        """Forget everything."""
        self._close()
        make_empty(self.path)

    def copy(self, to: Path) -> None:
        """Keep what is there now, as a process leaves it that is killed now."""
        need_sqlite()
        shutil.copy(self.path, to)
        log, copied_log = self._log(self.path), self._log(to)
        copied_log.unlink(missing_ok=True)
        if log.exists():
            shutil.copy(log, copied_log)

    def replace(self, by: Path) -> None:
        """Put back what was kept."""
        self._close()
        shutil.copy(by, self.path)
        if self._log(by).exists():
            shutil.copy(self._log(by), self._log(self.path))

    def _close(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
        for path in (self._log(self.path), self.path.with_name(f"{self.path.name}-shm")):
            path.unlink(missing_ok=True)

    @staticmethod
    def _log(path: Path) -> Path:
        return path.with_name(f"{path.name}-wal")


@dataclass
class Turns:
    """Who may ask the store: each of two runs for so many calls, then the other."""

    counts: Sequence[int]
    who: int = 0
    _ended: set[int] = field(default_factory=set)
    _in_flight: int = 0
    _turn: int = 0
    _left: int = 0

    def __post_init__(self) -> None:
        self._left = self._count()
        self._changed = anyio.Event()

    def _count(self) -> int:
        return self.counts[self._turn % len(self.counts)] if self.counts else 1

    @asynccontextmanager
    async def take(self, who: int) -> AsyncIterator[None]:
        """Wait for a turn, and use it for one call."""
        while not (self.who == who and (self._left or self._ended)):
            await self._changed.wait()
        self._left -= 1
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight and self._left <= 0 and not self._ended:
                self._pass_on()

    def end(self, who: int) -> None:
        """Leave all further turns to the other."""
        self._ended.add(who)
        self.who = 1 - who
        self._wake()

    def _pass_on(self) -> None:
        self.who = 1 - self.who
        self._turn += 1
        self._left = self._count()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class InTurn:
    """A store that is asked in turn."""

    def __init__(self, store: KeyedService, turns: Turns, who: int) -> None:
        self._store = store
        self._turns = turns
        self._who = who
        self.name = store.name
        self.access: Access = store.access
        self.lists = store.lists
        self.reads = store.reads
        self.deletions_a_minute = store.deletions_a_minute
        self.requests: RequestLog = store.requests

    async def limits(self) -> StoreLimits:
        """Ask when it evicts."""
        async with self._turns.take(self._who):
            return await self._store.limits()

    async def retention(self) -> timedelta | None:
        """Ask for the retention."""
        async with self._turns.take(self._who):
            return await self._store.retention()

    async def list_entries(self) -> Listing:
        """List all entries."""
        async with self._turns.take(self._who):
            return await self._store.list_entries()

    async def closed_refs(self, refs: Iterable[Ref], may_ask: MayAsk) -> ClosedRefs:
        """Find out which refs are closed."""
        async with self._turns.take(self._who):
            return await self._store.closed_refs(refs, may_ask)

    async def closed_ref(self, ref: Ref) -> ClosedRef | None:
        """Ask again."""
        async with self._turns.take(self._who):
            return await self._store.closed_ref(ref)

    async def newest_indexes(self) -> tuple[StoredEntry, ...]:
        """List the newest indexes."""
        async with self._turns.take(self._who):
            return await self._store.newest_indexes()

    async def last_used(
        self, prefix: str, page: int = 1, ref: Ref | None = None
    ) -> tuple[StoredEntry, ...]:
        """List the entries that were used last."""
        async with self._turns.take(self._who):
            return await self._store.last_used(prefix, page, ref)

    async def look_up(self, key: str) -> CacheHit | None:
        """Look a key up."""
        async with self._turns.take(self._who):
            return await self._store.look_up(key)

    async def look_up_newest(self, prefix: str) -> CacheHit | None:
        """Look a prefix up."""
        async with self._turns.take(self._who):
            return await self._store.look_up_newest(prefix)

    async def read(self, found: CacheHit) -> bytes:
        """Download."""
        async with self._turns.take(self._who):
            return await self._store.read(found)

    async def has_content(self, found: CacheHit) -> bool:
        """Fetch a byte."""
        async with self._turns.take(self._who):
            return await self._store.has_content(found)

    async def write(self, key: str, content: bytes) -> None:
        """Write an entry."""
        async with self._turns.take(self._who):
            await self._store.write(key, content)

    async def delete(self, entry_id: int) -> bool:
        """Delete an entry."""
        async with self._turns.take(self._who):
            return await self._store.delete(entry_id)


@dataclass(frozen=True)
class Runner:
    """Runs workflows against one emulator, in no time."""

    running: Running

    def run(self, workflow: Workflow, memory: Memory, now: datetime) -> Report:
        """Do one run."""

        async def alone() -> Report:
            async with self._open(workflow) as store:
                return await _collect(workflow, store, memory, now)

        return anyio.run(alone)

    def run_both(
        self,
        turns: Turns,
        first: tuple[Workflow, Memory],
        second: tuple[Workflow, Memory],
        now: datetime,
    ) -> list[Report]:
        """Do two runs that take turns."""
        reports: dict[int, Report] = {}

        async def one(who: int, workflow: Workflow, memory: Memory) -> None:
            async with self._open(workflow) as store:
                in_turn = InTurn(store, turns, who)
                reports[who] = await _collect(workflow, in_turn, memory, now)
                turns.end(who)

        async def both() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(one, 0, *first)
                group.start_soon(one, 1, *second)

        anyio.run(both)
        return [reports[0], reports[1]]

    @asynccontextmanager
    async def _open(self, workflow: Workflow) -> AsyncIterator[KeyedService]:
        environment = self.running.environment(
            workflow.ref, readable=workflow.readable, service=workflow.service
        )
        # A workflow always knows its repository and where the API is, which name the cache.
        if not workflow.rest:
            del environment["GITHUB_TOKEN"]
        async with open_client(GitHubSettings.read(environment), AT_ONCE) as store:
            yield store


async def _collect(
    workflow: Workflow, store: KeyedService, memory: Memory, now: datetime
) -> Report:
    with memory.database.lock():
        return await collect(
            Collector(
                GitHubStore(store),
                memory.database,
                workflow.settings,
                clock=lambda: now,
                sleep=_no_sleep,
            ),
            Mode(workflow.dry_run, workflow.no_sweep, workflow.accept_loss, workflow.repair),
        )


async def _no_sleep(_seconds: float) -> None:
    """Wait for nobody."""
