"""Hypothesis strategies for indexes, and what an index means, told without the code under test."""

import hashlib
from collections.abc import Collection
from functools import cache

from hypothesis import strategies as st

from maintainer.cacheconfig import CacheConfig, Digest, Layer, Link, Record, Result
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.timestamps import Nanoseconds

Meaning = dict[str, tuple[Digest, ...] | None]
"""For each cache key, by all the ways that lead to it, the chain of blobs that it leads to."""

BLOBS = [Digest("sha256:" + hashlib.sha256(bytes([n])).hexdigest()) for n in range(6)]
_TIMES = st.integers(min_value=-(10**18), max_value=2 * 10**18).map(Nanoseconds)
_SELECTORS = st.sampled_from(["", "/src"])
_NAMES = st.sampled_from("ab")
_BLOBS = st.sampled_from(BLOBS)


def meaning(config: CacheConfig) -> Meaning:
    """Return what an index means. Only for indexes without twins: twins would hide each other."""
    keys: dict[int, str] = {}

    def key(position: int) -> str:
        if position not in keys:
            record = config.records[position]
            ways = [sorted((key(x.source), x.selector) for x in links) for links in record.inputs]
            keys[position] = hashlib.sha256(repr((record.digest, ways)).encode()).hexdigest()
        return keys[position]

    told: Meaning = {}
    for position, record in enumerate(config.records):
        assert key(position) not in told, "twins"
        newest = max(record.results, key=lambda result: result.created_at, default=None)
        told[key(position)] = _chain(config, newest) if newest else None
    return told


def leads_to(config: CacheConfig) -> dict[str, set[tuple[Digest, ...]]]:
    """Return for each digest the chains that its records lead to, whatever leads to them."""
    told: dict[str, set[tuple[Digest, ...]]] = {}
    for record in config.records:
        for result in record.results:
            told.setdefault(record.digest, set()).add(_chain(config, result))
    return told


def slow_prune(config: CacheConfig, live: Collection[Digest]) -> CacheConfig:
    """Prune by taking the three rules literally, again and again until nothing changes."""
    records = dict(enumerate(config.records))
    for position, record in records.items():
        alive = [r for r in record.results if _needs(config, r) <= set(live)]
        newest = sorted(alive, key=lambda r: r.created_at)[-1:]
        records[position] = Record(record.digest, tuple(newest), record.inputs)
    while True:
        linked = {x.source for r in records.values() for links in r.inputs for x in links}
        useless = [p for p, r in records.items() if not r.results and p not in linked]
        if not useless:
            break
        for position in useless:
            del records[position]
    at = {old: new for new, old in enumerate(records)}
    return CacheConfig(
        config.layers,
        tuple(
            Record(
                record.digest,
                record.results,
                tuple(
                    tuple(Link(at[link.source], link.selector) for link in links)
                    for links in record.inputs
                ),
            )
            for record in records.values()
        ),
    )


def _chain(config: CacheConfig, result: Result) -> tuple[Digest, ...]:
    if not result.with_parents:
        return tuple(config.layers[layer].blob for layer in result.layers)
    return tuple(reversed(_downwards(config, result.layers[0])))


def _needs(config: CacheConfig, result: Result) -> set[Digest]:
    return {blob for layer in result.layers for blob in _downwards(config, layer)}


def _downwards(config: CacheConfig, layer: int) -> list[Digest]:
    chain = []
    while layer != NO_PARENT:
        chain.append(config.layers[layer].blob)
        layer = config.layers[layer].parent
    return chain


def describe(blob: Digest, parent: int, created_at: Nanoseconds | None = None) -> Layer:
    """Return a layer whose description follows from its blob, as content does."""
    number = BLOBS.index(blob)
    return Layer(
        blob=blob,
        parent=parent,
        diff_id=Digest("sha256:" + hashlib.sha256(blob.encode()).hexdigest()),
        media_type="application/vnd.oci.image.layer.v1.tar+gzip",
        size=100 * number,
        created_at=Nanoseconds(number) if created_at is None else created_at,
    )


@st.composite
def layers(draw: st.DrawFn) -> tuple[Layer, ...]:
    """Draw a few layers; the same blob may stand on different parents, or twice on the same."""
    drawn: list[Layer] = []
    for position in range(draw(_up_to(6))):
        blob = draw(_BLOBS)
        drawn.append(describe(blob, draw(_up_to(position - 1, NO_PARENT))))
    return tuple(drawn)


@cache
def results(layer_count: int) -> st.SearchStrategy[tuple[Result, ...]]:
    """Return a strategy for up to two results of one record."""
    if not layer_count:
        return st.just(())
    one = _up_to(layer_count - 1)
    chains = st.lists(one, min_size=1, max_size=3).map(tuple)
    layer = st.builds(Result, one.map(lambda n: (n,)), st.just(value=True), _TIMES)
    chain = st.builds(Result, chains, st.just(value=False), _TIMES)
    return st.lists(layer | chain, max_size=2).map(tuple)


@st.composite
def any_index(draw: st.DrawFn, *, loops: bool = True) -> CacheConfig:
    """Draw any valid index, in no special order: few digests, so that many records are the same.

    Without `loops`, a digest tells how deep a record stands, so that uniting closes no loop.
    """
    drawn_layers = draw(layers())
    records: list[Record] = []
    depths: list[int] = []
    for position in range(draw(_up_to(8))):
        inputs: tuple[tuple[Link, ...], ...] = ()
        if position and draw(st.booleans()):
            inputs = draw(_inputs(position))
        sources = [depths[link.source] for links in inputs for link in links]
        depth = 1 + max(sources, default=0)
        depths.append(depth)
        arity = len(inputs)
        name = draw(_NAMES)
        digest = f"{name}{arity}" if loops else f"{name}{arity}{depth}"
        records.append(Record(digest, draw(results(len(drawn_layers))), inputs))
    return CacheConfig(drawn_layers, tuple(records))


@cache
def _up_to(end: int, begin: int = 0) -> st.SearchStrategy[int]:
    return st.integers(begin, end)


@cache
def _inputs(position: int) -> st.SearchStrategy[tuple[tuple[Link, ...], ...]]:
    links = st.lists(_links(position), min_size=1, max_size=3).map(tuple)
    return st.lists(links, min_size=1, max_size=2).map(tuple)


@cache
def _links(position: int) -> st.SearchStrategy[Link]:
    return st.builds(Link, _up_to(max(0, position - 1)), _SELECTORS)


@st.composite
def builds_of_one_repository(draw: st.DrawFn, count: int = 2) -> list[CacheConfig]:
    """Draw indexes as builds write them: parts of one graph, where a step is always reached by its
    first way at least, and by some of the others.
    """
    whole_layers = draw(layers())
    steps = range(draw(_up_to(7, 1)))
    ways = [draw(_ways(position)) if position else [] for position in steps]
    return [draw(_one_build(whole_layers, ways)) for _ in range(count)]


@cache
def _some(count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(_up_to(count - 1), max_size=4)


@cache
def _ways(position: int) -> st.SearchStrategy[list[list[Link]]]:
    return st.lists(st.lists(_links(position), min_size=1, max_size=3), max_size=2)


@st.composite
def _one_build(
    draw: st.DrawFn, whole_layers: tuple[Layer, ...], ways: list[list[list[Link]]]
) -> CacheConfig:
    wanted = set(draw(_some(len(ways))))
    for position in sorted(range(len(ways)), reverse=True):
        if position in wanted:
            wanted |= {links[0].source for links in ways[position]}
    at = {old: new for new, old in enumerate(sorted(wanted))}
    return CacheConfig(
        whole_layers,
        tuple(
            Record(
                digest=f"step{old}",
                results=draw(results(len(whole_layers))),
                inputs=tuple(
                    tuple(
                        Link(at[link.source], link.selector)
                        for number, link in enumerate(links)
                        if number == 0 or (link.source in wanted and draw(st.booleans()))
                    )
                    for links in ways[old]
                ),
            )
            for old in sorted(wanted)
        ),
    )
