"""What the graph forgets, so that its file does not grow for ever."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, or_, select

from maintainer.graph.models import EntryRow, ManifestRow

_ENTRIES_FOR = timedelta(days=90)
"""For how long entries are remembered that are gone."""
_GENERATIONS_FOR = timedelta(days=30)
_GENERATIONS = 50
"""Of each index, so many generations that are gone and were superseded are remembered, and for so
long. They bring lost results back if the blobs of these come back, and fill most of the file.
"""


def forget(connection: Connection, target_id: int, now: datetime, grace: timedelta) -> None:
    """Drop what is neither stored nor of use, once a run has superseded what it has merged.

    What a generation held stays until it has been gone for the grace period.
    """
    index = (ManifestRow.scope_id, ManifestRow.ref_id, ManifestRow.signed)
    rank = func.row_number().over(partition_by=index, order_by=ManifestRow.id.desc())
    gone = (
        select(ManifestRow.id, rank.label("rank"))
        .where(ManifestRow.target_id == target_id, ManifestRow.missing_since.is_not(None))
        .subquery()
    )
    beyond = select(gone.c.id).where(gone.c.rank > _GENERATIONS)
    connection.execute(
        delete(ManifestRow).where(
            ManifestRow.target_id == target_id,
            ManifestRow.superseded_at.is_not(None),
            ManifestRow.missing_since < now - grace,
            or_(ManifestRow.missing_since < now - _GENERATIONS_FOR, ManifestRow.id.in_(beyond)),
        )
    )
    connection.execute(
        delete(EntryRow).where(
            EntryRow.target_id == target_id, EntryRow.missing_since < now - _ENTRIES_FOR
        )
    )
