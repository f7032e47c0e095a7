"""Open the database, for the commands that need one."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection

from maintainer.cli.options import find_database
from maintainer.errors import UsageError
from maintainer.graph.database import Database


@contextmanager
def changing(url: str) -> Iterator[Connection]:
    """Open an existing database to change it, while no run does."""
    with open_existing(url, "gc") as opened, opened.lock(), opened.begin() as connection:
        yield connection


@contextmanager
def reading(
    config: Path | None, database: str | None, *, made_by: str = "gc"
) -> Iterator[Connection]:
    """Open an existing database to read it: a wrong path is an error, not a new file."""
    url = find_database(config, database)
    with open_existing(url, made_by) as opened, opened.reading() as connection:
        yield connection


def find_cache(connection: Connection, name: str | None) -> str | None:
    """Return the name of a cache that `--target` names, or its target; None if it names none."""
    from maintainer.graph import caches

    return None if name is None else caches.find_cache(connection, name)


@contextmanager
def open_existing(url: str, made_by: str) -> Iterator[Database]:
    """Open a database that exists, at this version's revision. Raises UsageError if it does not."""
    with closing(Database(url)) as database:
        if not database.exists():
            what = f"there is no database {database.name}"
            raise UsageError(f"{what}: run `maintainer {made_by}` first")
        database.upgrade()
        yield database
