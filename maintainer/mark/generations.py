"""What is known of one index: its generations, and which of them builders read."""

from collections.abc import Iterable
from dataclasses import dataclass

from maintainer.cacheconfig import CacheConfig, Digest, IndexId, Sink
from maintainer.model.index import KnownGeneration, UnreadGeneration
from maintainer.model.remembered import Remembered
from maintainer.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Generations:
    """The known generations of one index."""

    ordered: tuple[KnownGeneration, ...]
    """All, including remembered ones, oldest first."""
    stored: tuple[KnownGeneration, ...]
    unread: tuple[UnreadGeneration, ...]
    shadowed_by: str | None
    highest: int
    """The highest number that was ever seen; 0 if none was."""

    @property
    def is_former_merge(self) -> bool:
        """Whether it contains only merges: an earlier setting reserved it for the merge."""
        return sinks_of(self.ordered) == {Sink.MERGE}

    @property
    def referenced(self) -> frozenset[Digest]:
        """Every blob that a stored one references."""
        return frozenset[Digest]().union(*(one.blobs for one in self.stored))

    @property
    def read_by_builders(self) -> CacheConfig:
        """The content of the generation that builders read, as far as it was decoded."""
        read = [one for one in self.stored if str(one.key) == self.shadowed_by] or self.stored[-1:]
        refused = not read or read[0].violation is not None
        return CacheConfig() if refused else read[0].config or CacheConfig()


def generations_of(
    index: IndexId,
    known: Iterable[KnownGeneration],
    unread: tuple[UnreadGeneration, ...],
    snapshot: Snapshot,
) -> Generations:
    """Return what is known of one index, in order."""
    ordered = tuple(sorted(known, key=lambda one: (one.number, one.generation_id)))
    stored = tuple(one for one in ordered if one.exists)
    shadowed_by = _shadowed_by(index, stored, unread, snapshot)
    remembered = snapshot.memory.get(index, Remembered())
    numbers = [one.number for one in ordered] + [one.number for one in unread]
    highest = max(remembered.highest, *numbers, 0)
    return Generations(ordered, stored, unread, shadowed_by, highest)


def _shadowed_by(
    index: IndexId,
    generations: tuple[KnownGeneration, ...],
    unread: tuple[UnreadGeneration, ...],
    snapshot: Snapshot,
) -> str | None:
    read = snapshot.read_by_builders.get(index)
    if index.signed or read is None or unread or not generations:
        return None
    newest = str(generations[-1].key)
    return None if read.casefold() == newest.casefold() else read


def sinks_of(generations: Iterable[KnownGeneration]) -> set[Sink | None]:
    """Return the known sinks of generations that are not empty."""
    return {one.sink for one in generations if one.sink or (one.config and one.config.records)}
