"""Recall: what the graph remembers, to save requests in a probe, and for marking."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    union,
)

from maintainer.cacheconfig import (
    Digest,
    IndexId,
    Ref,
    Scope,
    Sink,
    content_digest,
    decode_whole,
    prune,
)
from maintainer.errors import DatabaseError, InvalidIndexError
from maintainer.exports import LONGEST_EXPORT
from maintainer.graph.dialect import each_number, each_text
from maintainer.graph.listing import was_planned
from maintainer.graph.memory import each_remembered, load_memory, missing_blobs, to_index
from maintainer.graph.room import load_departed
from maintainer.graph.tables import (
    BLOB,
    DOUBT,
    ENTRY,
    ENTRY_OF_GENERATION,
    GENERATION,
    GENERATION_BLOB,
    REF,
    RUN,
    SCOPE,
    listed_at,
    probed_at,
)
from maintainer.graph.values import to_json
from maintainer.model.doubt import Cause, Doubt
from maintainer.model.entry import Access, KnownEntry, RememberedEntry
from maintainer.model.index import KnownGeneration, read_until
from maintainer.model.memory import ExpectedEntries, KnownPlace, Memory, Probe, WrittenGeneration
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot

_FEW = 10
"""So many contents are read from the file at once."""


def recall(connection: Connection, target_id: int, access: Access, now: datetime) -> Memory:
    """Return the memory that saves a probe requests.

    What is later than now was recorded by a run whose clock was wrong.
    """
    places: defaultdict[IndexId, dict[int, KnownPlace]] = defaultdict(dict)
    written: dict[tuple[Ref, str], WrittenGeneration] = {}
    read_entries: dict[int, KnownPlace] = {}
    here = {"target": target_id}
    for row in connection.execute(_STORED, here):
        place = KnownPlace(
            row.id,
            row.location,
            Digest(row.content_digest),
            valid=row.violation is None,
            key=row.key,
            created_at=row.created_at,
            is_export=row.sink is None,
        )
        if row.store_id is not None:
            read_entries[row.store_id] = place
        elif row.size is not None:
            written[Ref(row.ref), row.key] = WrittenGeneration(row.id, row.size, row.first_seen_at)
        places[to_index(row)][row.number] = place
    missing = frozenset(missing_blobs(connection, target_id))
    referenced = set(_referenced_blobs(connection, target_id, access))
    remembered: set[Digest] = set()
    for one in each_remembered(connection, target_id, access):
        remembered |= one.blobs
        referenced |= _needed(one, missing)
    spare = remembered - referenced
    last = connection.execute(_LAST_DONE, here | {"now": now}).first()
    return Memory(
        read_entries=read_entries,
        written=written,
        places=places,
        referenced_blobs=frozenset(referenced),
        spare_blobs=frozenset(spare),
        missing_blobs=missing & (referenced | spare),
        doubts=_doubts(connection, target_id),
        probed_at=last.started_at if last else None,
        ended_at=last.finished_at if last else None,
        broken_entries=frozenset(connection.scalars(_BROKEN_ENTRIES, here)),
        **_checked(connection, target_id),
    )


def _needed(remembered: Remembered, missing: frozenset[Digest]) -> frozenset[Digest]:
    """Return the blobs that a merge needs, as far as known."""
    return prune(remembered.merged(), remembered.blobs - missing).blobs


def _doubts(connection: Connection, target_id: int) -> dict[tuple[Ref, str], Doubt]:
    here = {"target": target_id}
    rows = connection.execute(_DOUBTS, here).all()
    entries: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for row in connection.execute(_DOUBTED, here) if rows else ():
        entries[row.ref, row.key].add(row.store_id)
    return {
        (Ref(row.ref), row.key): Doubt(
            Cause(row.cause), row.since, frozenset(entries[row.ref, row.key])
        )
        for row in rows
    }


def _checked(connection: Connection, target_id: int) -> dict[str, Any]:
    rows = connection.execute(_CHECKED, {"target": target_id}).all()
    return {
        "checked_blobs": {Digest(row.digest): row.checked_at for row in rows},
        "broken_blobs": frozenset(Digest(row.digest) for row in rows if row.content_missing_since),
    }


def recall_keys(connection: Connection, target_id: int) -> dict[str, datetime]:
    """Return when the entries that were stored at the last probe were created, by key.

    Also the indexes that were read or written since, by their locations.
    """
    rows = connection.execute(_KEYS, {"target": target_id})
    return {row.key: row.created_at for row in rows}


def swept_since(connection: Connection, target_id: int, since: datetime) -> tuple[str, ...]:
    """Return the keys of the entries that runs have deleted since a time."""
    asked = {"target": target_id, "since": since}
    return tuple(connection.scalars(_SWEPT, asked))


def recall_swept(connection: Connection, target_id: int, prefix: str) -> dict[str, datetime]:
    """Return when runs deleted what is gone, of the entries whose keys begin like this, by key.

    Also what a run may have deleted that was cut off: after it had listed the entries, so not
    before that.
    """
    deleted = _DELETED.where(ENTRY.c.key.startswith(prefix, autoescape=True))
    rows = connection.execute(deleted, {"target": target_id})
    return {row.key: row.at for row in rows}


def count_expected(connection: Connection, target_id: int, access: Access) -> int:
    """Count the entries that ought to exist, before a look is recorded; see `recall_entries`."""
    asked = {"target": target_id, "refs": to_json(access.readable)}
    return int(connection.execute(_COUNT_EXPECTED, asked).scalar_one())


def recall_entries(
    connection: Connection, target_id: int, access: Access, at: datetime, expected: int
) -> ExpectedEntries:
    """Return what became of the entries of our own kinds that the token reads, at the look of `at`.

    Those are all that existed at the look before, `expected` of them, but for what a killed run was
    about to delete, and for what was not needed any more or had no content: if this file is older
    than the last run, that run deleted it.
    """
    asked = {"target": target_id, "refs": to_json(access.readable), "at": at}
    gone, size_gone = connection.execute(_COUNT_GONE, asked).one()
    stored, arrived = connection.execute(_SIZE_LISTED, {"target": target_id, "at": at}).one()
    rows = connection.execute(_GONE, asked)
    return ExpectedEntries(
        expected - gone, (RememberedEntry(*row) for row in rows), stored + size_gone, arrived
    )


def load_snapshot(
    connection: Connection,
    target_id: int,
    probe: Probe,
    *,
    entries: tuple[KnownEntry, ...] = (),
    merged_scope: Scope | None = None,
    max_merge_size: int | None = None,
    merged: Mapping[IndexId, Remembered] | None = None,
    makes_room: bool = False,
    listed_before: datetime | None = None,
) -> Snapshot:
    """Return what a run knows once it has recorded its probe.

    `entries` are the young ones. `merged` is what `record` has remembered of some indexes.
    `makes_room` is whether results leave a full cache; if not, none has left.
    """
    memory = load_memory(connection, target_id, probe.access, merged)
    return Snapshot(
        now=probe.at,
        access=probe.access,
        entries=entries,
        generations=_generations(connection, target_id, probe, memory),
        unread=probe.unread,
        live_blobs=probe.live_blobs,
        read_by_builders=probe.read_by_builders,
        listing_complete=probe.listing_complete,
        facts=probe.facts,
        merged_scope=merged_scope,
        max_merge_size=max_merge_size,
        recent_references=(
            {}
            if probe.abilities.shows_exports
            else _references(connection, target_id, probe.at - LONGEST_EXPORT)
        ),
        memory=memory,
        broken_blobs=probe.broken_blobs,
        departed=load_departed(connection, target_id) if makes_room else {},
        listed_before=listed_before,
    )


def _references(
    connection: Connection, target_id: int, since: datetime
) -> dict[tuple[Ref, Digest], datetime]:
    """Return when each blob was last referenced by a generation created since, or first seen."""
    rows = connection.execute(_REFERENCES, {"target": target_id, "since": since})
    return {(Ref(ref), Digest(digest)): at for ref, digest, at in rows}


def _referenced_blobs(connection: Connection, target_id: int, access: Access) -> frozenset[Digest]:
    """Return the blobs of the newest generation of each index, and of every signed one."""
    asked = {"target": target_id, "refs": to_json(access.readable)}
    referenced = _REFERENCED_IN_REFS if access.readable else _REFERENCED
    return frozenset(map(Digest, connection.scalars(referenced, asked)))


def _generations(
    connection: Connection,
    target_id: int,
    probe: Probe,
    memory: Mapping[IndexId, Remembered],
) -> tuple[KnownGeneration, ...]:
    """Return the generations that the token reads; what the probe has read is not decoded again."""
    marked_at = {index: one.marked_at for index, one in memory.items() if one.marked_at}
    rows = connection.execute(_GENERATIONS, {"target": target_id}).all()
    of_use = {row.id: row for row in rows if Ref(row.ref) in probe.access.readable}
    known = [_generation(row) for row in of_use.values()]
    wanted = {*_to_decode(known, probe), *_read_since(known, probe.at, marked_at)}
    read = {(one.index, one.number): one for one in probe.read if one.config}
    decoded: dict[int, KnownGeneration] = {}
    for one in known:
        again = read.get((one.index, one.number)) if one.generation_id in wanted else None
        if again and again.content.digest == one.content_digest:
            decoded[one.generation_id] = replace(one, config=again.config, sink=again.sink)
    by_id = {one.generation_id: one for one in known}
    for number, content in _contents(connection, target_id, wanted - decoded.keys()):
        one = _decoded(by_id[number], of_use[number].key, content)
        same = memory[one.index].config if one.index in memory else None
        # The newest export of a name is all that is remembered of most: one copy is enough.
        decoded[number] = replace(one, config=same) if same == one.config else one
    return tuple(decoded.get(one.generation_id, one) for one in known)


def _generation(row: Row[Any]) -> KnownGeneration:
    return KnownGeneration(
        generation_id=row.id,
        index=to_index(row),
        number=row.number,
        content_digest=Digest(row.content_digest),
        config=None,
        violation=row.violation,
        created_at=row.created_at or row.first_seen_at,
        store_id=row.store_id,
        exists=row.missing_since is None,
        last_seen_at=row.last_seen_at,
        missing_since=row.missing_since,
        sink=Sink(row.sink) if row.sink else None,
    )


def _decoded(one: KnownGeneration, key: str, content: bytes) -> KnownGeneration:
    """Decode what was valid when it was recorded; it may break a newer rule.

    Raises DatabaseError if it is not what was recorded.
    """
    try:
        config, sink = decode_whole(content)
    except InvalidIndexError as error:
        if content_digest(content) == one.content_digest:
            return replace(one, violation=str(error))
        raise DatabaseError(
            f"the database holds {key} in an invalid state ({error}): remove the file; "
            "this only loses since when entries are unreferenced"
        ) from None
    return replace(one, config=config, sink=sink)


def _to_decode(known: Iterable[KnownGeneration], probe: Probe) -> Iterator[int]:
    """Select what builders may read now, and signed ones, each of which is an index of its own."""
    newest: dict[IndexId, KnownGeneration] = {}
    for one in known:
        if not one.exists:
            continue
        if one.index.signed or str(one.key) == probe.read_by_builders.get(one.index):
            yield one.generation_id
        newest[one.index] = max(
            newest.get(one.index, one), one, key=lambda one: (one.number, one.generation_id)
        )
    yield from (one.generation_id for one in newest.values())


def _read_since(
    known: Iterable[KnownGeneration], now: datetime, marked_at: Mapping[IndexId, datetime]
) -> Iterator[int]:
    """Select what builders have read after its clocks were last recorded."""
    generations = {one.generation_id: one for one in known}
    for number, until in read_until(generations.values(), now, marked_at).items():
        last = marked_at.get(generations[number].index)
        if last is None or until > last:
            yield number


def _contents(
    connection: Connection, target_id: int, wanted: set[int]
) -> Iterator[tuple[int, bytes]]:
    rows = connection.execute(_CONTENTS, {"target": target_id, "wanted": to_json(wanted)})
    return ((row.id, row.content) for row in rows)


_target: BindParameter[int] = bindparam("target")
_of_target = GENERATION.c.target_id == _target
_GENERATIONS: Select[*tuple[Any, ...]] = (
    select(
        GENERATION.c.id,
        REF.c.name.label("ref"),
        SCOPE.c.name.label("scope"),
        GENERATION.c.key,
        GENERATION.c.number,
        GENERATION.c.signed,
        GENERATION.c.content_digest,
        GENERATION.c.violation,
        GENERATION.c.store_id,
        GENERATION.c.location,
        GENERATION.c.size,
        GENERATION.c.first_seen_at,
        func.coalesce(GENERATION.c.last_seen_at, probed_at(_target)).label("last_seen_at"),
        GENERATION.c.missing_since,
        GENERATION.c.sink,
        ENTRY.c.created_at,
    )
    .select_from(GENERATION)
    .join(REF, REF.c.id == GENERATION.c.ref_id)
    .join(SCOPE, SCOPE.c.id == GENERATION.c.scope_id)
    .outerjoin(ENTRY, ENTRY_OF_GENERATION)
    .where(_of_target)
    .order_by(GENERATION.c.id)
)
_STORED = _GENERATIONS.where(GENERATION.c.missing_since.is_(None))
_CONTENTS = (
    select(GENERATION.c.id, GENERATION.c.content)
    .where(
        _of_target,
        GENERATION.c.content.is_not(None),
        GENERATION.c.id.in_(each_number("wanted")),
    )
    .execution_options(yield_per=_FEW)
)
_created_at = func.coalesce(ENTRY.c.created_at, GENERATION.c.first_seen_at)
_REFERENCES = (
    select(REF.c.name, BLOB.c.digest, func.max(_created_at))
    .select_from(REF)
    .join(GENERATION, GENERATION.c.ref_id == REF.c.id)
    .outerjoin(ENTRY, ENTRY_OF_GENERATION)
    .join(GENERATION_BLOB, GENERATION_BLOB.c.generation_id == GENERATION.c.id)
    .join(BLOB, BLOB.c.id == GENERATION_BLOB.c.blob_id)
    .where(_of_target, _created_at >= bindparam("since"))
    .group_by(REF.c.name, BLOB.c.digest)
)
_by_age = (
    select(
        GENERATION.c.id,
        GENERATION.c.ref_id,
        GENERATION.c.signed,
        func.row_number()
        .over(
            partition_by=(GENERATION.c.ref_id, GENERATION.c.scope_id, GENERATION.c.signed),
            order_by=(GENERATION.c.number.desc(), GENERATION.c.id.desc()),
        )
        .label("place"),
    )
    .where(_of_target, GENERATION.c.missing_since.is_(None))
    .subquery()
)
_REFERENCED = (
    select(BLOB.c.digest)
    .distinct()
    .join(GENERATION_BLOB, GENERATION_BLOB.c.blob_id == BLOB.c.id)
    .join(_by_age, _by_age.c.id == GENERATION_BLOB.c.generation_id)
    .join(REF, REF.c.id == _by_age.c.ref_id)
    .where(BLOB.c.target_id == _target, (_by_age.c.place == 1) | _by_age.c.signed)
)
_REFERENCED_IN_REFS = _REFERENCED.where(REF.c.name.in_(each_text("refs")))

_CHECKED = select(BLOB.c.digest, BLOB.c.checked_at, BLOB.c.content_missing_since).where(
    BLOB.c.target_id == _target, BLOB.c.checked_at.is_not(None)
)
_DOUBTS = select(DOUBT.c.ref, DOUBT.c.key, DOUBT.c.cause, DOUBT.c.since).where(
    DOUBT.c.target_id == _target
)
# Under keys like theirs, in any ref: entries have no index of keys, so these are read once.
_DOUBTED = (
    select(REF.c.name.label("ref"), ENTRY.c.key, ENTRY.c.store_id)
    .join(ENTRY, ENTRY.c.ref_id == REF.c.id)
    .where(
        ENTRY.c.target_id == _target,
        ENTRY.c.missing_since.is_(None),
        ENTRY.c.key.in_(select(DOUBT.c.key).where(DOUBT.c.target_id == _target)),
    )
)
_LAST_DONE = (
    select(RUN.c.started_at, RUN.c.finished_at)
    .where(RUN.c.target_id == _target, RUN.c.status == "done", RUN.c.started_at <= bindparam("now"))
    .order_by(RUN.c.id.desc())
    .limit(1)
)

_here = ENTRY.c.target_id == _target
_SWEPT = select(ENTRY.c.key).where(
    _here, ENTRY.c.state == "deleted", ENTRY.c.missing_since >= bindparam("since")
)
_DELETED = select(
    ENTRY.c.key, func.coalesce(ENTRY.c.missing_since, listed_at(_target)).label("at")
).where(
    _here,
    or_(
        and_(ENTRY.c.state == "deleted", ENTRY.c.missing_since.is_not(None)),
        and_(ENTRY.c.missing_since.is_(None), was_planned(_target)),
    ),
)
_KEYS = union(
    select(ENTRY.c.key, ENTRY.c.created_at).where(_here, ENTRY.c.missing_since.is_(None)),
    select(GENERATION.c.location.label("key"), GENERATION.c.first_seen_at).where(
        _of_target, GENERATION.c.missing_since.is_(None), GENERATION.c.location.is_not(None)
    ),
)
_BROKEN_ENTRIES = select(ENTRY.c.store_id).where(
    _here, ENTRY.c.missing_since.is_(None), ENTRY.c.content_missing_since.is_not(None)
)
_expected = (
    _here,
    ENTRY.c.kind != "foreign",
    ENTRY.c.unreferenced_since.is_(None),
    ENTRY.c.content_missing_since.is_(None),
    ~was_planned(_target),
    REF.c.name.in_(each_text("refs")),
)
_is_gone = (
    *_expected,
    ENTRY.c.last_seen_at.is_not(None),
    or_(ENTRY.c.missing_since.is_(None), ENTRY.c.missing_since == bindparam("at")),
)
_entries = ENTRY.join(REF, REF.c.id == ENTRY.c.ref_id)
_size = func.coalesce(func.sum(ENTRY.c.size), 0)
_COUNT_EXPECTED = (
    select(func.count()).select_from(_entries).where(*_expected, ENTRY.c.missing_since.is_(None))
)
_COUNT_GONE = select(func.count(), _size).select_from(_entries).where(*_is_gone)
_GONE = (
    select(ENTRY.c.store_id, ENTRY.c.size, ENTRY.c.last_accessed_at)
    .select_from(_entries)
    .where(*_is_gone)
    .order_by(ENTRY.c.last_accessed_at, ENTRY.c.store_id)
)
_is_new = ENTRY.c.first_seen_at == bindparam("at")
_SIZE_LISTED = select(_size, func.coalesce(func.sum(case((_is_new, ENTRY.c.size))), 0)).where(
    _here, ENTRY.c.last_seen_at.is_(None)
)
