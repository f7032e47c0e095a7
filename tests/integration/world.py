"""A cache on loopback, and what happens to it, told in words."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    Digest,
    IndexId,
    IndexKey,
    Layer,
    Link,
    Record,
    Ref,
    Result,
    Scope,
    decode,
    encode,
    parse_key,
)
from maintainer.cacheconfig.keys import ENTRY_VERSION
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.collect import collect
from maintainer.emulator.requests import Request
from maintainer.emulator.server import Running, Service, serve_in_thread
from maintainer.emulator.state import ActionsCache, Entry
from maintainer.graph.database import Database
from maintainer.graph.explain import explain
from maintainer.report import Report
from maintainer.report.why import format_what_frees
from maintainer.settings import GitHubSettings
from maintainer.stages.run import Collector, Mode
from maintainer.stores.github.client import open_client
from maintainer.stores.github.store import GitHubStore
from maintainer.stores.http.retry import RetryPolicy
from tests.chosen import choose
from tests.empty_database import make_empty, url_of

MAIN = "refs/heads/main"
START = datetime(2026, 1, 1, tzinfo=UTC)
AT_ONCE = RetryPolicy(first_wait=timedelta(0))


STORY: dict[str, object] = {"merged_scope": "", "quota": 10_000_000_000, "verify_after": "0"}
"""Most stories are about one scope, and count requests: they do without the merge of all scopes,
without asking for the quota, and without checking contents.
"""


@dataclass
class World:
    """A cache, a clock, a database, and the requests so far."""

    cache: ActionsCache
    running: Running
    database: Path
    now: datetime = START
    patience: RetryPolicy = AT_ONCE
    requests: Counter[str] = field(default_factory=Counter)
    databases: dict[Path, Database] = field(default_factory=dict)
    """Closed after each run, but not forgotten: so statements are compiled once for each file."""

    def passes(self, **duration: float) -> None:
        """Let time pass."""
        self.now += timedelta(**duration)

    def gc(
        self,
        *,
        ref: str = MAIN,
        readable: Sequence[str] = (),
        rest: bool = True,
        service: Service = "v2",
        dry_run: bool = False,
        no_sweep: bool = False,
        accept_loss: bool = False,
        repair: bool = False,
        database: Path | None = None,
        **settings: object,
    ) -> Report:
        """Do a run, as a workflow on `ref` does; the requests are counted anew."""
        environment = self.running.environment(ref, readable=readable, rest=rest, service=service)
        return self.gc_in(
            environment,
            dry_run=dry_run,
            no_sweep=no_sweep,
            accept_loss=accept_loss,
            repair=repair,
            database=database,
            **settings,
        )

    def gc_in(
        self,
        environment: dict[str, str],
        *,
        dry_run: bool = False,
        no_sweep: bool = False,
        accept_loss: bool = False,
        repair: bool = False,
        database: Path | None = None,
        **settings: object,
    ) -> Report:
        """Do a run in some environment."""
        self.requests.clear()
        how = {
            "dry_run": dry_run,
            "no_sweep": no_sweep,
            "accept_loss": accept_loss,
            "repair": repair,
        }
        return anyio.run(self._collect, environment, database or self.database, how, settings)

    async def _collect(
        self,
        environment: dict[str, str],
        path: Path,
        how: dict[str, bool],
        settings: dict[str, object],
    ) -> Report:
        if path not in self.databases:
            self.databases[path] = Database(url_of(path))
        database = self.databases[path]
        try:
            database.upgrade()
            chosen = choose(STORY | settings)
            async with open_client(
                GitHubSettings.read(environment),
                self.patience,
                max_index_size=chosen.max_index_size,
            ) as store:
                cache = GitHubStore(store)
                with database.lease(cache.name) as lease:
                    collector = Collector(
                        cache,
                        database,
                        chosen,
                        clock=lambda: self.now,
                        sleep=_no_sleep,
                        lease=lease,
                    )
                    return await collect(collector, Mode(**how))
        finally:
            database.close()

    def why(self, subject: str) -> str:
        """Return why an entry is as it is, and what would free it, as `maintainer why` says it."""
        with self.databases[self.database].reading() as connection:
            [explanation] = explain(connection, subject)
        occurrence = explanation.occurrences[0]
        return f"{occurrence.sentence}: {format_what_frees(explanation, occurrence)}"

    def build(
        self, *steps: str, scope: str = "buildkit", ref: str = MAIN, signed: bool = False
    ) -> Entry:
        """Export a build of some steps, each on top of the one before: blobs first, index last."""
        config = built(*steps, at=self.now)
        for layer in config.layers:
            if not self._has(str(BlobKey(layer.blob)), ref):
                self.put(str(BlobKey(layer.blob)), ref=ref, size=layer.size)
        return self.export(config, scope=scope, ref=ref, signed=signed)

    def export(
        self, config: CacheConfig | bytes, *, scope: str, ref: str, signed: bool = False
    ) -> Entry:
        """Write an index as the next generation that nobody has reserved, and nothing else."""
        index = IndexId(Ref(ref), Scope(scope), signed)
        reserved = {key for _, key in self.running.call(lambda cache: cache.reserved)}
        number = max((key.generation for key, _ in self._generations(index)), default=0) + 1
        while str(index.key(number)) in reserved:
            number += 1
        content = config if isinstance(config, bytes) else encode(config)
        return self.put(str(index.key(number)), content, ref=ref)

    def put(
        self, key: str, content: bytes | None = None, *, ref: str = MAIN, size: int | None = None
    ) -> Entry:
        """Store an entry now."""
        return self.running.call(lambda cache: cache.put(key, content, ref=ref, size=size))

    def evict(self, *blobs: str) -> None:
        """Let the host evict the layers of these steps, in every ref."""
        keys = {str(BlobKey(blob_of(step))) for step in blobs}
        self.evict_entries(entry for entry in self.entries() if entry.key in keys)

    def evict_entries(self, entries: Iterator[Entry] | Sequence[Entry]) -> None:
        """Let the host evict entries."""
        numbers = [entry.id for entry in entries]

        def evict(cache: ActionsCache) -> None:
            for number in numbers:
                cache.evict(number)

        self.running.call(evict)

    def entries(self) -> list[Entry]:
        """List what is stored."""
        return self.running.call(lambda cache: cache.entries())

    def blobs(self, ref: str | None = None) -> set[Digest]:
        """Return which blobs are stored."""
        keys = (parse_key(e.key) for e in self.entries() if ref is None or e.ref == ref)
        return {key.digest for key in keys if isinstance(key, BlobKey)}

    def newest(self, scope: str = "buildkit", ref: str = MAIN) -> CacheConfig:
        """Read the newest index as a builder does: the entry with the prefix created last."""
        return read_newest(self.entries(), scope, ref)

    def generations(self, scope: str = "buildkit", ref: str = MAIN) -> list[int]:
        """Return which generations are stored."""
        return [key.generation for key, _ in self._generations(IndexId(Ref(ref), Scope(scope)))]

    def _generations(self, index: IndexId) -> list[tuple[IndexKey, Entry]]:
        found = []
        for entry in self.entries():
            key = parse_key(entry.key)
            if isinstance(key, IndexKey) and entry.key.startswith(index.prefix):
                found.append((key, entry))
        return found

    def _has(self, key: str, ref: str) -> bool:
        return any(e.key == key and e.ref == ref for e in self.entries())


async def _no_sleep(_seconds: float) -> None:
    """Wait for nobody."""


@contextmanager
def a_world(tmp_path: Path) -> Iterator[World]:
    """Serve an empty cache, to runs that have an empty database."""
    cache = ActionsCache()
    with serve_in_thread(cache) as running:
        world = World(cache, running, tmp_path / "maintainer.db")
        make_empty(world.database)
        cache.clock = lambda: world.now

        def count(request: Request) -> None:
            world.requests[request.kind] += 1

        running.observe(after=count)
        try:
            yield world
        finally:
            for database in world.databases.values():
                database.close()


def blob_of(step: str) -> Digest:
    """Return the digest of the layer of a step."""
    return Digest(f"sha256:{hashlib.sha256(step.encode()).hexdigest()}")


def built(*steps: str, at: datetime = START) -> CacheConfig:
    """Return the index of a build in which each step builds on the one before."""
    created_at = Nanoseconds(int(at.timestamp()) * 1_000_000_000)
    layers = tuple(
        Layer(
            blob=blob_of(step),
            parent=number - 1,
            diff_id=blob_of(f"diff of {step}"),
            media_type="application/vnd.oci.image.layer.v1.tar+gzip",
            size=1_000 + len(step),
            created_at=created_at,
        )
        for number, step in enumerate(steps)
    )
    records = tuple(
        Record(
            digest=f"sha256:{hashlib.sha256(f'key of {step}'.encode()).hexdigest()}",
            results=(Result((number,), with_parents=True, created_at=created_at),),
            inputs=((Link(number - 1, ""),),) if number else (),
        )
        for number, step in enumerate(steps)
    )
    return CacheConfig(layers, records)


def read_newest(entries: Sequence[Entry], scope: str = "buildkit", ref: str = MAIN) -> CacheConfig:
    """Read an index as a builder does: the entry with the prefix that was created last."""
    index = IndexId(Ref(ref), Scope(scope))
    found = [e for e in entries if e.ref == ref and e.key.startswith(str(index))]
    newest = max(found, key=lambda entry: (entry.created_at, entry.id))
    assert newest.content is not None
    return decode(newest.content)


def leads_to(config: CacheConfig) -> set[Digest]:
    """Return which layers stand on top of a usable result."""
    return {
        config.layers[result.layers[-1]].blob
        for record in config.records
        for result in record.results
    }


def is_ours(entry: Entry) -> bool:
    """Return whether BuildKit wrote an entry."""
    return entry.version == ENTRY_VERSION and parse_key(entry.key) is not None
