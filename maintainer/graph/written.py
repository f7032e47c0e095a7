"""Which entries runs have written: others have added the rest."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    delete,
    except_,
    insert,
    select,
)

from maintainer.graph.rows import execute_each
from maintainer.graph.tables import ENTRY, WRITTEN


def note_written(
    connection: Connection, target_id: int, keys: Iterable[str], now: datetime
) -> None:
    """Record that a run has written these entries of a cache."""
    rows = [{"target": target_id, "new_key": key, "now": now} for key in sorted(keys)]
    execute_each(connection, _FORGET, rows)
    execute_each(connection, _ADD, rows)


def forget_written(connection: Connection, target_id: int, before: datetime) -> None:
    """Drop those that were written before a time, and that no run has seen or remembers."""
    connection.execute(_FORGET_UNKNOWN, {"target": target_id, "before": before})


def written_by_runs(target_id: ColumnElement[int]) -> Select[str]:
    """Return the keys that runs have written to a cache, not only planned to write."""
    return select(WRITTEN.c.key).where(WRITTEN.c.target_id == target_id)


_target: BindParameter[int] = bindparam("target")
_FORGET = delete(WRITTEN).where(
    WRITTEN.c.target_id == _target, WRITTEN.c.key == bindparam("new_key")
)
_ADD = insert(WRITTEN).values(
    target_id=_target, key=bindparam("new_key"), written_at=bindparam("now")
)
_FORGET_UNKNOWN = delete(WRITTEN).where(
    WRITTEN.c.target_id == _target,
    # All keys that are known may be more than PostgreSQL lets a query hold, which `NOT IN` would.
    WRITTEN.c.key.in_(
        except_(
            select(WRITTEN.c.key).where(
                WRITTEN.c.target_id == _target, WRITTEN.c.written_at < bindparam("before")
            ),
            select(ENTRY.c.key).where(ENTRY.c.target_id == _target),
        )
    ),
)
