"""A run over a directory in a process of its own, which kills itself before one of its steps."""

import logging
import os
import signal
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from tests.integration.directories import World

_STEPS = frozenset({"open", "os.remove", "os.rename", "os.scandir", "os.chmod"})


@dataclass(frozen=True)
class Errand:
    """What the process is to do."""

    path: Path
    database: Path
    now: datetime
    kill_before: int
    """The number of the step before which it ends; 0 for none."""


def run(errand: Errand) -> None:
    """Do a run with no grace period, which merges tags."""
    logging.disable()
    count = 0

    def step(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event not in _STEPS or "/" in str(arguments[0]):
            return
        count += 1
        if count == errand.kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    world = World(errand.path, errand.database, errand.now)
    report = world.gc(grace=timedelta(0), merge_tags=True)
    sys.exit(report.status != "done")
