"""What is stored beside caches in a registry: images and their indexes, as far as they are read."""

import re
from contextlib import suppress

import msgspec

from maintainer.cacheconfig.keys import DIGEST_FORM, Digest, is_digest
from maintainer.cacheconfig.oci import MANIFEST_TYPES, is_of_manifest

_INDEXES = frozenset(one for one in MANIFEST_TYPES if "index" in one or "list" in one)
IMAGE_TYPES = MANIFEST_TYPES - _INDEXES
"""The media types of manifests that list no others."""
_DIGEST = re.compile(rf"(?:{DIGEST_FORM})(?![0-9a-f])".encode())
_NONE = msgspec.Raw(b"null")


class _Listed(msgspec.Struct, rename="camel"):
    media_type: str = ""
    digest: str = ""


class _Image(msgspec.Struct, rename="camel"):
    manifests: list[_Listed] | None = None
    config: _Listed | None = None


class _Config(msgspec.Struct):
    cache: msgspec.Raw = msgspec.field(default=_NONE, name="moby.buildkit.cache.v0")


_IMAGE = msgspec.json.Decoder(_Image)
_CONFIG = msgspec.json.Decoder(_Config)


def digests_in(content: bytes) -> set[Digest]:
    """Return every digest in a document, whatever its field, and however it is spelled."""
    plain = b""
    if b"\\u" in content:
        with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            plain = msgspec.json.encode(msgspec.json.decode(content))
    return {Digest(one.decode()) for one in _DIGEST.findall(content + b"\n" + plain)}


def children_of(content: bytes, *, images: bool = False) -> list[Digest]:
    """Return the indexes that an index lists; or its images, which list nothing further.

    What has no media type may be an index. Blobs, which the index of a cache lists, are neither.
    """
    listed = _read_image(content).manifests or []
    wanted = _is_image if images else _may_be_index
    return [Digest(one.digest) for one in listed if is_digest(one.digest) and wanted(one)]


def _is_image(one: _Listed) -> bool:
    return one.media_type in IMAGE_TYPES


def _may_be_index(one: _Listed) -> bool:
    may_be = is_of_manifest(one.media_type) or not one.media_type
    return may_be and not _is_image(one)


def config_of(content: bytes) -> Digest | None:
    """Return the config of an image."""
    config = _read_image(content).config
    return Digest(config.digest) if config and is_digest(config.digest) else None


def _read_image(content: bytes) -> _Image:
    try:
        return _IMAGE.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _Image()


def holds_cache(config: bytes) -> bool:
    """Whether the config of an image holds an inline cache."""
    try:
        return _CONFIG.decode(config).cache != _NONE
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
