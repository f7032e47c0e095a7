"""Copy a history from one database to another, of whatever kinds they are."""

import hashlib
from collections.abc import Iterator, Sequence

import msgspec
from sqlalchemy import Boolean, Connection, Table, exists, select

from maintainer.errors import DatabaseError
from maintainer.graph.database import Database
from maintainer.graph.rows import advance_ids, insert_rows
from maintainer.graph.tables import ALLOWANCE, LEASE, METADATA

_BATCH = 500
"""Rows, some of which hold a whole index."""

TABLES = [table for table in METADATA.sorted_tables if table not in (ALLOWANCE, LEASE)]
"""A lease is of one database, as a rate limit: nobody who had one there has it here."""

Row = list[object]


class CopiedTable(msgspec.Struct, frozen=True):
    """A table that was copied."""

    table: str
    rows: int
    sha256: str
    """Of all rows, as both databases return them."""


def copy_history(source: Database, target: Database) -> tuple[CopiedTable, ...]:
    """Copy all rows to a database without any, and compare what both return; all or nothing.

    Both are at the newest revision. Raises DatabaseError, also if a run works on one of them.
    """
    if source.name == target.name:
        raise DatabaseError(f"the database {source.name} cannot be copied to itself")
    with (
        source.lock(),
        target.lock(),
        source.reading() as known,
        target.begin() as new,
    ):
        for table in TABLES:
            if new.scalar(select(exists().select_from(table))):
                raise DatabaseError(
                    f"the database {target.name} is not empty: copy to one that no run has used"
                )
        copied = [_copy(known, new, table) for table in TABLES]
        for table, one in zip(TABLES, copied, strict=True):
            if _Digest().of(_read(new, table)) != (one.rows, one.sha256):
                raise DatabaseError(
                    f"the database {target.name} does not return what was copied to its table "
                    f"{table.name}: nothing was copied"
                )
        return tuple(copied)


def _copy(known: Connection, new: Connection, table: Table) -> CopiedTable:
    digest = _Digest()
    for rows in _read(known, table):
        digest.add(rows)
        insert_rows(new, table, rows)
    advance_ids(new, table)
    return CopiedTable(str(table.name), digest.rows, digest.sha256)


class _Digest:
    """Rows, counted and hashed."""

    def __init__(self) -> None:
        self.rows = 0
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Return the digest of the rows so far."""
        return self._hash.hexdigest()

    def add(self, rows: Sequence[Row]) -> None:
        """Add some rows."""
        self.rows += len(rows)
        for row in rows:
            self._hash.update(msgspec.msgpack.encode(row))

    def of(self, batches: Iterator[Sequence[Row]]) -> tuple[int, str]:
        """Add all rows; return how many they are, and their digest."""
        for rows in batches:
            self.add(rows)
        return self.rows, self.sha256


def _read(connection: Connection, table: Table) -> Iterator[Sequence[Row]]:
    """Read all rows as the database holds them, in an order that is the same in all of them."""
    names = ", ".join(one.name for one in table.columns)
    order = ", ".join(one.name for one in table.primary_key)
    truths = [place for place, one in enumerate(table.columns) if isinstance(one.type, Boolean)]
    found = connection.exec_driver_sql(
        f"SELECT {names} FROM {table.name} ORDER BY {order}",  # noqa: S608 - our own names
        execution_options={"yield_per": _BATCH},
    )
    for part in found.partitions():
        rows = [list(row) for row in part]
        for row in rows:
            for place in truths:
                row[place] = bool(row[place])
        yield rows
