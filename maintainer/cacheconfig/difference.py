"""What one index has that others lack.

Two results are the same if their steps are, and the layers that they stand on. An index has a
result as another one does if every key that leads to it there leads to it here, too.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice

from maintainer.cacheconfig.keys import Digest
from maintainer.cacheconfig.model import CacheConfig, Record
from maintainer.cacheconfig.order import dependency_order, number_layers, sources_of
from maintainer.cacheconfig.shrink import only
from maintainer.cacheconfig.timestamps import Nanoseconds

_Result = tuple[str, bool, tuple[int, ...]]
"""The digest of a record, whether its layer brings its parents, and the numbers of its layers."""
_Link = tuple[str, str]
"""The digest of the source, and the selector."""
_Key = tuple[frozenset[_Link], ...]
"""For each input of a record the alternatives."""
_ALIKE = 100
"""So many keys are compared with one, however many a hostile index has."""


def only_new(config: CacheConfig, known: Iterable[CacheConfig]) -> CacheConfig:
    """Return what remains of `config` without what all others together have, in normal form."""
    return only(config, {place for place, _, made_at in _compare(config, known) if made_at is None})


def only_newer(config: CacheConfig, known: Iterable[CacheConfig]) -> CacheConfig:
    """Return what remains of `config` without what all others together have, and have not older.

    In normal form.
    """
    return only(
        config,
        {
            place
            for place, created_at, made_at in _compare(config, known)
            if made_at is None or created_at > made_at
        },
    )


def _compare(
    config: CacheConfig, known: Iterable[CacheConfig]
) -> Iterator[tuple[tuple[int, int], Nanoseconds, Nanoseconds | None]]:
    """Give each result: its position, its time, and the newest time that the others know of."""
    stacks, keys, times = dict[tuple[Digest, int], int](), _Keys(), dict[_Result, Nanoseconds]()
    for one in known:
        for _, name, created_at in _results_of(one, stacks):
            times[name] = max(created_at, times.get(name, created_at))
        for record in one.records:
            keys.add(record.digest, _key_of(one, record))
    led = _led_to_by_others(config, keys)
    for (at, number), name, created_at in _results_of(config, stacks):
        yield (at, number), created_at, None if at in led else times.get(name)


def _led_to_by_others(config: CacheConfig, known: "_Keys") -> set[int]:
    """Return the records that are found by keys, of themselves or below, that are not known."""
    sources = sources_of(config.records)
    led: set[int] = set()
    for at in dependency_order(sources) or ():
        record = config.records[at]
        is_led = not led.isdisjoint(sources[at])
        if is_led or not known.has(record.digest, _key_of(config, record)):
            led.add(at)
    return led


class _Keys:
    """The keys of some records, to be found by their links: a step may have thousands."""

    def __init__(self) -> None:
        self._known: set[tuple[str, _Key]] = set()
        self._by_link = defaultdict[tuple[str, int, _Link], list[_Key]](list)

    def add(self, digest: str, key: _Key) -> None:
        """Add a key of a record."""
        if (digest, key) in self._known:
            return
        self._known.add((digest, key))
        for link in _links_of(digest, key):
            self._by_link[link].append(key)

    def has(self, digest: str, key: _Key) -> bool:
        """Whether one of these keys is found by all that a key is found by.

        It may answer no where very many keys are nearly the same.
        """
        if (digest, key) in self._known:
            return True
        alike = (self._by_link.get(link, ()) for link in _links_of(digest, key))
        return any(_includes(one, key) for one in islice(min(alike, key=len, default=()), _ALIKE))


def _links_of(digest: str, key: _Key) -> Iterator[tuple[str, int, _Link]]:
    return ((digest, number, link) for number, links in enumerate(key) for link in links)


def _key_of(config: CacheConfig, record: Record) -> _Key:
    return tuple(
        frozenset((config.records[link.source].digest, link.selector) for link in links)
        for links in record.inputs
    )


def _includes(larger: _Key, key: _Key) -> bool:
    return len(larger) == len(key) and all(map(frozenset.issuperset, larger, key))


def _results_of(
    config: CacheConfig, stacks: dict[tuple[Digest, int], int]
) -> Iterator[tuple[tuple[int, int], _Result, Nanoseconds]]:
    """Give the position of each result, what it is, and its time."""
    numbers = number_layers(config.layers, stacks)
    for at, record in enumerate(config.records):
        for number, result in enumerate(record.results):
            layers = tuple(numbers[layer] for layer in result.layers)
            yield (at, number), (record.digest, result.with_parents, layers), result.created_at
