"""The layers of every scope, as its newest index references them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, case, func, select

from maintainer.cacheconfig import CacheConfig, Digest, Sink, decode
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.order import dependency_order
from maintainer.errors import MaintainerError
from maintainer.graph.memory import IS_REMEMBERED, load_memory, missing_blobs, to_index
from maintainer.graph.tables import (
    BLOB,
    ENTRY,
    GENERATION,
    REF,
    SCOPE,
    TARGET,
)
from maintainer.model.remembered import Remembered
from maintainer.sanitize import is_unicode, printable


class TreeLayer(msgspec.Struct, frozen=True):
    """A layer in a tree."""

    id: int
    """The same in every scope that stands on the same layers."""
    parent_id: int | None
    digest: str
    size: int
    """Bytes, as stored or, where the store does not list, as an index says."""
    is_stored: bool
    results: int
    """The results that end in it."""


class ScopeTree(msgspec.Struct, frozen=True):
    """The layers of one scope in one ref."""

    target: str
    scope: str
    ref: str
    key: str
    """The newest generation, which builders read."""
    layers: tuple[TreeLayer, ...]


def load_forest(
    connection: Connection, scope: str | None, *, target: str | None = None
) -> list[ScopeTree]:
    """Return the layers of a scope in each ref, or of all scopes; with a target, of that cache.

    Raises MaintainerError if the database knows no index of the scope.
    """
    if scope is not None and not is_unicode(scope):
        raise MaintainerError(f"the database has no index of the scope {printable(scope)}")
    newest = _newest(scope)
    if target is not None:
        newest = newest.where(TARGET.c.name == target)
    rows = connection.execute(newest).all()
    if not rows:
        what = "no index" if scope is None else f"no index of the scope {printable(scope)}"
        raise MaintainerError(f"the database knows {what}")
    targets = {row.target_id: _Target(connection, row.target_id) for row in rows}
    ids: dict[_Identity, int] = {}
    return [
        ScopeTree(row.target, row.scope, row.ref, row.key, targets[row.target_id].layers(row, ids))
        for row in rows
    ]


# A merge has the layers of all others: those would have none left to show.
_is_merge = case((GENERATION.c.sink == Sink.MERGE, 1), else_=0)


def _newest(scope: str | None) -> Select[*tuple[Any, ...]]:
    """Select the newest generation of each index, stored ones first, if anything is known of it."""
    place = func.row_number().over(
        partition_by=(GENERATION.c.scope_id, GENERATION.c.ref_id, GENERATION.c.signed),
        order_by=(
            GENERATION.c.missing_since.is_not(None),
            GENERATION.c.number.desc(),
            GENERATION.c.id.desc(),
        ),
    )
    numbered = (
        select(GENERATION.c.id, place.label("place"))
        .where(GENERATION.c.size.is_not(None), GENERATION.c.missing_since.is_(None) | IS_REMEMBERED)
        .subquery()
    )
    newest = (
        select(
            GENERATION.c.id,
            GENERATION.c.target_id,
            GENERATION.c.key,
            GENERATION.c.signed,
            GENERATION.c.content,
            TARGET.c.name.label("target"),
            SCOPE.c.name.label("scope"),
            REF.c.name.label("ref"),
        )
        .join(numbered, numbered.c.id == GENERATION.c.id)
        .join(TARGET, TARGET.c.id == GENERATION.c.target_id)
        .join(SCOPE, SCOPE.c.id == GENERATION.c.scope_id)
        .join(REF, REF.c.id == GENERATION.c.ref_id)
        .where(numbered.c.place == 1)
        .order_by("target", _is_merge, "scope", "ref", GENERATION.c.key)
    )
    return newest if scope is None else newest.where(SCOPE.c.name == scope)


class _Target:
    """What is known of the blobs and indexes of one target."""

    def __init__(self, connection: Connection, target_id: int) -> None:
        stored = select(ENTRY.c.digest, func.max(ENTRY.c.size)).where(
            ENTRY.c.target_id == target_id,
            ENTRY.c.kind == "blob",
            ENTRY.c.missing_since.is_(None),
            ENTRY.c.digest.in_(select(BLOB.c.digest).where(BLOB.c.target_id == target_id)),
        )
        self._target_id = target_id
        self._sizes: Mapping[str | None, int] = {
            row[0]: row[1] for row in connection.execute(stored.group_by(ENTRY.c.digest))
        }
        self._missing = missing_blobs(connection, target_id)
        self._memory = load_memory(connection, target_id)

    def layers(self, row: Row[Any], ids: dict["_Identity", int]) -> tuple[TreeLayer, ...]:
        """Return the layers of an index, the largest first; `ids` are those of other indexes."""
        config = self._read(row)
        numbers = self._number(config, ids)
        ends = Counter(
            numbers[layer]
            for record in config.records
            for result in record.results
            for layer in result.layers
        )
        parents = {
            number: None if layer.parent == NO_PARENT else numbers[layer.parent]
            for number, layer in zip(numbers, config.layers, strict=True)
        }
        found = {
            number: TreeLayer(
                number,
                parents[number],
                layer.blob,
                self._sizes.get(layer.blob, layer.size),
                layer.blob not in self._missing,
                ends[number],
            )
            for number, layer in zip(numbers, config.layers, strict=True)
        }
        return tuple(sorted(found.values(), key=lambda one: (-one.size, one.digest, one.id)))

    def _read(self, row: Row[Any]) -> CacheConfig:
        if row.content is not None:
            return decode(row.content)
        return self._memory.get(to_index(row), Remembered()).merged()

    def _number(self, config: CacheConfig, ids: dict["_Identity", int]) -> list[int]:
        """Return the number of each layer; a blob on the same layers is the same everywhere."""
        numbers = [0] * len(config.layers)
        parents = [() if one.parent == NO_PARENT else (one.parent,) for one in config.layers]
        for position in dependency_order(parents) or ():
            layer = config.layers[position]
            parent = None if layer.parent == NO_PARENT else numbers[layer.parent]
            identity = self._target_id, layer.blob, parent
            numbers[position] = ids.setdefault(identity, len(ids) + 1)
        return numbers


_Identity = tuple[int, Digest, int | None]
"""The target and the blob of a layer, and the number of the layer below."""
