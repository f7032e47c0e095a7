"""The sizes of blobs, in bytes. Pure."""

from collections.abc import Mapping

from maintainer.cacheconfig import Digest
from maintainer.model.marks import Marks


class BlobSizes:
    """The sizes of blobs: as listed, or as an index says if the store cannot list."""

    def __init__(self, marks: Marks, stored: Mapping[Digest, int]) -> None:
        self._stored = stored
        self._sizes: dict[Digest, int] = {}
        """Of indexes that reference others, as they state it."""
        self._live = marks.snapshot.live_blobs
        for index in marks.indexes:
            current = (one.config for one in index.current if one.config)
            for config in (index.remembered, *current):
                if not config.blobs <= stored.keys():
                    self._sizes |= {one.blob: one.size for one in config.layers}

    def of(self, blobs: frozenset[Digest]) -> int:
        """Add up those that exist."""
        return sum(map(self.of_blob, blobs & self._live))

    def of_blob(self, blob: Digest) -> int:
        """Return the size of one."""
        size = self._stored.get(blob)
        return self._sizes.get(blob, 0) if size is None else size
