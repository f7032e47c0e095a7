"""Pruning: what remains of an index when some blobs are gone."""

from collections.abc import Callable, Container, Sequence

from maintainer.cacheconfig.keys import Digest
from maintainer.cacheconfig.model import NO_PARENT, CacheConfig, Layer, Link, Record, Result
from maintainer.cacheconfig.normal import normalize
from maintainer.cacheconfig.order import dependency_order


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
    staying = _staying(config.records, results)
    at = {old: new for new, old in enumerate(staying)}
    return normalize(
        CacheConfig(
            layers=config.layers,
            records=tuple(
                Record(
                    digest=config.records[old].digest,
                    results=results[old],
                    inputs=tuple(
                        tuple(Link(at[link.source], link.selector) for link in links)
                        for links in config.records[old].inputs
                    ),
                )
                for old in staying
            ),
        )
    )


def _live_layers(layers: Sequence[Layer], is_live: Callable[[Digest], bool]) -> list[bool]:
    live = [False] * len(layers)
    parents = [() if layer.parent == NO_PARENT else (layer.parent,) for layer in layers]
    for position in dependency_order(parents) or ():
        layer = layers[position]
        supported = layer.parent == NO_PARENT or live[layer.parent]
        live[position] = supported and is_live(layer.blob)
    return live


def _alive(record: Record, live: Sequence[bool]) -> tuple[Result, ...]:
    return tuple(result for result in record.results if all(live[layer] for layer in result.layers))


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


def _staying(records: Sequence[Record], results: Sequence[tuple[Result, ...]]) -> list[int]:
    """Return the records with a live result and all that lead to them, in their old order."""
    waiting = [position for position, live in enumerate(results) if live]
    staying = set(waiting)
    while waiting:
        for links in records[waiting.pop()].inputs:
            for link in links:
                if link.source not in staying:
                    staying.add(link.source)
                    waiting.append(link.source)
    return sorted(staying)
