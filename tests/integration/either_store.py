"""A cache, its builds and its runs, told in the same words whatever stores it.

A step of a run is a request to the service, or an operation on a file of the directory. Before each
of them the promises are checked, and something else may happen.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from maintainer.cacheconfig.keys import ENTRY_VERSION, BlobKey
from maintainer.emulator import ActionsCache, Request
from maintainer.emulator.state import KeyTakenError
from maintainer.report import Report
from tests.integration import directories, invariants, watching
from tests.integration.invariants import ReadIndex
from tests.integration.simulated_runs import Memory, Runner, Turns, Workflow
from tests.integration.world import MAIN, START, World, blob_of

_BELOW = {"base": None, "lib": "base", "api": "lib", "web": "lib", "docs": "base", "test": "api"}
STEPS = tuple(_BELOW)
"""The steps of the images, each on top of another: so a step always needs the same layers."""
IMAGES = ("api", "web", "docs")
OTHERS = ("node-modules", "toolchain")

Meanwhile = dict[int, Callable[[], None]]
"""What happens before which step of a run."""


@dataclass(frozen=True)
class How:
    """How somebody runs `maintainer gc`."""

    grace: timedelta
    dry_run: bool = False
    no_sweep: bool = False
    other_way: bool = False
    """By the other version of the service; or with a tag that holds the merge of all others."""


@dataclass
class Owed:
    """What one export offered, as far as it was never evicted since."""

    name: str
    results: list[frozenset[str]]


class Place(Protocol):
    """A cache of one of the two kinds. All of it may be called between two steps of a run."""

    failed_builds: int
    """How many builds have failed because a run was in their way."""

    def build(self, image: str, step: str, *, other_form: bool) -> Owed | None:
        """Export a build up to a step; None if it failed."""

    def store_layer(self, step: str) -> None:
        """Store a layer that nothing names."""

    def store_others(self, name: str) -> None:
        """Store what another tool stores."""

    def begin_upload(self, name: str) -> None:
        """Begin to store a layer, and never end."""

    def evict(self, step: str) -> None:
        """Lose the layer of a step."""

    def passes(self, hours: int) -> None:
        """Let time pass."""

    def gc(self, how: How, meanwhile: Meanwhile) -> Report:
        """Do a run."""

    def gc_twice(self, first: How, second: How, step: int) -> list[Report]:
        """Do a run, and before one of its steps all of another, which has another database."""

    def problems(self) -> list[str]:
        """Tell which promises were broken."""

    def stored(self) -> set[str]:
        """Tell which layers are stored."""

    def leads_to(self, name: str) -> set[str]:
        """Tell which layers builders find, of what exports of this name have offered."""

    def all_of_it(self) -> object:
        """Give everything that is stored, to the byte."""

    def only_newest_counts(self) -> bool:
        """Tell whether an export replaces what an earlier one of its name has offered."""


def steps_up_to(step: str) -> list[str]:
    """Give the steps that a build of this one does, the lowest first."""
    below = _BELOW[step]
    return [*(steps_up_to(below) if below else ()), step]


class Service:
    """A cache service, in which two of the images share a scope."""

    failed_builds = 0

    def __init__(self, world: World, memories: Sequence[Memory]) -> None:
        self._world = world
        self._memories = memories
        self._runner = Runner(world.running)
        self._watchers = [invariants.Watcher(world.cache) for _ in memories]
        self._turns: Turns | None = None
        self._count = 0
        world.now = START
        world.running.call(ActionsCache.clear)
        for memory in memories:
            memory.lose()

    def build(self, image: str, step: str, *, other_form: bool) -> Owed:
        """Export; the other form is that of a pull request's builds, which main cannot see."""
        scope = _scope(image)
        entry = self._world.build(*steps_up_to(step), scope=scope)
        read = invariants.import_index(entry.content or b"")
        if other_form:
            self._world.build(*steps_up_to(step), scope=scope, ref="refs/pull/7/merge")
        return Owed(scope, list(read.results))

    def store_layer(self, step: str) -> None:
        """Store its blob, as a build does that ends before its index."""
        key = str(BlobKey(blob_of(step)))
        if not any(entry.key == key and entry.ref == MAIN for entry in self._world.entries()):
            self._world.put(key, size=10)

    def store_others(self, name: str) -> None:
        """Store an entry of another tool."""
        if not any(entry.key == name for entry in self._world.entries()):
            self._world.put(name, b"other tool")

    def begin_upload(self, name: str) -> None:
        """Reserve a key."""

        def reserve(cache: ActionsCache) -> None:
            try:
                cache.reserve(MAIN, str(BlobKey(blob_of(f"upload of {name}"))), ENTRY_VERSION)
            except KeyTakenError:
                return

        self._world.running.call(reserve)

    def evict(self, step: str) -> None:
        """Let the host evict the blob."""
        self._world.evict(step)

    def passes(self, hours: int) -> None:
        """Let time pass."""
        self._world.passes(hours=hours)

    def gc(self, how: How, meanwhile: Meanwhile) -> Report:
        """Do a run over HTTP."""
        with self._watched([how], meanwhile):
            return self._runner.run(_workflow(how), self._memories[0], self._world.now)

    def gc_twice(self, first: How, second: How, step: int) -> list[Report]:
        """Let the second have all turns once the first has had so many."""
        self._turns = Turns([step, 10**9])
        with self._watched([first, second], {}):
            one, other = zip((_workflow(first), _workflow(second)), self._memories, strict=True)
            reports = self._runner.run_both(self._turns, one, other, self._world.now)
        self._turns = None
        return reports

    @contextmanager
    def _watched(self, runs: Sequence[How], meanwhile: Meanwhile) -> Iterator[None]:
        self._world.passes(milliseconds=1)  # No two runs begin at the same time.
        watchers = self._watchers[: len(runs)]
        self._count = 0

        def begin(_: ActionsCache) -> None:
            for watcher, how in zip(watchers, runs, strict=True):
                watcher.begin(grace=how.grace, readable=[MAIN])

        def before(request: Request) -> None:
            self._count += 1
            if happens := meanwhile.get(self._count):
                happens()
            for watcher in watchers:
                watcher._look()
            self._now(watchers).before(request)

        def after(request: Request) -> None:
            self._now(watchers).after(request)
            for watcher in watchers:
                watcher._look()

        self._world.running.call(begin)
        self._world.running.observe(before=before, after=after)
        try:
            yield
        finally:
            self._world.running.observe()

    def _now(self, watchers: Sequence[invariants.Watcher]) -> invariants.Watcher:
        return watchers[self._turns.who if self._turns else 0]

    def problems(self) -> list[str]:
        """Tell which promises were broken."""
        return [problem for watcher in self._watchers for problem in watcher.problems]

    def stored(self) -> set[str]:
        """Tell which blobs are stored where main reads."""
        return set(self._world.blobs(MAIN))

    def leads_to(self, name: str) -> set[str]:
        """Read the newest index of a scope as builders do."""
        prefix = f"index-{name}-1-"
        found = [e for e in self._world.entries() if e.ref == MAIN and e.key.startswith(prefix)]
        newest = max(found, key=lambda entry: (entry.created_at, entry.id))
        return _usable(invariants.import_index(newest.content or b""), self.stored())

    def all_of_it(self) -> object:
        """Give all entries."""
        return [(e.id, e.key, e.ref, e.content, e.size) for e in self._world.entries()]

    def only_newest_counts(self) -> bool:
        """Tell that each image finds what any of them has exported."""
        return False


class Folder:
    """A directory in which each image has a tag."""

    def __init__(self, world: directories.World) -> None:
        self._world = world
        self._watcher = watching.Watcher(world)
        self._second = world.database.with_name("second.db")
        self._second.write_bytes(world.database.read_bytes())
        self.failed_builds = 0

    def build(self, image: str, step: str, *, other_form: bool) -> Owed | None:
        """Export; the other form is that of older builders."""
        form = directories.INDEX if other_form else directories.MANIFEST
        try:
            self._world.build(*steps_up_to(step), tag=image, form=form)
        except directories.LockTakenError:
            self.failed_builds += 1
            return None
        self._watcher.look()
        return Owed(image, list(directories.import_tag(self._world.path, image).results))

    def store_layer(self, step: str) -> None:
        """Store its blob, as an export leaves it that another replaces."""
        self._world.put(step)

    def store_others(self, name: str) -> None:
        """Store an image beside the cache."""
        try:
            self._watcher.others |= self._world.image(name)
        except directories.LockTakenError:
            self.failed_builds += 1
        self._watcher.look()

    def begin_upload(self, name: str) -> None:
        """Begin a file below `ingest`."""
        if not any(self._world.path.glob("ingest/*")):
            self._world.begin_upload(name)

    def evict(self, step: str) -> None:
        """Lose the file."""
        if self._world.steps(step):
            self._world.evict(step)

    def passes(self, hours: int) -> None:
        """Let time pass."""
        self._world.passes(hours=hours)

    def gc(self, how: How, meanwhile: Meanwhile) -> Report:
        """Do a run over the files."""
        return self._gc(how, meanwhile, self._world.database)

    def gc_twice(self, first: How, second: How, step: int) -> list[Report]:
        """Let the second do all of it before a step of the first."""
        reports: list[Report] = []

        def all_of_the_second() -> None:
            # Another thread has no event loop yet; this one waits for it.
            with ThreadPoolExecutor(1) as thread:
                reports.append(thread.submit(self._gc, second, {}, self._second).result())

        reports.append(self._gc(first, {step: all_of_the_second}, self._world.database))
        return reports

    def _gc(self, how: How, meanwhile: Meanwhile, database: Path) -> Report:
        def between(step: int) -> None:
            if happens := meanwhile.get(step):
                happens()

        with self._watcher.run(how.grace, between if meanwhile else None):
            return self._world.gc(
                grace=how.grace,
                merged_tag="maintained" if how.other_way else "",
                dry_run=how.dry_run,
                no_sweep=how.no_sweep,
                accept_loss=True,
                database=database,
            )

    def problems(self) -> list[str]:
        """Tell which promises were broken."""
        return self._watcher.problems

    def stored(self) -> set[str]:
        """Tell which blobs are stored."""
        return set(self._world.stored())

    def leads_to(self, name: str) -> set[str]:
        """Read what a tag leads to as builders do."""
        return set(self._world.leads_to(name))

    def all_of_it(self) -> object:
        """Give all files."""
        return self._world.files()

    def only_newest_counts(self) -> bool:
        """Tell that each tag keeps its last export."""
        return True


def _scope(image: str) -> str:
    return "docs" if image == "docs" else "images"


def _workflow(how: How) -> Workflow:
    return Workflow(
        service="v1" if how.other_way else "v2",
        grace=how.grace,
        dry_run=how.dry_run,
        no_sweep=how.no_sweep,
        scopes=("docs", "images"),
    )


def _usable(read: ReadIndex, stored: set[str]) -> set[str]:
    return {blob for result in read.results if stored >= result for blob in result}
