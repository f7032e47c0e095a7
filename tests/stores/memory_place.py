"""A vault in memory to which builds export."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import anyio

from maintainer.cacheconfig import encode
from maintainer.report import Report
from tests.integration.invariants import ReadIndex, RefusedIndexError, import_index
from tests.integration.simulated_runs import Memory
from tests.integration.world import START, blob_of, built
from tests.stores.memory import MemoryStore, Vault
from tests.stores.place import (
    Actions,
    How,
    Results,
    collections_of,
    departed_from,
    steps_up_to,
)
from tests.stores.runs import run_on


class Watcher:
    """Sees at each step what a run has done since the step before."""

    def __init__(self, vault: Vault, *, exports_touch: bool) -> None:
        self.problems: list[str] = []
        self._vault = vault
        self._exports_touch = exports_touch
        self._stored: set[str] = set()
        self._existed: set[str] = set()
        """All that was ever stored."""
        self._written: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        """The versions that a run has seen."""
        self._referenced_at: dict[str, datetime] = {}

    def look(self, now: datetime, grace: timedelta | None = None) -> None:
        """Look what is stored; without a grace period it was builders who changed it."""
        stored = set(self._vault.blobs)
        if grace is not None:
            for blob in self._stored - stored:
                self._check_deleted(blob, now, grace)
        written = {name: version for name, (version, _, _) in self._vault.indexes.items()}
        for name, version in written.items():
            read = self.read(name)
            if grace is not None and self._written.get(name) != version:
                self._check_written(name, read)
            if grace is not None:
                self._seen[name] = version
            # If exports touch nothing, one that another one replaces before a run leaves no trace.
            if self._exports_touch or self._seen.get(name) == version:
                self._referenced_at |= dict.fromkeys(read.blobs if read else (), now)
        self._stored, self._written = stored, written
        self._existed |= stored

    def read(self, name: str) -> ReadIndex | None:
        """Import an index as builders do; None if there is none, or they refuse it."""
        with suppress(RefusedIndexError, KeyError):
            return import_index(self._vault.indexes[name][1])
        return None

    def _check_deleted(self, blob: str, now: datetime, grace: timedelta) -> None:
        if not blob.startswith("sha256:"):
            self.problems.append(f"I4: {blob} of another tool was deleted")
        last = self._referenced_at.get(blob)
        # The second of two runs may have begun a moment later than the first goes on.
        if last and max(now - last, timedelta(0)) < grace:
            self.problems.append(f"I1: {blob} was deleted, and referenced at {last}")
        for name in self._vault.indexes:
            read = self.read(name)
            if read and blob in read.blobs:
                self.problems.append(f"I1: {blob} was deleted, and {name} references it")

    def _check_written(self, name: str, read: ReadIndex | None) -> None:
        if read is None:
            self.problems.append(f"I2: no builder can read {name}")
        elif missing := read.blobs - self._existed:
            self.problems.append(f"I2: {name} references {sorted(missing)}, which never existed")


class Room:
    """Steps are calls of the store; of two runs, all of the second is one step of the first."""

    replaces = True
    deletes_unconditionally = False
    exports_touch = False
    """Whether an export leaves a trace at the blobs that it finds."""

    def __init__(
        self, folder: Path, memories: Sequence[Memory], vault: Vault | None = None
    ) -> None:
        self._vault = vault or Vault()
        self._watcher = Watcher(self._vault, exports_touch=self.exports_touch)
        self._memories = memories
        self._spare = folder / "kept.db"
        self._now = START
        for memory in memories:
            memory.lose()

    def build(self, image: str, step: str, *, other_form: bool) -> Results | None:
        """Export; there is one form."""
        del other_form
        for one in steps_up_to(step):
            self._vault.blobs.setdefault(blob_of(one), self._now)
        config = built(*steps_up_to(step), at=self._now)
        self._vault.write(image, encode(config), self._now)
        self._watcher.look(self._now)
        read = self._watcher.read(image)
        return list(read.results) if read else []

    def store_layer(self, step: str) -> None:
        """Store its blob."""
        self._vault.blobs.setdefault(blob_of(step), self._now)
        self._watcher.look(self._now)

    def store_other(self, name: str) -> None:
        """Store it under its name."""
        self._vault.blobs.setdefault(name, self._now)
        self._watcher.look(self._now)

    def begin_upload(self, name: str) -> None:
        """Do nothing: it shows only when it ends."""

    def evict(self, step: str) -> None:
        """Lose the blob."""
        self._vault.blobs.pop(blob_of(step), None)
        self._watcher.look(self._now)

    def spoil(self, step: str) -> None:
        """Lose the blob: what is there has its content."""
        self.evict(step)

    def garble(self, image: str) -> None:
        """Write what is no index."""
        self._vault.write(image, b"[", self._now)
        self._watcher.look(self._now)

    def passes(self, hours: int) -> None:
        """Let time pass."""
        self._now += timedelta(hours=hours)

    def run(self, how: How, actions: Actions) -> Report:
        """Do a run."""
        return self._run(how, actions, self._memories[0])

    def run_two(self, first: How, second: How, step: int) -> list[Report]:
        """Do all of the second before a step of the first."""
        reports: list[Report] = []

        def all_of_the_second() -> None:
            # Another thread has no event loop yet; this one waits for it.
            with ThreadPoolExecutor(1) as thread:
                reports.append(thread.submit(self._run, second, {}, self._memories[1]).result())

        reports.append(self._run(first, {step: all_of_the_second}, self._memories[0]))
        return reports

    def _run(self, how: How, actions: Actions, memory: Memory) -> Report:
        self._now += timedelta(milliseconds=1)  # No two runs begin at the same time.
        outer, now = self._vault.step, self._now
        steps = 0

        def before() -> None:
            nonlocal steps
            steps += 1
            self._watcher.look(now, how.grace)
            if act := actions.get(steps):
                act()
                self._watcher.look(now)

        self._vault.step = before
        try:
            name = "maintained" if how.other_way else ""
            more = {"merged_tag": name} | how.settings
            return anyio.run(partial(self._collect, memory, how, now, **more))
        finally:
            self._watcher.look(now, how.grace)
            self._vault.step = outer

    async def _collect(self, memory: Memory, how: How, now: datetime, **settings: object) -> Report:
        return await run_on(MemoryStore(self._vault), memory, how, now, **settings)

    def keep(self) -> Callable[[], None]:
        """Copy all that is stored."""
        self._memories[0].copy(self._spare)
        blobs, indexes = dict(self._vault.blobs), dict(self._vault.indexes)
        exports = self._vault.exports
        seen = collections_of(self._watcher, but="problems")

        def put_back() -> None:
            self._vault.blobs.clear()
            self._vault.blobs.update(blobs)
            self._vault.indexes.clear()
            self._vault.indexes.update(indexes)
            self._vault.exports = exports
            vars(self._watcher).update(seen)
            self._watcher.look(self._now)  # A server may count what is put back as written anew.
            self._memories[0].replace(self._spare)

        return put_back

    def problems(self) -> list[str]:
        """Return what the watcher has seen."""
        return self._watcher.problems

    def stored(self) -> set[str]:
        """Return the blobs that are stored."""
        return set(self._vault.blobs)

    def departed(self) -> set[str]:
        """Ask both memories."""
        return departed_from(self._memories)

    def usable(self, image: str) -> set[str]:
        """Read the index of an image."""
        read, stored = self._watcher.read(image), self.stored()
        return {b for result in read.results if result <= stored for b in result} if read else set()

    def missing(self, image: str) -> set[str]:
        """Return the layers that the index of an image references, and that are not stored."""
        read = self._watcher.read(image)
        return set(read.blobs) - self.stored() if read else set()

    def look(self) -> None:
        """Look what a run without a grace period has done, in a process of its own."""
        self._watcher.look(self._now, timedelta(0))

    def everything(self) -> object:
        """Return all that is stored."""
        indexes = {name: content for name, (_, content, _) in self._vault.indexes.items()}
        return dict(self._vault.blobs), indexes
