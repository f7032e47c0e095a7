"""What the graph forgets, so that its file does not grow for ever."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select

from maintainer.graph.models import EntryRow, ManifestRow

_ENTRIES_FOR = timedelta(days=90)
"""For how long entries are remembered that are gone."""
_GENERATIONS_FOR = timedelta(days=30)
_GENERATIONS = 100
"""Of each index, so many generations that are gone and were superseded are remembered, and for so
long. They bring lost results back if the blobs of these come back, and fill most of the file.
"""


def forget(connection: Connection, target_id: int, now: datetime, grace: timedelta) -> None:
    """Drop what is neither stored nor of use.

    What a generation held is of use until builders have read another one for the grace period.
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
            _before(now - grace),
            or_(_before(now - _GENERATIONS_FOR), ManifestRow.id.in_(beyond)),
        )
    )
    connection.execute(
        delete(EntryRow).where(
            EntryRow.target_id == target_id, EntryRow.missing_since < now - _ENTRIES_FOR
        )
    )


def _before(moment: datetime) -> ColumnElement[bool]:
    """Hold for generations that were gone and superseded by then."""
    return and_(ManifestRow.missing_since < moment, ManifestRow.superseded_at < moment)
