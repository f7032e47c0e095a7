"""Record: what a probe has shown, into the graph. What it shows again is not written again."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Update,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from maintainer.cacheconfig import Digest, IndexId
from maintainer.graph.generations import record_generations
from maintainer.graph.idle import note_look, save_idle
from maintainer.graph.listing import record_entries
from maintainer.graph.memory import forget_results, forget_tags
from maintainer.graph.models import BlobRow, DoubtRow, EntryRow, GenerationRow, Target
from maintainer.graph.values import each_of
from maintainer.model.doubt import Cause
from maintainer.model.memory import Probe
from maintainer.model.remembered import Remembered


def record(
    connection: Connection,
    target_id: int,
    probe: Probe,
    *,
    remember_exports: timedelta = timedelta(0),
) -> dict[IndexId, Remembered]:
    """Record all that a probe has shown, in the caller's transaction.

    `remember_exports` is how long replaced exports of a tag are remembered. Return what is
    remembered of the indexes that have changed.
    """
    save_idle(connection, target_id, None)
    probed_at, listed_at = _begin_look(connection, target_id, probe)
    record_entries(connection, target_id, probe, listed_at)
    if not probe.abilities.numbered:
        forget_generations(connection, probe.gone)
    if probe.adopted:
        connection.execute(
            _ADOPT, [{"row": row, "entry": entry} for row, entry in sorted(probe.adopted.items())]
        )
    _record_presence(connection, target_id, probe, probed_at)
    read = record_generations(connection, target_id, probe.read, probe.at, is_shown=True)
    _record_doubts(connection, target_id, probe)
    _record_blobs(connection, target_id, probe, probed_at)
    merged = forget_results(
        connection,
        target_id,
        probe.access,
        probe.at,
        unasked=probe.unasked_blobs,
        remember_exports=remember_exports,
        merged=read.merged,
    )
    if not probe.abilities.numbered:
        forget_tags(connection, target_id, (one.index for one in probe.unread))
    return merged


_ADOPT = (
    update(GenerationRow.__table__)  # type: ignore[arg-type]
    .where(GenerationRow.__table__.c.id == bindparam("row"))
    .values(store_id=bindparam("entry"))
)


def _begin_look(
    connection: Connection, target_id: int, probe: Probe
) -> tuple[datetime | None, datetime | None]:
    """Record that a look was taken; return when the last one was, and the last that listed."""
    here = Target.id == target_id
    earlier = connection.execute(select(Target.probed_at, Target.listed_at).where(here)).one()
    note_look(connection, target_id, probe.at, listed=probe.abilities.lists)
    return earlier.probed_at, earlier.listed_at


def find_target(connection: Connection, name: str) -> int:
    """Return the id of a target, which is added if it is new."""
    connection.execute(upsert(Target).values(name=name).on_conflict_do_nothing())
    return connection.execute(select(Target.id).where(Target.name == name)).scalar_one()


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


def _record_presence(
    connection: Connection, target_id: int, probe: Probe, previous: datetime | None
) -> None:
    """Record which known generations are still stored; the look before this was at `previous`."""
    here = GenerationRow.target_id == target_id
    shown: ColumnElement[bool]
    if probe.abilities.numbered and probe.abilities.lists:
        shown = exists().where(
            EntryRow.target_id == target_id,
            EntryRow.store_id == GenerationRow.store_id,
            EntryRow.last_seen_at.is_(None),
        )
    else:
        shown = GenerationRow.id.in_(each_of(probe.found))
    was_shown = GenerationRow.last_seen_at.is_(None)
    last_seen_at = previous or probe.at
    # What was gone, and whose content was dropped, is not known again before it is read again.
    is_dropped = GenerationRow.size.is_not(None) & GenerationRow.content.is_(None)
    connection.execute(
        update(GenerationRow).where(here, was_shown, ~shown).values(last_seen_at=last_seen_at)
    )
    connection.execute(
        update(GenerationRow)
        .where(here, or_(~was_shown, GenerationRow.missing_since.is_not(None)), shown, ~is_dropped)
        .values(last_seen_at=None, missing_since=None)
    )
    # What a name does not lead to any more is forgotten already, and its number used again.
    if not probe.abilities.numbered:
        return
    gone = ~shown
    if not probe.abilities.lists:
        gone = GenerationRow.id.in_(each_of(probe.gone))
    elif not probe.listing_complete:
        return
    connection.execute(
        update(GenerationRow)
        .where(here, gone, GenerationRow.missing_since.is_(None))
        .values(missing_since=probe.at)
    )


def forget_generations(connection: Connection, generations: Iterable[int]) -> None:
    """Drop the generations that a tag no longer leads to: directories do not evict anything.

    GitHub evicts indexes while their blobs survive, so there they are remembered.
    """
    for number in sorted(generations):
        connection.execute(delete(GenerationRow).where(GenerationRow.id == number))


def _record_blobs(
    connection: Connection, target_id: int, probe: Probe, previous: datetime | None
) -> None:
    """Record which of the blobs that an index references exist."""
    rows = connection.execute(_BLOBS, {"target": target_id}).all()
    known = {row.digest for row in rows}
    new = sorted(probe.missing_blobs - known)
    _many(
        connection,
        _ADD_BLOB,
        [
            {"target": target_id, "name": digest, "now": probe.at, "missing": probe.at}
            for digest in new
        ],
    )
    found, lost, missing = [], [], []
    for row in rows:
        if row.digest in probe.live_blobs:
            if not row.is_found or row.missing_since is not None:
                found.append({"row": row.id})
            continue
        if row.is_found:
            lost.append({"row": row.id, "previous": previous or probe.at})
        if row.missing_since is None and row.digest in probe.missing_blobs:
            missing.append({"row": row.id, "now": probe.at})
    _many(connection, _FOUND, found)
    _many(connection, _NOT_FOUND, lost)
    _many(connection, _MISSING, missing)


_blob = BlobRow.__table__
_this = update(_blob).where(_blob.c.id == bindparam("row"))  # type: ignore[arg-type]
_FOUND = _this.values(is_found=True, missing_since=None)
_NOT_FOUND = _this.values(is_found=False, last_seen_at=bindparam("previous"))
_MISSING = _this.values(missing_since=bindparam("now"))
_BLOBS = select(_blob.c.id, _blob.c.digest, _blob.c.is_found, _blob.c.missing_since).where(
    _blob.c.target_id == bindparam("target")
)
_ADD_BLOB = insert(_blob).values(  # type: ignore[arg-type]
    target_id=bindparam("target"),
    digest=bindparam("name"),
    first_seen_at=bindparam("now"),
    missing_since=bindparam("missing"),
    is_found=False,
)


def mark_missing(
    connection: Connection, target_id: int, blobs: Iterable[Digest], now: datetime
) -> None:
    """Record blobs that were not found, so that a run notices if they are back."""
    rows = [{"blob": digest, "target": target_id, "now": now} for digest in sorted(blobs)]
    _many(connection, _MARK_MISSING, rows)


_MARK_MISSING = (
    update(_blob)  # type: ignore[arg-type]
    .where(
        _blob.c.target_id == bindparam("target"),
        _blob.c.digest == bindparam("blob"),
        _blob.c.missing_since.is_(None),
    )
    .values(missing_since=bindparam("now"))
)


def _many(
    connection: Connection, statement: Insert | Update, rows: Sequence[Mapping[str, object]]
) -> None:
    if rows:
        connection.execute(statement, rows)
