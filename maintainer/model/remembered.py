"""The memory of an index: one merge of everything that was ever read of it. Pure.

A numbered index is remembered as one merge. Under a name or a tag, each export overwrites the one
before, and nothing is evicted. So replaced exports are remembered by the day on which a run noticed
the replacement, and forgotten by whole days.
"""

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Self

from maintainer.cacheconfig import CacheConfig, Digest, Sink, forget, merge
from maintainer.cacheconfig.difference import only_new, only_newer

_NOTHING = CacheConfig()


@dataclass(frozen=True, slots=True)
class Remembered:
    """The memory of one index, whether its blobs exist or not."""

    config: CacheConfig = _NOTHING
    """The merge of all generations; of a tag, the newest export."""
    replaced: Mapping[date, CacheConfig] = field(default_factory=dict)
    """Of a tag: replaced exports, by the day on which a run noticed the replacement."""
    highest: int = 0
    """The highest number ever seen; 0 if there was none."""
    up_to_date: int = 0
    """The last generation that contained all live results; 0 if there was none."""
    lost: frozenset[Digest] = frozenset()
    """The blobs that were known to be gone then."""
    deleted: frozenset[Digest] = frozenset()
    """The blobs that are gone because runs have deleted them: nothing needed them."""
    marked_at: datetime | None = None
    """When the grace periods of its generations' blobs were last recorded."""
    forgotten: bool = False
    """Whether its owner had it forgotten, and no build has exported to it since."""

    @property
    def parts(self) -> tuple[CacheConfig, ...]:
        """The parts of the merge: the newest export first, then those before it."""
        return (self.config, *(self.replaced[day] for day in sorted(self.replaced, reverse=True)))

    @property
    def blobs(self) -> frozenset[Digest]:
        """Every blob that it references."""
        return frozenset[Digest]().union(*(part.blobs for part in self.parts))

    def merged(self) -> CacheConfig:
        """Return the merge of all of it."""
        return merge(self.parts) if self.replaced else self.config

    def with_generations(self, configs: Iterable[CacheConfig]) -> Self:
        """Return it with more generations of a numbered index, in any order."""
        return replace(self, config=merge([self.config, *configs]))

    def with_export(self, config: CacheConfig, sink: Sink | None, today: date) -> Self:
        """Return it with the current content of a tag."""
        if sink is not None and self.config.records:
            # An index that we wrote is not an export. Only what is not remembered is new: a run
            # with another database may have merged in an export that this one never saw.
            new = only_newer(config, [self.merged()])
            return replace(self, config=merge([self.config, new])) if new.records else self
        if config == self.config:
            return self
        if not self.config.records:
            return replace(self, config=config)
        former = [self.config, *(one for day, one in self.replaced.items() if day == today)]
        return replace(self, config=config, replaced={**self.replaced, today: merge(former)})

    def with_merge(self, config: CacheConfig, today: date) -> Self:
        """Return the memory of a merge with what it alone contains, as if replaced today."""
        former = (one for day, one in self.replaced.items() if day == today)
        return replace(self, replaced={**self.replaced, today: merge([config, *former])})

    def without_taken_over(self, results: Collection[CacheConfig]) -> Self:
        """Return the memory of a merge without some results; any other memory as it is."""
        if self.config.records or not self.replaced:
            return self
        replaced = {day: only_new(one, results) for day, one in self.replaced.items()}
        return replace(self, replaced=replaced)

    def without(self, gone: Container[Digest]) -> Self:
        """Return it without the results that need missing blobs."""
        if not any(blob in gone for blob in self.blobs):
            return self
        replaced = {day: forget(config, gone) for day, config in self.replaced.items()}
        return replace(self, config=forget(self.config, gone), replaced=replaced)

    def since(self, first: date) -> Self:
        """Return it without exports that were replaced before a day."""
        replaced = {day: one for day, one in self.replaced.items() if day >= first}
        return self if replaced == self.replaced else replace(self, replaced=replaced)
