"""Contents: which blobs could be downloaded, into the graph."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import Connection, bindparam, select, update

from maintainer.cacheconfig import Digest
from maintainer.graph.models import BlobRow, EntryRow
from maintainer.graph.record import mark_missing
from maintainer.model.checks import CheckedContents


def save_contents(
    connection: Connection, target_id: int, checked: CheckedContents, now: datetime
) -> None:
    """Record what a round of checks has shown, in the caller's transaction."""
    entry = EntryRow.__table__
    _update_entries(connection, target_id, checked.looked_up.items())
    for ids, blobs, values in (
        (checked.readable_entries, checked.readable_blobs, {"content_missing_since": None}),
        (checked.broken_entries, checked.broken_blobs, {"content_missing_since": now}),
        (checked.hidden_entries, checked.hidden_blobs, {}),
    ):
        if ids:
            connection.execute(
                update(entry)  # type: ignore[arg-type]
                .where(entry.c.target_id == target_id, entry.c.store_id == bindparam("at"))
                .values(checked_at=now, **values),
                [{"at": store_id} for store_id in sorted(ids)],
            )
        _update_blobs(connection, target_id, blobs, {"checked_at": now, **values})
    _bring_back(connection, target_id, checked.readable_blobs)
    mark_missing(connection, target_id, checked.broken_blobs, now)


def _update_entries(
    connection: Connection, target_id: int, looked_up: Iterable[tuple[int, datetime]]
) -> None:
    entry = EntryRow.__table__
    rows = [{"at": store_id, "when": when} for store_id, when in sorted(looked_up)]
    if rows:
        connection.execute(
            update(entry)  # type: ignore[arg-type]
            .where(entry.c.target_id == target_id, entry.c.store_id == bindparam("at"))
            .values(looked_up_at=bindparam("when")),
            rows,
        )


def _update_blobs(
    connection: Connection,
    target_id: int,
    blobs: Iterable[Digest],
    values: Mapping[str, datetime | None],
) -> None:
    blob = BlobRow.__table__
    rows = [{"blob": digest} for digest in sorted(blobs)]
    if rows:
        connection.execute(
            update(blob)  # type: ignore[arg-type]
            .where(blob.c.target_id == target_id, blob.c.digest == bindparam("blob"))
            .values(values),
            rows,
        )


def _bring_back(connection: Connection, target_id: int, blobs: Iterable[Digest]) -> None:
    """Mark blobs as existing again that had no content, and have some now."""
    wanted = frozenset(blobs)
    rows = connection.execute(
        select(BlobRow.id, BlobRow.digest).where(
            BlobRow.target_id == target_id, BlobRow.missing_since.is_not(None)
        )
    )
    back = [row.id for row in rows if row.digest in wanted]
    for number in back:
        connection.execute(update(BlobRow).where(BlobRow.id == number).values(missing_since=None))
