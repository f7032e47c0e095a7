"""Record: what a probe has shown, into the graph. What it shows again is not written again."""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from maintainer.cacheconfig import Digest, IndexId
from maintainer.graph.dialect import each_number, insert_new
from maintainer.graph.generations import record_generations
from maintainer.graph.idle import note_look, save_idle
from maintainer.graph.listing import record_entries
from maintainer.graph.memory import forget_results, forget_tags
from maintainer.graph.rows import ROWS_AT_ONCE, execute_each
from maintainer.graph.tables import (
    BLOB,
    DOUBT,
    ENTRY,
    ENTRY_OF_GENERATION,
    GENERATION,
    GENERATION_BLOB,
    REF,
    TARGET,
)
from maintainer.graph.values import to_json
from maintainer.model.doubt import Cause
from maintainer.model.memory import Probe
from maintainer.model.remembered import Remembered


def record(
    connection: Connection,
    target_id: int,
    probe: Probe,
    *,
    remember_exports: timedelta = timedelta(0),
    forgets: bool = True,
) -> dict[IndexId, Remembered]:
    """Record all that a probe has shown, in the caller's transaction.

    `remember_exports` is how long replaced exports of a tag are remembered. Return what is
    remembered of the indexes that have changed. A dry run or a repair must not forget for good,
    because its settings may be others.
    """
    save_idle(connection, target_id, None)
    probed_at, listed_at = _begin_look(connection, target_id, probe)
    record_entries(connection, target_id, probe, listed_at)
    if not probe.abilities.numbered:
        restart_clocks(connection, target_id, probe.gone)
        forget_generations(connection, probe.gone)
    adopted = [{"row": row, "entry": entry} for row, entry in sorted(probe.adopted.items())]
    execute_each(connection, _ADOPT, adopted)
    _record_presence(connection, target_id, probe, probed_at)
    read = record_generations(
        connection,
        target_id,
        probe.read,
        probe.at,
        is_shown=True,
        found=probe.live_blobs,
        replaced_at=max(probe.at, probed_at or probe.at),
    )
    _record_blobs(connection, target_id, probe, probed_at)
    _record_damage(connection, target_id, probe)
    _record_doubts(connection, target_id, probe)
    merged = forget_results(
        connection,
        target_id,
        probe.access,
        probe.at,
        unasked=probe.unasked_blobs,
        remember_exports=remember_exports,
        merged=read.merged,
        for_good=forgets,
    )
    if forgets and not probe.abilities.numbered:
        forget_tags(connection, target_id, (one.index for one in probe.unread))
    return merged


def _begin_look(
    connection: Connection, target_id: int, probe: Probe
) -> tuple[datetime | None, datetime | None]:
    """Record that a look was taken; return when the last one was, and the last that listed."""
    earlier = connection.execute(_LOOKS, {"target": target_id}).one()
    note_look(connection, target_id, probe.at, listed=probe.abilities.lists)
    return earlier.probed_at, earlier.listed_at


def find_target(connection: Connection, name: str) -> int:
    """Return the id of a target, which is added if it is new."""
    connection.execute(_ADD_TARGET, {"name": name})
    return int(connection.execute(_TARGET, {"wanted": name}).scalar_one())


def _record_doubts(connection: Connection, target_id: int, probe: Probe) -> None:
    """Record since when generations have given the same answer in place of their content."""
    connection.execute(_END_DOUBTS_OF_THE_GONE, {"target": target_id})
    known = {
        (row.ref, row.key): row.cause for row in connection.execute(_DOUBTS, {"target": target_id})
    }
    doubts = {(one.index.ref, str(one.index.key(one.number))): one.cause for one in probe.unread}
    # Temporary trouble proves nothing; and what proved unreadable stays so.
    lasting = {place for place, cause in doubts.items() if cause is not Cause.TRANSIENT}
    refused = {
        (one.index.ref, str(one.index.key(one.number)))
        for one in probe.read
        if not one.content.size
    }
    new = {place for place in lasting if known.get(place) != doubts[place]}
    # A run knows nothing of what it could not probe.
    looked = probe.listing_complete or not probe.abilities.lists
    past = {
        (ref, key)
        for ref, key in known.keys() - doubts.keys() - refused
        if looked and ref in probe.access.readable
    }
    ended = [
        {"target": target_id, "of_ref": ref, "of_key": key}
        for ref, key in sorted(past | (known.keys() & new))
    ]
    execute_each(connection, _END_DOUBT, ended)
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
    execute_each(connection, _DOUBT, rows)


def _record_presence(
    connection: Connection, target_id: int, probe: Probe, previous: datetime | None
) -> None:
    """Record which known generations are still stored; the look before this was at `previous`."""
    listed = probe.abilities.numbered and probe.abilities.lists
    shown = _LISTED if listed else _FOUND_BY_NAME
    asked: dict[str, object] = {"target": target_id}
    if not listed:
        asked["found"] = to_json(probe.found)
    gone = {"target": target_id, "gone": to_json(probe.gone), "now": probe.at}
    if listed:
        # A service that was restored from a backup has given their numbers to other entries.
        connection.execute(_GIVE_UP_NUMBERS, {"target": target_id})
        connection.execute(_REPLACED, gone)
    connection.execute(shown.not_any_more, asked | {"previous": previous or probe.at})
    connection.execute(shown.again, asked)
    # What a name does not lead to any more is forgotten already, and its number used again.
    if not probe.abilities.numbered:
        return
    if not listed:
        connection.execute(_GONE, gone)
    elif probe.listing_complete:
        connection.execute(_UNLISTED, {"target": target_id, "now": probe.at})


def restart_clocks(connection: Connection, target_id: int, generations: Collection[int]) -> None:
    """Let grace periods of blobs begin again: these generations of names were read until just now.

    A run may have noticed before that no result needs a blob, while an index referenced it.
    """
    if generations:
        read = {"target": target_id, "read": to_json(generations)}
        connection.execute(_RESTART_CLOCKS, read)


def forget_generations(connection: Connection, generations: Iterable[int]) -> None:
    """Drop the generations that a name or a tag no longer leads to: builds have overwritten them.

    Numbered generations are remembered: GitHub evicts indexes while their blobs survive.
    """
    rows = [{"row": number} for number in sorted(generations)]
    execute_each(connection, _FORGET, rows)


def _record_blobs(
    connection: Connection, target_id: int, probe: Probe, previous: datetime | None
) -> None:
    """Record which of the blobs that an index references exist."""
    referenced = frozenset[Digest]().union(*(one.config.blobs for one in probe.read if one.config))
    new = {*probe.missing_blobs, *(probe.live_blobs & referenced)}
    found, lost, missing = [], [], []
    for row in connection.execute(_BLOBS, {"target": target_id}):
        new.discard(row.digest)
        if row.digest in probe.live_blobs:
            if not row.is_found or row.missing_since is not None:
                found.append({"row": row.id})
            continue
        if row.is_found:
            lost.append({"row": row.id, "previous": previous or probe.at})
        if row.missing_since is None and row.digest in probe.missing_blobs:
            missing.append({"row": row.id, "now": probe.at})
    rows_of_new = (
        {
            "target": target_id,
            "name": digest,
            "now": probe.at,
            "found": digest in probe.live_blobs,
            "missing": None if digest in probe.live_blobs else probe.at,
        }
        for digest in sorted(new)
    )
    execute_each(connection, _ADD_BLOB, rows_of_new)
    execute_each(connection, _FOUND, found)
    execute_each(connection, _NOT_FOUND, lost)
    execute_each(connection, _MISSING, missing)


def _record_damage(connection: Connection, target_id: int, probe: Probe) -> None:
    """Record which blobs are damaged, where a probe looks at all that are needed."""
    if not probe.abilities.looks_cheaply:
        return
    known = set(connection.scalars(_DAMAGED, {"target": target_id}))
    note_contents(connection, target_id, known & probe.live_blobs, probe.at, since=None)
    note_contents(connection, target_id, probe.damaged_blobs - known, probe.at, since=probe.at)


def note_contents(
    connection: Connection,
    target_id: int,
    blobs: Iterable[Digest],
    now: datetime,
    *,
    since: datetime | None,
) -> None:
    """Record that blobs were checked, and since when their content is missing or wrong, if so."""
    here = {"target": target_id, "now": now, "since": since}
    execute_each(connection, _CHECKED, [here | {"blob": one} for one in sorted(blobs)])


def mark_missing(
    connection: Connection, target_id: int, blobs: Iterable[Digest], now: datetime
) -> None:
    """Record blobs that were not found, so that a run notices if they are back."""
    rows = [{"blob": digest, "target": target_id, "now": now} for digest in sorted(blobs)]
    execute_each(connection, _MARK_MISSING, rows)


_target: BindParameter[int] = bindparam("target")
_row: BindParameter[int] = bindparam("row")
_now: BindParameter[datetime] = bindparam("now")

_ADD_TARGET = insert_new(TARGET)
_TARGET = select(TARGET.c.id).where(TARGET.c.name == bindparam("wanted"))
_LOOKS = select(TARGET.c.probed_at, TARGET.c.listed_at).where(TARGET.c.id == _target)

_DOUBTS = select(DOUBT.c.ref, DOUBT.c.key, DOUBT.c.cause).where(DOUBT.c.target_id == _target)
_DOUBT = insert(DOUBT)
_END_DOUBT = delete(DOUBT).where(
    DOUBT.c.target_id == _target,
    DOUBT.c.ref == bindparam("of_ref"),
    DOUBT.c.key == bindparam("of_key"),
)
_entries_of_doubts = (
    select(REF.c.name, ENTRY.c.key)
    .join(ENTRY, ENTRY.c.ref_id == REF.c.id)
    .where(
        ENTRY.c.target_id == _target,
        ENTRY.c.key.in_(select(DOUBT.c.key).where(DOUBT.c.target_id == _target)),
    )
)
# Also in refs that this run does not read. A build may have used the key again since.
_END_DOUBTS_OF_THE_GONE = delete(DOUBT).where(
    DOUBT.c.target_id == _target,
    tuple_(DOUBT.c.ref, DOUBT.c.key).in_(
        _entries_of_doubts.where(ENTRY.c.missing_since.is_not(None))
    ),
    ~exists().where(
        REF.c.target_id == _target,
        REF.c.name == DOUBT.c.ref,
        ENTRY.c.ref_id == REF.c.id,
        ENTRY.c.key == DOUBT.c.key,
        ENTRY.c.missing_since.is_(None),
        ENTRY.c.first_seen_at <= DOUBT.c.since,
    ),
)

_ADOPT = update(GENERATION).where(GENERATION.c.id == _row).values(store_id=bindparam("entry"))
_FORGET = delete(GENERATION).where(GENERATION.c.id == _row)
_RESTART_CLOCKS = (
    update(ENTRY)
    .where(
        ENTRY.c.target_id == _target,
        ENTRY.c.kind == "blob",
        ENTRY.c.unreferenced_since.is_not(None),
        ENTRY.c.digest.in_(
            select(BLOB.c.digest)
            .join(GENERATION_BLOB, GENERATION_BLOB.c.blob_id == BLOB.c.id)
            .where(GENERATION_BLOB.c.generation_id.in_(each_number("read")))
        ),
    )
    .values(unreferenced_since=None)
)


class _Presence:
    """The statements for generations that a look shows, or does not show any more."""

    def __init__(self, shown: ColumnElement[bool]) -> None:
        here = update(GENERATION).where(GENERATION.c.target_id == _target)
        was_shown = GENERATION.c.last_seen_at.is_(None)
        # What was gone, and whose content was dropped, is not known again before it is read again.
        is_dropped = GENERATION.c.size.is_not(None) & GENERATION.c.content.is_(None)
        self.not_any_more = here.where(was_shown, ~shown).values(last_seen_at=bindparam("previous"))
        self.again = here.where(
            or_(~was_shown, GENERATION.c.missing_since.is_not(None)), shown, ~is_dropped
        ).values(last_seen_at=None, missing_since=None)


_is_listed = exists().where(
    ENTRY_OF_GENERATION,
    ENTRY.c.key == GENERATION.c.key,
    ENTRY.c.last_seen_at.is_(None),
)
_LISTED = _Presence(_is_listed)
_FOUND_BY_NAME = _Presence(GENERATION.c.id.in_(each_number("found")))
_miss = (
    update(GENERATION)
    .where(GENERATION.c.target_id == _target, GENERATION.c.missing_since.is_(None))
    .values(missing_since=_now)
)
_UNLISTED = _miss.where(~_is_listed)
_GONE = _miss.where(GENERATION.c.id.in_(each_number("gone")))
_REPLACED = _GONE.values(store_id=None)
_GIVE_UP_NUMBERS = (
    update(GENERATION)
    .where(
        GENERATION.c.target_id == _target,
        exists().where(ENTRY_OF_GENERATION, ENTRY.c.key != GENERATION.c.key),
    )
    .values(store_id=None)
)

_BLOBS = (
    select(BLOB.c.id, BLOB.c.digest, BLOB.c.is_found, BLOB.c.missing_since)
    .where(BLOB.c.target_id == _target)
    .execution_options(yield_per=ROWS_AT_ONCE)
)
_ADD_BLOB = insert(BLOB).values(
    target_id=_target,
    digest=bindparam("name"),
    first_seen_at=_now,
    missing_since=bindparam("missing"),
    is_found=bindparam("found"),
)
_blob = update(BLOB).where(BLOB.c.id == _row)
_FOUND = _blob.values(is_found=True, missing_since=None)
_NOT_FOUND = _blob.values(is_found=False, last_seen_at=bindparam("previous"))
_MISSING = _blob.values(missing_since=_now)
_MARK_MISSING = (
    update(BLOB)
    .where(
        BLOB.c.target_id == _target,
        BLOB.c.digest == bindparam("blob"),
        BLOB.c.missing_since.is_(None),
    )
    .values(missing_since=_now)
)

_DAMAGED = select(BLOB.c.digest).where(
    BLOB.c.target_id == _target, BLOB.c.content_missing_since.is_not(None)
)
_CHECKED = (
    update(BLOB)
    .where(BLOB.c.target_id == _target, BLOB.c.digest == bindparam("blob"))
    .values(checked_at=_now, content_missing_since=bindparam("since"))
)
