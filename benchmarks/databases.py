"""What a database tells about its runs, by its documented views."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_NAME = "maintainer.db"


@dataclass(frozen=True)
class EndedRun:
    """How a run ended."""

    number: int
    status: str
    entries: int
    indexes_written: int
    entries_deleted: int


def last_run(folder: Path) -> EndedRun:
    """Return the last run in the database of a folder."""
    with closing(sqlite3.connect(folder / _NAME)) as connection:
        row = connection.execute(
            "SELECT id, status, entries, indexes_written, entries_deleted"
            " FROM runs ORDER BY id DESC LIMIT 1"
        ).fetchone()
    return EndedRun(*row)


def count(database: Path, view: str) -> int:
    """Return how many rows a view has."""
    with closing(sqlite3.connect(database)) as connection:
        (found,) = connection.execute(f"SELECT count(*) FROM {view}").fetchone()
    return int(found)


def size(folder: Path) -> int:
    """Return the bytes of the files of the database."""
    return sum(file.stat().st_size for file in folder.glob(f"{_NAME}*"))
