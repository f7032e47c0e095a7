"""A cache service on loopback, in which two of the images share a scope."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from maintainer.cacheconfig.keys import ENTRY_VERSION, BlobKey
from maintainer.emulator import ActionsCache, Request
from maintainer.emulator.state import KeyTakenError
from maintainer.report import Report
from tests.integration import invariants
from tests.integration.simulated_runs import Memory, Runner, Turns, Workflow
from tests.integration.world import MAIN, START, World, blob_of
from tests.stores.place import (
    Actions,
    How,
    Results,
    collections_of,
    departed_from,
    steps_up_to,
)


class Service:
    """Steps are requests, counted where they come in; two runs take turns at the store."""

    replaces = False
    deletes_unconditionally = True

    def __init__(self, world: World, memories: Sequence[Memory], spare: Path) -> None:
        self._world = world
        self._memories = memories
        self._spare = spare
        self._runner = Runner(world.running)
        self._watchers = [invariants.Watcher(world.cache) for _ in memories]
        self._turns: Turns | None = None
        self._count = 0
        world.now = START
        world.running.call(ActionsCache.clear)
        for memory in memories:
            memory.lose()

    def build(self, image: str, step: str, *, other_form: bool) -> Results:
        """Export; the other form is that of a pull request's builds, which main cannot see."""
        scope, steps = _scope(image), steps_up_to(step)
        entry = self._world.build(*steps, scope=scope)
        if other_form:
            self._world.build(*steps, scope=scope, ref="refs/pull/7/merge")
        spoiled = {one.key for one in self._world.entries() if one.lost}
        lost = {blob_of(one) for one in steps if str(BlobKey(blob_of(one))) in spoiled}
        read = invariants.import_index(entry.content or b"")
        return [result for result in read.results if not result & lost]

    def store_layer(self, step: str) -> None:
        """Store its blob."""
        key = str(BlobKey(blob_of(step)))
        if not any(entry.key == key and entry.ref == MAIN for entry in self._world.entries()):
            self._world.put(key, size=10)

    def store_other(self, name: str) -> None:
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

    def spoil(self, step: str) -> None:
        """Let the storage lose what the entries of the blob hold."""
        key = str(BlobKey(blob_of(step)))

        def lose(cache: ActionsCache) -> None:
            for entry in cache.entries():
                if entry.key == key:
                    cache.lose(entry.id)

        self._world.running.call(lose)

    def garble(self, image: str) -> None:
        """Write a generation that is no index."""
        self._world.export(b"{", scope=_scope(image), ref=MAIN)

    def passes(self, hours: int) -> None:
        """Let time pass."""
        self._world.passes(hours=hours)

    def run(self, how: How, actions: Actions) -> Report:
        """Do a run over HTTP."""
        with self._watched([how], actions):
            return self._runner.run(_workflow(how), self._memories[0], self._world.now)

    def run_two(self, first: How, second: How, step: int) -> list[Report]:
        """Let the second have all turns once the first has had so many."""
        self._turns = Turns([step, 10**9])
        with self._watched([first, second], {}):
            workflows = _workflow(first), _workflow(second)
            one, other = zip(workflows, self._memories, strict=True)
            reports = self._runner.run_both(self._turns, one, other, self._world.now)
        self._turns = None
        return reports

    @contextmanager
    def _watched(self, runs: Sequence[How], actions: Actions) -> Iterator[None]:
        self._world.passes(milliseconds=1)  # No two runs begin at the same time.
        watchers = self._watchers[: len(runs)]
        self._count = 0

        def begin(_: ActionsCache) -> None:
            for watcher, how in zip(watchers, runs, strict=True):
                watcher.begin(grace=how.grace, readable=[MAIN])

        def before(request: Request) -> None:
            self._count += 1
            if act := actions.get(self._count):
                act()
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

    def keep(self) -> Callable[[], None]:
        """Copy the state of the service; ids are not used again."""
        self._memories[0].copy(self._spare)
        kept = self._world.running.call(_state)
        seen = [collections_of(watcher, but="problems") for watcher in self._watchers]

        def put_back(cache: ActionsCache) -> None:
            vars(cache).update(kept | {"_last_id": cache._last_id})
            for watcher, state in zip(self._watchers, seen, strict=True):
                vars(watcher).update(state)

        def put_all_back() -> None:
            self._world.running.call(put_back)
            self._memories[0].replace(self._spare)

        return put_all_back

    def problems(self) -> list[str]:
        """Return what the watchers of both owners have seen."""
        return [problem for watcher in self._watchers for problem in watcher.problems]

    def stored(self) -> set[str]:
        """Return the blobs that are stored where main reads."""
        return set(self._world.blobs(MAIN))

    def departed(self) -> set[str]:
        """Ask both memories."""
        return departed_from(self._memories)

    def usable(self, image: str) -> set[str]:
        """Read the newest index of the image's scope."""
        prefix, stored = f"index-{_scope(image)}-1-", self.stored()
        found = [e for e in self._world.entries() if e.ref == MAIN and e.key.startswith(prefix)]
        if not found:
            return set()
        newest = max(found, key=lambda entry: (entry.created_at, entry.id))
        read = invariants.import_index(newest.content or b"")
        return {blob for result in read.results if stored >= result for blob in result}

    def everything(self) -> object:
        """Return all entries."""
        return [(e.id, e.key, e.ref, e.content, e.size) for e in self._world.entries()]


def _state(cache: ActionsCache) -> dict[str, Any]:
    return collections_of(cache) | {"_uploads": deepcopy(cache._uploads)}


def _scope(image: str) -> str:
    return "docs" if image == "docs" else "images"


def _workflow(how: How) -> Workflow:
    return Workflow(
        service="v1" if how.other_way else "v2",
        grace=how.grace,
        dry_run=how.dry_run,
        no_sweep=how.no_sweep,
        accept_loss=not how.guarded,
        repair=how.repair,
        scopes=("docs", "images"),
        more=how.settings,
    )
