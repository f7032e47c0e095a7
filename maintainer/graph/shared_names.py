"""Which names several images, or branches, share, according to what runs have read."""

from collections.abc import Iterable, Mapping

import msgspec
from sqlalchemy import Connection, bindparam, exists, select, update

from maintainer.cacheconfig import CacheConfig
from maintainer.decoding import decode_json
from maintainer.graph.dialect import each_number
from maintainer.graph.rows import execute_each
from maintainer.graph.tables import CACHE_INDEX, GENERATION, SCOPE
from maintainer.graph.values import to_json
from maintainer.model.shared_names import MAX_EXPORTS, Sketch, is_shared, sketch
from maintainer.sanitize import printable

_Sketches = list[Sketch]


def note_exports(connection: Connection, exports: Mapping[int, Iterable[CacheConfig]]) -> None:
    """Record what builds have exported to names, by the ids of their indexes."""
    changes = []
    for row in connection.execute(_LOAD, {"indexes": to_json(exports.keys())}).all():
        known = _read(row.recent)
        new = list(known)
        for config in exports[row.id]:
            # A layer that is compressed in another way is the same layer.
            one = sketch({layer.diff_id for layer in config.layers})
            if one != (new[-1] if new else None):
                new.append(one)
        if new != known:
            text = msgspec.json.encode(new[-MAX_EXPORTS:]).decode()
            changes.append({"row": row.id, "text": text})
    execute_each(connection, _SAVE, changes)


def find_shared_names(connection: Connection, target_id: int) -> tuple[str, ...]:
    """Return the stored names to which builds of several images, or branches, seem to export."""
    rows = connection.execute(_STORED, {"target": target_id})
    return tuple(printable(row.name) for row in rows if is_shared(_read(row.recent)))


def _read(text: str | None) -> _Sketches:
    try:
        return decode_json(text or "[]", _Sketches)
    except msgspec.MsgspecError:
        return []


_LOAD = select(CACHE_INDEX.c.id, CACHE_INDEX.c.recent).where(
    CACHE_INDEX.c.id.in_(each_number("indexes"))
)
_SAVE = (
    update(CACHE_INDEX).where(CACHE_INDEX.c.id == bindparam("row")).values(recent=bindparam("text"))
)
_STORED = (
    select(SCOPE.c.name, CACHE_INDEX.c.recent)
    .join(SCOPE, SCOPE.c.id == CACHE_INDEX.c.scope_id)
    .where(
        CACHE_INDEX.c.target_id == bindparam("target"),
        CACHE_INDEX.c.recent.is_not(None),
        exists().where(
            GENERATION.c.ref_id == CACHE_INDEX.c.ref_id,
            GENERATION.c.scope_id == CACHE_INDEX.c.scope_id,
            GENERATION.c.missing_since.is_(None),
        ),
    )
    .order_by(SCOPE.c.name)
)
