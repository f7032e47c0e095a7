"""Pruning: what remains of an index when some blobs are gone."""

from collections.abc import Callable, Container, Sequence

from maintainer.cacheconfig.keys import Digest
from maintainer.cacheconfig.model import NO_PARENT, CacheConfig, Layer, Record, Result
from maintainer.cacheconfig.normal import normalize
from maintainer.cacheconfig.order import dependency_order, parents_of


def prune(config: CacheConfig, live_blobs: Container[Digest]) -> CacheConfig:
    """Keep what leads to a live result, in normal form.

    A layer is dead when its blob, or the blob of any parent, is gone; a result is dead when a layer
    that it needs is dead. A record stays only if it has a live result, or a record that stays links
    to it. Of several live results of a record the newest is kept, as the exporter does.
    """
    live = _live_layers(config.layers, live_blobs.__contains__)
    return _keep(config, [_newest(record, config.layers, live) for record in config.records])


def forget(config: CacheConfig, gone_blobs: Container[Digest]) -> CacheConfig:
    """Drop what leads only to results that need blobs which are gone, in normal form.

    Unlike `prune`, it keeps every other result of a record: when the newest is lost, an older one
    takes its place.
    """
    live = _live_layers(config.layers, lambda blob: blob not in gone_blobs)
    return _keep(config, [_alive(record, live) for record in config.records])


def _keep(config: CacheConfig, results: Sequence[tuple[Result, ...]]) -> CacheConfig:
    """Keep these results of each record, and the records that lead to one."""
    records = [
        Record(record.digest, kept, record.inputs)
        for record, kept in zip(config.records, results, strict=True)
    ]
    pruned = normalize(CacheConfig(config.layers, tuple(records)), kept=_staying(records))
    return config if pruned == config else pruned


def _live_layers(layers: Sequence[Layer], is_live: Callable[[Digest], bool]) -> list[bool]:
    live = [False] * len(layers)
    for position in dependency_order(parents_of(layers)) or ():
        layer = layers[position]
        supported = layer.parent == NO_PARENT or live[layer.parent]
        live[position] = supported and is_live(layer.blob)
    return live


def _alive(record: Record, live: Sequence[bool]) -> tuple[Result, ...]:
    return tuple([one for one in record.results if all(map(live.__getitem__, one.layers))])


def _newest(record: Record, layers: Sequence[Layer], live: Sequence[bool]) -> tuple[Result, ...]:
    alive = _alive(record, live)
    if len(alive) <= 1:
        return alive
    return (max(alive, key=lambda result: (result.created_at, *_identity(result, layers))),)


def _identity(result: Result, layers: Sequence[Layer]) -> tuple[bool, list[Digest]]:
    """Order results of the same nanosecond by their content, not by their position."""
    blobs = []
    for layer in result.layers:
        below = layer
        while below != NO_PARENT:
            blobs.append(layers[below].blob)
            below = layers[below].parent
    return result.with_parents, blobs


def _staying(records: Sequence[Record]) -> list[int]:
    """Return the records with a result and all that lead to them, in their old order."""
    waiting = [position for position, record in enumerate(records) if record.results]
    staying = set(waiting)
    while waiting:
        for links in records[waiting.pop()].inputs:
            for link in links:
                if link.source not in staying:
                    staying.add(link.source)
                    waiting.append(link.source)
    return sorted(staying)
