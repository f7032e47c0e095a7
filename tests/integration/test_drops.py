"""A fleet in trouble: killed and paused workers, a server that restarts, and links that drop.

Whatever happens to some workers, no promise of SAFETY.md is broken, builders find no less, and once
it is over, everything is done within two periods.
"""

import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from maintainer.cacheconfig import Digest, IndexKey, parse_key
from maintainer.cacheconfig.keys import ENTRY_VERSION
from maintainer.clock import now_utc
from maintainer.emulator.state import KeyTakenError
from maintainer.graph.columns import to_number
from maintainer.graph.database import Database
from tests.integration.hasty import LEASE
from tests.integration.invariants import Watcher, watched
from tests.integration.links import Link, Network, a_network
from tests.integration.namespaces import HUB, Cable, cables
from tests.integration.service import PATIENCE, wait_until
from tests.integration.test_worker import Fleet, Gate, _schema
from tests.integration.world import MAIN, World, a_world, blob_of, leads_to, read_newest
from tests.postgresql import create_database, server
from tests.processes import Forked

pytestmark = pytest.mark.waits

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
PERIOD = 10.0
"""Seconds; a lease takes a good part of it, and not a minute of a day."""
GRACE = timedelta(seconds=2)
_CONFIGURATION = f"""
grace = "{GRACE.total_seconds():.0f}s"
export_wait = "0s"
[serve]
interval = "{PERIOD:.0f}s"
backoff_max = "1s"
"""
_MAX_SESSIONS = 40
"""Of three workers that run one target at once, and of the test."""
_SCOPES = ("buildkit", "web", "docs")
_BUGS = re.compile(r"this is a bug|Fatal Python error")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # Downloads take the link that the request for their URL took, and not the emulator's own port.
    monkeypatch.setattr(
        "maintainer.emulator.site.base_url", lambda r: f"http://{r.headers['host']}"
    )
    with a_world(tmp_path) as world:
        world.cache.clock = now_utc
        world.now = datetime.now(UTC)
        world.build("base", "api")
        world.build("base", "web", scope="web")
        yield world


@pytest.fixture
def hosts(tmp_path: Path, world: World) -> Iterator["Hosts"]:
    with closing(Database(create_database())) as database, a_network() as network:
        (tmp_path / "maintainer.toml").write_text(_CONFIGURATION)
        hosts = Hosts(Fleet(tmp_path, world, database), network)
        yield hosts
        hosts.mend(restart=False)
        hosts.fleet.end()


@dataclass
class Host:
    """A machine with a worker, and its links to the database and to the cache."""

    to_database: Link
    to_cache: Link
    worker: Forked
    is_ending: bool = False

    def end(self) -> None:
        """Ask the worker to end."""
        self.is_ending = True
        self.worker.terminate()


@dataclass
class Hosts:
    """Machines whose workers share a database."""

    fleet: Fleet
    network: Network
    delay: float = 0
    """Seconds that a request to the cache takes in either direction."""
    all: list[Host] = field(default_factory=list)

    def add(self, cable: Cable | None = None) -> Host:
        """Add one, at the end of a cable or on loopback, and start its worker."""
        place, cache = server(), self.fleet.world.running.url
        ends = [cable.listen() for _ in range(2)] if cable else [None, None]
        to_database = self.network.to_socket(f"{place.folder}/.s.PGSQL.{place.port}", place=ends[0])
        port = int(cache.rpartition(":")[2])
        to_cache = self.network.to_port(port, delay=self.delay, place=ends[1])
        self.all.append(Host(to_database, to_cache, self._start(to_database, to_cache, cable)))
        return self.all[-1]

    def _start(self, to_database: Link, to_cache: Link, cable: Cable | None = None) -> Forked:
        running = self.fleet.world.running
        address = HUB if cable else "127.0.0.1"
        variables = {
            name: value.replace(running.url, f"http://{address}:{to_cache.port}")
            for name, value in running.environment(MAIN).items()
        }
        name = f"owner@{address}:{to_database.port}/{self.fleet.name}"
        variables["MAINTAINER_DATABASE"] = f"postgresql+psycopg://{name}"
        return self.fleet.start(1, namespace=cable.host if cable else "", **variables)

    def mend(self, *, restart: bool = True) -> None:
        """Let everything work again."""
        for host in self.all:
            host.to_database.restore()
            host.to_cache.restore()
            host.worker.send_signal(signal.SIGCONT)
        if restart:
            for host in self.all:
                if host.is_ending:
                    host.worker.wait(PATIENCE)
                    host.is_ending = False
                if host.worker.poll() is not None:
                    host.worker = self._start(host.to_database, host.to_cache)

    def state(self) -> str:
        """Return what there is to know of a problem."""
        tables = [
            self.fleet.query(f"SELECT {columns}")
            for columns in (
                "clock_timestamp(), * FROM lease",
                "name, running_since, next_run_at, problem, failures FROM scheduled",
                "id, process, status, started_at, finished_at FROM run",
                "pid, state, wait_event, xact_start, state_change, query FROM pg_stat_activity",
                f"id, status, lock, attempts FROM {_schema(self.fleet)}.procrastinate_jobs",
            )
        ]
        logs = [self.fleet.log(worker) for worker in self.fleet.workers]
        return "\n".join([*(str(row) for table in tables for row in table), *logs])

    def is_done_since(self, since: datetime) -> bool:
        """Whether the target was run, from the beginning to the end, after some time."""
        runs = "SELECT status FROM run WHERE finished_at IS NOT NULL AND started_at >= "
        found = [status for (status,) in self.fleet.query(f"{runs}{to_number(since)}")]
        return "done" in found


@contextmanager
def _a_run_held_up(hosts: Hosts, *cables: Cable | None) -> Iterator[tuple[Host, Gate]]:
    """Let the first of two workers wait in the middle of its first request."""
    gate = Gate(hosts.fleet.world)
    first, second = cables or (None, None)
    try:
        host = hosts.add(first)
        assert gate.is_reached.wait(PATIENCE)
        hosts.add(second)
        yield host, gate
    finally:
        gate.open()


def test_a_worker_that_lost_the_database_for_long_is_replaced_and_does_nothing_more(
    hosts: Hosts,
) -> None:
    fleet = hosts.fleet
    with _a_run_held_up(hosts) as (host, gate):
        host.to_database.hold()
        gate.open()
        wait_until(lambda: fleet.runs()[:2] == ["killed", "done"])
        entries, runs = fleet.world.entries(), fleet.query("SELECT * FROM run WHERE id = 1")
        host.to_database.restore()
        wait_until(lambda: "another run has taken" in fleet.log(host.worker))

    assert fleet.world.entries() == entries
    assert fleet.query("SELECT * FROM run WHERE id = 1") == runs
    assert fleet.overlapping() == []


def test_a_host_whose_cable_was_cut_for_long_does_nothing_more_with_its_old_lease(
    hosts: Hosts,
) -> None:
    fleet = hosts.fleet
    with cables(2) as (first, second), _a_run_held_up(hosts, first, second) as (host, gate):
        first.cut()
        gate.open()
        wait_until(lambda: fleet.runs()[:2] == ["killed", "done"])
        entries, runs = fleet.world.entries(), fleet.query("SELECT * FROM run WHERE id = 1")
        first.mend()
        mended_at = datetime.now(UTC)
        wait_until(lambda: "another run has taken" in fleet.log(host.worker))
        assert fleet.world.entries() == entries
        assert fleet.query("SELECT * FROM run WHERE id = 1") == runs
        wait_until(lambda: hosts.is_done_since(mended_at), patience=2 * PERIOD)
        fleet.end()

    assert fleet.overlapping() == []


def test_a_run_whose_links_break_is_done_by_the_next_one(hosts: Hosts) -> None:
    fleet = hosts.fleet
    with _a_run_held_up(hosts) as (host, gate):
        host.to_database.cut()
        host.to_cache.cut()
        gate.open()
        wait_until(lambda: "done" in fleet.runs())
        host.to_database.restore()
        host.to_cache.restore()

    assert fleet.runs()[0] in ("killed", "failed")
    assert fleet.overlapping() == []
    assert host.worker.poll() is None


@dataclass
class Builders:
    """What builds export, and what must stay of it."""

    world: World
    random: Random
    number: int = 0
    exported: dict[str, list[str]] = field(default_factory=dict)
    """The steps of the newest build of each scope that nothing may have happened to."""
    orphans: list[tuple[datetime, Digest]] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    """The keys of entries of other tools."""

    def build(self, scope: str, *steps: str) -> None:
        """Export, between two requests; like a builder, again if a run was faster."""

        def build() -> None:
            self.world.now = datetime.now(UTC)
            for step in steps:
                key = f"buildkit-blob-1-{blob_of(step)}"
                self.world.cache.look_up([MAIN], key, [], ENTRY_VERSION)
            self.world.build(*steps, scope=scope)

        for _ in range(10):
            with suppress(KeyTakenError):
                self.world.running.call(lambda _: build())
                return
        pytest.fail("each number was taken")

    def work(self) -> None:
        """Do what happens between two runs."""
        self.number += 1
        scope = self.random.choice(_SCOPES)
        steps = ["base", f"{scope} {self.number // 6}", f"commit {self.number}"]
        self.build(scope, *steps)
        self.exported[scope] = steps
        what = self.random.randrange(6)
        if what == 0:
            orphan = blob_of(f"orphan {self.number}")
            # A young one looks like an export in progress.
            self.world.running.call(
                lambda cache: cache.put(
                    f"buildkit-blob-1-{orphan}",
                    size=50,
                    ref=MAIN,
                    created_at=datetime.now(UTC) - timedelta(days=2),
                )
            )
            self.orphans.append((datetime.now(UTC), orphan))
        elif what == 1:
            self.others.add(f"setup-node-{self.number}")
            self.world.put(f"setup-node-{self.number}", size=50)
        elif what == 2:
            self.world.evict(steps[-1])
            self.exported[scope] = steps[:-1]
        elif what == 3:  # What a run may delete at this moment is needed again.
            old = self.random.randrange(self.number)
            self.build(f"again-{scope}", "base", f"commit {old}")

    def lost(self) -> list[str]:
        """Return what builders do not find, or find and cannot use, and what should be gone."""
        entries, blobs = self.world.entries(), self.world.blobs()
        problems = [f"{key} is gone" for key in self.others - {entry.key for entry in entries}]
        for scope in {key.scope for e in entries if isinstance(key := parse_key(e.key), IndexKey)}:
            newest = read_newest(entries, scope)
            if missing := newest.blobs - blobs:
                problems.append(f"the index of {scope} references {missing}")
            wanted = {blob_of(step) for step in self.exported.get(scope, ())}
            if less := wanted - leads_to(newest):
                problems.append(f"builders of {scope} do not find {less}")
        return problems

    def left(self, since: datetime) -> list[Digest]:
        """Return the orphans of before some time that are still there."""
        blobs = self.world.blobs()
        return [blob for at, blob in self.orphans if at < since and blob in blobs]


Event = Callable[[Host], object]


def _restart(_: Host) -> None:
    server().stop()
    server().start()


_EVENTS: dict[str, Event] = {
    "killed": lambda host: host.worker.kill(),
    "ended": lambda host: host.end(),
    "paused": lambda host: host.worker.send_signal(signal.SIGSTOP),
    "continued": lambda host: host.worker.send_signal(signal.SIGCONT),
    "server restarted": _restart,
    "database held": lambda host: host.to_database.hold(),
    "database reset": lambda host: host.to_database.reset(),
    "database cut": lambda host: host.to_database.cut(),
    "database restored": lambda host: host.to_database.restore(),
    "cache held": lambda host: host.to_cache.hold(),
    "cache reset": lambda host: host.to_cache.reset(),
    "cache cut": lambda host: host.to_cache.cut(),
    "cache restored": lambda host: host.to_cache.restore(),
}


@dataclass
class Soak:
    """Rounds of trouble, each of which must be over within two periods after its end."""

    hosts: Hosts
    builders: Builders
    watcher: Watcher
    random: Random
    counts: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    """Seconds until all was done again."""
    story: list[str] = field(default_factory=list)
    """Of this round."""

    def play(self) -> None:
        """Play one round."""
        world, fleet = self.builders.world, self.hosts.fleet
        self.story = []
        world.running.call(lambda _: self.watcher.begin(grace=GRACE, readable={MAIN}))
        self.builders.work()
        fleet.due_now()
        for _ in range(self.random.randint(1, 5)):
            time.sleep(self.random.random() * 1.5)
            self._happen(self.random.choice(list(_EVENTS)))
            if self.random.random() < 0.5:
                self.builders.work()
        time.sleep(self.random.choice((0.1, 1, LEASE.total_seconds() + 2)))
        self.hosts.mend()
        self._check()

    def _happen(self, what: str) -> None:
        number = self.random.randrange(len(self.hosts.all))
        self.story.append(f"{what} ({number})")
        self.counts[what] += 1
        _EVENTS[what](self.hosts.all[number])

    def _check(self) -> None:
        fleet, since, began = self.hosts.fleet, datetime.now(UTC), time.monotonic()
        wait_until(lambda: self.hosts.is_done_since(since), patience=2 * PERIOD)
        self.took.append(time.monotonic() - began)
        assert self.watcher.problems == []
        assert self.builders.lost() == []
        left = self.builders.left(since - GRACE)
        assert left == [], [self._why(blob) for blob in left]
        assert fleet.overlapping() == []
        for host in self.hosts.all:
            assert host.worker.poll() is None
        for worker in fleet.workers:
            assert not _BUGS.search(fleet.log(worker)), fleet.log(worker)

    def _why(self, blob: Digest) -> list[tuple[object, ...]]:
        """Return what the database knows of a blob, and what runs have decided and done."""
        query = self.hosts.fleet.query
        subject = f"'buildkit-blob-1-{blob}'"
        columns = "state, reason, facts, first_seen_at, unreferenced_since, missing_since"
        return [
            *query(f"SELECT {columns} FROM entry WHERE key = {subject}"),
            *query(
                "SELECT run_id, kind, reason, facts, outcome, outcome_facts FROM action "
                f"WHERE subject = {subject} ORDER BY run_id"
            ),
            *query("SELECT id, started_at, finished_at, status FROM run ORDER BY id")[-6:],
        ]

    def figures(self) -> str:
        """Return what has happened."""
        runs = Counter(self.hosts.fleet.runs())
        took = sorted(self.took)
        return (
            f"{len(took)} rounds, {sum(self.counts.values())} events {dict(self.counts)}; "
            f"{self.builders.number} builds; runs {dict(runs)}; all done again within "
            f"{took[len(took) // 2]:.1f} s (median), {took[-1]:.1f} s at the most"
        )


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 + 600)
def test_whatever_happens_to_workers_everything_is_done_within_two_periods(
    hosts: Hosts, world: World
) -> None:
    random = Random(SEED)
    hosts.delay = 0.01
    builders = Builders(world, random)
    with watched(world, grace=GRACE, readable={MAIN}) as watcher:
        for _ in range(3):
            hosts.add()
        soak = Soak(hosts, builders, watcher, random)
        end = time.monotonic() + MINUTES * 60
        try:
            while time.monotonic() < end:
                soak.play()
        except BaseException:
            sys.stdout.write(f"\nround {len(soak.took) + 1}: {', '.join(soak.story)}\n")
            sys.stdout.write(hosts.state())
            raise
        finally:
            sys.stdout.write(f"\n{soak.figures()}\n")
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'maintainer'"
    ((number,),) = hosts.fleet.query(sessions)
    assert number <= _MAX_SESSIONS
    for host in hosts.all:
        host.worker.terminate()
        assert host.worker.wait(PATIENCE) == 0
