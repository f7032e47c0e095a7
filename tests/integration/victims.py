"""Caches whose runs are killed: a service at its requests, a directory at operations on files."""

import os
import shutil
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from maintainer.emulator import Request
from maintainer.report import Report
from tests.empty_database import make_empty
from tests.integration.directories import World as Directory
from tests.integration.killed import Errand, FolderErrand, run, run_over_files
from tests.integration.simulated_runs import MERGED
from tests.integration.small import Stage
from tests.integration.watching import Watcher
from tests.integration.world import MAIN
from tests.processes import processes

BEFORE, AFTER = "before", "after"
Point = tuple[str, int]
"""Before or after which request, or before which operation."""


class Victim(Protocol):
    """A cache that is made anew for each run which is to be killed, in a process of its own."""

    @property
    def database(self) -> Path:
        """Where the runs' memory is."""

    def set_up(self) -> None:
        """Begin anew, with a database that knows nothing."""

    def kill(self, point: Point) -> int | None:
        """Let a run be killed; give its exit code."""

    def run_two(self) -> list[int | None]:
        """Let two processes run at once, with databases of their own; give their exit codes."""

    def gc(self) -> Report:
        """Do a run that nobody disturbs, a little later."""

    def problems(self) -> list[str]:
        """Return which promises were broken."""

    def arrival(self) -> object:
        """Return what the cache has come to, but for what a run leaves that the next takes away."""


def _join(started: list[BaseProcess]) -> list[int | None]:
    for process in started:
        process.join(60)
    return [process.exitcode for process in started]


class ServiceVictim:
    """A cache service, which kills the run that asks it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._processes = processes()

    @property
    def database(self) -> Path:
        """Where the runs' memory is."""
        return self._stage.world.database

    def set_up(self) -> None:
        """Begin anew."""
        self._stage.set_up()

    def kill(self, point: Point) -> int | None:
        """Kill a run before or after a request is carried out."""
        self._stage.begin()
        killer = _Killer(self._stage, point)
        self._stage.world.running.observe(before=killer.before, after=killer.after)
        process = self._process(self._stage.world.database)
        process.start()
        assert process.pid
        killer.may_begin(process.pid)
        codes = _join([process])
        self._stage.world.running.observe()
        return codes[0]

    def run_two(self) -> list[int | None]:
        """Let both ask at once."""
        started = []
        for number in range(2):
            database = self._stage.folder / f"of-its-own-{number}.db"
            make_empty(database)
            started.append(self._process(database))
        for process in started:
            process.start()
        return _join(started)

    def _process(self, database: Path) -> BaseProcess:
        world = self._stage.world
        errand = Errand(world.running.environment(MAIN), database, world.now)
        return self._processes.Process(target=run, args=(errand,))

    def gc(self) -> Report:
        """Do a run with no grace period."""
        self._stage.world.passes(minutes=5)
        return self._stage.gc(merged_scope=MERGED)

    def problems(self) -> list[str]:
        """Return which promises were broken."""
        return self._stage.watcher.problems

    def arrival(self) -> object:
        """Return what every key leads to."""
        return self._stage.arrival()


class _Killer:
    """Kills a process before or after a request is carried out, once."""

    def __init__(self, stage: Stage, point: Point) -> None:
        self._stage = stage
        self._moment, self._number = point
        self._count = {BEFORE: 0, AFTER: 0}
        self._started = threading.Event()
        self._process_id = 0

    def may_begin(self, process_id: int) -> None:
        self._process_id = process_id
        self._started.set()

    def before(self, request: Request) -> None:
        self._stage.watcher.before(request)
        self._strike(BEFORE)

    def after(self, request: Request) -> None:
        self._stage.after(request)
        self._strike(AFTER)

    def _strike(self, moment: str) -> None:
        self._count[moment] += 1
        if moment == self._moment and self._count[moment] == self._number:
            self._started.wait()
            os.kill(self._process_id, signal.SIGKILL)


class FolderVictim:
    """A directory, whose run kills itself."""

    def __init__(self, folder: Path, make: Callable[[Path], Directory]) -> None:
        self._folder = folder
        self._make = make
        self._processes = processes()

    @property
    def database(self) -> Path:
        """Where the runs' memory is."""
        return self._world.database

    def set_up(self) -> None:
        """Begin anew."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._world = self._make(self._folder)
        self._watcher = Watcher(self._world)

    def kill(self, point: Point) -> int | None:
        """Kill a run before an operation."""
        codes = self._run([self._errand(self._world.database, point[1])])
        return codes[0]

    def run_two(self) -> list[int | None]:
        """Let both work at once."""
        errands = []
        for number in range(2):
            database = self._folder / f"of-its-own-{number}.db"
            make_empty(database)
            errands.append(self._errand(database, 0))
        return self._run(errands)

    def _errand(self, database: Path, kill_before: int) -> FolderErrand:
        return FolderErrand(self._world.path, database, self._world.now, kill_before)

    def _run(self, errands: list[FolderErrand]) -> list[int | None]:
        started: list[BaseProcess] = [
            self._processes.Process(target=run_over_files, args=(errand,)) for errand in errands
        ]
        for process in started:
            process.start()
        codes = _join(started)
        self._world.settle()
        self._watcher.look(by_run=True)
        return codes

    def gc(self) -> Report:
        """Do a run with no grace period, which merges tags."""
        self._world.passes(minutes=5)
        with self._watcher.run(timedelta(0)):
            return self._world.gc(grace=timedelta(0), merged_tag="maintained")

    def problems(self) -> list[str]:
        """Return which promises were broken."""
        return self._watcher.problems

    def arrival(self) -> object:
        """Return all files; leftovers are no older than a run that is gone, and count as one."""
        files = self._world.files()
        left = {name for name in files if name.startswith(".maintainer-")}
        assert len(left) <= 1
        return {
            name: content
            for name, content in files.items()
            if name not in left and name != "index.json.lock"
        }
