"""Runs on a directory, and what it takes only to look at it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.databases import last_run
from benchmarks.processes import MAINTAINER, Usage, empty_folder, expect, module, run

_GC = (*MAINTAINER, "gc", "--quiet", "--merged-tag", "")
"""No merge of all tags is written: the floor merges nothing."""


@dataclass(frozen=True)
class Size:
    """The size of a directory."""

    blobs: int
    tags: int

    def __str__(self) -> str:
        return f"{self.blobs:,} blobs, {self.tags:,} tags"


@dataclass(frozen=True)
class Made:
    """A directory of blobs, in a folder for the databases of its runs."""

    folder: Path
    size: Size

    @property
    def path(self) -> Path:
        """The directory."""
        return self.folder / "cache"


@contextmanager
def made_directory(size: Size) -> Iterator[Made]:
    """Make a directory, which is removed with the context."""
    with empty_folder() as folder:
        made = Made(folder, size)
        run(module("directories", made.path, size.blobs, size.tags), folder)
        yield made


def gc(made: Made, wrap: Callable[[Sequence[str]], Sequence[str]] = tuple) -> Usage:
    """Return what a run took; it deletes nothing."""
    command = (*_GC, "--store", f"local:{made.path}")
    usage = run(wrap(command), made.folder)
    ended = last_run(made.folder)
    expect(ended.status == "done" and not ended.entries_deleted, f"the run: {ended}")
    expect(ended.entries >= made.size.blobs, f"not about {made.size}: {ended}")
    return usage


def scan(made: Made, *arguments: str) -> Usage:
    """Return what it took to look at the directory."""
    usage = run(module("floors.directory", made.path, *arguments), made.folder)
    files, size = map(int, usage.output.split())
    expect(files >= made.size.blobs and size > 0, f"the floor: {usage.output}")
    return usage
