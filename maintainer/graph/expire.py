"""What expires in the graph, so that its file does not grow without limit."""

from datetime import datetime, timedelta

from sqlalchemy import (
    BindParameter,
    Connection,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)

from maintainer.graph.memory import GONE_FOR, IS_REMEMBERED, OF_ITS_INDEX
from maintainer.graph.tables import (
    BLOB,
    CACHE_INDEX,
    ENTRY,
    GENERATION,
    GENERATION_BLOB,
    MEMORY,
    REF,
    SCOPE,
)
from maintainer.graph.written import forget_written

_ENTRIES_FOR = timedelta(days=90)
"""How long gone entries are remembered."""
_GENERATIONS_FOR = timedelta(days=30)
_GENERATIONS = 50
"""How many gone generations of each index are remembered, and for how long: they show the history.
"""


def expire(connection: Connection, target_id: int, now: datetime, grace: timedelta) -> None:
    """Drop what is neither stored nor useful.

    A generation stays until it has been gone for the grace period, and the last one while anything
    is remembered of its index. That is all forgotten once nothing of its ref has been stored for as
    long as gone entries are remembered, unless the last run has read the ref: no other that reads
    it may ever come.
    """
    here = {"target": target_id}
    connection.execute(_FORGET_ENTRIES, here | {"before": now - _ENTRIES_FOR})
    connection.execute(_FORGET_PAST_INDEXES, here | {"before": now - _ENTRIES_FOR})
    limits = {
        "grace": now - grace,
        "before": now - _GENERATIONS_FOR,
        "generations": _GENERATIONS,
    }
    connection.execute(_FORGET_GENERATIONS, here | limits)
    connection.execute(_DROP_CONTENTS, here)
    connection.execute(_FORGET_BLOBS, here | {"before": now - GONE_FOR})
    connection.execute(_FORGET_INDEXES, here)
    forget_written(connection, target_id, now - _ENTRIES_FOR)
    connection.execute(_FORGET_REFS, here)
    connection.execute(_FORGET_SCOPES, here)


_target: BindParameter[int] = bindparam("target")
_before: BindParameter[datetime] = bindparam("before")
_of_target = GENERATION.c.target_id == _target
_index = (GENERATION.c.scope_id, GENERATION.c.ref_id, GENERATION.c.signed)
# Of a store that lists nothing, only the generations show it; those of names are not kept.
_FORGET_PAST_INDEXES = delete(CACHE_INDEX).where(
    CACHE_INDEX.c.target_id == _target,
    exists().where(OF_ITS_INDEX),
    ~exists().where(
        OF_ITS_INDEX,
        or_(GENERATION.c.missing_since.is_(None), GENERATION.c.missing_since >= _before),
    ),
    ~exists().where(ENTRY.c.ref_id == CACHE_INDEX.c.ref_id),
    # Who reads it may write it again: what it needs may be stored in other refs.
    CACHE_INDEX.c.ref_id.in_(select(REF.c.id).where(REF.c.target_id == _target, ~REF.c.readable)),
)
_gone = (
    select(
        GENERATION.c.id,
        func.row_number().over(partition_by=_index, order_by=GENERATION.c.id.desc()).label("rank"),
    )
    .where(_of_target, GENERATION.c.missing_since.is_not(None))
    .subquery()
)
_beyond = select(_gone.c.id).where(_gone.c.rank > bindparam("generations"))
_last = select(func.max(GENERATION.c.id)).where(_of_target).group_by(*_index)
_FORGET_GENERATIONS = delete(GENERATION).where(
    _of_target,
    GENERATION.c.missing_since < bindparam("grace"),
    or_(GENERATION.c.missing_since < _before, GENERATION.c.id.in_(_beyond)),
    or_(GENERATION.c.id.not_in(_last), ~IS_REMEMBERED),
)
# Once the clocks of their blobs are recorded, what can be used of them again is in the merge of
# their index.
_DROP_CONTENTS = (
    update(GENERATION)
    .where(
        _of_target,
        GENERATION.c.content.is_not(None),
        GENERATION.c.missing_since.is_not(None),
        exists().where(OF_ITS_INDEX, CACHE_INDEX.c.marked_at >= GENERATION.c.missing_since),
    )
    .values(content=None)
)
# Those that are forgotten too, and that no generation references.
_FORGET_BLOBS = delete(BLOB).where(
    BLOB.c.target_id == _target,
    or_(BLOB.c.missing_since.is_not(None), BLOB.c.is_found.is_(False)),
    func.coalesce(BLOB.c.missing_since, BLOB.c.last_seen_at, BLOB.c.first_seen_at) < _before,
    ~exists().where(GENERATION_BLOB.c.blob_id == BLOB.c.id),
)
# Empty ones.
_FORGET_INDEXES = delete(CACHE_INDEX).where(
    CACHE_INDEX.c.target_id == _target,
    ~exists().where(MEMORY.c.index_id == CACHE_INDEX.c.id),
    ~exists().where(OF_ITS_INDEX),
)
_FORGET_ENTRIES = delete(ENTRY).where(ENTRY.c.target_id == _target, ENTRY.c.missing_since < _before)
# There is a new ref with each pull request, and a new scope with each branch that has its own.
_FORGET_REFS = delete(REF).where(
    REF.c.target_id == _target,
    ~REF.c.readable,
    ~exists().where(ENTRY.c.ref_id == REF.c.id),
    ~exists().where(GENERATION.c.ref_id == REF.c.id),
    ~exists().where(CACHE_INDEX.c.ref_id == REF.c.id),
)
_FORGET_SCOPES = delete(SCOPE).where(
    SCOPE.c.target_id == _target,
    SCOPE.c.id.not_in(select(GENERATION.c.scope_id).where(_of_target)),
    SCOPE.c.id.not_in(select(CACHE_INDEX.c.scope_id).where(CACHE_INDEX.c.target_id == _target)),
)
