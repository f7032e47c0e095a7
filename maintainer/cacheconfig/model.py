"""An index in memory: records (cache keys), their results, and the layers that make a result up.

All of it is frozen and refers downwards only, so Python's collector of cycles need not look at it:
with hundreds of thousands of these in memory that would take as long as the work itself.
"""

import msgspec

from maintainer.cacheconfig.keys import Digest
from maintainer.cacheconfig.timestamps import Nanoseconds

NO_PARENT = -1


class Layer(msgspec.Struct, frozen=True, gc=False):
    """One compressed layer on top of another."""

    blob: Digest
    parent: int
    """Position of the layer below; -1 for none."""
    diff_id: Digest
    media_type: str
    size: int
    """Bytes, compressed; as the index says, not checked."""
    created_at: Nanoseconds

    def on(self, parent: int) -> "Layer":
        """Return the same layer on the layer at another position."""
        if parent == self.parent:
            return self
        return Layer(self.blob, parent, self.diff_id, self.media_type, self.size, self.created_at)


class Link(msgspec.Struct, frozen=True, order=True, omit_defaults=True, gc=False):
    """One way to satisfy an input of a record: the record that it comes from.

    It is read and written in JSON as it is, because an index has more of these than of all else.
    """

    # Go writes a 0 here, and takes a missing one for 0. A plain default would be left out.
    source: int = msgspec.field(name="link", default_factory=int)
    """Position of the record."""
    selector: str = ""


class Result(msgspec.Struct, frozen=True, order=True, gc=False):
    """What a builder may download instead of running a step."""

    layers: tuple[int, ...]
    """Positions, in order; with `with_parents` it is one layer, which brings all its parents."""
    with_parents: bool
    created_at: Nanoseconds


class Record(msgspec.Struct, frozen=True, gc=False):
    """One cache key, and what it leads to."""

    digest: str
    results: tuple[Result, ...]
    inputs: tuple[tuple[Link, ...], ...]
    """For each input the alternatives, any one of which will do."""


class CacheConfig(msgspec.Struct, frozen=True, gc=False):
    """One index. Positions in it are valid and nothing in it loops, wherever it came from."""

    layers: tuple[Layer, ...] = ()
    records: tuple[Record, ...] = ()

    @property
    def blobs(self) -> frozenset[Digest]:
        """Every blob that the index names."""
        return frozenset(layer.blob for layer in self.layers)

    @property
    def result_count(self) -> int:
        """How many records lead to a result of their own."""
        return sum(1 for record in self.records if record.results)
