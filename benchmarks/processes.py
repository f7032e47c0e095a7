"""Runs a process, and returns what it took."""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

ROOT = Path(__file__).parents[1]
MAINTAINER = (str(Path(sys.executable).with_name("maintainer")),)
ROUNDS = 3
MIB = 2**20
_KEPT = ("HOME", "LANG", "PATH", "TMPDIR")
"""The only variables that a process inherits."""


class UnexpectedError(Exception):
    """The program did not do what a benchmark is to measure."""


@dataclass(frozen=True)
class Usage:
    """What a process took."""

    user: float
    """Seconds of CPU time in user mode."""
    wall: float
    """Seconds."""
    peak: int
    """Bytes of memory. At least as many as the parent has, so lines import little."""
    output: str
    errors: str


def run(
    command: Sequence[str],
    folder: Path,
    variables: Mapping[str, str] | None = None,
    *,
    status: int = 0,
) -> Usage:
    """Run a command in a folder. Raises UnexpectedError if it ends with another exit status."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= {"PYTHONPATH": str(ROOT)} | dict(variables or {})
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        _, ended, usage = os.wait4(process.pid, 0)
        wall = perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(ended)
        for file in (out, err):
            file.seek(0)
        output, errors = out.read().decode(), err.read().decode()
    expect(
        process.returncode == status,
        f"{' '.join(command)} ended with {process.returncode}:\n{output[-2000:]}{errors[-2000:]}",
    )
    return Usage(usage.ru_utime, wall, usage.ru_maxrss * 1024, output, errors)


def module(name: str, *arguments: str | Path | int) -> tuple[str, ...]:
    """Return the command that runs a module of the benchmarks."""
    return (sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments))


def traced(command: Sequence[str]) -> tuple[str, ...]:
    """Return a Python command that reports the modules that it imports."""
    return (sys.executable, "-X", "importtime", *command)


def measure_start_up(command: Usage, folder: Path) -> Usage:
    """Return what it takes to start Python and import what a traced command has imported."""
    lines = command.errors.splitlines()
    names = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]
    file = folder / "imports.txt"
    file.write_text("\n".join(names[1:]))  # The first line is a heading.
    return run(module("floors.imports", file), folder)


def user_seconds() -> float:
    """Return the CPU seconds that this process has spent in user mode."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def median_user(usages: Sequence[Usage]) -> float:
    """Return the median of the CPU seconds."""
    return median(usage.user for usage in usages)


@contextmanager
def empty_folder() -> Iterator[Path]:
    """Return a new folder, which is removed with the context."""
    with tempfile.TemporaryDirectory(prefix="maintainer-bench-") as folder:
        yield Path(folder)


def expect(condition: object, problem: str) -> None:
    """Raise UnexpectedError unless a condition holds."""
    if not condition:
        raise UnexpectedError(problem)
