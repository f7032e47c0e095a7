"""Forget: drop a scope that builds write no longer, or show what would be dropped."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, func, select

from maintainer.cacheconfig import Digest, IndexId, Scope
from maintainer.errors import MaintainerError
from maintainer.graph.idle import save_idle
from maintainer.graph.memory import forget_scope, load_memory
from maintainer.graph.tables import ENTRY, TARGET
from maintainer.graph.values import each, to_json
from maintainer.model.remembered import Remembered
from maintainer.sanitize import is_unicode, printable


class ForgottenIndex(msgspec.Struct, frozen=True):
    """An index of the scope, and what is dropped with it."""

    target: str
    scope: str
    ref: str
    results: int
    """Remembered results."""
    blobs: int
    """Stored blobs that no other index needs: they are deleted after the grace period."""
    size: int
    """Bytes of these blobs."""


def forget(
    connection: Connection, scope: str, now: datetime, *, dry_run: bool
) -> tuple[ForgottenIndex, ...]:
    """Forget the indexes of a scope in all caches; return them. A dry run changes nothing.

    Raises MaintainerError if nothing of the scope is remembered.
    """
    found: list[ForgottenIndex] = []
    if is_unicode(scope):
        for target in connection.execute(_TARGETS).all():
            memory = load_memory(connection, target.id)
            indexes = {i: one for i, one in memory.items() if i.scope == scope and one.blobs}
            found += _describe(connection, target.id, target.name, indexes, memory)
            if indexes and not dry_run:
                forget_scope(connection, target.id, Scope(scope), now)
                save_idle(connection, target.id, None)
    if not found:
        raise MaintainerError(f"the database remembers nothing of the scope {printable(scope)}")
    return tuple(found)


def _describe(
    connection: Connection,
    target_id: int,
    target: str,
    indexes: Iterable[IndexId],
    memory: Mapping[IndexId, Remembered],
) -> Iterable[ForgottenIndex]:
    forgotten = frozenset(indexes)
    others = (one.blobs for index, one in memory.items() if index not in forgotten)
    needed = frozenset[Digest]().union(*others)
    for index in sorted(forgotten):
        own = to_json(memory[index].blobs - needed)
        stored = connection.execute(_STORED, {"target": target_id, "blobs": own}).one()
        results = memory[index].merged().result_count
        yield ForgottenIndex(target, index.scope, index.ref, results, *stored)


_TARGETS = select(TARGET.c.id, TARGET.c.name).order_by(TARGET.c.name)
_STORED = select(
    func.count(ENTRY.c.digest.distinct()), func.coalesce(func.sum(ENTRY.c.size), 0)
).where(
    ENTRY.c.target_id == bindparam("target"),
    ENTRY.c.kind == "blob",
    ENTRY.c.missing_since.is_(None),
    ENTRY.c.digest.in_(each("blobs")),
)
