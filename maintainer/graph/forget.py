"""What the graph forgets, so that its file does not grow without limit."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, exists, func, or_, select

from maintainer.graph.memory import GONE_FOR, is_remembered
from maintainer.graph.models import (
    BlobRow,
    EntryRow,
    GenerationLayerRow,
    GenerationRow,
    IndexRow,
    LayerRow,
    MemoryRow,
)

_ENTRIES_FOR = timedelta(days=90)
"""How long gone entries are remembered."""
_GENERATIONS_FOR = timedelta(days=30)
_GENERATIONS = 50
"""How many gone generations of each index are remembered, and for how long: they show the history,
and fill most of the file. Their content is remembered elsewhere.
"""


def forget(connection: Connection, target_id: int, now: datetime, grace: timedelta) -> None:
    """Drop what is neither stored nor useful.

    A generation stays until it has been gone for the grace period, and the last one while anything
    is remembered of its index.
    """
    index = (GenerationRow.scope_id, GenerationRow.ref_id, GenerationRow.signed)
    rank = func.row_number().over(partition_by=index, order_by=GenerationRow.id.desc())
    gone = (
        select(GenerationRow.id, rank.label("rank"))
        .where(GenerationRow.target_id == target_id, GenerationRow.missing_since.is_not(None))
        .subquery()
    )
    last = (
        select(func.max(GenerationRow.id))
        .where(GenerationRow.target_id == target_id)
        .group_by(*index)
    )
    beyond = select(gone.c.id).where(gone.c.rank > _GENERATIONS)
    connection.execute(
        delete(GenerationRow).where(
            GenerationRow.target_id == target_id,
            GenerationRow.missing_since < now - grace,
            or_(GenerationRow.missing_since < now - _GENERATIONS_FOR, GenerationRow.id.in_(beyond)),
            or_(GenerationRow.id.not_in(last), ~is_remembered()),
        )
    )
    _forget_what_nothing_names(connection, target_id, now)
    connection.execute(
        delete(EntryRow).where(
            EntryRow.target_id == target_id, EntryRow.missing_since < now - _ENTRIES_FOR
        )
    )


def _forget_what_nothing_names(connection: Connection, target_id: int, now: datetime) -> None:
    """Drop layers that no generation holds, blobs that are forgotten too, and empty indexes.

    Layers below one that is held are held as well.
    """
    here = select(BlobRow.id).where(BlobRow.target_id == target_id)
    held = exists().where(GenerationLayerRow.layer_id == LayerRow.id)
    connection.execute(delete(LayerRow).where(LayerRow.blob_id.in_(here), ~held))
    last_known_at = func.coalesce(BlobRow.last_seen_at, BlobRow.first_seen_at)
    connection.execute(
        delete(BlobRow).where(
            BlobRow.target_id == target_id,
            func.coalesce(BlobRow.missing_since, last_known_at) < now - GONE_FOR,
            ~exists().where(LayerRow.blob_id == BlobRow.id),
        )
    )
    connection.execute(
        delete(IndexRow).where(
            IndexRow.target_id == target_id,
            ~exists().where(MemoryRow.index_id == IndexRow.id),
            ~exists().where(
                GenerationRow.ref_id == IndexRow.ref_id,
                GenerationRow.scope_id == IndexRow.scope_id,
                GenerationRow.signed == IndexRow.signed,
            ),
        )
    )
