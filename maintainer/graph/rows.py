"""Many rows at once, and the ids of new ones: each database has a way that is fast."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Delete,
    Insert,
    Integer,
    Table,
    Text,
    Update,
    bindparam,
    delete,
    exists,
    func,
    literal,
    select,
)
from sqlalchemy.exc import DatabaseError as SqlError

from maintainer.graph.dialect import is_shared
from maintainer.model.entry import in_batches

_IDS_AT_ONCE = 100
ROWS_AT_ONCE = 5_000
"""Rows: all of them may not fit into memory."""


class Ids:
    """The ids of new rows, which are known before the rows are written."""

    def __init__(self, connection: Connection, table: Table) -> None:
        self._connection = connection
        self._table = table
        self._next: Iterator[int] = iter(())

    def take(self) -> int:
        """Return an id that no other row has, higher than those of all rows before."""
        found = next(self._next, None)
        if found is None:
            self._next = self._reserve()
            found = next(self._next)
        return found

    def _reserve(self) -> Iterator[int]:
        if is_shared(self._connection):
            asked = {"table": self._table.name, "ids": _IDS_AT_ONCE}
            return iter(self._connection.scalars(_RESERVE, asked).all())
        # The run that holds the file is the only one that writes.
        highest = select(func.coalesce(func.max(self._table.c.id), 0))
        return _count_from(self._connection.execute(highest).scalar_one() + 1)


def _count_from(number: int) -> Iterator[int]:
    while True:
        yield number
        number += 1


_RESERVE = select(
    func.nextval(func.pg_get_serial_sequence(bindparam("table", type_=Text()), "id"))
).select_from(func.generate_series(1, bindparam("ids", type_=Integer())))


def insert_rows(
    connection: Connection,
    table: Table,
    rows: Iterable[Sequence[object]],
    columns: Sequence[str] = (),
) -> None:
    """Insert many rows, each with a value for each of these columns, as the database holds it.

    Without `columns`, they are those of the table.
    """
    columns = columns or table.columns.keys()
    names = ", ".join(columns)
    if is_shared(connection):
        _copy(connection, f"COPY {table.name} ({names}) FROM STDIN", rows)
    else:
        places = ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table.name} ({names}) VALUES ({places})"  # noqa: S608 - our names
        for some in in_batches(map(tuple, rows), ROWS_AT_ONCE):
            connection.exec_driver_sql(sql, some)


def _copy(connection: Connection, sql: str, rows: Iterable[Sequence[object]]) -> None:
    """Write many rows by COPY: there is no faster way."""
    driver: Any = connection.connection.cursor()
    try:
        with driver as cursor, cursor.copy(sql) as copy:
            for row in rows:
                copy.write_row(row)
    except connection.dialect.loaded_dbapi.Error as error:
        raise SqlError(sql, None, error) from None


def execute_each(
    connection: Connection,
    statement: Insert | Update | Delete,
    rows: Iterable[Mapping[str, object]],
) -> None:
    """Execute a statement for each of some rows, if there are any."""
    for some in in_batches(rows, ROWS_AT_ONCE):
        connection.execute(statement, some)


def execute_rows(connection: Connection, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Execute a statement, with `?` for each value, for many rows."""
    sql = sql.replace("?", "%s") if is_shared(connection) else sql
    for some in in_batches(rows, ROWS_AT_ONCE):
        connection.exec_driver_sql(sql, some)


def drop_repeated(connection: Connection, table: Table, key: str, position: str) -> None:
    """Drop rows with the key of an earlier one, where one statement cannot change a row twice."""
    if is_shared(connection):
        rows, earlier = table.alias(), table.alias()
        is_repeated = exists().where(
            earlier.c[key] == rows.c[key], earlier.c[position] < rows.c[position]
        )
        again = select(rows.c[position]).where(is_repeated)
        connection.execute(delete(table).where(table.c[position].in_(again)))


def advance_ids(connection: Connection, table: Table) -> None:
    """Have the ids of new rows follow those of the rows that were inserted with theirs."""
    if is_shared(connection) and "id" in table.c:
        sequence = func.pg_get_serial_sequence(literal(table.name, Text()), "id")
        highest = func.max(table.c.id)
        connection.execute(select(func.setval(sequence, highest)).having(highest.is_not(None)))
