"""Recall: what the graph remembers, to save requests in a probe, and for marking."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, or_, select

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
from maintainer.graph.listing import was_planned
from maintainer.graph.memory import load_memory
from maintainer.graph.models import (
    BlobRow,
    DoubtRow,
    EntryRow,
    GenerationBlobRow,
    GenerationRow,
    RefRow,
    RunRow,
    ScopeRow,
    probed_at,
)
from maintainer.graph.values import each_of
from maintainer.model.doubt import Cause, Doubt
from maintainer.model.entry import Access, KnownEntry, RememberedEntry
from maintainer.model.index import KnownGeneration, read_until
from maintainer.model.memory import ExpectedEntries, KnownPlace, Memory, Probe, WrittenGeneration
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot

_FEW = 10
"""So many contents are read from the file at once."""


def recall(connection: Connection, target_id: int, access: Access) -> Memory:
    """Return the memory that saves a probe requests."""
    places: defaultdict[IndexId, dict[int, KnownPlace]] = defaultdict(dict)
    written: dict[tuple[Ref, str], WrittenGeneration] = {}
    store_ids: set[int] = set()
    for row in connection.execute(
        _select_generations(target_id).where(GenerationRow.missing_since.is_(None))
    ):
        if row.store_id is not None:
            store_ids.add(row.store_id)
        elif row.size is not None:
            written[Ref(row.ref), row.key] = WrittenGeneration(row.id, row.size, row.first_seen_at)
        place = KnownPlace(
            row.id, row.location, Digest(row.content_digest), valid=row.violation is None
        )
        places[_index_of(row)][row.number] = place
    missing = frozenset(
        map(
            Digest,
            connection.scalars(
                select(BlobRow.digest).where(
                    BlobRow.target_id == target_id, BlobRow.missing_since.is_not(None)
                )
            ),
        )
    )
    memory = load_memory(connection, target_id, access).values()
    current = _blobs_named(connection, target_id, access)
    named = current.union(*(_needed(one, missing) for one in memory))
    spare = frozenset[Digest]().union(*(one.blobs for one in memory)) - named
    probed_at = connection.execute(
        select(func.max(RunRow.started_at)).where(
            RunRow.target_id == target_id, RunRow.status == "done"
        )
    ).scalar()
    return Memory(
        store_ids=frozenset(store_ids),
        written=written,
        places=places,
        named_blobs=named,
        spare_blobs=spare,
        missing_blobs=missing & (named | spare),
        doubts=_doubts(connection, target_id),
        probed_at=probed_at,
        broken_entries=frozenset(connection.scalars(_broken_entries(target_id))),
        **_checked(connection, target_id),
    )


def _needed(remembered: Remembered, missing: frozenset[Digest]) -> frozenset[Digest]:
    """Return the blobs that a merge needs, as far as known."""
    return prune(remembered.merged(), remembered.blobs - missing).blobs


def _doubts(connection: Connection, target_id: int) -> dict[tuple[Ref, str], Doubt]:
    rows = connection.execute(
        select(DoubtRow.ref, DoubtRow.key, DoubtRow.cause, DoubtRow.since).where(
            DoubtRow.target_id == target_id
        )
    )
    return {(Ref(row.ref), row.key): Doubt(Cause(row.cause), row.since) for row in rows}


def _broken_entries(target_id: int) -> Select[int]:
    return select(EntryRow.store_id).where(
        EntryRow.target_id == target_id,
        EntryRow.missing_since.is_(None),
        EntryRow.content_missing_since.is_not(None),
    )


def _checked(connection: Connection, target_id: int) -> dict[str, Any]:
    rows = connection.execute(
        select(BlobRow.digest, BlobRow.checked_at, BlobRow.content_missing_since).where(
            BlobRow.target_id == target_id, BlobRow.checked_at.is_not(None)
        )
    ).all()
    return {
        "checked_blobs": {Digest(row.digest): row.checked_at for row in rows},
        "broken_blobs": frozenset(Digest(row.digest) for row in rows if row.content_missing_since),
    }


def count_expected(connection: Connection, target_id: int, access: Access) -> int:
    """Count the entries that ought to exist, before a look is recorded; see `recall_entries`."""
    counted = select(func.count()).select_from(EntryRow)
    expected = counted.join(RefRow, RefRow.id == EntryRow.ref_id).where(
        *_expected(target_id, access), EntryRow.missing_since.is_(None)
    )
    return int(connection.execute(expected).scalar_one())


def recall_entries(
    connection: Connection, target_id: int, access: Access, at: datetime, expected: int
) -> ExpectedEntries:
    """Return what became of the entries of our own kinds that the token reads, at the look of `at`.

    Those are all that existed at the look before, `expected` of them, but for what a killed run was
    about to delete, and for what was not needed any more or had no content: if this file is older
    than the last run, that run deleted it.
    """
    here = EntryRow.target_id == target_id
    is_gone = (
        *_expected(target_id, access),
        EntryRow.last_seen_at.is_not(None),
        or_(EntryRow.missing_since.is_(None), EntryRow.missing_since == at),
    )
    counted = select(func.count(), func.coalesce(func.sum(EntryRow.size), 0))
    of_ref = (RefRow, RefRow.id == EntryRow.ref_id)
    gone, size_gone = connection.execute(counted.join(*of_ref).where(*is_gone)).one()
    stored = connection.execute(counted.where(here, EntryRow.last_seen_at.is_(None))).one()[1]
    rows = connection.execute(
        select(EntryRow.store_id, EntryRow.size, EntryRow.last_accessed_at)
        .join(*of_ref)
        .where(*is_gone)
        .order_by(EntryRow.last_accessed_at, EntryRow.store_id)
    )
    return ExpectedEntries(
        expected - gone, (RememberedEntry(*row) for row in rows), stored + size_gone
    )


def _expected(target_id: int, access: Access) -> tuple[ColumnElement[bool], ...]:
    return (
        EntryRow.target_id == target_id,
        EntryRow.kind != "foreign",
        EntryRow.unreferenced_since.is_(None),
        EntryRow.content_missing_since.is_(None),
        ~was_planned(target_id),
        RefRow.name.in_(sorted(access.readable)),
    )


def load_snapshot(
    connection: Connection,
    target_id: int,
    probe: Probe,
    *,
    entries: tuple[KnownEntry, ...] = (),
    merged_scope: Scope | None = None,
    merged: Mapping[IndexId, Remembered] | None = None,
) -> Snapshot:
    """Return what a run knows once it has recorded its probe.

    `entries` are the young ones. `merged` is what `record` has remembered of some indexes.
    """
    memory = load_memory(connection, target_id, probe.access, merged)
    marked_at = {index: one.marked_at for index, one in memory.items() if one.marked_at}
    return Snapshot(
        now=probe.at,
        access=probe.access,
        entries=entries,
        generations=_generations(connection, target_id, probe, marked_at),
        unread=probe.unread,
        live_blobs=probe.live_blobs,
        read_by_builders=probe.read_by_builders,
        listing_complete=probe.listing_complete,
        facts=probe.facts,
        merged_scope=merged_scope,
        recent_references=_references(connection, target_id, probe.at - LONGEST_EXPORT),
        memory=memory,
        broken_blobs=probe.broken_blobs,
    )


def _references(
    connection: Connection, target_id: int, since: datetime
) -> dict[tuple[Ref, Digest], datetime]:
    """Return when each blob was last referenced by a generation created since, or first seen."""
    created_at = func.coalesce(EntryRow.created_at, GenerationRow.first_seen_at)
    rows = connection.execute(
        select(RefRow.name, BlobRow.digest, func.max(created_at))
        .join(GenerationRow, GenerationRow.ref_id == RefRow.id)
        .outerjoin(
            EntryRow,
            (EntryRow.target_id == GenerationRow.target_id)
            & (EntryRow.store_id == GenerationRow.store_id),
        )
        .join(GenerationBlobRow, GenerationBlobRow.generation_id == GenerationRow.id)
        .join(BlobRow, BlobRow.id == GenerationBlobRow.blob_id)
        .where(GenerationRow.target_id == target_id, created_at >= since)
        .group_by(RefRow.name, BlobRow.digest)
    )
    return {(Ref(ref), Digest(digest)): at for ref, digest, at in rows}


def _blobs_named(connection: Connection, target_id: int, access: Access) -> frozenset[Digest]:
    """Return the blobs of the newest generation of each index, and of every signed one."""
    index = (GenerationRow.ref_id, GenerationRow.scope_id, GenerationRow.signed)
    place = func.row_number().over(
        partition_by=index, order_by=(GenerationRow.number.desc(), GenerationRow.id.desc())
    )
    stored = (
        select(GenerationRow.id, GenerationRow.ref_id, GenerationRow.signed, place.label("place"))
        .where(GenerationRow.target_id == target_id, GenerationRow.missing_since.is_(None))
        .subquery()
    )
    named = (
        select(BlobRow.digest)
        .distinct()
        .join(GenerationBlobRow, GenerationBlobRow.blob_id == BlobRow.id)
        .join(stored, stored.c.id == GenerationBlobRow.generation_id)
        .join(RefRow, RefRow.id == stored.c.ref_id)
        .where(BlobRow.target_id == target_id, (stored.c.place == 1) | stored.c.signed)
    )
    if access.readable:
        named = named.where(RefRow.name.in_(sorted(access.readable)))
    return frozenset(map(Digest, connection.scalars(named)))


def _generations(
    connection: Connection,
    target_id: int,
    probe: Probe,
    marked_at: Mapping[IndexId, datetime],
) -> tuple[KnownGeneration, ...]:
    """Return the generations that the token reads; what the probe has read is not decoded again."""
    rows = connection.execute(_select_generations(target_id)).all()
    of_use = {row.id: row for row in rows if Ref(row.ref) in probe.access.readable}
    known = [_generation(row) for row in of_use.values()]
    wanted = {*_to_decode(known, probe), *_read_since(known, probe.at, marked_at)}
    read = {(one.index, one.number): one for one in probe.read if one.config}
    decoded: dict[int, KnownGeneration] = {}
    for one in known:
        now = read.get((one.index, one.number)) if one.generation_id in wanted else None
        if now and content_digest(now.content) == one.content_digest:
            decoded[one.generation_id] = replace(one, config=now.config, sink=now.sink)
    by_id = {one.generation_id: one for one in known}
    for number, content in _contents(connection, target_id, wanted - decoded.keys()):
        decoded[number] = _decoded(by_id[number], of_use[number].key, content)
    return tuple(decoded.get(one.generation_id, one) for one in known)


def _generation(row: Row[Any]) -> KnownGeneration:
    return KnownGeneration(
        generation_id=row.id,
        index=_index_of(row),
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
    rows = connection.execute(
        select(GenerationRow.id, GenerationRow.content).where(
            GenerationRow.target_id == target_id,
            GenerationRow.content.is_not(None),
            GenerationRow.id.in_(each_of(wanted)),
        ),
        execution_options={"yield_per": _FEW},
    )
    return ((row.id, row.content) for row in rows)


def _select_generations(target_id: int) -> Select[*tuple[Any, ...]]:
    return (
        select(
            GenerationRow.id,
            RefRow.name.label("ref"),
            ScopeRow.name.label("scope"),
            GenerationRow.key,
            GenerationRow.number,
            GenerationRow.signed,
            GenerationRow.content_digest,
            GenerationRow.violation,
            GenerationRow.store_id,
            GenerationRow.location,
            GenerationRow.size,
            GenerationRow.first_seen_at,
            func.coalesce(GenerationRow.last_seen_at, probed_at(target_id)).label("last_seen_at"),
            GenerationRow.missing_since,
            GenerationRow.sink,
            EntryRow.created_at,
        )
        .join(RefRow, RefRow.id == GenerationRow.ref_id)
        .join(ScopeRow, ScopeRow.id == GenerationRow.scope_id)
        .outerjoin(
            EntryRow,
            (EntryRow.target_id == GenerationRow.target_id)
            & (EntryRow.store_id == GenerationRow.store_id),
        )
        .where(GenerationRow.target_id == target_id)
        .order_by(GenerationRow.id)
    )


def _index_of(row: Row[Any]) -> IndexId:
    return IndexId(Ref(row.ref), Scope(row.scope), row.signed)
