"""Values of statements, whatever their number: lists in one parameter, and many rows at once."""

from collections.abc import Collection, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, Delete, Insert, Select, Update, bindparam, func, select


def to_json(values: Collection[int] | Collection[str]) -> str:
    """Return some values as the parameter of `each`."""
    return msgspec.json.encode(sorted(values)).decode()


def each(name: str) -> Select[int]:
    """Select the values of a parameter, which holds them as JSON."""
    return select(func.json_each(bindparam(name)).table_valued("value").c.value)


def execute_each(
    connection: Connection,
    statement: Insert | Update | Delete,
    rows: Sequence[Mapping[str, object]],
) -> None:
    """Execute a statement for each of some rows, if there are any."""
    if rows:
        connection.execute(statement, rows)
