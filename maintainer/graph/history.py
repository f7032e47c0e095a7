"""What builds needed, according to the database: what a simulation replays."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, select

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, merge
from maintainer.cacheconfig.shrink import ResultId, results_of
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.graph.memory import load_memory, to_index
from maintainer.graph.room import load_blobs
from maintainer.graph.tables import ENTRY, ENTRY_OF_GENERATION, GENERATION, REF, SCOPE, TARGET
from maintainer.model.history import Build, History, Stack, stack_of


def load_history(connection: Connection, target: str) -> History:
    """Return the exports of builds to a cache that the database remembers, in order.

    The content of most of them is forgotten, but not which blobs they referenced. So an export
    needed the remembered results of its index that need no other blobs. In the recorded history,
    that finds 97 % of what they needed.
    """
    target_id = connection.execute(_TARGET, {"name": target}).scalar_one()
    memory = {index: one.merged() for index, one in load_memory(connection, target_id).items()}
    results = _Results(memory)
    rows = connection.execute(_EXPORTS, {"target": target_id}).all()
    blobs = load_blobs(connection, [row.id for row in rows])
    builds = []
    for row in sorted(rows, key=lambda row: (_created_at(row), row.id)):
        keys = results.needed(to_index(row), blobs.get(row.id, frozenset()))
        if keys:
            builds.append(Build(_created_at(row), keys))
    stacks = {key: results.stacks[key] for build in builds for key in build.keys}
    return History(tuple(builds), stacks, results.sizes | _stored_sizes(connection, target_id))


def _created_at(row: Row[Any]) -> datetime:
    created_at: datetime = row.created_at or row.first_seen_at
    return created_at


class _Results:
    """The remembered results of all indexes.

    Their keys are the records of one merge, so a step is the same in every index, and so it is if
    builds had to make its layer again.
    """

    def __init__(self, memory: Mapping[IndexId, CacheConfig]) -> None:
        self.stacks: dict[int, Stack] = {}
        self.sizes: dict[Digest, int] = {}
        self._keys: dict[ResultId, int] = {}
        oldest: dict[int, Nanoseconds] = {}
        merged = merge(memory.values())
        for name, key, result, _ in results_of(merged):
            self._keys[name] = key
            if key not in oldest or result.created_at < oldest[key]:
                oldest[key], self.stacks[key] = result.created_at, stack_of(merged, result)
        self.sizes |= {layer.blob: layer.size for layer in merged.layers}
        self._of_index = {index: list(self._read(config)) for index, config in memory.items()}

    def _read(self, config: CacheConfig) -> Iterator[tuple[int, frozenset[Digest]]]:
        for name, _, result, _ in results_of(config):
            blobs = frozenset(stack_of(config, result))
            if name in self._keys and blobs:
                yield self._keys[name], blobs

    def needed(self, index: IndexId, blobs: frozenset[Digest]) -> tuple[int, ...]:
        """Return the keys that an export of an index needed, which references these blobs."""
        found = self._of_index.get(index, ())
        return tuple({key: None for key, stack in found if stack <= blobs})


def _stored_sizes(connection: Connection, target_id: int) -> dict[Digest, int]:
    """Return the sizes of the blobs that were ever listed, which indexes may not know."""
    rows = connection.execute(_SIZES, {"target": target_id})
    return {Digest(row.digest): row.size for row in rows}


_TARGET = select(TARGET.c.id).where(TARGET.c.name == bindparam("name"))
_EXPORTS: Select[*tuple[Any, ...]] = (
    select(
        GENERATION.c.id,
        REF.c.name.label("ref"),
        SCOPE.c.name.label("scope"),
        GENERATION.c.signed,
        GENERATION.c.first_seen_at,
        ENTRY.c.created_at,
    )
    .select_from(GENERATION)
    .join(REF, REF.c.id == GENERATION.c.ref_id)
    .join(SCOPE, SCOPE.c.id == GENERATION.c.scope_id)
    .outerjoin(ENTRY, ENTRY_OF_GENERATION)
    .where(
        GENERATION.c.target_id == bindparam("target"),
        GENERATION.c.sink.is_(None),
        GENERATION.c.violation.is_(None),
        GENERATION.c.size.is_not(None),
        ~GENERATION.c.signed,
    )
)
_SIZES = (
    select(ENTRY.c.digest, func.max(ENTRY.c.size).label("size"))
    .where(ENTRY.c.target_id == bindparam("target"), ENTRY.c.kind == "blob")
    .group_by(ENTRY.c.digest)
)
