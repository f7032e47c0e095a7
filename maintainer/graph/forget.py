"""What the graph forgets, so that its file does not grow without limit."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, exists, func, or_, select, update

from maintainer.graph.memory import GONE_FOR, is_remembered
from maintainer.graph.models import (
    BlobRow,
    EntryRow,
    GenerationBlobRow,
    GenerationRow,
    IndexRow,
    MemoryRow,
)

_ENTRIES_FOR = timedelta(days=90)
"""How long gone entries are remembered."""
_GENERATIONS_FOR = timedelta(days=30)
_GENERATIONS = 50
"""How many gone generations of each index are remembered, and for how long: they show the history.
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
    _drop_contents(connection, target_id)
    _forget_what_nothing_names(connection, target_id, now)
    connection.execute(
        delete(EntryRow).where(
            EntryRow.target_id == target_id, EntryRow.missing_since < now - _ENTRIES_FOR
        )
    )


def _drop_contents(connection: Connection, target_id: int) -> None:
    """Drop the contents of generations that are gone, once the clocks of their blobs are recorded.

    What can be used of them again is remembered in the merge of their index.
    """
    connection.execute(
        update(GenerationRow)
        .where(
            GenerationRow.target_id == target_id,
            GenerationRow.content.is_not(None),
            GenerationRow.missing_since.is_not(None),
            exists().where(
                IndexRow.ref_id == GenerationRow.ref_id,
                IndexRow.scope_id == GenerationRow.scope_id,
                IndexRow.signed == GenerationRow.signed,
                IndexRow.marked_at >= GenerationRow.missing_since,
            ),
        )
        .values(content=None)
    )


def _forget_what_nothing_names(connection: Connection, target_id: int, now: datetime) -> None:
    """Drop blobs that are forgotten too and that no generation references, and empty indexes."""
    last_known_at = func.coalesce(BlobRow.last_seen_at, BlobRow.first_seen_at)
    connection.execute(
        delete(BlobRow).where(
            BlobRow.target_id == target_id,
            or_(BlobRow.missing_since.is_not(None), BlobRow.is_found.is_(False)),
            func.coalesce(BlobRow.missing_since, last_known_at) < now - GONE_FOR,
            ~exists().where(GenerationBlobRow.blob_id == BlobRow.id),
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
