"""Room: what the graph knows of results that may leave a full cache, and of those that left it."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import BindParameter, Connection, bindparam, func, select, update

from maintainer.cacheconfig import Digest
from maintainer.graph.dialect import each_number
from maintainer.graph.rows import execute_each
from maintainer.graph.tables import BLOB, ENTRY, ENTRY_OF_GENERATION, GENERATION, GENERATION_BLOB
from maintainer.graph.values import to_json
from maintainer.model.reason import LeftForRoom


def load_departed(connection: Connection, target_id: int) -> dict[Digest, LeftForRoom]:
    """Return the blobs whose results have left, and that no build has exported again."""
    rows = connection.execute(_DEPARTED, {"target": target_id})
    return {
        Digest(row.digest): row.departure for row in rows if isinstance(row.departure, LeftForRoom)
    }


def save_departed(
    connection: Connection, target_id: int, left: Mapping[Digest, LeftForRoom]
) -> None:
    """Record that the results which need these blobs leave."""
    rows = [
        {"target": target_id, "blob": digest, "why": reason}
        for digest, reason in sorted(left.items())
    ]
    execute_each(connection, _LEAVE, rows)


def forget_departed(connection: Connection, target_id: int) -> None:
    """Forget that results have left: what of them is still stored is of use again."""
    connection.execute(_COME_BACK, {"target": target_id})


def load_needed_at(connection: Connection, target_id: int) -> dict[Digest, datetime]:
    """Return when a build last exported each blob, as far as known."""
    rows = connection.execute(_NEEDED_AT, {"target": target_id})
    return {Digest(row.digest): row.needed_at for row in rows}


def load_unseen(connection: Connection, target_id: int) -> dict[Digest, datetime]:
    """Return when runs first saw the blobs that no build was seen to export."""
    rows = connection.execute(_UNSEEN, {"target": target_id})
    # They were made before an index that references them was; a run's clock may have been wrong.
    return {
        Digest(row.digest): min(row.first_seen_at, row.referenced_at or row.first_seen_at)
        for row in rows
    }


def load_blobs(
    connection: Connection, generations: Collection[int]
) -> Mapping[int, frozenset[Digest]]:
    """Return the blobs that each of these generations references."""
    blobs = defaultdict[int, set[Digest]](set)
    for number, digest in connection.execute(_BLOBS, {"generations": to_json(generations)}):
        blobs[number].add(Digest(digest))
    return {number: frozenset(some) for number, some in blobs.items()}


_target: BindParameter[int] = bindparam("target")
_DEPARTED = select(BLOB.c.digest, BLOB.c.departure).where(
    BLOB.c.target_id == _target, BLOB.c.departure.is_not(None)
)
_LEAVE = (
    update(BLOB)
    .where(BLOB.c.target_id == _target, BLOB.c.digest == bindparam("blob"))
    .values(departure=bindparam("why"))
)
_COME_BACK = (
    update(BLOB)
    .where(BLOB.c.target_id == _target, BLOB.c.departure.is_not(None))
    .values(departure=None)
)
_NEEDED_AT = select(BLOB.c.digest, BLOB.c.needed_at).where(
    BLOB.c.target_id == _target, BLOB.c.needed_at.is_not(None)
)
_UNSEEN = (
    select(BLOB.c.digest, BLOB.c.first_seen_at, func.min(ENTRY.c.created_at).label("referenced_at"))
    .outerjoin(GENERATION_BLOB, GENERATION_BLOB.c.blob_id == BLOB.c.id)
    .outerjoin(GENERATION, GENERATION.c.id == GENERATION_BLOB.c.generation_id)
    .outerjoin(ENTRY, ENTRY_OF_GENERATION)
    .where(BLOB.c.target_id == _target, BLOB.c.needed_at.is_(None))
    .group_by(BLOB.c.digest, BLOB.c.first_seen_at)
)
_BLOBS = (
    select(GENERATION_BLOB.c.generation_id, BLOB.c.digest)
    .join(BLOB, BLOB.c.id == GENERATION_BLOB.c.blob_id)
    .where(GENERATION_BLOB.c.generation_id.in_(each_number("generations")))
)
