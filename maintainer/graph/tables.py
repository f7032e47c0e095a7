"""The columns that reports are read from, as plain tables.

Reading a report needs no ORM, and importing that with all models takes as long as the rest. A test
checks that these tables agree with the models.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    DateTime,
    Dialect,
    Integer,
    TableClause,
    Text,
    TypeDecorator,
    column,
    table,
)
from sqlalchemy.types import TypeEngine


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time, kept as SQLite's text without a zone, so that people can compare it."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Drop the zone, which must be there."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the zone back."""
        del dialect
        return None if value is None else value.replace(tzinfo=UTC)


def _table(name: str, columns: Mapping[str, type[TypeEngine[Any]]]) -> TableClause:
    return table(name, *(column(one, type_) for one, type_ in columns.items()))


TARGET = _table("target", {"id": Integer, "name": Text})
REF = _table("ref", {"id": Integer, "name": Text})
ENTRY = _table(
    "entry",
    {
        "target_id": Integer,
        "ref_id": Integer,
        "key": Text,
        "size": Integer,
        "first_seen_at": UtcDateTime,
        "missing_since": UtcDateTime,
        "state": Text,
    },
)
RUN = _table(
    "run",
    {
        "id": Integer,
        "target_id": Integer,
        "started_at": UtcDateTime,
        "finished_at": UtcDateTime,
        "process": Text,
        "dry_run": Boolean,
        "status": Text,
        "indexes_written": Integer,
        "entries_deleted": Integer,
        "bytes_deleted": Integer,
        "requests": Integer,
        "results_usable": Integer,
        "report": Text,
    },
)
RUN_STATE = _table(
    "run_state", {"run_id": Integer, "state": Text, "entries": Integer, "size": Integer}
)
ACTION = _table("action", {"run_id": Integer, "kind": Text, "subject": Text})
READ = (TARGET, REF, ENTRY, RUN, RUN_STATE, ACTION)
