"""Contents: which blobs could be downloaded, into the graph."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import BindParameter, Connection, bindparam, select, update

from maintainer.cacheconfig import Digest
from maintainer.graph.record import mark_missing, note_contents
from maintainer.graph.rows import execute_each
from maintainer.graph.tables import BLOB, ENTRY
from maintainer.model.checks import CheckedContents


def save_contents(
    connection: Connection, target_id: int, checked: CheckedContents, now: datetime
) -> None:
    """Record what a round of checks has shown, in the caller's transaction."""
    looked_up = [
        {"target": target_id, "at": at, "when": when}
        for at, when in sorted(checked.looked_up.items())
    ]
    execute_each(connection, _LOOK_UP, looked_up)
    here = {"target": target_id, "now": now}
    for ids, blobs, since in (
        (checked.readable_entries, checked.readable_blobs, None),
        (checked.broken_entries, checked.broken_blobs, now),
    ):
        found = here | {"since": since}
        execute_each(connection, _CHECK_ENTRY, [found | {"at": one} for one in sorted(ids)])
        note_contents(connection, target_id, blobs, now, since=since)
    hidden, unseen = sorted(checked.hidden_entries), sorted(checked.hidden_blobs)
    execute_each(connection, _ASK_FOR_ENTRY, [here | {"at": one} for one in hidden])
    execute_each(connection, _ASK_FOR_BLOB, [here | {"blob": one} for one in unseen])
    _bring_back(connection, target_id, checked.readable_blobs)
    mark_missing(connection, target_id, checked.broken_blobs, now)


def _bring_back(connection: Connection, target_id: int, blobs: Iterable[Digest]) -> None:
    """Mark blobs as existing again that had no content, and have some now."""
    wanted = frozenset(blobs)
    rows = connection.execute(_MISSING, {"target": target_id}) if wanted else ()
    execute_each(connection, _BRING_BACK, [{"row": row.id} for row in rows if row.digest in wanted])


_target: BindParameter[int] = bindparam("target")
_entry = update(ENTRY).where(ENTRY.c.target_id == _target, ENTRY.c.store_id == bindparam("at"))
_LOOK_UP = _entry.values(looked_up_at=bindparam("when"))
_ASK_FOR_ENTRY = _entry.values(checked_at=bindparam("now"))
_CHECK_ENTRY = _ASK_FOR_ENTRY.values(content_missing_since=bindparam("since"))
_ASK_FOR_BLOB = (
    update(BLOB)
    .where(BLOB.c.target_id == _target, BLOB.c.digest == bindparam("blob"))
    .values(checked_at=bindparam("now"))
)
_MISSING = select(BLOB.c.id, BLOB.c.digest).where(
    BLOB.c.target_id == _target, BLOB.c.missing_since.is_not(None)
)
_BRING_BACK = update(BLOB).where(BLOB.c.id == bindparam("row")).values(missing_since=None)
