"""Memory: what was ever read of each index, in one merge that every run adds to and forgets from.

Results stay until their blobs have been gone for a month: if these are uploaded again before, the
results are there again. Nobody merges signed indexes, and merges that we wrote hold nothing new.
"""

import zlib
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from maintainer.cacheconfig import (
    NO_REF,
    CacheConfig,
    Digest,
    IndexId,
    Ref,
    Scope,
    Sink,
    decode,
    encode,
)
from maintainer.errors import DatabaseError, InvalidIndexError
from maintainer.graph.models import BlobRow, GenerationRow, IndexRow, MemoryRow, RefRow, ScopeRow
from maintainer.model.entry import Access
from maintainer.model.index import ReadGeneration
from maintainer.model.remembered import Remembered

GONE_FOR = timedelta(days=30)
"""How long results are remembered whose blobs are gone."""
_NEWEST = ""
"""The day of what has not been replaced by another export."""


def load_memory(
    connection: Connection, target_id: int, access: Access | None = None
) -> dict[IndexId, Remembered]:
    """Return what is remembered of each index that the token reads, or of all."""
    missing = _missing_blobs(connection, target_id)
    found = {}
    for row in connection.execute(_indexes(IndexRow.target_id == target_id)).all():
        if access is None or not access.readable or Ref(row.ref) in access.readable:
            found[_index_of(row)] = _load(connection, row, missing)
    return found


def remember(
    connection: Connection, target_id: int, generations: Iterable[ReadGeneration], now: datetime
) -> None:
    """Merge generations that were recorded into what is remembered of their indexes."""
    in_order = sorted(generations, key=lambda one: one.index)
    for index, some in groupby(in_order, key=lambda one: one.index):
        read = list(some)
        row = _find(connection, target_id, index, max(one.number for one in read))
        exports = [
            (one.config, one.sink)
            for one in read
            if one.config and not index.signed and one.sink is not Sink.MERGE
        ]
        if not exports:
            continue
        known = new = _load(connection, row, {})
        if index.is_named:
            for config, sink in exports:
                new = new.with_export(config, sink, now.date())
        else:
            new = known.with_generations(config for config, _ in exports)
        _save(connection, row.id, known, new)


def forget_results(
    connection: Connection,
    target_id: int,
    access: Access,
    now: datetime,
    *,
    unasked: frozenset[Digest],
    remember_exports: timedelta,
) -> None:
    """Forget what has been gone, or replaced in a tag, for too long to matter.

    A blob that no run has looked up in all that time counts as gone, unless this run could not look
    it up.
    """
    before = now - GONE_FOR
    last_known_at = func.coalesce(BlobRow.last_seen_at, BlobRow.first_seen_at)
    rows = connection.scalars(
        select(BlobRow.digest).where(
            BlobRow.target_id == target_id,
            or_(
                BlobRow.missing_since <= before,
                BlobRow.missing_since.is_(None) & (last_known_at <= before),
            ),
        )
    )
    gone = frozenset(map(Digest, rows)) - unasked
    first = (now - remember_exports).date() if remember_exports else date.max
    here = [IndexRow.target_id == target_id, RefRow.name.in_(sorted(access.readable))]
    if not gone:
        here.append(
            exists().where(
                MemoryRow.index_id == IndexRow.id,
                MemoryRow.day != _NEWEST,
                MemoryRow.day < first.isoformat(),
            )
        )
    for row in connection.execute(_indexes(*here)).all():
        known = _load(connection, row, {})
        _save(connection, row.id, known, known.since(first).without(gone))


def forget_tags(connection: Connection, target_id: int, unread: Iterable[IndexId]) -> None:
    """Forget the content of tags that were deleted: whoever deleted one wanted that."""
    stored = exists().where(
        GenerationRow.ref_id == IndexRow.ref_id,
        GenerationRow.scope_id == IndexRow.scope_id,
        GenerationRow.signed == IndexRow.signed,
    )
    kept = {index.scope for index in unread}
    rows = connection.execute(
        _indexes(IndexRow.target_id == target_id, RefRow.name == NO_REF, ~stored)
    ).all()
    for row in rows:
        if row.scope not in kept:
            connection.execute(delete(IndexRow).where(IndexRow.id == row.id))


def note_up_to_date(connection: Connection, generation: int, now: datetime) -> None:
    """Record that a generation holds everything live that is remembered of its index."""
    connection.execute(
        update(IndexRow)
        .where(
            IndexRow.ref_id == GenerationRow.ref_id,
            IndexRow.scope_id == GenerationRow.scope_id,
            IndexRow.signed == GenerationRow.signed,
            GenerationRow.id == generation,
        )
        .values(up_to_date_id=generation, up_to_date_at=now)
    )


def note_marked(
    connection: Connection, target_id: int, indexes: Iterable[IndexId], now: datetime
) -> None:
    """Record that the clocks of everything that these indexes referenced were recorded."""
    known = connection.execute(_indexes(IndexRow.target_id == target_id)).all()
    marked = frozenset(indexes)
    rows = [{"row": row.id} for row in known if _index_of(row) in marked]
    if rows:
        connection.execute(
            update(IndexRow.__table__)  # type: ignore[arg-type]
            .where(IndexRow.__table__.c.id == bindparam("row"))
            .values(marked_at=now),
            rows,
        )


def is_remembered() -> ColumnElement[bool]:
    """Whether something of the index of a generation is remembered, or may be."""
    return exists().where(
        IndexRow.ref_id == GenerationRow.ref_id,
        IndexRow.scope_id == GenerationRow.scope_id,
        IndexRow.signed == GenerationRow.signed,
        MemoryRow.index_id == IndexRow.id,
    )


def _indexes(*where: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    return (
        select(
            IndexRow.id,
            RefRow.name.label("ref"),
            ScopeRow.name.label("scope"),
            IndexRow.signed,
            IndexRow.highest,
            IndexRow.up_to_date_id,
            IndexRow.up_to_date_at,
            IndexRow.marked_at,
        )
        .join(RefRow, RefRow.id == IndexRow.ref_id)
        .join(ScopeRow, ScopeRow.id == IndexRow.scope_id)
        .where(*where)
        .order_by(IndexRow.id)
    )


def _index_of(row: Row[Any]) -> IndexId:
    return IndexId(Ref(row.ref), Scope(row.scope), row.signed)


def _find(connection: Connection, target_id: int, index: IndexId, highest: int) -> Row[Any]:
    """Return the row of an index, which is added if it is new."""
    ref = select(RefRow.id).where(RefRow.target_id == target_id, RefRow.name == index.ref)
    scope = select(ScopeRow.id).where(ScopeRow.target_id == target_id, ScopeRow.name == index.scope)
    statement = upsert(IndexRow).values(
        target_id=target_id,
        ref_id=ref.scalar_subquery(),
        scope_id=scope.scalar_subquery(),
        signed=index.signed,
        highest=highest,
        up_to_date_id=0,
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["ref_id", "scope_id", "signed"],
            set_={"highest": func.max(IndexRow.highest, statement.excluded.highest)},
        )
    )
    return connection.execute(
        _indexes(
            IndexRow.target_id == target_id,
            RefRow.name == index.ref,
            ScopeRow.name == index.scope,
            IndexRow.signed == index.signed,
        )
    ).one()


def _missing_blobs(connection: Connection, target_id: int) -> Mapping[Digest, datetime]:
    rows = connection.execute(
        select(BlobRow.digest, BlobRow.missing_since).where(
            BlobRow.target_id == target_id, BlobRow.missing_since.is_not(None)
        )
    )
    return {Digest(row.digest): row.missing_since for row in rows}


def _load(connection: Connection, row: Row[Any], missing: Mapping[Digest, datetime]) -> Remembered:
    rows = connection.execute(
        select(MemoryRow.day, MemoryRow.content).where(MemoryRow.index_id == row.id)
    )
    parts = {day: _decode(content, row) for day, content in rows}
    config = parts.pop(_NEWEST, CacheConfig())
    at = row.up_to_date_at
    return Remembered(
        config=config,
        replaced={date.fromisoformat(day): part for day, part in parts.items()},
        highest=row.highest,
        up_to_date=row.up_to_date_id,
        lost=frozenset(blob for blob, since in missing.items() if at and since <= at),
        marked_at=row.marked_at,
    )


def _save(connection: Connection, index: int, known: Remembered, new: Remembered) -> None:
    """Record what has changed."""
    before, after = _by_day(known), _by_day(new)
    changed = [day for day in before.keys() | after.keys() if before.get(day) != after.get(day)]
    for day in sorted(changed):
        connection.execute(
            delete(MemoryRow).where(MemoryRow.index_id == index, MemoryRow.day == day)
        )
        if day in after:
            values = {"index_id": index, "day": day, "content": _encode(after[day])}
            connection.execute(upsert(MemoryRow).values(values))


def _by_day(remembered: Remembered) -> dict[str, CacheConfig]:
    """Return what to record."""
    parts = {day.isoformat(): part for day, part in remembered.replaced.items()}
    parts[_NEWEST] = remembered.config
    return {day: part for day, part in parts.items() if part.records}


def _encode(config: CacheConfig) -> bytes:
    return zlib.compress(encode(config), 1)


def _decode(content: bytes, row: Row[Any]) -> CacheConfig:
    """Read what was recorded. Raises DatabaseError if it is malformed."""
    try:
        return decode(zlib.decompress(content))
    except (InvalidIndexError, zlib.error) as error:
        raise DatabaseError(
            f"the database remembers {_index_of(row)} in an invalid state ({error}): "
            "remove the file; all that is lost is the memory"
        ) from None
