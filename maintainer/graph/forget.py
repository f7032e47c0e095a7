"""Forget: drop a scope that builds write no longer, or show what would be dropped."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, func, select

from maintainer.cacheconfig import Digest, IndexId, Scope, prune
from maintainer.errors import MaintainerError
from maintainer.graph.dialect import each_text
from maintainer.graph.idle import save_idle
from maintainer.graph.memory import forget_scope, load_memory
from maintainer.graph.tables import BLOB, ENTRY, TARGET
from maintainer.graph.values import to_json
from maintainer.model.remembered import Remembered
from maintainer.sanitize import printable, printable_names

_NAMED = 10
"""So many names are listed in an error."""


class ForgottenIndex(msgspec.Struct, frozen=True):
    """An index of the scope, and what is dropped with it."""

    target: str
    scope: str
    ref: str
    results: int
    """Remembered results."""
    blobs: int
    """Stored blobs that only its usable results need: they are deleted after the grace period."""
    size: int
    """Bytes of these blobs."""


def forget(
    connection: Connection, scope: str, now: datetime, *, dry_run: bool, target: str | None = None
) -> tuple[ForgottenIndex, ...]:
    """Forget the indexes of a scope in a cache; return them. A dry run changes nothing.

    Raises MaintainerError if nothing of the scope is remembered, or if several caches have it and
    `target` does not say which one is meant.
    """
    found: dict[int, list[ForgottenIndex]] = {}
    names: list[str] = []
    known: set[str] = set()
    for row in connection.execute(_TARGETS).all():
        if target in (None, row.name):
            memory = load_memory(connection, row.id)
            stored = {index: one for index, one in memory.items() if one.blobs}
            known |= {index.scope for index in stored}
            if indexes := [index for index in stored if index.scope == scope]:
                found[row.id] = list(_describe(connection, row.id, row.name, indexes, memory))
                names.append(row.name)
    if not found:
        raise MaintainerError(_nothing_of(scope, known))
    if len(found) > 1:
        raise MaintainerError(
            f"several caches have the scope {printable(scope)}: choose one with --target: "
            f"{printable_names(names, _NAMED)}"
        )
    ((target_id, forgotten),) = found.items()
    if not dry_run:
        forget_scope(connection, target_id, Scope(scope), now)
        save_idle(connection, target_id, None)
    return tuple(forgotten)


def _nothing_of(scope: str, known: Iterable[str]) -> str:
    return (
        f"the database has nothing of the scope {printable(scope)}; it has: "
        f"{printable_names(sorted(known), _NAMED) or 'none'}"
    )


def _describe(
    connection: Connection,
    target_id: int,
    target: str,
    indexes: Iterable[IndexId],
    memory: Mapping[IndexId, Remembered],
) -> Iterable[ForgottenIndex]:
    forgotten = frozenset(indexes)
    dropped = [part for index in forgotten for part in memory[index].parts]
    live = frozenset(connection.execute(_LIVE, {"target": target_id}).scalars())
    others = (
        prune(one.without_taken_over(dropped).merged(), live).blobs
        for index, one in memory.items()
        if index not in forgotten
    )
    needed = frozenset[Digest]().union(*others)
    for index in sorted(forgotten):
        merged = memory[index].merged()
        own = to_json(prune(merged, live).blobs - needed)
        stored = connection.execute(_STORED, {"target": target_id, "blobs": own}).one()
        yield ForgottenIndex(target, index.scope, index.ref, merged.result_count, *stored)


_TARGETS = select(TARGET.c.id, TARGET.c.name).order_by(TARGET.c.name)
_LIVE = select(BLOB.c.digest).where(
    BLOB.c.target_id == bindparam("target"), BLOB.c.missing_since.is_(None), BLOB.c.is_found
)
_STORED = select(
    func.count(ENTRY.c.digest.distinct()), func.coalesce(func.sum(ENTRY.c.size), 0)
).where(
    ENTRY.c.target_id == bindparam("target"),
    ENTRY.c.kind == "blob",
    ENTRY.c.missing_since.is_(None),
    ENTRY.c.digest.in_(each_text("blobs")),
)
