"""The blobs that another tool's manifest needs: everything that it references, transitively."""

import codecs
import json
import os
import re
from collections.abc import Iterator

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.keys import is_digest
from maintainer.errors import StoreError
from maintainer.model.reason import Reason
from maintainer.stores.local.disk import MissingError, translate_errors
from maintainer.stores.local.files import ALGORITHMS, Files

_DIGEST = re.compile(rb"(?:sha256|sha384|sha512):[0-9a-f]{64,128}")
_STRING = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"?', re.DOTALL)
"""A string in JSON. It never fails after its first character, so matching takes linear time."""
_DEPTH = 32
_CHUNK = 64 * 1024
_WHITE = b" \t\r\n" + codecs.BOM_UTF8
_BEGINS = (b"{", b"[")


class References:
    """Follows references from one document in JSON to the next.

    Every digest in a document counts, whatever its field: anything that may be needed is kept.
    Missing blobs are omitted, so the result is never larger than the directory.
    """

    def __init__(self, files: Files, *, limit: int) -> None:
        self._files = files
        self._limit = limit
        self._unknown: tuple[bytes, ...] | None = None
        self.pinned: dict[Digest, Reason] = {}
        """The needed blobs, and why."""

    def pin(self, digest: Digest, reason: Reason) -> None:
        """Keep a blob and everything that it needs.

        Raises StoreError if a document cannot be read, or references something that cannot be read:
        then its needs are unknown.
        """
        waiting = list(self._keep(digest, reason))
        for _ in range(_DEPTH):
            if not waiting:
                return
            documents, waiting = waiting, []
            for blob in documents:
                for text in _texts(self._document(blob)):
                    self._refuse_unknown(blob, text)
                    for match in _DIGEST.finditer(text):
                        waiting += self._keep(Digest(match[0].decode()), reason)
        raise StoreError(f"{digest} references documents more than {_DEPTH} levels deep")

    def _keep(self, digest: Digest, reason: Reason) -> list[Digest]:
        """Keep a blob; return it if it exists and was not kept before."""
        if not is_digest(digest) or digest in self.pinned:
            return []
        if self._files.stat(digest) is None:
            if self._files.is_taken(digest):
                raise StoreError(f"{digest} is not a regular file, so its needs are unknown")
            return []
        self.pinned[digest] = reason
        return [digest]

    def _refuse_unknown(self, blob: Digest, text: bytes) -> None:
        """Raise StoreError if a document references a blob of an unknown algorithm."""
        if self._unknown is None:
            self._unknown = tuple(_unknown_algorithms(self._files))
        for algorithm in self._unknown:
            if algorithm in text:
                name = algorithm.decode(errors="replace")
                raise StoreError(f"{blob} contains a digest of an unknown algorithm ({name}…)")

    def _document(self, blob: Digest) -> bytes:
        """Read a JSON document; other blobs are not read."""
        try:
            with self._files.open_blob(blob) as number:
                if not self._begins_as_json(number):
                    return b""
            return self._files.read_blob(blob, limit=self._limit)[0]
        except MissingError:
            return b""

    def _begins_as_json(self, number: int) -> bool:
        """Whether a file may be JSON, by its first bytes if it is too large to read."""
        for _ in range(1 + self._limit // _CHUNK):
            piece = os.read(number, _CHUNK)
            if not piece:
                return False
            if begin := piece.lstrip(_WHITE):
                return begin.startswith(_BEGINS)
        return True


def _texts(document: bytes) -> Iterator[bytes]:
    """Yield a document, and then every string with escapes, unescaped."""
    yield document
    if b"\\" not in document:
        return
    for match in _STRING.finditer(document):
        if b"\\" in match[1]:
            try:
                text = json.loads(b'"%b"' % match[1], strict=False)
            except ValueError:
                continue  # It is not valid JSON, so no tool reads it as such.
            yield text.encode(errors="replace")


def _unknown_algorithms(files: Files) -> Iterator[bytes]:
    where = files.directory("blobs")
    if where is None:
        return
    with translate_errors("blobs"), os.scandir(where) as found:
        for entry in found:
            if entry.name not in ALGORITHMS:
                yield os.fsencode(entry.name) + b":"
