"""Statements compiled once for each process, whatever number of databases a test opens.

A run sends about fifty different statements. To compile them takes as long as all else that a run
in a small world does, and an engine of SQLAlchemy keeps what it compiled for itself.
"""

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Engine
from sqlalchemy.sql.compiler import Compiled
from sqlalchemy.util import LRUCache

_COMPILED: LRUCache[object, Compiled] = LRUCache(2_000)


class Postgresql(PGDialect_psycopg):
    """The same for the one server that the tests of this process have."""

    supports_statement_cache = True

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Have all engines keep in one place what they compile."""
        engine.update_execution_options(compiled_cache=_COMPILED)

    def __eq__(self, other: object) -> bool:
        """Whether both are of this class."""
        return type(other) is type(self)

    def __hash__(self) -> int:
        """Follow from the class alone."""
        return hash(type(self))


class Sqlite(SQLiteDialect_pysqlite):
    """SQLAlchemy's own dialect, but all instances are equal: they use what any of them compiled."""

    supports_statement_cache = True

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Have all engines keep in one place what they compile."""
        engine.update_execution_options(compiled_cache=_COMPILED)

    def __eq__(self, other: object) -> bool:
        """Whether both are of this class: Python and SQLite are the same for all of them."""
        return type(other) is type(self)

    def __hash__(self) -> int:
        """Follow from the class alone."""
        return hash(type(self))


def compile_once() -> None:
    """Have every engine that is made from now on be of one of these dialects."""
    registry.register("sqlite", __name__, Sqlite.__name__)
    registry.register("postgresql.psycopg", __name__, Postgresql.__name__)
