"""Reading and writing the cache config JSON (`application/vnd.buildkit.cacheconfig.v0`).

Source: `cache/remotecache/v1` in moby/buildkit. Fields are Go's with omitempty: a missing `parent`
means 0, a missing list is empty, a missing `selector` is "". `decode` enforces every rule for which
an importer refuses the whole index, so that nothing we write can switch a cache off.
"""

import sys
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from maintainer.cacheconfig.keys import Digest, is_digest
from maintainer.cacheconfig.model import NO_PARENT, CacheConfig, Layer, Link, Record, Result
from maintainer.cacheconfig.normal import put_in_order
from maintainer.cacheconfig.order import dependency_order, leave_out, parents_of, sources_of
from maintainer.cacheconfig.prune import prune
from maintainer.cacheconfig.sink import Sink, without_sink
from maintainer.cacheconfig.timestamps import Nanoseconds, format_time, parse_time
from maintainer.errors import InvalidIndexError

_RANDOM = "random:"
"""The prefix of the digests of steps that are never cached."""
_ZERO_TIME = "0001-01-01T00:00:00Z"
_NO_DIFF = "sha256:" + 64 * "0"
_INT64 = range(-(2**63), 2**63)


class Annotations(msgspec.Struct, omit_defaults=True, gc=False):
    """The annotations of a layer's blob."""

    media_type: str = msgspec.field(name="mediaType", default="")
    diff_id: str = msgspec.field(name="diffID", default="")
    size: int = 0
    # Always written, even if it is the zero time: unset is a default that no text equals.
    created_at: str | msgspec.UnsetType = msgspec.field(name="createdAt", default=msgspec.UNSET)


class _Layer(msgspec.Struct, omit_defaults=True, gc=False):
    blob: str = ""
    parent: int = 0
    annotations: Annotations | None = None


class _LayerResult(msgspec.Struct, gc=False):
    layer: int = 0
    created_at: str = msgspec.field(name="createdAt", default=_ZERO_TIME)


class _ChainResult(msgspec.Struct, gc=False):
    layers: tuple[int, ...] | None = None
    created_at: str = msgspec.field(name="createdAt", default=_ZERO_TIME)


class _Record(msgspec.Struct, omit_defaults=True, gc=False):
    digest: str = ""
    layers: tuple[_LayerResult, ...] | None = None
    chains: tuple[_ChainResult, ...] | None = None
    inputs: tuple[tuple[Link, ...] | None, ...] | None = None


class _Config(msgspec.Struct, omit_defaults=True):
    layers: list[_Layer] | None = None
    records: list[_Record] | None = None


_DECODER = msgspec.json.Decoder(_Config)
_ENCODER = msgspec.json.Encoder()


class Decoded(NamedTuple):
    """An index as it was read."""

    config: CacheConfig
    """Without its sink and stamps."""
    sink: Sink | None
    """The sink that it had: every index that we write has one, and no export of a build does."""


def decode(data: bytes) -> CacheConfig:
    """Return an index without its sink and stamps, in the order of `put_in_order`.

    Raises InvalidIndexError, which names the layer or record and the rule, if an importer would
    refuse it.
    """
    return decode_whole(data).config


def decode_whole(data: bytes) -> Decoded:
    """Return an index, and its sink. Raises InvalidIndexError as `decode` does."""
    config, sink = without_sink(_read(_parse(data)))
    return Decoded(put_in_order(config), sink)


def decode_described(data: bytes, descriptions: Mapping[str, Annotations]) -> Decoded:
    """Return an index that does not describe its layers; `descriptions` does, by blob.

    An importer drops the results that need a blob which nothing describes, so they are left out.
    Raises InvalidIndexError as `decode` does.
    """
    wire = _parse(data)
    unknown = Annotations(diff_id=_NO_DIFF)
    for layer in wire.layers or []:
        layer.annotations = descriptions.get(layer.blob, unknown)
    config, sink = without_sink(_read(wire))
    described = config.blobs & descriptions.keys()
    if described != config.blobs:
        config = prune(config, described)
    return Decoded(put_in_order(config), sink)


def _parse(data: bytes) -> "_Config":
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidIndexError("index", f"not a cache config in JSON ({error})") from None


def _read(wire: "_Config") -> CacheConfig:
    layers = _read_layers(wire.layers or [])
    count = len(wire.records or [])
    records = tuple(
        [
            _read_record(position, record, len(layers), count)
            for position, record in enumerate(wire.records or [])
        ]
    )
    if dependency_order(sources_of(records)) is None:
        raise InvalidIndexError("records", "their links loop")
    return CacheConfig(layers, _skip_random(records))


def _skip_random(records: tuple[Record, ...]) -> tuple[Record, ...]:
    """Leave out the records that an importer skips; a link to one makes it refuse the index."""
    skipped = {at for at, record in enumerate(records) if record.digest.startswith(_RANDOM)}
    if not skipped:
        return records
    for position, sources in enumerate(sources_of(records)):
        if skipped.intersection(sources):
            rule = f"it links to a record whose digest begins with {_RANDOM}"
            raise InvalidIndexError(f"record {position}", rule)
    return leave_out(records, skipped)


def encode(config: CacheConfig, *, described: bool = True) -> bytes:
    """Write an index, in its own order; `merge` and `prune` return normal form.

    Without `described`, the annotations of the layers are omitted.
    """
    return _ENCODER.encode(
        _Config(
            layers=[_write_layer(layer, described=described) for layer in config.layers] or None,
            records=[_write_record(record) for record in config.records] or None,
        )
    )


def encoded_size(config: CacheConfig) -> int:
    """Return how many bytes `encode` writes, without having all of them in memory."""
    lists = {
        "layers": [
            len(_ENCODER.encode(_write_layer(layer, described=True))) for layer in config.layers
        ],
        "records": [len(_ENCODER.encode(_write_record(record))) for record in config.records],
    }
    fields = [
        len(f'"{name}":[]') + sum(sizes) + len(sizes) - 1 for name, sizes in lists.items() if sizes
    ]
    return len("{}") + sum(fields) + max(0, len(fields) - 1)


def _read_layers(wire: list[_Layer]) -> tuple[Layer, ...]:
    count = len(wire)
    layers = tuple([_read_layer(position, layer, count) for position, layer in enumerate(wire)])
    if dependency_order(parents_of(layers)) is None:
        raise InvalidIndexError("layers", "their parents loop")
    return layers


def _read_layer(position: int, wire: _Layer, count: int) -> Layer:
    where = f"layer {position}"
    if wire.annotations is None:
        raise InvalidIndexError(where, "it has no annotations")
    if not wire.annotations.diff_id:
        raise InvalidIndexError(where, "it has no diffID")
    if not is_digest(wire.annotations.diff_id):
        raise InvalidIndexError(where, "its diffID is not a valid digest")
    if not is_digest(wire.blob):
        raise InvalidIndexError(where, "its blob is not a valid digest")
    if wire.parent != NO_PARENT and not 0 <= wire.parent < count:
        raise InvalidIndexError(where, "its parent is out of range")
    if wire.annotations.size not in _INT64:
        raise InvalidIndexError(where, "its size is not a 64-bit number")
    created_at = wire.annotations.created_at
    # Most indexes name what others name, too: each text is in memory once.
    return Layer(
        blob=Digest(sys.intern(wire.blob)),
        parent=wire.parent,
        diff_id=Digest(sys.intern(wire.annotations.diff_id)),
        media_type=sys.intern(wire.annotations.media_type),
        size=wire.annotations.size,
        created_at=_read_time(where, _ZERO_TIME if created_at is msgspec.UNSET else created_at),
    )


def _read_record(position: int, wire: _Record, layers: int, records: int) -> Record:
    where = f"record {position}"
    results: list[tuple[bool, tuple[int, ...], str]] = [
        (True, (one.layer,), one.created_at) for one in wire.layers or ()
    ]
    results += [(False, one.layers or (), one.created_at) for one in wire.chains or ()]
    for _, needed, _ in results:
        for layer in needed:
            if not 0 <= layer < layers:
                raise InvalidIndexError(where, "a layer of a result is out of range")
    return Record(
        digest=sys.intern(wire.digest),
        results=tuple(
            [
                Result(needed, with_parents, _read_time(where, created_at))
                for with_parents, needed, created_at in results
            ]
        ),
        inputs=_read_inputs(where, wire.inputs, records) if wire.inputs else (),
    )


def _read_inputs(
    where: str, wire: tuple[tuple[Link, ...] | None, ...], records: int
) -> tuple[tuple[Link, ...], ...]:
    inputs = []
    for number, links in enumerate(wire):
        if not links:
            raise InvalidIndexError(f"{where}, input {number}", "it is an empty list")
        for link in links:
            if not 0 <= link.source < records:
                raise InvalidIndexError(f"{where}, input {number}", "a link is out of range")
        inputs.append(links)
    return tuple(inputs)


def _read_time(where: str, text: str) -> Nanoseconds:
    try:
        return parse_time(text)
    except ValueError as error:
        raise InvalidIndexError(where, f"createdAt is {error}") from None


def _write_layer(layer: Layer, *, described: bool) -> _Layer:
    return _Layer(layer.blob, layer.parent, annotate(layer) if described else None)


def annotate(layer: Layer) -> Annotations:
    """Return the annotations of a layer."""
    return Annotations(
        media_type=layer.media_type,
        diff_id=layer.diff_id,
        size=layer.size,
        created_at=format_time(layer.created_at),
    )


def _write_record(record: Record) -> _Record:
    layers = [result for result in record.results if result.with_parents]
    chains = [result for result in record.results if not result.with_parents]
    return _Record(
        digest=record.digest,
        layers=tuple([_LayerResult(r.layers[0], format_time(r.created_at)) for r in layers])
        or None,
        chains=tuple([_ChainResult(r.layers, format_time(r.created_at)) for r in chains]) or None,
        inputs=record.inputs or None,
    )
