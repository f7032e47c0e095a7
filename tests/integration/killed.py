"""A run in a process of its own, to be killed: what there is to tell the process."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import anyio

from maintainer.collect import Collector, collect
from maintainer.graph.database import Database
from maintainer.settings import GitHubSettings, Settings
from maintainer.stores.github import open_store


@dataclass(frozen=True)
class Errand:
    """What the process is to do."""

    environment: dict[str, str]
    database: Path
    now: datetime


def run(errand: Errand) -> None:
    """Do a run with no grace period."""
    logging.disable()
    anyio.run(_run, errand)


async def _run(errand: Errand) -> None:
    database = Database(f"sqlite:///{errand.database}")
    try:
        database.upgrade()
        async with open_store(GitHubSettings.read(errand.environment)) as store:
            settings = Settings(grace=timedelta(0))
            with database.held():
                await collect(Collector(store, database, settings, clock=lambda: errand.now))
    finally:
        database.close()
