"""One active run: its tools, and its results so far."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

import anyio.lowlevel
from sqlalchemy import Connection

from maintainer.budget import Budget
from maintainer.cacheconfig import IndexId, Scope
from maintainer.clock import now_utc
from maintainer.graph.database import Database
from maintainer.graph.entries import Entries
from maintainer.graph.lease import Lease
from maintainer.graph.recall import load_snapshot, recall_keys, recall_swept
from maintainer.graph.record import find_target
from maintainer.graph.runs import begin_run, load_listed_at, next_moment
from maintainer.graph.tried import load_tried
from maintainer.logs import StagesInLogs
from maintainer.mark import Marker
from maintainer.model.decision import Rules
from maintainer.model.entry import KnownEntry, Listing
from maintainer.model.idle import Outlook
from maintainer.model.limits import ToolRule
from maintainer.model.marks import Marks
from maintainer.model.memory import Memory, Probe
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot
from maintainer.progress import Progress, Unwatched
from maintainer.report.build import ReportBuilder
from maintainer.settings import Settings
from maintainer.stores.base import RunContext, Store


@dataclass(frozen=True, slots=True)
class Collector:
    """The tools of a run."""

    store: Store
    database: Database
    settings: Settings
    clock: Callable[[], datetime] = now_utc
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    progress: Progress = field(default_factory=Unwatched)
    budget: Budget | None = None
    """The budget, which an interrupt may end; by default that of the settings."""
    lease: Lease | None = None
    """The right to work on the cache, where others may take it."""

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction that records a step. Raises LeaseLostError."""
        with self.database.begin() as connection:
            if self.lease:
                self.lease.check(connection)
            yield connection

    def confirm(self) -> None:
        """Check that the run may still change the cache. Raises LeaseLostError."""
        if self.lease:
            self.lease.confirm()


@dataclass(frozen=True, slots=True)
class Mode:
    """What a run may do; by default all of it."""

    dry_run: bool = False
    """It stops after the plan."""
    no_sweep: bool = False
    accept_loss: bool = False
    """The mass-deletion guard is off."""
    repair: bool = False
    """It only rewrites indexes that are invalid or reference missing blobs."""

    @property
    def sweeps(self) -> bool:
        """Whether the run deletes what is due."""
        return not (self.dry_run or self.no_sweep or self.repair)


@dataclass(slots=True)
class Deferred:
    """Work that the budget did not allow; the graph counts the actions."""

    listed: bool = True
    indexes: int = 0
    blobs: int = 0
    heals: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """An active run."""

    collector: Collector
    context: RunContext
    mode: Mode
    target_id: int
    report: ReportBuilder
    outlook: Outlook
    listed_before: datetime | None = None
    """When an earlier run last listed the entries."""
    deferred: Deferred = field(default_factory=Deferred)

    @property
    def store(self) -> Store:
        """The cache."""
        return self.collector.store

    @property
    def database(self) -> Database:
        """The graph."""
        return self.collector.database

    def begin(self) -> AbstractContextManager[Connection]:
        """Open a transaction that records a step. Raises LeaseLostError."""
        return self.collector.begin()

    def load_snapshot(
        self,
        connection: Connection,
        probed: Probe,
        *,
        merged: Mapping[IndexId, Remembered],
        merged_scope: Scope | None,
        entries: tuple[KnownEntry, ...] = (),
    ) -> Snapshot:
        """Return what the run knows of the cache, by a probe that is recorded.

        `merged` is what is remembered of some indexes, `merged_scope` that of the merge of all, and
        `entries` are the young ones.
        """
        return load_snapshot(
            connection,
            self.target_id,
            probed,
            entries=entries,
            merged_scope=merged_scope,
            max_merge_size=int(self.collector.settings.max_merge_size),
            merged=merged,
            # A repair without this setting calls nothing back.
            makes_room=self.rules.keep_free is not None or self.mode.repair,
            listed_before=self.listed_before,
        )

    @property
    def budget(self) -> Budget:
        """How much the run may still do."""
        return self.context.budget

    @property
    def rules(self) -> Rules:
        """What the owner of the cache has decided."""
        settings = self.collector.settings
        tools = [rule.value for rule in settings.room.rules]
        if settings.database_key:
            tools.append(ToolRule.of_saved(settings.database_key, self.store.access.writable))
        return Rules(
            grace=settings.grace,
            max_index_size=settings.max_index_size,
            protects_unreadable_refs=settings.unreadable_refs == "protect",
            retention=self.report.limits.retention,
            repair=self.mode.repair,
            keep_free=settings.room.keep_free,
            tools=tuple(tools),
        )


def start_run(collector: Collector, mode: Mode) -> Run:
    """Record that a run starts, and return it. Raises DatabaseError."""
    now = collector.clock()
    name, settings = collector.store.name, collector.settings
    grace = max(settings.grace, collector.store.abilities.least_grace)
    settings = settings.model_copy(update={"grace": grace})
    collector = replace(collector, settings=settings)
    with collector.begin() as connection:
        target_id = find_target(connection, name)
        listed_before = load_listed_at(connection, target_id)
        now = next_moment(connection, target_id, now, listed_before)
        number = begin_run(connection, target_id, now, dry_run=mode.dry_run)
        tried = load_tried(connection, target_id)
    report = ReportBuilder(
        number,
        name,
        collector.store.abilities,
        started_at=now,
        grace=settings.grace,
        dry_run=mode.dry_run,
        repair=mode.repair,
    )
    requests = collector.store.requests
    budget = collector.budget or Budget(requests, settings, collector.clock)
    progress = StagesInLogs(collector.progress)
    database = collector.database

    def remembered() -> Mapping[str, datetime]:
        with database.reading() as connection:
            return recall_keys(connection, target_id)

    def swept(prefix: str) -> Mapping[str, datetime]:
        with database.reading() as connection:
            return recall_swept(connection, target_id, prefix)

    context = RunContext(
        settings,
        budget,
        progress,
        collector.clock,
        collector.sleep,
        tried,
        remembered,
        swept,
        collector.confirm,
    )
    return Run(collector, context, mode, target_id, report, Outlook(now), listed_before)


@dataclass(frozen=True, slots=True)
class Listed:
    """What exists at some time."""

    at: datetime
    listing: Listing


@dataclass(frozen=True, slots=True)
class Probed:
    """The memory before a probe, and its result."""

    known: Memory
    probe: Probe


@dataclass(frozen=True, slots=True)
class Recorded:
    """The result of a probe, once it is recorded."""

    known: Memory
    probe: Probe
    snapshot: Snapshot
    entries: Entries


@dataclass(frozen=True, slots=True)
class Marked:
    """The merges of the indexes, and the entries that are marked by them."""

    marks: Marks
    entries: Entries
    looked_up: frozenset[int]
    """The entries that the run has looked up to check them."""

    def batches(self) -> Iterator[Marks]:
        """Mark the entries, some thousands at a time."""
        marker = Marker(self.marks.snapshot, self.marks.indexes)
        for batch in self.entries.batches():
            yield replace(self.marks, marks=tuple(map(marker.mark, batch)))
