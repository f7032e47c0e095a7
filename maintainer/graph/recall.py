"""Recall: what the graph remembers, for a probe that saves requests and for marking."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from maintainer.cacheconfig import (
    BlobKey,
    Digest,
    IndexId,
    Key,
    Ref,
    Scope,
    SignatureKey,
    UploadKey,
    content_digest,
    decode_whole,
    parse_key,
)
from maintainer.errors import DatabaseError, InvalidIndexError
from maintainer.exports import LONGEST_EXPORT
from maintainer.graph.models import (
    BlobRow,
    DoubtRow,
    EntryRow,
    LayerRow,
    ManifestLayerRow,
    ManifestRow,
    RefRow,
    RunRow,
    ScopeRow,
)
from maintainer.graph.record import was_to_be_deleted
from maintainer.model.doubt import Cause, Doubt
from maintainer.model.entry import Access, KnownEntry, RememberedEntry
from maintainer.model.index import KnownGeneration, read_until
from maintainer.model.memory import Known, KnownPlace, Probe, WrittenGeneration
from maintainer.model.snapshot import Snapshot


def recall(connection: Connection, target_id: int, access: Access) -> Known:
    """Give what saves a probe requests."""
    places: defaultdict[IndexId, dict[int, KnownPlace]] = defaultdict(dict)
    written: dict[tuple[Ref, str], WrittenGeneration] = {}
    store_ids: set[int] = set()
    for row in connection.execute(_manifests(target_id).where(ManifestRow.missing_since.is_(None))):
        if row.store_id is not None:
            store_ids.add(row.store_id)
        elif row.size is not None:
            written[Ref(row.ref), row.key] = WrittenGeneration(row.id, row.size, row.first_seen_at)
        place = KnownPlace(
            row.id, row.location, Digest(row.content_digest), valid=row.violation is None
        )
        places[_index_of(row)][row.generation] = place
    named = _blobs_named(connection, target_id, access, ManifestRow.superseded_at.is_(None))
    stored = _blobs_named(connection, target_id, access, ManifestRow.missing_since.is_(None))
    looked_at = connection.execute(
        select(func.max(RunRow.started_at)).where(
            RunRow.target_id == target_id, RunRow.status == "done"
        )
    ).scalar()
    return Known(
        store_ids=frozenset(store_ids),
        written=written,
        places=places,
        named_blobs=frozenset(named),
        superseded_blobs=frozenset(stored.keys() - named.keys()),
        missing_blobs=frozenset(
            digest for digest, is_missing in (stored | named).items() if is_missing
        ),
        doubts=_doubts(connection, target_id),
        looked_at=looked_at,
        broken_entries=frozenset(connection.scalars(_broken_entries(target_id))),
        **_checked(connection, target_id),
    )


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


def recall_entries(connection: Connection, target_id: int, access: Access) -> list[RememberedEntry]:
    """Give the entries of our own kinds that the token reads and that ought to exist still.

    Those are all that existed at the last look, but for what a killed run was about to delete, and
    for what was not needed any more or had no content: if this file is older than the last run,
    that run deleted it.
    """
    rows = connection.execute(
        select(EntryRow.store_id, EntryRow.size, EntryRow.last_accessed_at)
        .join(RefRow, RefRow.id == EntryRow.ref_id)
        .where(
            EntryRow.target_id == target_id,
            EntryRow.kind != "foreign",
            EntryRow.missing_since.is_(None),
            EntryRow.unneeded_since.is_(None),
            EntryRow.content_missing_since.is_(None),
            ~was_to_be_deleted(target_id),
            RefRow.name.in_(sorted(access.readable)),
        )
    )
    return [RememberedEntry(row.store_id, row.size, row.last_accessed_at) for row in rows]


def load_snapshot(
    connection: Connection,
    target_id: int,
    probe: Probe,
    *,
    began_at: datetime | None = None,
    merged_scope: Scope | None = None,
) -> Snapshot:
    """Return what a run knows once it has recorded its probe.

    `began_at` is when the run began, if it has recorded another probe before.
    The entries of a directory are not in it: `load_entries` gives them, some at a time.
    """
    entries = (
        ()
        if probe.layout
        else tuple(_read(connection, _entries(target_id, probe.at), began_at or probe.at))
    )
    return Snapshot(
        now=probe.at,
        access=probe.access,
        entries=entries,
        generations=tuple(_generations(connection, target_id, probe)),
        unread=probe.unread,
        live_blobs=probe.live_blobs,
        read_by_builders=probe.read_by_builders,
        listing_complete=probe.listing_complete,
        layout=probe.layout,
        merged_scope=merged_scope,
        recent_references=_references(connection, target_id, probe.at - LONGEST_EXPORT),
        broken_blobs=probe.broken_blobs,
    )


def _references(
    connection: Connection, target_id: int, since: datetime
) -> dict[tuple[Ref, Digest], datetime]:
    """Return when each blob was last referenced by a generation created since, or first seen."""
    created_at = func.coalesce(EntryRow.created_at, ManifestRow.first_seen_at)
    rows = connection.execute(
        select(RefRow.name, BlobRow.digest, func.max(created_at))
        .join(ManifestRow, ManifestRow.ref_id == RefRow.id)
        .outerjoin(
            EntryRow,
            (EntryRow.target_id == ManifestRow.target_id)
            & (EntryRow.store_id == ManifestRow.store_id),
        )
        .join(ManifestLayerRow, ManifestLayerRow.manifest_id == ManifestRow.id)
        .join(LayerRow, LayerRow.id == ManifestLayerRow.layer_id)
        .join(BlobRow, BlobRow.id == LayerRow.blob_id)
        .where(ManifestRow.target_id == target_id, created_at >= since)
        .group_by(RefRow.name, BlobRow.digest)
    )
    return {(Ref(ref), Digest(digest)): at for ref, digest, at in rows}


def load_entries(
    connection: Connection, target_id: int, now: datetime, *, after: int, limit: int
) -> tuple[KnownEntry, ...]:
    """Give the next entries that a run has seen, by store id, behind the id `after`."""
    some = _entries(target_id, now).where(EntryRow.store_id > after).limit(limit)
    return tuple(_read(connection, some, now))


def _blobs_named(
    connection: Connection, target_id: int, access: Access, which: ColumnElement[bool]
) -> dict[Digest, bool]:
    """Give the blobs that some generations name, and whether they are missing."""
    named = (
        select(BlobRow.digest, BlobRow.missing_since)
        .distinct()
        .join(LayerRow, LayerRow.blob_id == BlobRow.id)
        .join(ManifestLayerRow, ManifestLayerRow.layer_id == LayerRow.id)
        .join(ManifestRow, ManifestRow.id == ManifestLayerRow.manifest_id)
        .join(RefRow, RefRow.id == ManifestRow.ref_id)
        .where(BlobRow.target_id == target_id, which)
    )
    if access.readable:
        named = named.where(RefRow.name.in_(sorted(access.readable)))
    rows = connection.execute(named)
    return {Digest(row.digest): row.missing_since is not None for row in rows}


def _entries(target_id: int, now: datetime) -> Select[*tuple[Any, ...]]:
    return (
        select(
            EntryRow.store_id,
            RefRow.name.label("ref"),
            EntryRow.key,
            EntryRow.kind,
            EntryRow.digest,
            EntryRow.size,
            EntryRow.created_at,
            EntryRow.last_accessed_at,
            EntryRow.first_seen_at,
            EntryRow.last_seen_at,
            EntryRow.unneeded_since,
            EntryRow.used_at,
            EntryRow.checked_at,
            EntryRow.content_missing_since,
            EntryRow.state,
            EntryRow.facts,
        )
        .join(RefRow, RefRow.id == EntryRow.ref_id)
        .where(
            EntryRow.target_id == target_id,
            EntryRow.last_seen_at == now,
            EntryRow.missing_since.is_(None),
        )
        .order_by(EntryRow.store_id)
    )


def _read(
    connection: Connection, entries: Select[*tuple[Any, ...]], began_at: datetime
) -> Iterator[KnownEntry]:
    for row in connection.execute(entries):
        yield KnownEntry(
            store_id=row.store_id,
            ref=Ref(row.ref),
            key=row.key,
            parsed=_parsed(row),
            size=row.size,
            created_at=row.created_at,
            last_accessed_at=row.last_accessed_at,
            known_before=row.first_seen_at < began_at,
            unneeded_since=row.unneeded_since,
            state=row.state,
            reason=row.facts,
            used_at=row.used_at,
            checked_at=row.checked_at,
            content_missing_since=row.content_missing_since,
        )


def _parsed(row: Row[Any]) -> Key:
    if row.kind == "blob":
        return BlobKey(Digest(row.digest))
    if row.kind == "signature":
        return SignatureKey(Digest(row.digest))
    if row.kind == "upload":
        return UploadKey(row.key.removeprefix(str(UploadKey(""))))
    return parse_key(row.key) if row.kind == "index" else None


def _generations(connection: Connection, target_id: int, probe: Probe) -> Iterator[KnownGeneration]:
    rows = connection.execute(_manifests(target_id)).all()
    of_use = {row.id: row for row in rows if Ref(row.ref) in probe.access.readable}
    known = [_generation(row) for row in of_use.values()]
    wanted = {*_to_decode(of_use.values(), probe), *_read_again(known, of_use, probe.at)}
    contents = dict(_contents(connection, target_id, wanted))
    for one in known:
        content = contents.get(one.manifest_id)
        key = of_use[one.manifest_id].key
        if content is None:
            yield one
        else:
            yield _decoded(one, key, content)


def _generation(row: Row[Any]) -> KnownGeneration:
    return KnownGeneration(
        manifest_id=row.id,
        index=_index_of(row),
        number=row.generation,
        content_digest=Digest(row.content_digest),
        config=None,
        violation=row.violation,
        created_at=row.created_at or row.first_seen_at,
        store_id=row.store_id,
        exists=row.missing_since is None,
        superseded=row.superseded_at is not None,
        last_seen_at=row.last_seen_at,
        missing_since=row.missing_since,
    )


def _decoded(one: KnownGeneration, key: str, content: bytes) -> KnownGeneration:
    """Decode what was valid when it was recorded; a rule may have come since that it breaks.

    Raises DatabaseError if it is not what was recorded.
    """
    try:
        config, sink = decode_whole(content)
    except InvalidIndexError as error:
        if content_digest(content) == one.content_digest:
            return replace(one, violation=str(error))
        raise DatabaseError(
            f"the database holds {key} in a state that makes no sense ({error}): remove the file; "
            "all that is lost is the memory of when things became unreachable"
        ) from None
    return replace(one, config=config, sink=sink)


def _to_decode(rows: Iterable[Row[Any]], probe: Probe) -> Iterator[int]:
    """Choose what takes part in a merge, and what builders read now even if it was superseded."""
    current: dict[IndexId, Row[Any]] = {}
    for row in rows:
        index = _index_of(row)
        if row.superseded_at is None or row.key == probe.read_by_builders.get(index):
            yield row.id
        if row.missing_since is None:
            known = current.setdefault(index, row)
            current[index] = max(known, row, key=lambda one: (one.generation, one.id))
    yield from (row.id for row in current.values())


def _read_again(
    known: Iterable[KnownGeneration], rows: Mapping[int, Row[Any]], now: datetime
) -> Iterator[int]:
    """Choose what builders have read after it was superseded, because the newer ones went."""
    for number, until in read_until(known, now).items():
        superseded_at = rows[number].superseded_at
        if superseded_at is not None and until > superseded_at:
            yield number


def _contents(
    connection: Connection, target_id: int, wanted: set[int]
) -> Iterator[tuple[int, bytes]]:
    rows = connection.execute(
        select(ManifestRow.id).where(
            ManifestRow.target_id == target_id, ManifestRow.content.is_not(None)
        )
    ).scalars()
    for number in sorted(wanted & set(rows)):
        content = connection.execute(
            select(ManifestRow.content).where(ManifestRow.id == number)
        ).scalar()
        if content is not None:
            yield number, content


def _manifests(target_id: int) -> Select[*tuple[Any, ...]]:
    return (
        select(
            ManifestRow.id,
            RefRow.name.label("ref"),
            ScopeRow.name.label("scope"),
            ManifestRow.key,
            ManifestRow.generation,
            ManifestRow.signed,
            ManifestRow.content_digest,
            ManifestRow.violation,
            ManifestRow.store_id,
            ManifestRow.location,
            func.length(ManifestRow.content).label("size"),
            ManifestRow.first_seen_at,
            ManifestRow.last_seen_at,
            ManifestRow.missing_since,
            ManifestRow.superseded_at,
            EntryRow.created_at,
        )
        .join(RefRow, RefRow.id == ManifestRow.ref_id)
        .join(ScopeRow, ScopeRow.id == ManifestRow.scope_id)
        .outerjoin(
            EntryRow,
            (EntryRow.target_id == ManifestRow.target_id)
            & (EntryRow.store_id == ManifestRow.store_id),
        )
        .where(ManifestRow.target_id == target_id)
        .order_by(ManifestRow.id)
    )


def _index_of(row: Row[Any]) -> IndexId:
    return IndexId(Ref(row.ref), Scope(row.scope), row.signed)
