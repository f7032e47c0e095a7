"""The content of an index, compressed: a run may read thousands of indexes. Pure."""

import zlib
from dataclasses import dataclass
from typing import Self

from maintainer.cacheconfig import Digest, content_digest

_LEVEL = 1
"""The fastest: what cannot be compressed are digests."""


@dataclass(frozen=True, slots=True)
class Content:
    """Some content, as the graph keeps it."""

    packed: bytes
    size: int
    """Bytes, before it was compressed."""
    digest: Digest

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Compress some content."""
        return cls(pack(content), len(content), content_digest(content))


def pack(content: bytes) -> bytes:
    """Compress some content."""
    return zlib.compress(content, _LEVEL)


def unpack(packed: bytes) -> bytes:
    """Return what was compressed; a malformed value as it is, for its reader to refuse."""
    try:
        return zlib.decompress(packed)
    except (TypeError, zlib.error):
        return packed
