"""The command line in this process: all of it but the start of Python, which takes a second.

At least one test of each command runs it as people do, in a process of its own.
"""

import io
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from maintainer.__main__ import main


@dataclass(frozen=True)
class Outcome:
    """What came of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)

    @property
    def problem(self) -> str:
        """The one line on stderr, when there is nothing on stdout."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("maintainer: ")
        return line.removeprefix("maintainer: ")

    @property
    def shown(self) -> str:
        """All that somebody sees."""
        return f"{self.out}\n{self.err}"


def run_here(folder: Path, variables: Mapping[str, str], *arguments: str) -> Outcome:
    """Run `maintainer` in a folder, with these variables and no others.

    What it raises besides its exit is raised here, where a process would print a traceback.
    """
    out, err = (_pipe(errors) for errors in ("strict", "backslashreplace"))
    with (
        pytest.MonkeyPatch.context() as patch,
        logging_put_back(),
        _signals_put_back(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        for name in os.environ.keys() - variables.keys():
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["maintainer", *arguments])
        # Read when Typer was imported: a workflow's log has colours, a pipe has none.
        patch.setattr("typer.rich_utils.FORCE_TERMINAL", None)
        status = _status()
    return Outcome(status, _text(out), _text(err))


def _status() -> int:
    try:
        main()
    except SystemExit as end:
        # Python prints any other code, and makes it 1.
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _pipe(errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors)


def _text(pipe: io.TextIOWrapper) -> str:
    pipe.seek(0)
    return pipe.read()


@contextmanager
def logging_put_back() -> Iterator[None]:
    """Have the handlers and levels that there were, whatever is set up meanwhile."""
    root, own = logging.getLogger(), logging.getLogger("maintainer")
    handlers, levels = root.handlers, (root.level, own.level)
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])


@contextmanager
def _signals_put_back() -> Iterator[None]:
    """Block the signals that were blocked: `serve` keeps SIGHUP back, and children inherit that."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
