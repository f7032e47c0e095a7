"""The memory of an index: one merge of everything that was ever read of it. Pure.

A numbered index is remembered as one merge. A tag is overwritten by each export, and nobody evicts
from a directory; so what an export held that another one has replaced is remembered by the day on
which that was noticed, and whole days are forgotten.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Self

from maintainer.cacheconfig import CacheConfig, Digest, Sink, forget, merge
from maintainer.cacheconfig.shrink import only_new

_NOTHING = CacheConfig()


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is remembered of one index, whether its blobs exist or not."""

    config: CacheConfig = _NOTHING
    """The merge of all generations; of a tag, the newest export."""
    replaced: Mapping[date, CacheConfig] = field(default_factory=dict)
    """Of a tag: replaced exports, by the day on which they were seen to be replaced.
    """
    highest: int = 0
    """The highest number ever seen; 0 if none was."""
    up_to_date: int = 0
    """The generation that was the last one seen to hold all that was live; 0 if none was."""
    lost: frozenset[Digest] = frozenset()
    """The blobs that were known to be gone then."""
    marked_at: datetime | None = None
    """When it was last written down since when nothing needs what its generations have named."""

    @property
    def parts(self) -> tuple[CacheConfig, ...]:
        """The parts of the merge: the newest export first, then those before it."""
        return (self.config, *(self.replaced[day] for day in sorted(self.replaced, reverse=True)))

    @property
    def blobs(self) -> frozenset[Digest]:
        """Every blob that it names."""
        return frozenset[Digest]().union(*(part.blobs for part in self.parts))

    def merged(self) -> CacheConfig:
        """Return the merge of all of it."""
        return merge(self.parts) if self.replaced else self.config

    def with_generations(self, configs: Iterable[CacheConfig]) -> Self:
        """Return it with more generations of a numbered index, in any order."""
        return replace(self, config=merge([self.config, *configs]))

    def with_export(self, config: CacheConfig, sink: Sink | None, today: date) -> Self:
        """Return it with what a tag leads to now."""
        if sink is not None and self.config.records:
            # What we write is no export: of that only what nobody remembers is new, as when another
            # run has merged in an export that this one never saw.
            new = only_new(config, self.merged())
            return replace(self, config=merge([self.config, new])) if new.records else self
        if config == self.config:
            return self
        if not self.config.records:
            return replace(self, config=config)
        former = [self.config, *(one for day, one in self.replaced.items() if day == today)]
        return replace(self, config=config, replaced={**self.replaced, today: merge(former)})

    def without(self, gone: Container[Digest]) -> Self:
        """Return it without the results that need blobs which are gone."""
        if not any(blob in gone for blob in self.blobs):
            return self
        replaced = {day: forget(config, gone) for day, config in self.replaced.items()}
        return replace(self, config=forget(self.config, gone), replaced=replaced)

    def since(self, first: date) -> Self:
        """Return it without what was replaced before a day."""
        replaced = {day: one for day, one in self.replaced.items() if day >= first}
        return self if replaced == self.replaced else replace(self, replaced=replaced)
