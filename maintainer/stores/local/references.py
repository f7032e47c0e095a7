"""What a manifest that is not ours needs: all that it names, and what that names, and so on."""

import os
import re

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.keys import is_digest
from maintainer.errors import StoreError
from maintainer.stores.local.files import Files, MissingError

_DIGEST = re.compile(rb"(?:sha256|sha384|sha512):[0-9a-f]{64,128}")
_DEPTH = 32
_HEAD = 64
"""Bytes in which a document in JSON begins."""


class References:
    """Follows references from one document in JSON to the next.

    Every digest in a document counts, whatever it is said to be: what may be needed is kept. What
    is missing is left out, so no more is held than exists.
    """

    def __init__(self, files: Files, *, limit: int) -> None:
        self._files = files
        self._limit = limit
        self.pinned: dict[Digest, str] = {}
        """What is needed, and why."""

    def pin(self, digest: Digest, reason: str) -> None:
        """Keep a blob with all that it needs.

        Raises StoreError if a document cannot be read: then what it needs is not known.
        """
        waiting = list(self._keep(digest, reason))
        for _ in range(_DEPTH):
            if not waiting:
                return
            documents, waiting = waiting, []
            for blob in documents:
                for match in _DIGEST.finditer(self._document(blob)):
                    waiting += self._keep(Digest(match[0].decode()), reason)
        raise StoreError(f"{digest} leads through more than {_DEPTH} documents")

    def _keep(self, digest: Digest, reason: str) -> list[Digest]:
        """Keep a blob; give it, if it exists and was not kept before."""
        if not is_digest(digest) or digest in self.pinned or self._files.look(digest) is None:
            return []
        self.pinned[digest] = reason
        return [digest]

    def _document(self, blob: Digest) -> bytes:
        """Read a document in JSON; nothing of any other blob."""
        try:
            with self._files.open_blob(blob) as number:
                if not os.read(number, _HEAD).lstrip().startswith(b"{"):
                    return b""
            return self._files.read_blob(blob, limit=self._limit)[0]
        except MissingError:
            return b""
