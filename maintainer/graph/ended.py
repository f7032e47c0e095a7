"""How many attempts have ended: runs are forgotten some day, and a counter must not fall."""

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, delete, select

from maintainer.graph.dialect import insert_or_add
from maintainer.graph.rows import execute_each
from maintainer.graph.tables import ENDED

_OTHERS = ""
"""The name of all targets together that are not there any more."""


def count_ended(connection: Connection, names: Iterable[str], status: str) -> None:
    """Count an attempt of each target, in the transaction that records its end."""
    rows = ({"name": name, "status": status, "number": 1} for name in names)
    execute_each(connection, _ADD, rows)


def move_ended(connection: Connection, names: Iterable[str]) -> None:
    """Keep what targets add to the sum of all when they are forgotten."""
    for name in names:
        for row in connection.execute(_OF_ONE, {"gone": name}).all():
            added = {"name": _OTHERS, "status": row.status, "number": row.number}
            connection.execute(_ADD, added)
        connection.execute(_FORGET, {"gone": name})


def load_ended(connection: Connection) -> dict[tuple[str, str], int]:
    """Return how many attempts have ended, by target and status.

    Those of targets that are not there any more have an empty name.
    """
    return {(row.name, row.status): row.number for row in connection.execute(select(ENDED))}


_ADD = insert_or_add(ENDED, ("name", "status"), "number")
_OF_ONE = select(ENDED).where(ENDED.c.name == bindparam("gone"))
_FORGET = delete(ENDED).where(ENDED.c.name == bindparam("gone"))
