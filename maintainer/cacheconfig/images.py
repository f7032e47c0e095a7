"""What is stored beside caches in a registry: images and their indexes, as far as they are read."""

import re
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from maintainer.cacheconfig.keys import DIGEST_FORM, Digest, is_digest
from maintainer.cacheconfig.oci import MANIFEST_TYPES

_OF_INDEX = re.compile(r"index|list")
"""What the media types of indexes contain."""
IMAGE_TYPES = frozenset(one for one in MANIFEST_TYPES if not _OF_INDEX.search(one))
"""The media types of manifests that list no others."""
_DIGEST = re.compile(rf"(?:{DIGEST_FORM})(?![0-9a-f])".encode())
_BLOB = re.compile(r"[./](?:layer|rootfs|config|cacheconfig|container\.image)\.")
"""What the media types of layers and configs contain."""
_NONE = msgspec.Raw(b"null")


@dataclass(frozen=True, slots=True)
class Child:
    """Something that an index lists."""

    digest: Digest
    is_index: bool
    """Whether it is an index, too, by its media type; and if it has none, it may be one."""


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


def children_of(content: bytes) -> list[Child]:
    """Return what an index lists that may list more: neither images, nor layers and configs."""
    return [
        Child(digest, is_index=not kind or bool(_OF_INDEX.search(kind)))
        for kind, digest in _listed_in(content)
        if not (kind in IMAGE_TYPES or _BLOB.search(kind))
    ]


def images_of(content: bytes) -> list[Digest]:
    """Return the images that an index lists, one for each platform: they list nothing further."""
    return [digest for kind, digest in _listed_in(content) if kind in IMAGE_TYPES]


def _listed_in(content: bytes) -> list[tuple[str, Digest]]:
    listed = _read_image(content).manifests or []
    return [(one.media_type, Digest(one.digest)) for one in listed if is_digest(one.digest)]


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
