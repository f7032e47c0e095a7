"""What SQLite and PostgreSQL spell differently: types and statements; `rows.py` writes in bulk.

Everything else that the graph says is understood by both. How a database is opened and locked, and
what its errors mean, is in `sqlite.py` and `postgresql.py`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ClauseElement,
    ColumnElement,
    Connection,
    Insert,
    Integer,
    Select,
    Table,
    Text,
    bindparam,
    column,
    insert,
    select,
    type_coerce,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import SyntaxExtension
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeEngine

WHOLE = BigInteger().with_variant(Integer(), "sqlite")
"""A number of up to 64 bits, such as a size or a time; SQLite's integers are never smaller."""
TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Text, compared by its characters' numbers, whatever the language of the database is."""


def is_shared(connection: Connection) -> bool:
    """Whether several runs may write at once, each of which holds its own target only."""
    return connection.dialect.name == "postgresql"


def lock_table(connection: Connection, table: Table) -> None:
    """Keep others from changing a table until this transaction ends: a file has one writer."""
    if is_shared(connection):
        connection.exec_driver_sql(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE")


# Statements.


class _OnConflict(SyntaxExtension, ClauseElement):
    """The end of an INSERT, which both dialects spell alike."""

    inherit_cache = True
    _traverse_internals = [("clause", InternalTraversal.dp_string)]  # noqa: RUF012 - as its base

    def __init__(self, clause: str) -> None:
        self.clause = clause

    def apply_to_insert(self, insert_stmt: Insert) -> None:
        """Append it."""
        insert_stmt.apply_syntax_extension_point(lambda _: [self], "post_values")


@compiles(_OnConflict)
def _spell_on_conflict(element: _OnConflict, compiler: SQLCompiler, **_more: object) -> str:
    del compiler
    return element.clause


def insert_new(table: Table) -> Insert:
    """Insert rows, except those that are there already."""
    return insert(table).ext(_OnConflict("ON CONFLICT DO NOTHING"))


def insert_or_update(
    table: Table, key: Sequence[str], columns: Iterable[str], *, grows: str | None = None
) -> Insert:
    """Insert rows; of those that are there already, by their key, update some columns.

    With `grows`, only if this column becomes larger.
    """
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns)
    condition = f" WHERE excluded.{grows} > {table.name}.{grows}" if grows else ""
    clause = f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}{condition}"
    return insert(table).ext(_OnConflict(clause))


def insert_or_add(table: Table, key: Sequence[str], column: str) -> Insert:
    """Insert rows; to those that are there already, by their key, add the number in a column."""
    added = f"{column} = {table.name}.{column} + excluded.{column}"
    clause = f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {added}"
    return insert(table).ext(_OnConflict(clause))


class _Elements(FunctionElement[Any]):
    """The elements of a JSON array, as rows of one column, `value`."""

    inherit_cache = True
    name = "json_each"


@compiles(_Elements, "sqlite")
def _spell_elements(element: _Elements, compiler: SQLCompiler, **more: Any) -> str:  # noqa: ANN401
    return f"json_each({compiler.process(element.clauses, **more)})"


@compiles(_Elements, "postgresql")
def _spell_text_elements(
    element: _Elements,
    compiler: SQLCompiler,
    **more: Any,  # noqa: ANN401
) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **more)} AS JSON))"


class _Element(ColumnElement[Any]):
    """An element of a JSON array as a value of the column that it is compared with."""

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012 - as its base
        ("element", InternalTraversal.dp_clauseelement),
        ("type", InternalTraversal.dp_type),
    ]

    def __init__(self, element: ColumnElement[Any], of: TypeEngine[Any]) -> None:
        self.element = element
        self.type = of


@compiles(_Element, "sqlite")
def _spell_element(element: _Element, compiler: SQLCompiler, **more: Any) -> str:  # noqa: ANN401
    return compiler.process(element.element, **more)


@compiles(_Element, "postgresql")
def _spell_typed_element(
    element: _Element,
    compiler: SQLCompiler,
    **more: Any,  # noqa: ANN401
) -> str:
    value = compiler.process(element.element, **more)
    return value if isinstance(element.type, Text) else f"CAST({value} AS BIGINT)"


def each_text(name: str) -> Select[str]:
    """Select the texts in a parameter, which holds them as a JSON array."""
    return _each(name, Text())


def each_number(name: str) -> Select[int]:
    """Select the numbers in a parameter, which holds them as a JSON array."""
    return _each(name, BigInteger())


def _each(name: str, of: TypeEngine[Any]) -> Select[Any]:
    rows = _Elements(bindparam(name, type_=Text())).table_valued(column("value", Text()))
    return select(_Element(rows.c.value, of)).select_from(rows)


class day_of(FunctionElement[str]):  # noqa: N801 - used like a function
    """The day of a time, in UTC, as text such as 2026-08-01."""

    inherit_cache = True
    type = Text()

    def __init__(self, time: ColumnElement[Any]) -> None:
        super().__init__(type_coerce(time, WHOLE))


@compiles(day_of, "sqlite")
def _spell_day(element: day_of, compiler: SQLCompiler, **more: Any) -> str:  # noqa: ANN401
    time = compiler.process(element.clauses, **more)
    return f"date({time} / 1000000, 'unixepoch')"


@compiles(day_of, "postgresql")
def _spell_day_of_timestamp(
    element: day_of,
    compiler: SQLCompiler,
    **more: Any,  # noqa: ANN401
) -> str:
    time = compiler.process(element.clauses, **more)
    since_1970 = f"{time} * interval '1 microsecond'"
    return f"to_char(timestamp 'epoch' + {since_1970}, 'YYYY-MM-DD')"


class database_now(FunctionElement[int]):  # noqa: N801 - used like a function
    """The time by the clock of the database, in microseconds since 1970."""

    inherit_cache = True
    type = BigInteger()


@compiles(database_now, "sqlite")
def _spell_now(element: database_now, compiler: SQLCompiler, **_more: object) -> str:
    del element, compiler
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


@compiles(database_now, "postgresql")
def _spell_clock(element: database_now, compiler: SQLCompiler, **_more: object) -> str:
    del element, compiler
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
