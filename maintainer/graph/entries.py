"""The entries that one probe has shown, read from the graph as needed."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from maintainer.cacheconfig import (
    BlobKey,
    Digest,
    Key,
    Ref,
    SignatureKey,
    UploadKey,
    parse_key,
)
from maintainer.graph.database import Database
from maintainer.graph.models import EntryRow, RefRow, listed_at
from maintainer.model.entry import KnownEntry

_T = TypeVar("_T")

_BATCH = 5_000
"""Entries: some megabytes."""
_MAX_IN_QUERY = 500
"""The number of values that one query compares with."""


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
        after: int | None = None
        while True:
            some = self._stored.order_by(EntryRow.store_id).limit(_BATCH)
            if after is not None:
                some = some.where(EntryRow.store_id > after)
            with self.database.reading() as connection:
                batch = tuple(self._read(connection, some))
            if not batch:
                return
            yield batch
            after = batch[-1].store_id

    def created_since(self, moment: datetime) -> tuple[KnownEntry, ...]:
        """Return those of our own kinds that were created since then, by store id."""
        young = self._stored.where(EntryRow.created_at >= moment, EntryRow.kind != "foreign")
        with self.database.reading() as connection:
            return tuple(self._read(connection, young.order_by(EntryRow.store_id)))

    def holding(self, blobs: Collection[Digest]) -> Iterator[KnownEntry]:
        """Return the entries that hold one of these blobs, by store id within some blobs."""
        for some in _batched(sorted(blobs)):
            wanted = self._stored.where(EntryRow.kind == "blob", EntryRow.digest.in_(some))
            with self.database.reading() as connection:
                yield from tuple(self._read(connection, wanted.order_by(EntryRow.store_id)))

    def by_id(self, ids: Collection[int]) -> Iterator[KnownEntry]:
        """Return the entries with these ids."""
        for some in _batched(sorted(ids)):
            wanted = self._stored.where(EntryRow.store_id.in_(some))
            with self.database.reading() as connection:
                yield from tuple(self._read(connection, wanted.order_by(EntryRow.store_id)))

    def accessed(self, ids: Collection[int]) -> dict[int, datetime]:
        """Return when those of these entries were last accessed that the look has shown.

        What the run has deleted since counts: a list may go on to show it for a while.
        """
        found: dict[int, datetime] = {}
        for some in _batched(sorted(ids)):
            shown = select(EntryRow.store_id, EntryRow.last_accessed_at).where(
                EntryRow.target_id == self.target_id,
                *self._is_shown,
                EntryRow.store_id.in_(some),
            )
            with self.database.reading() as connection:
                found |= {row.store_id: row.last_accessed_at for row in connection.execute(shown)}
        return found

    def total_size(self) -> int:
        """Return how many bytes all of them have."""
        stored = self._stored.with_only_columns(func.coalesce(func.sum(EntryRow.size), 0))
        with self.database.reading() as connection:
            return int(connection.execute(stored).scalar_one())

    def deleted(self, blobs: Collection[Digest], readable: Collection[Ref]) -> frozenset[Digest]:
        """Return those of some blobs that the run has deleted, wherever the token reads."""
        gone: set[Digest] = set()
        here = (
            select(EntryRow.digest)
            .join(RefRow, RefRow.id == EntryRow.ref_id)
            .where(EntryRow.target_id == self.target_id, EntryRow.kind == "blob")
            .where(RefRow.name.in_(sorted(readable)))
        )
        for some in _batched(sorted(blobs)):
            these = here.where(EntryRow.digest.in_(some))
            deleted = these.where(EntryRow.state == "deleted", *self._is_shown)
            with self.database.reading() as connection:
                found = set(connection.scalars(deleted))
                left = set(connection.scalars(these.where(EntryRow.missing_since.is_(None))))
            gone.update(Digest(digest) for digest in found - left if digest)
        return frozenset(gone)

    @property
    def _stored(self) -> Select[*tuple[Any, ...]]:
        return (
            select(*entry_columns())
            .join(RefRow, RefRow.id == EntryRow.ref_id)
            .where(
                EntryRow.target_id == self.target_id,
                *self._is_shown,
                EntryRow.missing_since.is_(None),
            )
        )

    @property
    def _is_shown(self) -> tuple[ColumnElement[bool], ...]:
        """Select what the look has shown; nothing if it could not list, or was not the last."""
        return EntryRow.last_seen_at.is_(None), listed_at(self.target_id) == self.at

    def _read(
        self, connection: Connection, entries: Select[*tuple[Any, ...]]
    ) -> Iterator[KnownEntry]:
        return (to_entry(row, self.began_at) for row in connection.execute(entries))


def entry_columns() -> tuple[ColumnElement[Any], ...]:
    """Return what has to be selected of entries and their refs for `to_entry`."""
    entry = EntryRow.__table__.c
    return (
        entry.store_id,
        RefRow.__table__.c.name.label("ref"),
        entry.key,
        entry.kind,
        entry.digest,
        entry.size,
        entry.created_at,
        entry.last_accessed_at,
        entry.first_seen_at,
        entry.unreferenced_since,
        entry.used_at,
        entry.checked_at,
        entry.content_missing_since,
        entry.state,
        entry.facts,
    )


def to_entry(row: Row[Any], began_at: datetime) -> KnownEntry:
    """Return an entry as a run knows it that has begun at some time."""
    return KnownEntry(
        store_id=row.store_id,
        ref=Ref(row.ref),
        key=row.key,
        parsed=_parsed(row),
        size=row.size,
        created_at=row.created_at,
        last_accessed_at=row.last_accessed_at,
        known_before=row.first_seen_at < began_at,
        unreferenced_since=row.unreferenced_since,
        state=row.state,
        reason=row.facts,
        used_at=row.used_at,
        checked_at=row.checked_at,
        content_missing_since=row.content_missing_since,
    )


def _batched(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (values[place : place + _MAX_IN_QUERY] for place in range(0, len(values), _MAX_IN_QUERY))


def _parsed(row: Row[Any]) -> Key:
    if row.kind == "blob":
        return BlobKey(Digest(row.digest))
    if row.kind == "signature":
        return SignatureKey(Digest(row.digest))
    if row.kind == "upload":
        return UploadKey(row.key.removeprefix(str(UploadKey(""))))
    return parse_key(row.key) if row.kind == "index" else None
