"""The entries that one probe has shown, read from the graph as needed."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, TypeVar

from sqlalchemy import BindParameter, Row, Select, and_, bindparam, func, or_, select

from maintainer.cacheconfig import Digest, Ref, may_be_index
from maintainer.cacheconfig.keys import INDEX_PREFIX
from maintainer.graph.database import Database
from maintainer.graph.dialect import each_number, each_text
from maintainer.graph.entry_kinds import read_key
from maintainer.graph.tables import ENTRY, REF, listed_at
from maintainer.graph.values import to_json
from maintainer.model.entry import FAR_AHEAD, KnownEntry

_T = TypeVar("_T")

_BATCH = 2_000
"""Entries: some megabytes, with their marks and their rows."""
_MAX_IN_QUERY = 5_000
"""The number of values that one query compares with. Each query reads all entries of the target."""
_MAX_SIZES_IN_QUERY = 50_000
"""As many digests have some megabytes, too."""


@dataclass(frozen=True, slots=True)
class Entries:
    """The stored entries of a target, as the last probe of a run has shown them."""

    database: Database
    target_id: int
    at: datetime
    """When that probe was."""
    began_at: datetime
    """When the run began."""

    def batches(self) -> Iterator[tuple[KnownEntry, ...]]:
        """Read all of them, some thousands at a time, by store id."""
        return self._read_in_batches(_FIRST, _NEXT, {})

    def indexes_since(self, moment: datetime) -> tuple[KnownEntry, ...]:
        """Return the indexes that were created since then, by store id; also of other versions."""
        found = self._read(_YOUNG_INDEXES, {"moment": moment})
        return tuple(one for one in found if one.parsed or may_be_index(one.key))

    def uploads_since(self, moment: datetime) -> Iterator[KnownEntry]:
        """Read the blobs and signatures that were created since then, by store id."""
        batches = self._read_in_batches(_YOUNG_UPLOADS, _NEXT_YOUNG_UPLOADS, {"moment": moment})
        return chain.from_iterable(batches)

    def of_other_tools(self, prefixes: Collection[str]) -> tuple[KnownEntry, ...]:
        """Return the entries of other tools whose keys begin like this, by store id."""
        if not prefixes:
            return ()
        matching = or_(*(ENTRY.c.key.startswith(one, autoescape=True) for one in prefixes))
        return self._read(_FOREIGN.where(matching), {})

    def holding(self, blobs: Collection[Digest]) -> Iterator[KnownEntry]:
        """Return the entries that hold one of these blobs, by store id within some blobs."""
        for some in _batched(sorted(blobs)):
            yield from self._read(_HOLDING, {"blobs": to_json(some)})

    def sizes(self, blobs: Collection[Digest]) -> dict[Digest, int]:
        """Return the sizes of those of some blobs that are stored."""
        found: dict[Digest, int] = {}
        for some in _batched(sorted(blobs), _MAX_SIZES_IN_QUERY):
            with self.database.reading() as connection:
                asked = self._look | {"blobs": to_json(some)}
                sizes = {row.digest: row.size for row in connection.execute(_SIZES, asked)}
            # With the caller's digests: those of the rows would be copies.
            found |= {digest: sizes[digest] for digest in some if digest in sizes}
        return found

    def by_id(self, ids: Collection[int]) -> Iterator[KnownEntry]:
        """Return the entries with these ids."""
        for some in _batched(sorted(ids)):
            yield from self._read(_BY_ID, {"ids": to_json(some)})

    def accessed(self, ids: Collection[int]) -> dict[int, datetime]:
        """Return when those of these entries were last accessed that the look has shown.

        What the run has deleted since counts: a list may go on to show it for a while.
        """
        found: dict[int, datetime] = {}
        for some in _batched(sorted(ids)):
            with self.database.reading() as connection:
                rows = connection.execute(_ACCESSED, self._look | {"ids": to_json(some)})
                found |= {row.store_id: row.last_accessed_at for row in rows}
        return found

    def stored(self, keys: Collection[str]) -> frozenset[tuple[Ref, str]]:
        """Return the entries with one of these keys that were not deleted since, by ref and key."""
        found: set[tuple[Ref, str]] = set()
        for some in _batched(sorted(keys)):
            with self.database.reading() as connection:
                rows = connection.execute(_WITH_KEY, self._look | {"keys": to_json(some)})
                found.update((Ref(row.ref), row.key) for row in rows)
        return frozenset(found)

    def total_size(self) -> int:
        """Return how many bytes all of them have."""
        with self.database.reading() as connection:
            return int(connection.execute(_TOTAL_SIZE, self._look).scalar_one())

    def deleted(self, blobs: Collection[Digest], readable: Collection[Ref]) -> frozenset[Digest]:
        """Return those of some blobs that the run has deleted, wherever the token reads."""
        gone: set[Digest] = set()
        for some in _batched(sorted(blobs)):
            asked = self._look | {"blobs": to_json(some), "refs": to_json(readable)}
            with self.database.reading() as connection:
                found = set(connection.scalars(_DELETED, asked))
                left = set(connection.scalars(_LEFT, asked))
            gone.update(Digest(digest) for digest in found - left if digest)
        return frozenset(gone)

    @property
    def _look(self) -> dict[str, object]:
        return {"target": self.target_id, "look": self.at}

    def _read_in_batches(
        self,
        first: Select[*tuple[Any, ...]],
        following: Select[*tuple[Any, ...]],
        asked: dict[str, object],
    ) -> Iterator[tuple[KnownEntry, ...]]:
        batch = self._read(first, asked | {"batch": _BATCH})
        while batch:
            yield batch
            batch = self._read(following, asked | {"batch": _BATCH, "after": batch[-1].store_id})

    def _read(
        self, entries: Select[*tuple[Any, ...]], asked: dict[str, object]
    ) -> tuple[KnownEntry, ...]:
        with self.database.reading() as connection:
            rows = connection.execute(entries, self._look | asked).all()
            return tuple(to_entry(row, self.began_at) for row in rows)


ENTRY_COLUMNS = (
    ENTRY.c.store_id,
    REF.c.name.label("ref"),
    ENTRY.c.key,
    ENTRY.c.kind,
    ENTRY.c.digest,
    ENTRY.c.size,
    ENTRY.c.created_at,
    ENTRY.c.last_accessed_at,
    ENTRY.c.first_seen_at,
    ENTRY.c.unreferenced_since,
    ENTRY.c.used_at,
    ENTRY.c.checked_at,
    ENTRY.c.content_missing_since,
    ENTRY.c.state,
    ENTRY.c.facts,
)
"""What has to be selected first, of entries and their refs, for `to_entry`."""

_target: BindParameter[int] = bindparam("target")
_here = ENTRY.c.target_id == _target
_shown = (
    # Nothing if the look could not list, or was not the last.
    ENTRY.c.last_seen_at.is_(None),
    listed_at(_target) == bindparam("look"),
)
_stored = (
    select(*ENTRY_COLUMNS)
    .select_from(ENTRY)
    .join(REF, REF.c.id == ENTRY.c.ref_id)
    .where(_here, *_shown, ENTRY.c.missing_since.is_(None))
)
_in_order = _stored.order_by(ENTRY.c.store_id)
_is_after = ENTRY.c.store_id > bindparam("after")
_FIRST = _in_order.limit(bindparam("batch"))
_NEXT = _FIRST.where(_is_after)
_young = _in_order.where(ENTRY.c.created_at >= bindparam("moment"))
_YOUNG_INDEXES = _young.where(
    or_(
        ENTRY.c.kind == "index",
        and_(ENTRY.c.kind == "foreign", func.lower(ENTRY.c.key).startswith(INDEX_PREFIX)),
    )
)
_YOUNG_UPLOADS = _young.where(ENTRY.c.kind.in_(("blob", "signature"))).limit(bindparam("batch"))
_NEXT_YOUNG_UPLOADS = _YOUNG_UPLOADS.where(_is_after)
_FOREIGN = _in_order.where(ENTRY.c.kind == "foreign")
_HOLDING = _in_order.where(ENTRY.c.kind == "blob", ENTRY.c.digest.in_(each_text("blobs")))
_SIZES = _HOLDING.with_only_columns(ENTRY.c.digest, ENTRY.c.size)
_BY_ID = _in_order.where(ENTRY.c.store_id.in_(each_number("ids")))
_ACCESSED = select(ENTRY.c.store_id, ENTRY.c.last_accessed_at).where(
    _here, *_shown, ENTRY.c.store_id.in_(each_number("ids"))
)
_WITH_KEY = _stored.where(ENTRY.c.key.in_(each_text("keys"))).with_only_columns(
    REF.c.name.label("ref"), ENTRY.c.key
)
_TOTAL_SIZE = _stored.with_only_columns(func.coalesce(func.sum(ENTRY.c.size), 0))
_these = (
    select(ENTRY.c.digest)
    .join(REF, REF.c.id == ENTRY.c.ref_id)
    .where(
        _here,
        ENTRY.c.kind == "blob",
        REF.c.name.in_(each_text("refs")),
        ENTRY.c.digest.in_(each_text("blobs")),
    )
)
_DELETED = _these.where(ENTRY.c.state == "deleted", *_shown)
_LEFT = _these.where(ENTRY.c.missing_since.is_(None))


def to_entry(row: Row[Any], began_at: datetime) -> KnownEntry:
    """Return an entry as a run knows it that has begun at some time.

    The row begins with ENTRY_COLUMNS. They are not read by name, which takes longer than the query.
    """
    (
        store_id,
        ref,
        key,
        kind,
        digest,
        size,
        created_at,
        last_accessed_at,
        first_seen_at,
        unreferenced_since,
        used_at,
        checked_at,
        content_missing_since,
        state,
        reason,
    ) = row[: len(ENTRY_COLUMNS)]
    return KnownEntry(
        store_id=store_id,
        ref=Ref(ref),
        key=key,
        parsed=read_key(kind, digest, key),
        size=size,
        created_at=created_at,
        last_accessed_at=last_accessed_at,
        known_before=first_seen_at < began_at or first_seen_at - began_at > FAR_AHEAD,
        unreferenced_since=unreferenced_since,
        state=state,
        reason=reason,
        used_at=used_at,
        checked_at=checked_at,
        content_missing_since=content_missing_since,
    )


def _batched(values: Sequence[_T], size: int = _MAX_IN_QUERY) -> Iterator[Sequence[_T]]:
    return (values[place : place + size] for place in range(0, len(values), size))
