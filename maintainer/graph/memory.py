"""Memory: what was ever read of each index, in one merge that every run adds to and forgets from.

Results stay until their blobs have been gone for a month: if these are uploaded again before, the
results are there again. Nobody merges signed indexes, and merges that we wrote hold nothing new.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import (
    BindParameter,
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
    forget,
)
from maintainer.cacheconfig.difference import only_new
from maintainer.cacheconfig.shrink import built_since
from maintainer.cacheconfig.timestamps import to_nanoseconds
from maintainer.errors import DatabaseError, InvalidIndexError
from maintainer.graph.dialect import each_number, each_text, insert_or_update
from maintainer.graph.rows import execute_each
from maintainer.graph.shared_names import note_exports
from maintainer.graph.tables import BLOB, CACHE_INDEX, ENTRY, GENERATION, MEMORY, REF, SCOPE
from maintainer.graph.values import to_json
from maintainer.model.content import Content
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
    missing = missing_blobs(connection, target_id)
    rows = _find_indexes(connection, target_id, access)
    known = merged or {}
    parts = _load_parts(connection, [row for index, row in rows.items() if index not in known])
    lost = {
        at: frozenset(blob for blob, since in missing.items() if at and since <= at)
        for at in {row.up_to_date_at for row in rows.values()}
    }
    deleted = frozenset(map(Digest, connection.scalars(_DELETED, {"target": target_id})))
    return {
        index: _remembered(
            row, known[index] if index in known else parts[row.id], lost[row.up_to_date_at], deleted
        )
        for index, row in rows.items()
    }


def each_remembered(connection: Connection, target_id: int, access: Access) -> Iterator[Remembered]:
    """Read the merges of each index that the token reads, one index after the other."""
    rows = {row.id: row for row in _find_indexes(connection, target_id, access).values()}
    found = connection.execute(_MERGES_IN_ORDER, {"indexes": to_json(rows.keys())})
    for number, of_days in groupby(found, key=lambda one: one.index_id):
        yield _united({one.day: _decode(one.content, rows[number]) for one in of_days})


def _find_indexes(
    connection: Connection, target_id: int, access: Access | None
) -> dict[IndexId, Row[Any]]:
    return {
        to_index(row): row
        for row in connection.execute(_INDEXES, {"target": target_id})
        if access is None or not access.readable or Ref(row.ref) in access.readable
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
    rows = connection.execute(_INDEXES, {"target": target_id}).all()
    of_these = [row for row in rows if exports.get(to_index(row))]
    _note_exports_to_names(connection, of_these, exports)
    parts = _load_parts(connection, of_these)
    for row in of_these:
        index = to_index(row)
        known = new = parts[row.id]
        if row.forgotten_at is not None:
            # What runs have written of it is forgotten too.
            exports[index] = [(config, sink) for config, sink in exports[index] if sink is None]
            if exports[index]:
                execute_each(connection, _KNOW_AGAIN, [{"row": row.id}])
        if index.is_named:
            for config, sink in exports[index]:
                new = new.with_export(config, sink, now.date())
        else:
            new = known.with_generations(config for config, _ in exports[index])
        changes.append(_Change(row, known, new))
    return _save(connection, changes)


def _note_exports_to_names(
    connection: Connection,
    rows: Iterable[Row[Any]],
    exports: Mapping[IndexId, Iterable[tuple[CacheConfig, Sink | None]]],
) -> None:
    of_names = {
        row.id: [config for config, sink in exports[to_index(row)] if sink is None]
        for row in rows
        if to_index(row).is_named
    }
    if of_names:
        note_exports(connection, of_names)


def forget_scope(connection: Connection, target_id: int, scope: Scope, now: datetime) -> None:
    """Forget all that is remembered of the indexes of a scope that builds write no longer.

    So is what was taken over of a merge, if the scope has it, too.
    """
    rows = connection.execute(_INDEXES, {"target": target_id}).all()
    parts = _load_parts(connection, [row for row in rows if not row.signed])
    forgotten = [row.id for row in rows if row.scope == scope and not row.signed]
    results = [part for number in forgotten for part in parts[number].parts]
    for number in forgotten:
        connection.execute(_FORGET_ALL, {"row": number})
        connection.execute(_NOTE_FORGOTTEN, {"row": number, "now": now})
    others = [row for row in rows if row.id not in forgotten]
    _save(
        connection,
        [_Change(row, known := parts[row.id], known.without_taken_over(results)) for row in others],
    )


def forget_results(
    connection: Connection,
    target_id: int,
    access: Access,
    now: datetime,
    *,
    unasked: frozenset[Digest],
    remember_exports: timedelta,
    merged: Mapping[IndexId, Remembered],
    for_good: bool,
) -> dict[IndexId, Remembered]:
    """Forget what has been gone, or replaced in a tag, for too long to matter.

    A blob that no run has looked up in all that time counts as gone, unless this run could not look
    it up. `merged` is what was remembered just now; return it with what has changed, which is
    recorded only if it is `for_good`.
    """
    found = connection.scalars(_FORGOTTEN, {"target": target_id, "before": now - GONE_FOR})
    gone = frozenset(map(Digest, found)) - unasked
    first = (now - remember_exports).date() if remember_exports else date.max
    asked = {"target": target_id, "refs": to_json(access.readable), "first": first.isoformat()}
    rows = connection.execute(_READABLE if gone else _REPLACED, asked).all()
    parts = _load_parts(connection, [row for row in rows if to_index(row) not in merged])
    changes = []
    for row in rows:
        known = merged.get(to_index(row)) or parts[row.id]
        changes.append(_Change(row, known, known.since(first).without(gone)))
    if for_good:
        _save(connection, changes)
    return {**merged, **{to_index(one.row): one.new for one in changes}}


def take_over(
    connection: Connection,
    target_id: int,
    access: Access,
    merge: ReadGeneration,
    *,
    now: datetime,
    used_since: datetime,
) -> tuple[int, dict[IndexId, Remembered]]:
    """Remember what the merge of all names contains that nothing else does.

    A merge that this database did not know was written by another configuration, or by a run whose
    database was lost: it may hold the only copy of what builds have overwritten since. Older
    results than `used_since` are not remembered: else two databases that write the same merge in
    turn would have them from each other for ever. Return how many of its results were not known
    and lack no blob, and what is remembered of it if that has changed.
    """
    remembered = each_remembered(connection, target_id, access)
    parts = (part for one in remembered for part in one.parts)
    config = merge.config or CacheConfig()
    unknown = only_new(config, parts)
    old = only_new(unknown, [built_since(config, to_nanoseconds(used_since))])
    young = only_new(unknown, [old])
    count = forget(unknown, missing_blobs(connection, target_id)).result_count
    if not young.records:
        return count, {}
    row = _find_indexes(connection, target_id, access)[merge.index]
    known = _load_parts(connection, [row])[row.id]
    change = _Change(row, known, known.with_merge(young, now.date()))
    return count, _save(connection, [change])


def forget_tags(connection: Connection, target_id: int, unread: Iterable[IndexId]) -> None:
    """Forget the content of tags that were deleted: whoever deleted one wanted that."""
    kept = {index.scope for index in unread}
    rows = connection.execute(_NAMED_BY_NOTHING, {"target": target_id}).all()
    past = [{"row": row.id} for row in rows if row.scope not in kept]
    execute_each(connection, _FORGET_INDEX, past)


def note_up_to_date(connection: Connection, generation: int, now: datetime) -> None:
    """Record that a generation holds everything live that is remembered of its index."""
    connection.execute(_NOTE_UP_TO_DATE, {"row": generation, "now": now})


def note_marked(
    connection: Connection, target_id: int, indexes: Iterable[IndexId], now: datetime
) -> None:
    """Record that the clocks of everything that these indexes referenced were recorded."""
    known = connection.execute(_INDEXES, {"target": target_id}).all()
    marked = frozenset(indexes)
    rows = [{"row": row.id, "now": now} for row in known if to_index(row) in marked]
    execute_each(connection, _NOTE_MARKED, rows)


def to_index(row: Row[Any]) -> IndexId:
    """Return the index of a row that has its ref, its scope, and whether it is signed."""
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
    execute_each(connection, _ADD_INDEX, rows)


def missing_blobs(connection: Connection, target_id: int) -> Mapping[Digest, datetime]:
    """Return the blobs that an index references and that do not exist, and since when."""
    rows = connection.execute(_MISSING, {"target": target_id})
    return {Digest(row.digest): row.missing_since for row in rows}


def _load_parts(
    connection: Connection, indexes: Sequence[Row[Any]]
) -> defaultdict[int, Remembered]:
    """Return what was merged of some indexes, by the ids of their rows."""
    by_id = {row.id: row for row in indexes}
    parts = defaultdict[int, dict[str, CacheConfig]](dict)
    for found in connection.execute(_MERGES, {"indexes": to_json(by_id.keys())}):
        parts[found.index_id][found.day] = _decode(found.content, by_id[found.index_id])
    known = defaultdict[int, Remembered](Remembered)
    for number, of_days in parts.items():
        known[number] = _united(of_days)
    return known


def _united(of_days: dict[str, CacheConfig]) -> Remembered:
    """Return what was merged of an index, from its parts by day."""
    config = of_days.pop(_NEWEST, CacheConfig())
    return Remembered(config, {date.fromisoformat(day): one for day, one in of_days.items()})


def _remembered(
    row: Row[Any], merged: Remembered, lost: frozenset[Digest], deleted: frozenset[Digest]
) -> Remembered:
    return replace(
        merged,
        highest=row.highest,
        up_to_date=row.up_to_date_id,
        lost=lost,
        deleted=deleted,
        marked_at=row.marked_at,
        forgotten=row.forgotten_at is not None,
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
    new: list[tuple[int, str, CacheConfig]] = []
    for one in changes:
        before, after = _by_day(one.known), _by_day(one.new)
        for day in sorted(before.keys() | after.keys()):
            if before.get(day) == after.get(day):
                continue
            if day in before:
                past.append({"index": one.row.id, "of_day": day})
            if day in after:
                new.append((one.row.id, day, after[day]))
    execute_each(connection, _FORGET, past)
    rows = (
        {"index_id": number, "day": day, "content": Content.of(encode(config))}
        for number, day, config in new
    )
    execute_each(connection, _ADD, rows)
    return {to_index(one.row): one.new for one in changes}


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
            f"the database remembers {to_index(row)} in an invalid state ({error}): "
            "remove the file; all that is lost is the memory"
        ) from None


_target: BindParameter[int] = bindparam("target")
_row: BindParameter[int] = bindparam("row")
OF_ITS_INDEX = (
    (CACHE_INDEX.c.ref_id == GENERATION.c.ref_id)
    & (CACHE_INDEX.c.scope_id == GENERATION.c.scope_id)
    & (CACHE_INDEX.c.signed == GENERATION.c.signed)
)
"""Whether a generation is one of an index."""
IS_REMEMBERED = exists().where(OF_ITS_INDEX, MEMORY.c.index_id == CACHE_INDEX.c.id)
"""Whether something of the index of a generation is remembered, or may be."""

_INDEXES: Select[*tuple[Any, ...]] = (
    select(
        CACHE_INDEX.c.id,
        REF.c.name.label("ref"),
        SCOPE.c.name.label("scope"),
        CACHE_INDEX.c.signed,
        CACHE_INDEX.c.highest,
        CACHE_INDEX.c.up_to_date_id,
        CACHE_INDEX.c.up_to_date_at,
        CACHE_INDEX.c.marked_at,
        CACHE_INDEX.c.forgotten_at,
    )
    .select_from(CACHE_INDEX)
    .join(REF, REF.c.id == CACHE_INDEX.c.ref_id)
    .join(SCOPE, SCOPE.c.id == CACHE_INDEX.c.scope_id)
    .where(CACHE_INDEX.c.target_id == _target)
    .order_by(CACHE_INDEX.c.id)
)
_READABLE = _INDEXES.where(REF.c.name.in_(each_text("refs")))
_REPLACED = _READABLE.where(
    exists().where(
        MEMORY.c.index_id == CACHE_INDEX.c.id,
        MEMORY.c.day != _NEWEST,
        MEMORY.c.day < bindparam("first"),
    )
)
_NAMED_BY_NOTHING = _INDEXES.where(REF.c.name == NO_REF, ~exists().where(OF_ITS_INDEX))
_FORGET_ALL = delete(MEMORY).where(MEMORY.c.index_id == _row)
_NOTE_FORGOTTEN = (
    update(CACHE_INDEX).where(CACHE_INDEX.c.id == _row).values(forgotten_at=bindparam("now"))
)
_KNOW_AGAIN = update(CACHE_INDEX).where(CACHE_INDEX.c.id == _row).values(forgotten_at=None)
_FORGET_INDEX = delete(CACHE_INDEX).where(CACHE_INDEX.c.id == _row)
_NOTE_UP_TO_DATE = (
    update(CACHE_INDEX)
    .where(OF_ITS_INDEX, GENERATION.c.id == _row)
    .values(up_to_date_id=_row, up_to_date_at=bindparam("now"))
)
_NOTE_MARKED = (
    update(CACHE_INDEX).where(CACHE_INDEX.c.id == _row).values(marked_at=bindparam("now"))
)
_ADD_INDEX = insert_or_update(
    CACHE_INDEX, ["ref_id", "scope_id", "signed"], ["highest"], grows="highest"
).values(
    target_id=_target,
    ref_id=select(REF.c.id)
    .where(REF.c.target_id == _target, REF.c.name == bindparam("ref"))
    .scalar_subquery(),
    scope_id=select(SCOPE.c.id)
    .where(SCOPE.c.target_id == _target, SCOPE.c.name == bindparam("scope"))
    .scalar_subquery(),
    signed=bindparam("signed"),
    highest=bindparam("highest"),
    up_to_date_id=0,
)

_MISSING = select(BLOB.c.digest, BLOB.c.missing_since).where(
    BLOB.c.target_id == _target, BLOB.c.missing_since.is_not(None)
)
# Of each blob, in one pass: to ask for the last entry of one blob after the other takes the square.
_last_entries = (
    select(
        ENTRY.c.digest,
        ENTRY.c.state,
        func.row_number()
        .over(
            partition_by=ENTRY.c.digest,
            order_by=(ENTRY.c.missing_since.desc(), ENTRY.c.id.desc()),
        )
        .label("place"),
    )
    .where(ENTRY.c.target_id == _target, ENTRY.c.kind == "blob", ENTRY.c.missing_since.is_not(None))
    .subquery()
)
_DELETED = (
    _MISSING.with_only_columns(BLOB.c.digest)
    .join(_last_entries, _last_entries.c.digest == BLOB.c.digest)
    .where(_last_entries.c.place == 1, _last_entries.c.state == "deleted")
)
_before: BindParameter[datetime] = bindparam("before")
_FORGOTTEN = select(BLOB.c.digest).where(
    BLOB.c.target_id == _target,
    or_(
        BLOB.c.missing_since <= _before,
        BLOB.c.missing_since.is_(None)
        & BLOB.c.is_found.is_(False)
        & (func.coalesce(BLOB.c.last_seen_at, BLOB.c.first_seen_at) <= _before),
    ),
)

_MERGES = (
    select(MEMORY.c.index_id, MEMORY.c.day, MEMORY.c.content)
    .where(MEMORY.c.index_id.in_(each_number("indexes")))
    .execution_options(yield_per=_FEW)
)
_MERGES_IN_ORDER = _MERGES.order_by(MEMORY.c.index_id)
_ADD = insert(MEMORY)
_FORGET = delete(MEMORY).where(
    MEMORY.c.index_id == bindparam("index"), MEMORY.c.day == bindparam("of_day")
)
