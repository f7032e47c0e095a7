"""Databases of tests: SQLite files, or databases on a PostgreSQL server in their place.

One that knows nothing yet is a copy: migrations take a good part of a run.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from maintainer.graph.database import Database

_on_postgresql = os.environ.get("TESTS_ON") == "postgresql"


@contextmanager
def on_postgresql() -> Iterator[None]:
    """Let each path stand for a database on the tests' own server: a file that has its URL."""
    from tests.postgresql import require_postgresql

    global _on_postgresql  # noqa: PLW0603 - tests pass paths on, and never a kind of database
    require_postgresql()
    before, _on_postgresql = _on_postgresql, True
    try:
        yield
    finally:
        _on_postgresql = before


def uses_postgresql() -> bool:
    """Whether paths stand for databases on a server now."""
    return _on_postgresql


def make_empty(path: Path) -> None:
    """Make a database that knows nothing, whatever was there."""
    if _on_postgresql:
        from tests.postgresql import create_database, empty_database

        if path.exists():
            empty_database(path.read_text())
        else:
            path.write_text(create_database())
    else:
        for log in ("-wal", "-shm"):
            path.with_name(f"{path.name}{log}").unlink(missing_ok=True)
        path.write_bytes(_content())


def url_of(path: Path) -> str:
    """Return the URL of the database that a path stands for; it may not be made yet."""
    if not _on_postgresql:
        return f"sqlite:///{path}"
    if not path.exists():
        from tests.postgresql import create_database

        path.write_text(create_database(empty=True))
    return path.read_text()


def need_sqlite() -> None:
    """Skip a test of what only SQLite has."""
    if _on_postgresql:
        pytest.skip("it is about SQLite")


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with closing(Database(url_of(path))) as database, database.reading() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(sql)]


def change(path: Path, sql: str) -> None:
    """Change something behind the back of all runs."""
    with closing(Database(url_of(path))) as database, database.begin() as connection:
        connection.exec_driver_sql(sql)


@cache
def _content() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "maintainer.db")
        with closing(Database(f"sqlite:///{path}")) as database:
            database.upgrade()
        return path.read_bytes()
