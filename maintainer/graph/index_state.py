"""What the database knows of one index: whether it is stored, and what of it is usable."""

from collections.abc import Set as AbstractSet
from datetime import datetime

import msgspec
from sqlalchemy import Connection, and_, select

from maintainer.cacheconfig import Digest, decode, prune
from maintainer.graph.tables import BLOB, ENTRY, GENERATION, REF


class IndexState(msgspec.Struct, frozen=True):
    """A generation of an index, or what a name leads to."""

    ref: str
    size: int | None
    """Bytes; none if it is not valid."""
    violation: str | None
    """The rule that makes it invalid."""
    is_by_run: bool
    """Whether a run has written it."""
    written_at: datetime | None
    """If the store shows that."""
    first_seen_at: datetime
    """When a run wrote it, or first read it."""
    missing_since: datetime | None
    """Since when it is known not to be stored, if so."""
    results: int
    usable: int
    """The results whose blobs all exist."""


def load_index_state(connection: Connection, target_id: int, key: str) -> IndexState | None:
    """Return the newest that is known of an index, a stored one first; None if there is none."""
    row = connection.execute(
        select(GENERATION, REF.c.name.label("ref"), ENTRY.c.created_at.label("written_at"))
        .join(REF, REF.c.id == GENERATION.c.ref_id)
        .outerjoin(
            ENTRY,
            and_(
                ENTRY.c.target_id == GENERATION.c.target_id,
                ENTRY.c.kind == "blob",
                ENTRY.c.digest == GENERATION.c.location,
                ENTRY.c.missing_since.is_(None),
            ),
        )
        .where(GENERATION.c.target_id == target_id, GENERATION.c.key == key)
        .order_by(
            GENERATION.c.missing_since.is_not(None),
            GENERATION.c.first_seen_at.desc(),
            GENERATION.c.id.desc(),
        )
    ).first()
    if row is None:
        return None
    usable = 0
    if row.content is not None:
        config = decode(row.content)
        left = prune(config, config.blobs - load_missing(connection, target_id))
        usable = sum(len(record.results) for record in left.records)
    return IndexState(
        ref=row.ref,
        size=row.size,
        violation=row.violation,
        is_by_run=row.sink is not None,
        written_at=row.written_at,
        first_seen_at=row.first_seen_at,
        missing_since=row.missing_since,
        results=row.results,
        usable=usable,
    )


def load_missing(connection: Connection, target_id: int) -> AbstractSet[Digest]:
    """Return the blobs that do not exist, or have left to make room."""
    return frozenset(
        connection.scalars(
            select(BLOB.c.digest).where(
                BLOB.c.target_id == target_id,
                BLOB.c.missing_since.is_not(None) | BLOB.c.departure.is_not(None),
            )
        )
    )


def find_name_of_manifest(connection: Connection, target_id: int, digest: str) -> str | None:
    """Return the name that leads to a manifest, or last led there; None if none is known."""
    return connection.scalar(
        select(GENERATION.c.key)
        .where(GENERATION.c.target_id == target_id, GENERATION.c.location == digest)
        .order_by(GENERATION.c.missing_since.is_not(None), GENERATION.c.id.desc())
    )
