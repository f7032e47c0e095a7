"""An index as an OCI layout holds it: a manifest that describes the blobs, and a config.

Source: `cache/remotecache` in moby/buildkit (`type=local`, `type=registry`). The config is the
cache config JSON without annotations. The manifest is an image manifest, whose `layers` describe
the blobs and whose `config` is the cache config; or, from older builders, an image index that lists
both among its `manifests`. An importer takes either.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from maintainer.cacheconfig.apart import ANY_STAMP
from maintainer.cacheconfig.bounds import is_small
from maintainer.cacheconfig.codec import Annotations, Decoded, annotate, decode_described, encode
from maintainer.cacheconfig.keys import Digest, content_digest, is_digest
from maintainer.cacheconfig.model import CacheConfig, Layer
from maintainer.cacheconfig.normal import normalize
from maintainer.cacheconfig.sink import Sink, with_sink

CONFIG_TYPE = "application/vnd.buildkit.cacheconfig.v0"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPES = frozenset(
    {
        MANIFEST_TYPE,
        INDEX_TYPE,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)

_OF_MANIFESTS = ("manifest", "index")
"""What the media types of manifests contain, also of those that are not known here."""
_DIFF_ID = "containerd.io/uncompressed"
_CREATED_AT = "buildkit/createdat"

IMPORT_LIMIT = 1024 * 1024
"""Bytes. Importers of `type=local` and `type=registry` refuse a larger manifest or config."""
_ROOM = 1024
"""Bytes that the form of a manifest may take beyond the one that is measured."""
_LARGEST = 1 << 42
"""Bytes. Whoever pushes a manifest states sizes, and nobody checks them: their sum must fit."""

Descriptor = dict[str, msgspec.Raw]
"""A descriptor with all its fields, known or not."""


class _Descriptor(msgspec.Struct, rename="camel"):
    media_type: str = ""
    digest: str = ""
    size: int = 0
    annotations: dict[str, str] | None = None


class _Manifest(msgspec.Struct, rename="camel"):
    media_type: str = ""
    config: _Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    subject: msgspec.Raw | None = None


_MANIFEST = msgspec.json.Decoder(_Manifest)
_DESCRIPTION = msgspec.json.Decoder(_Descriptor)
_NAMES = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_FOLDED: dict[type[msgspec.Struct], frozenset[str]] = {
    kind: frozenset(name.casefold() for name in kind.__struct_encode_fields__)
    for kind in (_Manifest, _Descriptor)
}
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class CacheManifest:
    """The manifest of a tag that is a cache."""

    lists_all: bool
    """Whether it is an image index, which lists the config among the blobs."""
    media_type: str
    config: Digest
    descriptors: Mapping[str, Descriptor] = field(repr=False)
    """By digest of the blob."""

    def sizes(self) -> Iterator[tuple[Digest, int]]:
        """Return the blobs whose sizes it states, with the sizes in bytes."""
        for digest, descriptor in self.descriptors.items():
            size = _describe(descriptor).size
            if is_digest(digest) and size > 0:
                yield Digest(digest), min(size, _LARGEST)


def _is_of_manifest(media_type: str) -> bool:
    """Whether something with this media type is a manifest, not a blob: it may list more."""
    return any(one in media_type.lower() for one in _OF_MANIFESTS)


def read_manifest(content: bytes) -> CacheManifest | None:
    """Read a manifest; None if it is not that of a cache, or of more than a cache."""
    try:
        wire = _MANIFEST.decode(content)
        if wire.subject or _is_misspelt(content, wire):
            return None
        if wire.config and wire.config.media_type == CONFIG_TYPE and not wire.manifests:
            return _cache_manifest(wire, wire.config, wire.layers or (), lists_all=False)
        listed = [(each, _describe(each)) for each in wire.manifests or ()]
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    configs = [one for _, one in listed if one.media_type == CONFIG_TYPE]
    if len(configs) != 1 or wire.config or wire.layers:
        return None
    blobs = [each for each, one in listed if one.media_type != CONFIG_TYPE]
    return _cache_manifest(wire, configs[0], blobs, lists_all=True)


def _is_misspelt(content: bytes, wire: _Manifest) -> bool:
    """Return whether there are names that builders, who ignore case, read and we do not."""
    whole = _NAMES.decode(content) or {}
    config = _NAMES.decode(whole["config"]) if "config" in whole else None
    described = (*(wire.layers or ()), *(wire.manifests or ()), config or {})
    return _differ_in_case(whole, _Manifest) or any(
        _differ_in_case(each, _Descriptor) for each in described
    )


def _differ_in_case(names: Iterable[str], kind: type[msgspec.Struct]) -> bool:
    known = kind.__struct_encode_fields__
    return any(name not in known and name.casefold() in _FOLDED[kind] for name in names)


def _cache_manifest(
    wire: _Manifest, config: _Descriptor, blobs: Iterable[Descriptor], *, lists_all: bool
) -> CacheManifest | None:
    described = [(each, _describe(each)) for each in blobs]
    if any(_is_of_manifest(one.media_type) for _, one in described):
        return None
    if not is_digest(config.digest):
        return None
    default = INDEX_TYPE if lists_all else MANIFEST_TYPE
    return CacheManifest(
        lists_all=lists_all,
        media_type=wire.media_type if wire.media_type in MANIFEST_TYPES else default,
        config=Digest(config.digest),
        descriptors={one.digest: each for each, one in described},
    )


def _describe(descriptor: Descriptor) -> _Descriptor:
    return _DESCRIPTION.decode(_ENCODER.encode(descriptor))


def decode_oci(manifest: CacheManifest, config: bytes) -> Decoded:
    """Return an index, and its sink.

    What the manifest does not describe, as an importer needs it, leads nowhere: results that need
    it are left out. Raises InvalidIndexError, which names the layer or record and the rule, if an
    importer would refuse all of it.
    """
    descriptions: dict[str, Annotations] = {}
    for digest, descriptor in manifest.descriptors.items():
        one = _describe(descriptor)
        annotations = one.annotations or {}
        if is_digest(digest) and is_digest(annotations.get(_DIFF_ID, "")):
            descriptions[digest] = Annotations(
                media_type=one.media_type,
                diff_id=annotations[_DIFF_ID],
                size=one.size,
                created_at=annotations.get(_CREATED_AT) or msgspec.UNSET,
            )
    return decode_described(config, descriptions)


@dataclass(frozen=True, slots=True)
class Encoded:
    """An index as two blobs."""

    manifest: bytes
    config: bytes


def encode_oci(
    config: CacheConfig,
    *,
    form: CacheManifest | None = None,
    described: Mapping[str, Descriptor] | None = None,
    sink: Sink = Sink.REWRITE,
    stamp: str = ANY_STAMP,
    padding: int = 0,
) -> Encoded:
    """Return an index in normal form, with stamp and sink, and a manifest in the form of `form`.

    What `described` says of a blob beyond what an index knows is kept. With `padding`, the config
    has so many empty lines at its end, and another digest.
    """
    content = encode(with_sink(normalize(config), sink, stamp), described=False) + b"\n" * padding
    known = described or {}
    layers = {layer.blob: layer for layer in config.layers}
    blobs = [_descriptor(layers[blob], known.get(blob, {})) for blob in sorted(layers)]
    head = {
        "mediaType": _raw(CONFIG_TYPE),
        "digest": _raw(content_digest(content)),
        "size": _raw(len(content)),
    }
    lists_all = form is not None and form.lists_all
    default = INDEX_TYPE if lists_all else MANIFEST_TYPE
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": form.media_type if form else default,
    }
    manifest |= {"manifests": [*blobs, head]} if lists_all else {"config": head, "layers": blobs}
    return Encoded(_ENCODER.encode(manifest), content)


def fits_importers(config: CacheConfig) -> bool:
    """Whether importers read an index: neither its config nor its manifest is too large."""
    return is_small(config, IMPORT_LIMIT) or importers_size(config) <= IMPORT_LIMIT


def importers_size(config: CacheConfig) -> int:
    """Return the bytes of what importers have a limit for: the larger of config and manifest."""
    encoded = encode_oci(config)
    return max(len(encoded.config), len(encoded.manifest) + _ROOM)


def _descriptor(layer: Layer, known: Descriptor) -> Descriptor:
    says = annotate(layer)
    annotations = _describe(known).annotations or {}
    annotations |= {_DIFF_ID: says.diff_id, _CREATED_AT: says.created_at or ""}
    return known | {
        "mediaType": _raw(layer.media_type),
        "digest": _raw(layer.blob),
        "size": _raw(layer.size),
        "annotations": _raw(annotations),
    }


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_ENCODER.encode(value))
