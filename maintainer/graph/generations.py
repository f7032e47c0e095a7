"""Record: generations that were read or written, with the blobs that they reference."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select, update

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, Ref, Scope, Sink
from maintainer.graph.columns import to_number
from maintainer.graph.dialect import each_text, insert_new
from maintainer.graph.memory import remember
from maintainer.graph.rows import Ids, execute_each, execute_rows, insert_rows
from maintainer.graph.tables import (
    BLOB,
    GENERATION,
    GENERATION_BLOB,
    REF,
    SCOPE,
)
from maintainer.graph.values import to_json
from maintainer.model.entry import in_batches
from maintainer.model.index import ReadGeneration
from maintainer.model.remembered import Remembered

_AT_ONCE = 500
"""Generations, whose rows and blobs are in memory together."""
_Row = dict[str, object]
_Identity = tuple[int, str, str]
"""A ref, a key, and the digest of the content."""


def record_generations(
    connection: Connection,
    target_id: int,
    generations: Iterable[ReadGeneration],
    now: datetime,
    *,
    is_shown: bool = False,
    found: Container[Digest] = (),
    replaced_at: datetime | None = None,
) -> "RecordedGenerations":
    """Record generations that were read or written, and merge them into what is remembered.

    `is_shown` is whether the last look showed them; if not, they were read or written since.
    `found` are the blobs that it has found. Exports that are overwritten count as replaced on the
    day of `replaced_at`, by default that of `now`.
    """
    read = list(generations)
    if not read:
        return RecordedGenerations((), {})
    numbers: list[int] = []
    for some in in_batches(read, _AT_ONCE):
        writer = _Writer(connection, target_id, now, some)
        numbers += [writer.add(one, None if is_shown else now) for one in some]
        writer.save(found)
    return RecordedGenerations(
        tuple(numbers), remember(connection, target_id, read, replaced_at or now)
    )


@dataclass(frozen=True, slots=True)
class RecordedGenerations:
    """What was recorded of some generations."""

    ids: tuple[int, ...]
    merged: Mapping[IndexId, Remembered]
    """What is remembered of their indexes."""


class _Writer:
    """Writes some generations, with one statement for each table."""

    def __init__(
        self, connection: Connection, target_id: int, now: datetime, read: Sequence[ReadGeneration]
    ) -> None:
        self._connection = connection
        self._target_id = target_id
        self._now = now
        self._refs = _find_refs(connection, target_id, {one.index.ref for one in read})
        self._scopes = _find_scopes(connection, target_id, {one.index.scope for one in read})
        keys = {str(one.index.key(one.number)) for one in read}
        rows = connection.execute(_KNOWN, {"target": target_id, "keys": to_json(keys)})
        self._known: dict[_Identity, int] = {
            (row.ref_id, row.key, row.content_digest): row.id for row in rows
        }
        self._ids = Ids(connection, GENERATION)
        self._new: dict[int, _Row] = {}
        self._seen: dict[int, _Row] = {}
        self._configs: dict[int, CacheConfig] = {}
        self._needed_at: dict[Digest, datetime] = {}
        """When builds last needed the blobs of the indexes that they have exported."""

    def add(self, generation: ReadGeneration, last_seen_at: datetime | None) -> int:
        """Add a generation; return its id."""
        config, index = generation.config, generation.index
        digest = generation.content.digest
        key = str(index.key(generation.number))
        identity = self._refs[index.ref], key, digest
        number = self._known.get(identity)
        seen: _Row = {
            "store_id": generation.store_id,
            "location": generation.location,
            "violation": generation.violation,
            "content": generation.content if config else None,
            "last_seen_at": last_seen_at,
            "missing_since": None,
        }
        if number is not None:
            self._seen[number] = {"row": number, **seen}
            return number
        number = self._known[identity] = self._ids.take()
        self._new[number] = {
            **seen,
            "id": number,
            "target_id": self._target_id,
            "ref_id": identity[0],
            "scope_id": self._scopes[index.scope],
            "key": key,
            "number": generation.number,
            "signed": index.signed,
            "content_digest": digest,
            "size": generation.content.size if config else None,
            "records": len(config.records) if config else 0,
            "results": sum(len(one.results) for one in config.records) if config else 0,
            "sink": generation.sink,
            "first_seen_at": self._now,
        }
        if config:
            self._configs[number] = config
            if _may_be_an_export(generation, is_shown=last_seen_at is None):
                self._note_need(config, generation.created_at)
        return number

    def _note_need(self, config: CacheConfig, at: datetime) -> None:
        for blob in config.blobs:
            self._needed_at[blob] = max(at, self._needed_at.get(blob, at))

    def save(self, found: Container[Digest]) -> None:
        """Write down what was added."""
        execute_each(self._connection, _ADD, self._new.values())
        execute_each(self._connection, _SEE, self._seen.values())
        blobs = self._save_blobs(found)
        rows = (
            (number, blob)
            for number, config in self._configs.items()
            for blob in sorted(blobs[digest] for digest in config.blobs)
        )
        insert_rows(self._connection, GENERATION_BLOB, rows)

    def _save_blobs(self, live: Container[Digest]) -> dict[str, int]:
        """Return the ids of all blobs that the new generations reference; add those that are new.

        What a build has exported is of use again, if it had left.
        """
        digests = frozenset[Digest]().union(*(config.blobs for config in self._configs.values()))
        asked = {"target": self._target_id, "names": to_json(digests)}
        known = {row.digest: row.id for row in self._connection.execute(_BLOBS, asked)}
        needed = {digest: to_number(at) for digest, at in self._needed_at.items()}
        again = ((at, at, known[digest]) for digest, at in needed.items() if digest in known)
        execute_rows(self._connection, _NEED, again)
        ids, now = Ids(self._connection, BLOB), to_number(self._now)
        new = {digest: ids.take() for digest in sorted(digests - known.keys())}
        rows = (
            (number, self._target_id, digest, now, digest in live, needed.get(digest))
            for digest, number in new.items()
        )
        insert_rows(self._connection, BLOB, rows, _BLOB_COLUMNS)
        return known | new


def _may_be_an_export(generation: ReadGeneration, *, is_shown: bool) -> bool:
    """Whether builds may need what is new in a generation since it was created.

    Under a name, an export is gone once a run has rewritten it. If that run had another database,
    only what it has written tells of the export.
    """
    is_of_others = is_shown and generation.index.is_named and generation.sink is Sink.REWRITE
    return generation.sink is None or is_of_others


def _find_refs(connection: Connection, target_id: int, names: set[Ref]) -> dict[Ref, int]:
    """Return the ids of refs, which are added if they are new."""
    rows = [
        {"target_id": target_id, "name": name, "readable": True, "writable": False}
        for name in sorted(names)
    ]
    connection.execute(_ADD_REF, rows)
    found = connection.execute(_REFS, {"target": target_id, "names": to_json(names)})
    return {Ref(row.name): row.id for row in found}


def _find_scopes(connection: Connection, target_id: int, names: set[Scope]) -> dict[Scope, int]:
    """Return the ids of scopes, which are added if they are new."""
    connection.execute(
        _ADD_SCOPE, [{"target_id": target_id, "name": name} for name in sorted(names)]
    )
    found = connection.execute(_SCOPES, {"target": target_id, "names": to_json(names)})
    return {Scope(row.name): row.id for row in found}


_KNOWN = select(
    GENERATION.c.id, GENERATION.c.ref_id, GENERATION.c.key, GENERATION.c.content_digest
).where(GENERATION.c.target_id == bindparam("target"), GENERATION.c.key.in_(each_text("keys")))
_BLOBS = select(BLOB.c.digest, BLOB.c.id).where(
    BLOB.c.target_id == bindparam("target"), BLOB.c.digest.in_(each_text("names"))
)
_REFS = select(REF.c.name, REF.c.id).where(
    REF.c.target_id == bindparam("target"), REF.c.name.in_(each_text("names"))
)
_SCOPES = select(SCOPE.c.name, SCOPE.c.id).where(
    SCOPE.c.target_id == bindparam("target"), SCOPE.c.name.in_(each_text("names"))
)
_ADD_REF = insert_new(REF)
_ADD_SCOPE = insert_new(SCOPE)
_ADD = insert(GENERATION)
_SEE = update(GENERATION).where(GENERATION.c.id == bindparam("row"))
_BLOB_COLUMNS = ("id", "target_id", "digest", "first_seen_at", "is_found", "needed_at")
_NEED = """
    UPDATE blob SET needed_at = CASE WHEN needed_at > ? THEN needed_at ELSE ? END, departure = NULL
    WHERE id = ?
"""
