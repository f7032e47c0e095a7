"""Record: what a probe has shown, into the graph."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Exists,
    Insert,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.orm import aliased

from maintainer.cacheconfig import (
    BlobKey,
    Digest,
    IndexKey,
    Ref,
    SignatureKey,
    UploadKey,
    content_digest,
)
from maintainer.graph.content import ContentWriter
from maintainer.graph.memory import forget_results, forget_tags, remember
from maintainer.graph.models import (
    ActionRow,
    BlobRow,
    DoubtRow,
    EntryRow,
    GenerationRow,
    ReasonText,
    RefRow,
    RunRow,
    ScopeRow,
    Target,
    reason_columns,
)
from maintainer.model.doubt import Cause
from maintainer.model.entry import StoredEntry
from maintainer.model.index import ReadGeneration
from maintainer.model.memory import SKEW, Probe
from maintainer.model.reason import DeletedByKilledRun, Evicted, NotMarked, Reason, Removed, code_of

_BATCH = 5_000


def record(
    connection: Connection,
    target_id: int,
    probe: Probe,
    *,
    remember_exports: timedelta = timedelta(0),
) -> None:
    """Record all that a probe has shown, in the caller's transaction.

    `remember_exports` is how long replaced exports of a tag are remembered.
    """
    ours = _looked_up(connection, target_id)
    for some in _in_batches(probe.entries):
        _record_entries(connection, target_id, probe, some, ours)
    _record_refs(connection, target_id, probe, ())
    _record_absence(connection, target_id, probe)
    if not probe.abilities.numbered:
        forget_generations(connection, probe.gone)
    for known, store_id in sorted(probe.adopted.items()):
        connection.execute(
            update(GenerationRow).where(GenerationRow.id == known).values(store_id=store_id)
        )
    record_generations(connection, target_id, probe.read, probe.at)
    _record_doubts(connection, target_id, probe)
    _record_presence(connection, target_id, probe)
    _record_blobs(connection, target_id, probe)
    forget_results(
        connection,
        target_id,
        probe.access,
        probe.at,
        unasked=probe.unasked_blobs,
        remember_exports=remember_exports,
    )
    if not probe.abilities.numbered:
        forget_tags(connection, target_id, (one.index for one in probe.unread))


def _in_batches(entries: Iterable[StoredEntry]) -> Iterator[list[StoredEntry]]:
    remaining = iter(entries)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


def find_target(connection: Connection, name: str) -> int:
    """Return the id of a target, which is added if it is new."""
    connection.execute(upsert(Target).values(name=name).on_conflict_do_nothing())
    return connection.execute(select(Target.id).where(Target.name == name)).scalar_one()


def record_generations(
    connection: Connection, target_id: int, generations: Iterable[ReadGeneration], now: datetime
) -> list[int]:
    """Record generations that were read or written, with their contents; return their ids.

    They are merged into what is remembered of their indexes.
    """
    contents = ContentWriter(connection, target_id, now)
    read = list(generations)
    numbers = [_record_generation(connection, target_id, one, contents) for one in read]
    remember(connection, target_id, read, now)
    return numbers


def _record_generation(
    connection: Connection, target_id: int, generation: ReadGeneration, contents: ContentWriter
) -> int:
    index = generation.index
    values = {
        "target_id": target_id,
        "ref_id": _find(connection, RefRow, target_id, index.ref, readable=True, writable=False),
        "scope_id": _find(connection, ScopeRow, target_id, index.scope),
        "key": str(index.key(generation.number)),
        "number": generation.number,
        "signed": index.signed,
        "content": generation.content if generation.config else None,
        "content_digest": content_digest(generation.content),
        "sink": generation.sink,
        "first_seen_at": contents.now,
    }
    seen = {
        "store_id": generation.store_id,
        "location": generation.location,
        "violation": generation.violation,
        "last_seen_at": contents.now,
        "missing_since": None,
    }
    known = connection.execute(
        select(GenerationRow.id).where(
            GenerationRow.ref_id == values["ref_id"],
            GenerationRow.key == values["key"],
            GenerationRow.content_digest == values["content_digest"],
        )
    ).scalar()
    if known is not None:
        connection.execute(update(GenerationRow).where(GenerationRow.id == known).values(seen))
        return known
    new = connection.execute(
        insert(GenerationRow).values(values | seen).returning(GenerationRow.id)
    ).scalar_one()
    if generation.config:
        contents.write(new, generation.config)
    return new


def _find(connection: Connection, table: Any, target_id: int, name: str, **more: Any) -> int:  # noqa: ANN401
    """Return the id of a ref or scope, which is added if it is new."""
    connection.execute(
        upsert(table).values(target_id=target_id, name=name, **more).on_conflict_do_nothing()
    )
    found = select(table.id).where(table.target_id == target_id, table.name == name)
    return int(connection.execute(found).scalar_one())


def _record_refs(
    connection: Connection, target_id: int, probe: Probe, entries: Iterable[StoredEntry]
) -> dict[Ref, int]:
    names = {entry.ref for entry in entries} | probe.access.readable
    statement = upsert(RefRow)
    _many(
        connection,
        statement.on_conflict_do_update(
            index_elements=["target_id", "name"],
            set_={
                "readable": statement.excluded.readable,
                "writable": statement.excluded.writable,
            },
        ),
        [
            {
                "target_id": target_id,
                "name": name,
                "readable": name in probe.access.readable,
                "writable": name in probe.access.writable,
            }
            for name in sorted(names)
        ],
    )
    rows = connection.execute(select(RefRow.name, RefRow.id).where(RefRow.target_id == target_id))
    return {Ref(name): number for name, number in rows}


def _record_entries(
    connection: Connection,
    target_id: int,
    probe: Probe,
    entries: Sequence[StoredEntry],
    ours: Mapping[int, "_Uses"],
) -> None:
    """Record some of the entries that a probe has shown."""
    refs = _record_refs(connection, target_id, probe, entries)
    rows = []
    for entry in entries:
        kind, digest = _kind(entry.parsed)
        rows.append(
            {
                "target_id": target_id,
                "ref_id": refs[entry.ref],
                "store_id": entry.id,
                "key": entry.key,
                "kind": kind,
                "digest": digest,
                "size": entry.size,
                "created_at": entry.created_at,
                "last_accessed_at": entry.last_accessed_at,
                "used_at": _used_at(entry, ours.get(entry.id)),
                "first_seen_at": probe.at,
                "last_seen_at": probe.at,
                "missing_since": None,
                "state": "new",
                **reason_columns(NotMarked()),
            }
        )
    statement = upsert(EntryRow)
    # Only a rewritten file changes its size, or its time of creation.
    seen = (
        "ref_id",
        "size",
        "created_at",
        "last_accessed_at",
        "used_at",
        "last_seen_at",
        "missing_since",
    )
    _many(
        connection,
        statement.on_conflict_do_update(
            index_elements=["target_id", "store_id"],
            set_={name: statement.excluded[name] for name in seen},
            # Two files may be forged to have one id: then the second is ignored.
            where=EntryRow.key == statement.excluded.key,
        ),
        rows,
    )


class _Uses(NamedTuple):
    """What is known of the uses of an entry that a run has looked up."""

    store_id: int
    last_accessed_at: datetime
    used_at: datetime
    looked_up_at: datetime | None


def _looked_up(connection: Connection, target_id: int) -> dict[int, _Uses]:
    """Return, by store id, what is known of the uses of the entries that a run has looked up."""
    rows = connection.execute(
        select(
            EntryRow.store_id, EntryRow.last_accessed_at, EntryRow.used_at, EntryRow.looked_up_at
        ).where(EntryRow.target_id == target_id, EntryRow.looked_up_at.is_not(None))
    )
    return {
        row.store_id: _Uses(row.store_id, row.last_accessed_at, row.used_at, row.looked_up_at)
        for row in rows
    }


def _used_at(entry: StoredEntry, known: _Uses | None) -> datetime:
    """Return when a build last used an entry.

    A use at the time of our own look-up was ours; an ambiguous one was a build's.
    """
    accessed_at = entry.last_accessed_at
    if known is None:
        return accessed_at
    is_ours = known.looked_up_at and abs(accessed_at - known.looked_up_at) <= SKEW
    if is_ours or accessed_at == known.last_accessed_at:
        return known.used_at
    return accessed_at


def _record_absence(connection: Connection, target_id: int, probe: Probe) -> None:
    """Record which entries are not stored any more. Nothing evicts from a directory."""
    reason: Reason
    state, reason = "evicted", Evicted()
    if probe.abilities.evicted_by is None:
        state, reason = "removed", Removed()
    if probe.abilities.lists and probe.listing_complete:
        connection.execute(
            update(EntryRow)
            .where(
                EntryRow.target_id == target_id,
                EntryRow.last_seen_at < probe.at,
                EntryRow.missing_since.is_(None),
            )
            .values(
                missing_since=probe.at,
                state=case((was_planned(target_id), "deleted"), else_=state),
                reason=case(
                    (was_planned(target_id), code_of(DeletedByKilledRun())),
                    else_=code_of(reason),
                ),
                facts=case(
                    (was_planned(target_id), literal(DeletedByKilledRun(), ReasonText)),
                    else_=literal(reason, ReasonText),
                ),
            )
        )


def was_planned(target_id: int) -> Exists:
    """Return whether a killed run may have deleted an entry, with no listing since."""
    earlier = aliased(RunRow)
    last_look = (
        select(func.coalesce(func.max(earlier.id), 0))
        .where(earlier.target_id == target_id, earlier.status == "done")
        .scalar_subquery()
    )
    return exists().where(
        ActionRow.run_id == RunRow.id,
        RunRow.target_id == target_id,
        RunRow.status == "killed",
        RunRow.id > last_look,
        ~RunRow.dry_run,
        ActionRow.kind == "delete",
        ActionRow.outcome == "planned",
        ActionRow.store_id == EntryRow.store_id,
    )


def _kind(key: object) -> tuple[str, str | None]:
    if isinstance(key, BlobKey):
        return "blob", key.digest
    if isinstance(key, SignatureKey):
        return "signature", key.digest
    if isinstance(key, UploadKey):
        return "upload", None
    return ("index" if isinstance(key, IndexKey) else "foreign"), None


def _record_doubts(connection: Connection, target_id: int, probe: Probe) -> None:
    """Record since when generations have given the same answer in place of their content."""
    here = DoubtRow.target_id == target_id
    known = {
        (row.ref, row.key): row.cause
        for row in connection.execute(
            select(DoubtRow.ref, DoubtRow.key, DoubtRow.cause).where(here)
        )
    }
    doubts = {(one.index.ref, str(one.index.key(one.number))): one.cause for one in probe.unread}
    # Temporary trouble proves nothing; and what proved unreadable stays so.
    lasting = {place for place, cause in doubts.items() if cause is not Cause.TRANSIENT}
    refused = {
        (one.index.ref, str(one.index.key(one.number))) for one in probe.read if not one.content
    }
    new = {place for place in lasting if known.get(place) != doubts[place]}
    # A run knows nothing of what it could not probe.
    looked = probe.listing_complete or not probe.abilities.lists
    past = {
        (ref, key)
        for ref, key in known.keys() - doubts.keys() - refused
        if looked and ref in probe.access.readable
    }
    for ref, key in sorted(past | (known.keys() & new)):
        connection.execute(delete(DoubtRow).where(here, DoubtRow.ref == ref, DoubtRow.key == key))
    rows = [
        {
            "target_id": target_id,
            "ref": ref,
            "key": key,
            "cause": doubts[ref, key],
            "since": probe.at,
        }
        for ref, key in sorted(new)
    ]
    _many(connection, insert(DoubtRow), rows)


def _record_presence(connection: Connection, target_id: int, probe: Probe) -> None:
    """Record which generations are still stored."""
    here = GenerationRow.target_id == target_id
    listed = exists().where(
        EntryRow.target_id == target_id,
        EntryRow.store_id == GenerationRow.store_id,
        EntryRow.last_seen_at == probe.at,
    )
    seen = {"last_seen_at": probe.at, "missing_since": None}
    if probe.abilities.numbered and probe.abilities.lists:
        connection.execute(update(GenerationRow).where(here, listed).values(seen))
        if probe.listing_complete:
            connection.execute(
                update(GenerationRow)
                .where(here, ~listed, GenerationRow.missing_since.is_(None))
                .values(missing_since=probe.at)
            )
        return
    _update(connection, GenerationRow, probe.found, seen)
    if probe.abilities.numbered:
        # What a name does not lead to any more is forgotten already, and its number used again.
        _update(connection, GenerationRow, probe.gone, {"missing_since": probe.at})


def forget_generations(connection: Connection, generations: Iterable[int]) -> None:
    """Drop the generations that a tag no longer leads to: directories do not evict anything.

    GitHub evicts indexes while their blobs survive, so there they are remembered.
    """
    for number in sorted(generations):
        connection.execute(delete(GenerationRow).where(GenerationRow.id == number))


def _record_blobs(connection: Connection, target_id: int, probe: Probe) -> None:
    """Record which of the blobs that an index references exist."""
    _many(
        connection,
        upsert(BlobRow).on_conflict_do_nothing(),
        [
            {"target_id": target_id, "digest": digest, "first_seen_at": probe.at}
            for digest in sorted(probe.missing_blobs)
        ],
    )
    rows = connection.execute(
        select(BlobRow.id, BlobRow.digest, BlobRow.missing_since).where(
            BlobRow.target_id == target_id
        )
    ).all()
    present = [row.id for row in rows if row.digest in probe.live_blobs]
    missing = [
        row.id for row in rows if row.digest in probe.missing_blobs and row.missing_since is None
    ]
    _update(connection, BlobRow, present, {"last_seen_at": probe.at, "missing_since": None})
    _update(connection, BlobRow, missing, {"missing_since": probe.at})


def mark_missing(
    connection: Connection, target_id: int, blobs: Iterable[Digest], now: datetime
) -> None:
    """Record blobs that were not found, so that a run notices if they are back."""
    rows = [{"blob": digest} for digest in sorted(blobs)]
    if rows:
        connection.execute(
            update(BlobRow.__table__)  # type: ignore[arg-type]
            .where(
                BlobRow.__table__.c.target_id == target_id,
                BlobRow.__table__.c.digest == bindparam("blob"),
                BlobRow.__table__.c.missing_since.is_(None),
            )
            .values(missing_since=now),
            rows,
        )


def _update(
    connection: Connection,
    model: type[BlobRow | GenerationRow],
    ids: Iterable[int],
    values: Mapping[str, object],
) -> None:
    statement = update(model).where(model.id == bindparam("row")).values(values)
    rows = [{"row": number} for number in sorted(ids)]
    if rows:
        connection.execute(statement, rows, execution_options={"synchronize_session": None})


def _many(connection: Connection, statement: Insert, rows: Sequence[Mapping[str, object]]) -> None:
    if rows:
        connection.execute(statement, rows)
