"""`index.json`: which tag leads to which manifest. Pure.

What is not ours to know in it is kept byte for byte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.keys import is_digest
from maintainer.errors import StoreError

_NAME = "org.opencontainers.image.ref.name"
_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_ENCODER = msgspec.json.Encoder()


class _Says(msgspec.Struct, rename="camel"):
    digest: str = ""
    annotations: dict[str, str] | None = None


_SAYS = msgspec.json.Decoder(_Says)


@dataclass(frozen=True, slots=True)
class Named:
    """One descriptor."""

    position: int
    tag: str | None
    """None if it has none, or one that another descriptor has, which builders find first."""
    digest: Digest | None
    """None if it names nothing."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """What a tag is to lead to, in place of what it leads to."""

    old: Digest
    new: Digest
    size: int
    """Bytes."""


def read_tags(content: bytes) -> tuple[Named, ...]:
    """Read the descriptors. Raises StoreError if this is no index."""
    seen: set[str] = set()
    named = []
    for position, descriptor in enumerate(_parse(content)[1]):
        says = _says(descriptor)
        tag = (says.annotations or {}).get(_NAME)
        if tag in seen:
            tag = None
        if tag is not None:
            seen.add(tag)
        digest = Digest(says.digest) if is_digest(says.digest) else None
        named.append(Named(position, tag, digest))
    return tuple(named)


def replace_tags(
    content: bytes, replacements: Mapping[str, Replacement]
) -> tuple[bytes, frozenset[str]]:
    """Let tags lead elsewhere; give the tags, too, that lead to something new already."""
    whole, descriptors = _parse(content)
    places = {one.tag: one for one in read_tags(content) if one.tag is not None}
    changed = set()
    for tag, replacement in replacements.items():
        place = places.get(tag)
        if place is None or place.digest != replacement.old:
            changed.add(tag)
            continue
        descriptors[place.position]["digest"] = _raw(replacement.new)
        descriptors[place.position]["size"] = _raw(replacement.size)
    whole["manifests"] = _raw(descriptors)
    return _ENCODER.encode(whole), frozenset(changed)


def _parse(content: bytes) -> tuple[dict[str, msgspec.Raw], Sequence[dict[str, msgspec.Raw]]]:
    try:
        whole = _RAW.decode(content)
        descriptors = _LIST.decode(whole["manifests"]) if "manifests" in whole else []
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise StoreError(f"index.json is no index of an OCI image layout ({error})") from None
    return whole, descriptors


def _says(descriptor: dict[str, msgspec.Raw]) -> _Says:
    try:
        return _SAYS.decode(_ENCODER.encode(descriptor))
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise StoreError(f"index.json has a descriptor that makes no sense ({error})") from None


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_ENCODER.encode(value))
