"""Shrinking: what remains of an index that is too large for importers."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from maintainer.cacheconfig.keys import Digest
from maintainer.cacheconfig.model import CacheConfig, Record, Result
from maintainer.cacheconfig.order import dependency_order, depths, sources_of
from maintainer.cacheconfig.prune import prune
from maintainer.cacheconfig.timestamps import Nanoseconds

_NOW = Nanoseconds(1 << 80)
_FULL = 0.99
"""The share of the room that is as good as all of it: each further try takes as long as a merge."""
_GUESSES = 4


class ResultId(NamedTuple):
    """A result, whatever index holds it."""

    record: str
    """The digest of its record."""
    with_parents: bool
    blobs: tuple[Digest, ...]


class Export(NamedTuple):
    """What a build has exported."""

    config: CacheConfig
    at: Nanoseconds = Nanoseconds(0)
    """When, if that is known: the time of a file changes when an index is rewritten."""


def last_uses(exports: Iterable[Export]) -> Mapping[ResultId, Nanoseconds]:
    """Return when a build last used each result, as far as the exports of builds show it.

    An export holds every result that its build used, cached or not. A build is as old as its
    export; if that time is not known, as old as the newest result that it made.
    """
    uses: dict[ResultId, Nanoseconds] = {}
    for config, at in exports:
        results = list(results_of(config))
        used_at = max([at, *(result.created_at for _, _, result, _ in results)])
        for name, _, _, _ in results:
            uses[name] = max(used_at, uses.get(name, used_at))
    return uses


def used_now(export: CacheConfig, config: CacheConfig) -> Mapping[ResultId, Nanoseconds]:
    """Return that a build has just used all of its export: later than any time of a result.

    In `config`, a newer result of a key may have taken the place of the one that is in the export.
    """
    keys = _keys_with_results(export)
    return {name: _NOW for name, _, _, _ in results_of(config) if name.record in keys}


def loses_results(config: CacheConfig, former: CacheConfig) -> bool:
    """Whether a key that leads to a result in `former` has none in `config`."""
    return not _keys_with_results(former) <= _keys_with_results(config)


def _keys_with_results(config: CacheConfig) -> set[str]:
    return {record.digest for record in config.records if record.results}


def shrink(
    config: CacheConfig,
    room: Callable[[CacheConfig], float],
    uses: Mapping[ResultId, Nanoseconds] | None = None,
) -> CacheConfig:
    """Return an index that fits: `config` itself, or most of the results that fit, in normal form.

    `room` returns which share of the room an index takes, 1 if all of it; it must not return less
    for an index with more results. Results that builds used longest ago go first; of those that one
    build used, those that lie furthest from the beginning: their keys take the most room, as they
    need all keys below, and the others are of use without them. A result that `uses` lacks was last
    used when it, or another one that builds on it, was made. The outcome depends on the content
    alone.
    """
    too_large = room(config)
    if too_large <= 1:
        return config
    ranked = _ranked(config, uses or {})
    fits, small = CacheConfig(), 0.0
    kept, too_many, tries = 0, len(ranked), 0
    while too_many - kept > 1 and small < _FULL:
        # An index grows with its results, but a hostile one may grow by leaps.
        guess = ((1 + _FULL) / 2 - small) / (too_large - small)
        share = guess if tries < _GUESSES else 0.5
        count = min(max(kept + int(share * (too_many - kept)), kept + 1), too_many - 1)
        smaller = only(config, {(at, number) for _, at, _, number in ranked[:count]})
        size = room(smaller)
        if size <= 1:
            kept, small, fits = count, size, smaller
        else:
            too_many, too_large = count, size
        tries += 1
    return fits


def _ranked(
    config: CacheConfig, uses: Mapping[ResultId, Nanoseconds]
) -> list[tuple[ResultId, int, Result, int]]:
    """Return the results in the order in which they stay."""
    made, levels = _last_made(config), depths(sources_of(config.records))
    return sorted(
        results_of(config),
        key=lambda one: (
            -uses.get(one[0], made[one[1]]),
            levels[one[1]],
            -one[2].created_at,
            one[0],
            one[1],
        ),
    )


def built_since(config: CacheConfig, first: Nanoseconds) -> CacheConfig:
    """Return what remains of `config` if no build has used the rest since, in normal form.

    A build has used a result when it made it, or another one that builds on it.
    """
    made = _last_made(config)
    return only(
        config, {(at, number) for _, at, _, number in results_of(config) if made[at] >= first}
    )


def _last_made(config: CacheConfig) -> list[int]:
    """Return for each record when the last result of it, or of another on top of it, was made."""
    made = [max((one.created_at for one in record.results), default=0) for record in config.records]
    sources = sources_of(config.records)
    for position in reversed(dependency_order(sources) or ()):
        for source in sources[position]:
            made[source] = max(made[source], made[position])
    return made


def results_of(config: CacheConfig) -> Iterable[tuple[ResultId, int, Result, int]]:
    """Return each result with the position of its record, and its own in the record."""
    for at, record in enumerate(config.records):
        for number, result in enumerate(record.results):
            blobs = tuple(config.layers[layer].blob for layer in result.layers)
            yield ResultId(record.digest, result.with_parents, blobs), at, result, number


def only(config: CacheConfig, chosen: set[tuple[int, int]]) -> CacheConfig:
    """Return what remains if only these results are kept: positions of a record, and in it."""
    records = (
        msgspec.structs.replace(
            record,
            results=tuple(
                result for number, result in enumerate(record.results) if (at, number) in chosen
            ),
        )
        for at, record in enumerate[Record](config.records)
    )
    return prune(CacheConfig(config.layers, tuple(records)), config.blobs)
