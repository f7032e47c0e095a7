"""A directory in which each image has a tag."""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import anyio

from maintainer.report import Report
from maintainer.stores.local.directory import open_directory
from tests.integration import directories, watching
from tests.integration.simulated_runs import Memory
from tests.stores.place import (
    Actions,
    How,
    Results,
    collections_of,
    departed_from,
    steps_up_to,
)
from tests.stores.runs import run_on


class Folder:
    """Steps are operations on files; of two runs, all of the second is one step of the first."""

    replaces = True
    deletes_unconditionally = False

    def __init__(self, folder: Path, memories: Sequence[Memory]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._world = directories.a_directory(folder)
        self._memories = memories
        self._spare = folder / "kept"
        self._spare_database = folder / "kept.db"
        self._watcher = watching.Watcher(self._world)
        for memory in memories:
            memory.lose()

    def build(self, image: str, step: str, *, other_form: bool) -> Results | None:
        """Export; the other form is that of older builders."""
        form = directories.INDEX if other_form else directories.MANIFEST
        try:
            self._world.build(*steps_up_to(step), tag=image, form=form)
        except directories.LockTakenError:
            return None
        self._watcher.look()
        results = directories.import_tag(self._world.path, image).results
        return [result for result in results if not result & self._spoiled()]

    def _spoiled(self) -> set[str]:
        empty = [path for path in self._world.blobs.iterdir() if not path.stat().st_size]
        return {f"sha256:{path.name}" for path in empty}

    def store_layer(self, step: str) -> None:
        """Store its blob."""
        self._world.put(step)

    def store_other(self, name: str) -> None:
        """Store an image beside the cache, unless a run holds the lock."""
        with suppress(directories.LockTakenError):
            self._watcher.others |= self._world.image(name)
        self._watcher.look()

    def begin_upload(self, name: str) -> None:
        """Begin a file below `ingest`."""
        if not any(self._world.path.glob("ingest/*")):
            self._world.begin_upload(name)

    def evict(self, step: str) -> None:
        """Lose the file."""
        if self._world.steps(step):
            self._world.evict(step)

    def spoil(self, step: str) -> None:
        """Leave an empty file."""
        if self._world.steps(step):
            self._world.evict(step)
            path = self._blob(step)
            path.touch()
            self._world.touch(path)

    def _blob(self, step: str) -> Path:
        return self._world.blobs / directories.layer_of(step)[7:]

    def garble(self, image: str) -> None:
        """Let the tag lead to a manifest that is none, unless a run holds the lock."""
        with suppress(directories.LockTakenError):
            self._world.name(image, b'{"schemaVersion":')
        self._watcher.look()

    def passes(self, hours: int) -> None:
        """Let time pass."""
        self._world.passes(hours=hours)

    def run(self, how: How, actions: Actions) -> Report:
        """Do a run over the files."""
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
        def between(step: int) -> None:
            if act := actions.get(step):
                act()

        with self._watcher.run(how.grace, between if actions else None):
            try:
                return anyio.run(self._collect, how, memory)
            finally:
                self._world.settle()

    async def _collect(self, how: How, memory: Memory) -> Report:
        merged_tag = "maintained" if how.other_way else ""
        with open_directory(self._world.path, max_index_size=2**20) as directory:
            more = {"merged_tag": merged_tag} | how.settings
            return await run_on(directory, memory, how, self._world.now, **more)

    def keep(self) -> Callable[[], None]:
        """Copy the files, with their times."""
        self._memories[0].copy(self._spare_database)
        shutil.rmtree(self._spare, ignore_errors=True)
        shutil.copytree(self._world.path, self._spare)
        seen = collections_of(self._watcher, but="problems")

        def put_back() -> None:
            shutil.rmtree(self._world.path)
            shutil.copytree(self._spare, self._world.path)
            self._world.settle()
            vars(self._watcher).update(seen)
            self._memories[0].replace(self._spare_database)

        return put_back

    def problems(self) -> list[str]:
        """Return what the watcher has seen."""
        return self._watcher.problems

    def stored(self) -> set[str]:
        """Return the blobs that are stored, manifests too."""
        return set(self._world.stored())

    def departed(self) -> set[str]:
        """Ask both memories."""
        return departed_from(self._memories)

    def usable(self, image: str) -> set[str]:
        """Read what the tag leads to."""
        return set(self._world.leads_to(image)) if image in self._world.tags() else set()

    def everything(self) -> object:
        """Return all files."""
        return self._world.files()
