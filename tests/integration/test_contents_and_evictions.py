"""Our look-ups never push out what builds have used more recently: shown with a host that evicts.

Builds, other tools, runs and time come in any order. Builds and other tools work on the state of
the emulator, which evicts what was used longest ago once its quota is exceeded; runs come by HTTP.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from maintainer.cacheconfig import BlobKey, IndexId, Ref, Scope, encode
from maintainer.cacheconfig.keys import ENTRY_VERSION
from maintainer.emulator import ActionsCache, Entry, Request
from tests.empty_database import make_empty
from tests.integration.simulated_builds import read_by_builders
from tests.integration.world import MAIN, START, World, a_world, built
from tests.samples import examples

QUOTA = 21_000
TOLERANCE = timedelta(hours=1)
INDEX = IndexId(Ref(MAIN), Scope("buildkit"))

_Event = tuple[str, int]
events = st.lists(
    st.tuples(st.just("build"), st.integers(0, 11))
    | st.tuples(st.just("import"), st.integers(0, 11))
    | st.tuples(st.just("tool"), st.integers(0, 5))
    | st.tuples(st.just("pass"), st.sampled_from([1, 5, 30, 73, 100]))
    | st.tuples(st.just("run"), st.integers(0, 1)),
    min_size=4,
    max_size=20,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with a_world(tmp_path_factory.mktemp("evictions")) as world:
        yield world


@dataclass
class Host:
    """A cache, and who has used what in it."""

    world: World
    used: dict[int, datetime] = field(default_factory=dict)
    """When a build or a tool last used each entry."""
    checked: set[str] = field(default_factory=set)
    downloads: set[str] = field(default_factory=set)
    needed: set[int] = field(default_factory=set)
    """What the indexes needed when the last run ended, and those indexes."""
    evictions: int = 0
    problems: list[str] = field(default_factory=list)

    def use(self, cache: ActionsCache, key: str, *, prefix: bool = False) -> Entry | None:
        found = cache.look_up([MAIN], key, [key] if prefix else [], ENTRY_VERSION)
        if found:
            self.used[found.id] = self.world.now
        return found

    def store(self, cache: ActionsCache, key: str, content: bytes) -> None:
        before = {entry.id: entry for entry in cache.entries()}
        upload = cache.reserve(MAIN, key, ENTRY_VERSION)
        upload.put(content)
        entry = cache.finalize(upload, len(content))
        self.used[entry.id] = self.world.now
        after = {one.id: one for one in cache.entries()}
        for gone in before.keys() - after.keys():
            self.check_evicted(before[gone], list(after.values()))

    def check_evicted(self, evicted: Entry, kept: list[Entry]) -> None:
        self.evictions += 1
        for one in kept:
            kept_by_us = one.last_accessed_at > self.used.get(one.id, one.created_at)
            used_at = self.used.get(one.id, one.created_at)
            evicted_used_at = self.used.get(evicted.id, evicted.created_at)
            if evicted.id in self.needed and kept_by_us and used_at < evicted_used_at - TOLERANCE:
                self.problems.append(f"{evicted.key} went, and {one.key} was kept by us")

    def build(self, cache: ActionsCache, which: int) -> None:
        """Import, build some steps on top of each other, and export."""
        self.import_(cache)
        config = built("base", f"middle {which % 4}", f"top {which}", at=self.world.now)
        for layer in config.layers:
            self.world.now += timedelta(milliseconds=1)
            key = str(BlobKey(layer.blob))
            if not self.use(cache, key):
                self.store(cache, key, bytes(layer.size))
        newest = read_by_builders(cache.entries(), INDEX)
        number = int(newest.key.rpartition("#")[2]) + 1 if newest else 1
        self.store(cache, str(INDEX.key(number)), encode(config))

    def import_(self, cache: ActionsCache, which: int | None = None) -> None:
        """Read the newest index, and some or all of what it leads to."""
        self.use(cache, str(INDEX), prefix=True)
        for step in () if which is None else ("base", f"middle {which % 4}", f"top {which}"):
            self.world.now += timedelta(milliseconds=1)
            self.use(cache, str(BlobKey(built(step).layers[0].blob)))

    def tool(self, cache: ActionsCache, which: int) -> None:
        """Let another tool use its entry, or store it."""
        if not self.use(cache, f"setup-node-{which}"):
            self.store(cache, f"setup-node-{which}", bytes(2_000 + which * 400))

    def act(self, what: str, which: int) -> None:
        """Do what builds or other tools do."""

        def act(cache: ActionsCache) -> None:
            {"build": self.build, "import": self.import_, "tool": self.tool}[what](cache, which)

        self.world.running.call(act)

    def run(self, *, no_sweep: bool) -> None:
        full = self.world.running.call(lambda cache: cache.usage) > QUOTA * 0.9
        self.downloads = set()
        report = self.world.gc(verify_after="3d", quota=QUOTA, grace="1h", no_sweep=no_sweep)
        assert report.status == "done"
        if full:
            assert not self.downloads & self.checked, "checked again, though it is nearly full"
        self.checked |= self.downloads
        entries = self.world.entries()
        newest = read_by_builders(entries, INDEX)
        blobs = {str(BlobKey(blob)) for blob in self.world.newest().blobs} if newest else set()
        self.needed = {one.id for one in entries if one.key in blobs or one == newest}

    def see(self, request: Request) -> None:
        self.world.now += timedelta(milliseconds=1)
        if request.kind == "download" and (request.key or "").startswith("buildkit-blob-1-"):
            self.downloads.add(request.key or "")


@settings(
    max_examples=examples(few=12, many=40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=events)
@example(
    events=[
        ("build", 0), ("run", 0), ("pass", 30), ("pass", 30), ("build", 1), ("run", 0),
        *(("pass", 5) for _ in range(3)), ("run", 0), *(("tool", number) for number in range(5)),
    ]
)  # fmt: skip
def test_what_builds_have_used_more_recently_is_never_pushed_out(
    world: World, events: list[_Event]
) -> None:
    host = begin(world)
    for what, number in events:
        host.world.now += timedelta(seconds=1)
        if what == "pass":
            world.passes(hours=number)
        elif what == "run":
            host.run(no_sweep=bool(number))
        else:
            host.act(what, number)
    assert host.problems == []


def begin(world: World) -> Host:
    """Begin with an empty cache, and an empty memory."""
    world.now = START
    make_empty(world.database)
    world.running.call(ActionsCache.clear)
    world.running.call(lambda cache: setattr(cache, "quota", QUOTA))
    host = Host(world)
    world.running.observe(before=host.see)
    return host
