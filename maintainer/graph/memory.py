"""Memory: what was ever read of each index, in one merge that every run adds to and forgets from.

Results stay until their blobs have been gone for a month: if these are uploaded again before, the
results are there again. Nobody merges signed indexes, and merges that we wrote hold nothing new.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    exists,
    func,
    insert,
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
from maintainer.graph.values import each_of
from maintainer.model.entry import Access
from maintainer.model.index import ReadGeneration
from maintainer.model.remembered import Remembered

GONE_FOR = timedelta(days=30)
"""How long results are remembered whose blobs are gone."""
_FEW = 10
"""So many merges are read from the file at once."""
_NEWEST = ""
"""The day of what has not been replaced by another export."""


def load_memory(
    connection: Connection,
    target_id: int,
    access: Access | None = None,
    merged: Mapping[IndexId, Remembered] | None = None,
) -> dict[IndexId, Remembered]:
    """Return what is remembered of each index that the token reads, or of all.

    What `merged` has of some is not read again.
    """
    missing = _missing_blobs(connection, target_id)
    rows = {
        _index_of(row): row
        for row in connection.execute(_indexes(IndexRow.target_id == target_id))
        if access is None or not access.readable or Ref(row.ref) in access.readable
    }
    known = merged or {}
    parts = _load_parts(connection, [row for index, row in rows.items() if index not in known])
    return {
        index: _remembered(row, known[index] if index in known else parts[row.id], missing)
        for index, row in rows.items()
    }


def remember(
    connection: Connection, target_id: int, generations: Iterable[ReadGeneration], now: datetime
) -> dict[IndexId, Remembered]:
    """Merge generations that were recorded into what is remembered; return the merges."""
    read: dict[IndexId, list[ReadGeneration]] = {}
    for one in sorted(generations, key=lambda one: one.index):
        read.setdefault(one.index, []).append(one)
    _add_indexes(connection, target_id, read)
    exports = {
        index: [
            (one.config, one.sink)
            for one in some
            if one.config and not index.signed and one.sink is not Sink.MERGE
        ]
        for index, some in read.items()
    }
    changes = []
    rows = connection.execute(_indexes(IndexRow.target_id == target_id)).all()
    of_these = [row for row in rows if exports.get(_index_of(row))]
    parts = _load_parts(connection, of_these)
    for row in of_these:
        index = _index_of(row)
        known = new = parts[row.id]
        if index.is_named:
            for config, sink in exports[index]:
                new = new.with_export(config, sink, now.date())
        else:
            new = known.with_generations(config for config, _ in exports[index])
        changes.append(_Change(row, known, new))
    return _save(connection, changes)


def forget_results(
    connection: Connection,
    target_id: int,
    access: Access,
    now: datetime,
    *,
    unasked: frozenset[Digest],
    remember_exports: timedelta,
    merged: Mapping[IndexId, Remembered],
) -> dict[IndexId, Remembered]:
    """Forget what has been gone, or replaced in a tag, for too long to matter.

    A blob that no run has looked up in all that time counts as gone, unless this run could not look
    it up. `merged` is what was remembered just now; return it with what has changed.
    """
    before = now - GONE_FOR
    last_known_at = func.coalesce(BlobRow.last_seen_at, BlobRow.first_seen_at)
    is_unknown = BlobRow.missing_since.is_(None) & BlobRow.is_found.is_(False)
    found = connection.scalars(
        select(BlobRow.digest).where(
            BlobRow.target_id == target_id,
            or_(BlobRow.missing_since <= before, is_unknown & (last_known_at <= before)),
        )
    )
    gone = frozenset(map(Digest, found)) - unasked
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
    rows = connection.execute(_indexes(*here)).all()
    parts = _load_parts(connection, [row for row in rows if _index_of(row) not in merged])
    changes = []
    for row in rows:
        known = merged.get(_index_of(row)) or parts[row.id]
        changes.append(_Change(row, known, known.since(first).without(gone)))
    return {**merged, **_save(connection, changes)}


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


def _add_indexes(
    connection: Connection, target_id: int, read: Mapping[IndexId, Sequence[ReadGeneration]]
) -> None:
    """Add the indexes that are new, and record the highest generation of each."""
    rows = [
        {
            "target": target_id,
            "ref": index.ref,
            "scope": index.scope,
            "signed": index.signed,
            "highest": max(one.number for one in some),
        }
        for index, some in read.items()
    ]
    if rows:
        connection.execute(_ADD_INDEX, rows)


_this_target: BindParameter[int] = bindparam("target")
_new_index = upsert(IndexRow).values(
    target_id=_this_target,
    ref_id=select(RefRow.id)
    .where(RefRow.target_id == _this_target, RefRow.name == bindparam("ref"))
    .scalar_subquery(),
    scope_id=select(ScopeRow.id)
    .where(ScopeRow.target_id == _this_target, ScopeRow.name == bindparam("scope"))
    .scalar_subquery(),
    signed=bindparam("signed"),
    highest=bindparam("highest"),
    up_to_date_id=0,
)
_ADD_INDEX = _new_index.on_conflict_do_update(
    index_elements=["ref_id", "scope_id", "signed"],
    set_={"highest": _new_index.excluded.highest},
    where=_new_index.excluded.highest > IndexRow.highest,
)


def _missing_blobs(connection: Connection, target_id: int) -> Mapping[Digest, datetime]:
    rows = connection.execute(
        select(BlobRow.digest, BlobRow.missing_since).where(
            BlobRow.target_id == target_id, BlobRow.missing_since.is_not(None)
        )
    )
    return {Digest(row.digest): row.missing_since for row in rows}


def _load_parts(
    connection: Connection, indexes: Sequence[Row[Any]]
) -> defaultdict[int, Remembered]:
    """Return what was merged of some indexes, by the ids of their rows."""
    by_id = {row.id: row for row in indexes}
    parts = defaultdict[int, dict[str, CacheConfig]](dict)
    for found in connection.execute(
        select(MemoryRow.index_id, MemoryRow.day, MemoryRow.content).where(
            MemoryRow.index_id.in_(each_of(by_id.keys()))
        ),
        execution_options={"yield_per": _FEW},
    ):
        parts[found.index_id][found.day] = _decode(found.content, by_id[found.index_id])
    known = defaultdict[int, Remembered](Remembered)
    for number, of_days in parts.items():
        config = of_days.pop(_NEWEST, CacheConfig())
        replaced = {date.fromisoformat(day): part for day, part in of_days.items()}
        known[number] = Remembered(config, replaced)
    return known


def _remembered(
    row: Row[Any], merged: Remembered, missing: Mapping[Digest, datetime]
) -> Remembered:
    at = row.up_to_date_at
    return replace(
        merged,
        highest=row.highest,
        up_to_date=row.up_to_date_id,
        lost=frozenset(blob for blob, since in missing.items() if at and since <= at),
        marked_at=row.marked_at,
    )


@dataclass(frozen=True, slots=True)
class _Change:
    """What was remembered of an index, and what is remembered from now on."""

    row: Row[Any]
    known: Remembered
    new: Remembered


def _save(connection: Connection, changes: Sequence[_Change]) -> dict[IndexId, Remembered]:
    """Record what has changed; return all of it."""
    past: list[dict[str, object]] = []
    new: list[dict[str, object]] = []
    for one in changes:
        before, after = _by_day(one.known), _by_day(one.new)
        for day in sorted(before.keys() | after.keys()):
            if before.get(day) == after.get(day):
                continue
            if day in before:
                past.append({"index": one.row.id, "of_day": day})
            if day in after:
                row = {"index_id": one.row.id, "day": day, "content": encode(after[day])}
                new.append(row)
    if past:
        connection.execute(_FORGET, past)
    if new:
        connection.execute(insert(MemoryRow), new)
    return {_index_of(one.row): one.new for one in changes}


_FORGET = delete(MemoryRow.__table__).where(  # type: ignore[arg-type]
    MemoryRow.__table__.c.index_id == bindparam("index"),
    MemoryRow.__table__.c.day == bindparam("of_day"),
)


def _by_day(remembered: Remembered) -> dict[str, CacheConfig]:
    """Return what to record."""
    parts = {day.isoformat(): part for day, part in remembered.replaced.items()}
    parts[_NEWEST] = remembered.config
    return {day: part for day, part in parts.items() if part.records}


def _decode(content: bytes, row: Row[Any]) -> CacheConfig:
    """Read what was recorded. Raises DatabaseError if it is malformed."""
    try:
        return decode(content)
    except InvalidIndexError as error:
        raise DatabaseError(
            f"the database remembers {_index_of(row)} in an invalid state ({error}): "
            "remove the file; all that is lost is the memory"
        ) from None
