"""`maintainer` in a process of its own, forked from one that has imported all of it already.

It is a process like any other, with signals, files and an exit status. Only the time in which
modules are imported and statements are compiled is saved; at least one test of each command starts
Python itself, as people do.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.commands import Outcome

_PATIENCE = 120.0
_IMPORTED = (
    *("maintainer.cli.app", "maintainer.cli.run", "maintainer.demo", "maintainer.graph.migrate"),
    *("maintainer.report.html", "maintainer.report.json", "maintainer.report.terminal"),
    *("maintainer.serve.once", "maintainer.serve.service", "maintainer.serve.web.server"),
    *("maintainer.serve.fleet", "maintainer.serve.work", "sqlalchemy.dialects.postgresql"),
    *("anyio._backends._asyncio", "filelock", "httpcore2", "sqlalchemy.dialects.sqlite"),
    *("maintainer.stores.azblob.client", "maintainer.stores.registry.store"),
    *("maintainer.stores.s3.client", "aiobotocore.session"),
    *("sqlite3", "tests.integration.killed", "tests.processes"),
    *("tests.trusted", "tests.compiled"),
)
"""With what they import only when they run: that took longer than their work."""


def processes() -> ForkServerContext:
    """Return what makes processes that have everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    return context


@dataclass(frozen=True)
class Command:
    """A command line and what surrounds it."""

    arguments: Sequence[str]
    folder: Path
    variables: Mapping[str, str]
    """The only ones that it has."""
    stdout: Path
    stderr: Path


@dataclass(frozen=True)
class Forked:
    """A command under way: what `subprocess.Popen` offers, as far as tests need it."""

    process: BaseProcess

    @property
    def pid(self) -> int:
        """The process."""
        assert self.process.pid
        return self.process.pid

    def poll(self) -> int | None:
        """Return the exit status, if it has ended; minus the number of a signal that killed it."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended. Raises TimeoutExpired."""
        self.process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(str(self.process), timeout or 0)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def start(command: Command) -> Forked:
    """Start a command; output is written to its files."""
    process = processes().Process(target=become, args=(command,))
    process.start()
    return Forked(process)


def run(folder: Path, variables: Mapping[str, str], *arguments: str) -> Outcome:
    """Run a command to its end in a folder, with these variables and no others."""
    with TemporaryDirectory() as place:
        out, err = (Path(place, name) for name in ("out", "err"))
        status = start(Command(arguments, folder, variables, out, err)).wait(_PATIENCE)
        return Outcome(status, *(path.read_bytes().decode() for path in (out, err)))


def become(command: Command) -> None:
    """Become the command, in the process that was forked for it."""
    from maintainer.__main__ import main

    for number, path in ((1, command.stdout), (2, command.stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(command.variables)
    os.chdir(command.folder)
    sys.argv = ["maintainer", *command.arguments]
    _forget_the_terminal()
    main()


def _forget_the_terminal() -> None:
    """Undo what Typer has read from the tests' own variables: a workflow's log has colours."""
    import typer.rich_utils

    typer.rich_utils.FORCE_TERMINAL = None
