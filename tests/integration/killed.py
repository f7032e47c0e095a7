"""A run in a process of its own, to be killed: what there is to tell the process."""

import logging
import os
import signal
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import anyio

from maintainer.collect import collect
from maintainer.errors import DatabaseError
from maintainer.graph import lease as lease_module
from maintainer.graph.database import Database
from maintainer.settings import GitHubSettings, Settings
from maintainer.stages.run import Collector
from maintainer.stores.github.client import open_client
from maintainer.stores.github.store import GitHubStore
from tests.integration.directories import World

_OPERATIONS = frozenset({"open", "os.remove", "os.rename", "os.scandir", "os.chmod"})


@dataclass(frozen=True)
class Errand:
    """A run over a cache service: somebody else kills it."""

    environment: dict[str, str]
    database: Path
    now: datetime


@dataclass(frozen=True)
class FolderErrand:
    """A run over a directory, which kills itself before one of its operations on files."""

    path: Path
    database: Path
    now: datetime
    kill_before: int
    """The number of the operation; 0 for none."""


def run(errand: Errand) -> None:
    """Do a run with no grace period."""
    logging.disable()
    anyio.run(_run, errand)


@dataclass(frozen=True)
class LeasedErrand:
    """A run over a cache service, on a database that another run may take over."""

    environment: dict[str, str]
    url: str
    now: datetime
    problem: Path
    """Where to write how it has failed."""


def run_leased(errand: LeasedErrand) -> None:
    """Do a run with no grace period, which checks its lease each time that it has to."""
    logging.disable()
    lease_module._TRUSTED = 0
    try:
        anyio.run(_run_leased, errand)
    except DatabaseError as error:
        errand.problem.write_text(str(error))
        sys.exit(1)


async def _run_leased(errand: LeasedErrand) -> None:
    async with open_client(GitHubSettings.read(errand.environment)) as opened:
        store, settings = (
            GitHubStore(opened),
            Settings(grace=timedelta(0), verify_after=timedelta(0)),
        )
        with closing(Database(errand.url)) as database, database.lease(store.name) as lease:
            await collect(
                Collector(store, database, settings, clock=lambda: errand.now, lease=lease)
            )


async def _run(errand: Errand) -> None:
    database = Database(f"sqlite:///{errand.database}")
    try:
        database.upgrade()
        async with open_client(GitHubSettings.read(errand.environment)) as store:
            settings = Settings(grace=timedelta(0))
            with database.lock():
                report = await collect(
                    Collector(GitHubStore(store), database, settings, clock=lambda: errand.now)
                )
    finally:
        database.close()
    sys.exit(report.status != "done")


def run_over_files(errand: FolderErrand) -> None:
    """Do a run with no grace period, which merges tags."""
    logging.disable()
    count = 0

    def step(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        # What is done to the directory is done from where it was opened, not by its whole path.
        if event not in _OPERATIONS or "/" in str(arguments[0]):
            return
        count += 1
        if count == errand.kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    world = World(errand.path, errand.database, errand.now)
    report = world.gc(grace=timedelta(0), merged_tag="maintained")
    sys.exit(report.status != "done")
