"""Imported by what forks processes, so that most statements are compiled once and not in each.

To compile them took a third of the time of a command that was forked.
"""

import gc
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.commands import run_here
from tests.integration.directories import a_directory
from tests.statements import compile_once


def _run_twice() -> None:
    with TemporaryDirectory() as folder:
        world = a_directory(Path(folder))
        world.build("base", "deps", tag="api")
        for step in ("app", "else"):
            world.build("base", step, tag="web")
            arguments = ("--store", f"local:{world.path}", "--grace", "0s")
            run_here(Path(folder), {}, "gc", *arguments, "--database", "sqlite:///run.db")
            world.evict(step)


compile_once()
# What fails here fails in a test, too, which says what it is.
with suppress(Exception):
    _run_twice()
gc.freeze()
