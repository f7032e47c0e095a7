"""A small world in which a run has something to do at every step, made anew as often as needed.

One server serves many cases, and the schema is made once: what is told about a run's troubles takes
hundreds of runs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import certifi
import pytest

from maintainer.cacheconfig import IndexKey, decode, parse_key
from maintainer.emulator import ActionsCache, Entry, FaultPlan, Request, serve_in_thread
from maintainer.report import Report
from tests.empty_database import make_empty, uses_postgresql
from tests.integration.invariants import Watcher
from tests.integration.world import MAIN, START, World, blob_of, is_ours
from tests.worlds import Meaning, meaning

PULL = "refs/pull/7/merge"
NO_GRACE = timedelta(0)
_END = "-----END CERTIFICATE-----\n"


@dataclass(frozen=True)
class Arrival:
    """Where a run has arrived: what every key leads to, and what is stored besides."""

    indexes: dict[tuple[str, str], Meaning]
    """The newest ones, by ref and scope."""
    others: frozenset[tuple[str, str]]
    """All other entries, blobs too, by ref and key; but not superseded generations."""


@dataclass
class Stage:
    """Where one small world after the other is set up."""

    world: World
    watcher: Watcher
    folder: Path
    requests: list[Request]
    """Those of the last run."""
    setting_up: Callable[[World], None]

    def set_up(self) -> World:
        """Begin anew, with a database that knows nothing."""
        world = self.world
        world.running.inject()
        world.running.observe()
        world.running.call(ActionsCache.clear)
        world.now = START
        # A world that is shared may have seen a test on the other kind of database.
        world.database = self.folder / ("server.url" if uses_postgresql() else "maintainer.db")
        make_empty(world.database)
        self.watcher.problems.clear()
        self.setting_up(world)
        return world

    def gc(self, *, faults: FaultPlan | None = None, **how: object) -> Report:
        """Do a run and watch it, with no grace period if it is not told another one."""
        how = {"grace": NO_GRACE} | how
        self.begin(how["grace"])
        self.world.running.inject(faults or FaultPlan())
        try:
            return self.world.gc(**how)  # type: ignore[arg-type]
        finally:
            self.world.running.inject()
            self.world.running.observe()

    def begin(self, grace: object = NO_GRACE) -> None:
        """Watch the run that begins now."""
        assert isinstance(grace, timedelta)
        self.requests.clear()
        self.world.running.call(lambda _: self.watcher.begin(grace=grace, readable=[MAIN]))
        self.world.running.observe(before=self.watcher.before, after=self.after)

    def after(self, request: Request) -> None:
        """Note what has become of a request."""
        self.requests.append(request)
        self.watcher.after(request)

    def arrival(self) -> Arrival:
        """Return where the world has arrived."""
        return arrival(self.world.entries())


@contextmanager
def a_stage(folder: Path, setting_up: Callable[[World], None]) -> Iterator[Stage]:
    """Serve worlds that are set up in the same way, each time in which one is needed."""
    cache = ActionsCache()
    with pytest.MonkeyPatch.context() as patch, serve_in_thread(cache) as running:
        # Nothing here needs TLS, and to read all certificates takes a good part of a run.
        patch.setenv("SSL_CERT_FILE", str(_one_certificate(folder)))
        world = World(cache, running, folder / "none.db")
        cache.clock = lambda: world.now
        yield Stage(world, Watcher(cache), folder, [], setting_up)


def a_small_world(world: World) -> None:
    """Two builds hide each other; a layer is gone; others' things are in the way."""
    world.build("base", "api", "gone")
    world.passes(minutes=1)
    world.build("base", "web")
    world.build("base", "pull", ref=PULL)
    world.put("buildkit-blob-1-" + blob_of("orphan"), size=10)
    world.put("setup-node-Linux", b"other tool")
    world.evict("gone")
    world.passes(days=2)


def arrival(entries: list[Entry]) -> Arrival:
    """Return what is stored, but for what newer generations hide."""
    newest: dict[tuple[str, str], Entry] = {}
    others = set()
    for entry in entries:
        key = parse_key(entry.key)
        if is_ours(entry) and isinstance(key, IndexKey):
            place = entry.ref, entry.key.rsplit("#", 1)[0]
            newest[place] = max(newest.get(place, entry), entry, key=_number)
        else:
            others.add((entry.ref, entry.key))
    indexes = {place: meaning(decode(entry.content or b"")) for place, entry in newest.items()}
    return Arrival(indexes, frozenset(others))


def _number(entry: Entry) -> int:
    return int(entry.key.rsplit("#", 1)[1])


def _one_certificate(folder: Path) -> Path:
    path = folder / "one.pem"
    text = Path(certifi.where()).read_text(encoding="utf-8")
    begin = text.index("-----BEGIN")
    path.write_text(text[begin : text.index(_END) + len(_END)], encoding="utf-8")
    return path
