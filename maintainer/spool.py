"""Lists that may be longer than memory: the beginning goes to a temporary file."""

import tempfile
import weakref
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from maintainer.cacheconfig import Ref
from maintainer.errors import StoreError
from maintainer.model.entry import StoredEntry
from maintainer.sanitize import NUL, printable, show_nul

_RECENT = 5_000
"""The number of entries in memory: some megabytes."""
_IN_MEMORY = 1024 * 1024
"""Bytes."""
_PARTS = 1_024
"""A set has so many parts, each sorted: few numbers move when one is added."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[StoredEntry])


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
            content = _ENCODER.encode(self._recent)
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
            yield from _DECODER.decode(self._file.read(length))
            place += length
        self._file.seek(0, 2)
        yield from self._recent


class NumberSet:
    """A set of numbers that takes eight bytes for each; one of Python's takes nearly seventy."""

    def __init__(self) -> None:
        # Each is made once it is needed: most lists are short, and a run has three of them.
        self._parts: dict[int, array[int]] = defaultdict(lambda: array("q"))

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
    return msgspec.structs.replace(entry, key=show_nul(entry.key), ref=Ref(show_nul(entry.ref)))
