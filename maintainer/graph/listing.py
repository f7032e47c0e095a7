"""Record: the entries that a look has listed. Only what differs from the last look is written."""

from collections.abc import Mapping
from datetime import datetime
from itertools import count

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Index,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    text,
    update,
)

from maintainer.cacheconfig import Ref
from maintainer.graph.arrivals import is_complete
from maintainer.graph.columns import ReasonText, UtcDateTime, to_number
from maintainer.graph.dialect import TEXT, WHOLE, insert_or_update
from maintainer.graph.entry_kinds import kind_of
from maintainer.graph.rows import Ids, drop_repeated, execute_each, insert_rows
from maintainer.graph.tables import (
    ACTION,
    ENTRY,
    REF,
    RUN,
)
from maintainer.model.entry import StoredEntry, in_batches
from maintainer.model.memory import SKEW, Probe
from maintainer.model.reason import (
    DeletedByUnfinishedRun,
    Evicted,
    NotMarked,
    Reason,
    Removed,
    code_of,
)

_BATCH = 5_000
"""Entries: some megabytes."""

_listed = Table(
    "listed",
    MetaData(),
    Column("position", WHOLE, primary_key=True, autoincrement=False),
    Column("ref_id", WHOLE),
    Column("store_id", WHOLE),
    Column("key", TEXT),
    Column("kind", TEXT),
    Column("digest", TEXT),
    Column("size", WHOLE),
    Column("created_at", WHOLE),
    Column("last_accessed_at", WHOLE),
    Index("listed_entry", "store_id", "key"),
    prefixes=["TEMPORARY"],
)
"""What the look has listed, for as long as it is being recorded."""


def record_entries(
    connection: Connection, target_id: int, probe: Probe, previous: datetime | None
) -> None:
    """Record which entries a look has listed; the look before it was at `previous`."""
    refs = _Refs(connection, target_id, probe)
    if not probe.abilities.lists:
        refs.save()
        return
    _listed.create(connection, checkfirst=False)
    position = count()
    for some in in_batches(probe.entries, _BATCH):
        rows = [(next(position), *_row(entry, refs)) for entry in some]
        insert_rows(connection, _listed, rows)
    drop_repeated(connection, _listed, "store_id", "position")
    refs.save()
    connection.execute(_NOT_SHOWN, {"target": target_id, "previous": previous or probe.at})
    connection.execute(_MAKE_WAY, {"target": target_id})
    connection.execute(_RECORD, {"target": target_id, "now": probe.at})
    if probe.listing_complete:
        _record_absence(connection, target_id, probe)
    _listed.drop(connection, checkfirst=False)


class _Refs:
    """The refs of a target, which are added when an entry of theirs is seen."""

    def __init__(self, connection: Connection, target_id: int, probe: Probe) -> None:
        self._connection = connection
        self._target_id = target_id
        self._access = probe.access
        self._known = {
            Ref(row.name): row for row in connection.execute(_REFS, {"target": target_id})
        }
        self._ids: dict[Ref, int] = {name: row.id for name, row in self._known.items()}
        self._new = Ids(connection, REF)
        was_readable = {name for name, row in self._known.items() if row.readable}
        self._used = {*probe.access.readable, *was_readable}

    def __getitem__(self, name: Ref) -> int:
        self._used.add(name)
        if name not in self._ids:
            self._ids[name] = self._new.take()
        return self._ids[name]

    def save(self) -> None:
        """Write down what is new."""
        rows = [
            {
                "id": self[name],
                "target_id": self._target_id,
                "name": name,
                "readable": name in self._access.readable,
                "writable": name in self._access.writable,
            }
            for name in sorted(self._used)
        ]
        changed = [row for row in rows if self._differs(row)]
        execute_each(self._connection, _SAVE_REFS, changed)

    def _differs(self, row: Mapping[str, object]) -> bool:
        known = self._known.get(Ref(str(row["name"])))
        return known is None or (known.readable, known.writable) != (
            row["readable"],
            row["writable"],
        )


_REFS = select(REF.c.id, REF.c.name, REF.c.readable, REF.c.writable).where(
    REF.c.target_id == bindparam("target")
)
_SAVE_REFS = insert_or_update(REF, ["id"], ["readable", "writable"])


def _row(entry: StoredEntry, refs: _Refs) -> tuple[object, ...]:
    kind, digest = kind_of(entry.parsed)
    return (
        refs[entry.ref],
        entry.id,
        entry.key,
        kind,
        digest,
        entry.size,
        to_number(entry.created_at),
        to_number(entry.last_accessed_at),
    )


_not_marked = NotMarked()
_skew = int(SKEW.total_seconds()) * 1_000_000
_RECORD = text(
    # A use at the time of our own look-up was ours; an ambiguous one was a build's. Only a
    # rewritten file changes its size, or its time of creation. Two files may be forged to have one
    # id: then the second is ignored. Nobody knows what has used an entry that was away.
    """
    INSERT INTO entry (target_id, ref_id, store_id, key, kind, digest, size, created_at,
                       last_accessed_at, used_at, first_seen_at, state, reason, facts)
    SELECT :target, ref_id, store_id, key, kind, digest, size, created_at, last_accessed_at,
           last_accessed_at, :now, :state, :reason, :facts
    FROM listed WHERE true ORDER BY position
    ON CONFLICT (target_id, store_id) DO UPDATE
    SET ref_id = excluded.ref_id, size = excluded.size, created_at = excluded.created_at,
        used_at = CASE WHEN excluded.last_accessed_at = entry.last_accessed_at
                         OR abs(excluded.last_accessed_at - entry.looked_up_at) <= :skew
                       THEN entry.used_at ELSE excluded.used_at END,
        last_accessed_at = excluded.last_accessed_at, last_seen_at = NULL, missing_since = NULL,
        unreferenced_since = CASE WHEN entry.missing_since IS NULL THEN entry.unreferenced_since END
    WHERE entry.key = excluded.key
      AND (entry.last_seen_at IS NOT NULL OR entry.missing_since IS NOT NULL
           OR (entry.ref_id, entry.size, entry.created_at, entry.last_accessed_at)
           <> (excluded.ref_id, excluded.size, excluded.created_at, excluded.last_accessed_at))
    """
).bindparams(
    bindparam("now", type_=UtcDateTime()),
    bindparam("state", value="new"),
    bindparam("reason", value=code_of(_not_marked)),
    bindparam("facts", value=_not_marked, type_=ReasonText()),
    bindparam("skew", value=_skew),
)
_MAKE_WAY = text(
    # A service that was restored from a backup counts on from there: it gives numbers again. Those
    # that had them before are not listed any more, under numbers that no service gives.
    """
    UPDATE entry SET store_id = -id
    WHERE target_id = :target AND last_seen_at IS NOT NULL
      AND EXISTS (
        SELECT 1 FROM listed WHERE listed.store_id = entry.store_id AND listed.key <> entry.key)
      AND NOT EXISTS (
        SELECT 1 FROM listed WHERE listed.store_id = entry.store_id AND listed.key = entry.key)
    """
)
_NOT_SHOWN = text(
    """
    UPDATE entry SET last_seen_at = :previous
    WHERE target_id = :target AND last_seen_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM listed WHERE listed.store_id = entry.store_id AND listed.key = entry.key)
    """
).bindparams(bindparam("previous", type_=UtcDateTime()))


def _record_absence(connection: Connection, target_id: int, probe: Probe) -> None:
    """Record which entries are not stored any more. Nothing evicts from a directory."""
    reason: Reason
    state, reason = "evicted", Evicted()
    if probe.abilities.evicted_by is None:
        state, reason = "removed", Removed()
    connection.execute(
        _RECORD_ABSENCE,
        {
            "target": target_id,
            "now": probe.at,
            "new_state": state,
            "code": code_of(reason),
            "all": reason,
        },
    )


def was_planned(target: BindParameter[int]) -> ColumnElement[bool]:
    """Return whether a run that was cut off may have deleted an entry, with no listing since.

    A deletion that failed may have been carried out, too, if the answer to it was lost: one of the
    last run that had a plan, for a later list would have shown the entry.

    All of these are found once: to look each entry up among them would take the square.
    """
    runs = RUN.alias()
    earlier = runs.c
    last_run = (
        select(func.max(earlier.id))
        .where(earlier.target_id == target, earlier.finished_at.is_not(None), earlier.has_plan)
        .scalar_subquery()
    )
    last_look = (
        select(func.coalesce(func.max(earlier.id), 0))
        .where(earlier.target_id == target, is_complete(runs))
        .scalar_subquery()
    )
    planned = (
        select(ACTION.c.store_id)
        .join(RUN, RUN.c.id == ACTION.c.run_id)
        .where(
            RUN.c.target_id == target,
            RUN.c.status.in_(("killed", "interrupted", "failed")),
            RUN.c.id > last_look,
            ~RUN.c.dry_run,
            ACTION.c.kind == "delete",
            ACTION.c.store_id.is_not(None),
            or_(
                ACTION.c.outcome == "planned",
                and_(ACTION.c.outcome == "failed", RUN.c.id == last_run),
            ),
        )
    )
    return ENTRY.c.store_id.in_(planned)


_target: BindParameter[int] = bindparam("target")
_by_run = was_planned(_target)
_unfinished = DeletedByUnfinishedRun()
_RECORD_ABSENCE = (
    update(ENTRY)
    .where(
        ENTRY.c.target_id == _target,
        ENTRY.c.last_seen_at.is_not(None),
        ENTRY.c.missing_since.is_(None),
    )
    .values(
        missing_since=bindparam("now"),
        state=case((_by_run, "deleted"), else_=bindparam("new_state", type_=Text)),
        reason=case((_by_run, code_of(_unfinished)), else_=bindparam("code", type_=Text)),
        facts=case(
            (_by_run, literal(_unfinished, ReasonText)), else_=bindparam("all", type_=ReasonText)
        ),
    )
)
