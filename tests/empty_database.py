"""A database that knows nothing yet, by copying one: migrations take a good part of a run."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from maintainer.graph.database import Database


def make_empty(path: Path) -> None:
    """Make it."""
    path.write_bytes(_content())


@cache
def _content() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "maintainer.db")
        database = Database(f"sqlite:///{path}")
        database.upgrade()
        database.close()
        return path.read_bytes()
