"""Lists that may be longer than memory: the beginning goes to a temporary file."""

import tempfile
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import msgspec

from maintainer.cacheconfig import BlobKey, Digest, Key, Ref, SignatureKey, UploadKey, parse_key
from maintainer.errors import StoreError
from maintainer.model.entry import StoredEntry
from maintainer.sanitize import NUL, printable, show_nul

_RECENT = 5_000
"""The number of entries in memory: some megabytes."""
_IN_MEMORY = 1024 * 1024
"""Bytes."""
_PARTS = 1_024
"""A set has so many parts, each sorted: few numbers move when one is added."""


class _Row(msgspec.Struct, array_like=True):
    """An entry in the format of the file."""

    id: int
    ref: str
    key: str
    version: str
    size: int
    created_at: datetime
    last_accessed_at: datetime
    kind: str
    name: str


class Spool:
    """Entries in their original order. May be read repeatedly."""

    def __init__(self) -> None:
        self._recent: list[StoredEntry] = []
        # It is written to a file once it is large.
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed with it
        weakref.finalize(self, self._file.close)
        self._lengths: list[int] = []

    def add(self, entries: Sequence[StoredEntry]) -> None:
        """Append some entries; those whose names have NUL under other names, which show it.

        Raises StoreError if one is an index, which must not be read under another name.
        """
        self._recent += map(_storable, entries)
        if len(self._recent) >= _RECENT:
            content = msgspec.msgpack.encode([_to_row(entry) for entry in self._recent])
            try:
                self._file.write(content)
            except OSError as error:
                problem = error.strerror or error
                raise StoreError(f"no room for the list of entries: {problem}") from None
            self._lengths.append(len(content))
            self._recent.clear()

    def __iter__(self) -> Iterator[StoredEntry]:
        place = 0
        for length in self._lengths:
            self._file.seek(place)
            rows = msgspec.msgpack.decode(self._file.read(length), type=list[_Row])
            yield from map(_to_entry, rows)
            place += length
        self._file.seek(0, 2)
        yield from self._recent


class NumberSet:
    """A set of numbers that takes eight bytes for each; one of Python's takes nearly seventy."""

    def __init__(self) -> None:
        self._parts = [array("q") for _ in range(_PARTS)]

    def add(self, number: int) -> bool:
        """Add a number; return whether it is new."""
        part = self._parts[number % _PARTS]
        place = bisect_left(part, number)
        if place < len(part) and part[place] == number:
            return False
        part.insert(place, number)
        return True


class Mapped:
    """A view of another list that changes each entry."""

    def __init__(
        self, entries: Iterable[StoredEntry], change: Callable[[StoredEntry], StoredEntry]
    ) -> None:
        self._entries = entries
        self._change = change

    def __iter__(self) -> Iterator[StoredEntry]:
        return map(self._change, self._entries)


def _storable(entry: StoredEntry) -> StoredEntry:
    """Return an entry as databases can store it: PostgreSQL stores no NUL."""
    if NUL not in entry.key and NUL not in entry.ref:
        return entry
    if entry.parsed is not None:
        raise StoreError(f"the list shows an index whose name has NUL: {printable(entry.key)}")
    return replace(entry, key=show_nul(entry.key), ref=Ref(show_nul(entry.ref)))


def _to_row(entry: StoredEntry) -> _Row:
    kind, name = _describe(entry.parsed)
    return _Row(
        entry.id,
        entry.ref,
        entry.key,
        entry.version,
        entry.size,
        entry.created_at,
        entry.last_accessed_at,
        kind,
        name,
    )


def _to_entry(row: _Row) -> StoredEntry:
    return StoredEntry(
        id=row.id,
        ref=Ref(row.ref),
        key=row.key,
        version=row.version,
        size=row.size,
        created_at=row.created_at,
        last_accessed_at=row.last_accessed_at,
        parsed=_parse(row),
    )


def _describe(key: Key) -> tuple[str, str]:
    if isinstance(key, BlobKey):
        return "blob", key.digest
    if isinstance(key, SignatureKey):
        return "signature", key.digest
    if isinstance(key, UploadKey):
        return "upload", key.name
    return ("" if key is None else "index"), ""


def _parse(row: _Row) -> Key:
    match row.kind:
        case "blob":
            return BlobKey(Digest(row.name))
        case "signature":
            return SignatureKey(Digest(row.name))
        case "upload":
            return UploadKey(row.name)
        case "index":
            return parse_key(row.key)
    return None
