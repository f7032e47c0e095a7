"""`index.json`: which tag points to which manifest.

Unknown parts of it are kept byte for byte.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.keys import is_digest
from maintainer.decoding import JSON_ERRORS
from maintainer.errors import StoreError
from maintainer.sanitize import printable

_Descriptor = dict[str, msgspec.Raw]
_NAME = "org.opencontainers.image.ref.name"
_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[dict[str, msgspec.Raw] | None] | None)
_ENCODER = msgspec.json.Encoder()
_MANIFESTS = "manifests"
_WHAT_TO_DO = (
    "if builds cannot read it either, restore it, or delete it and let each of them export again"
)
_DESCRIBED = frozenset({"annotations", "artifactType", "data", "digest", "mediaType", "size"})
_ESCAPED = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_MAX_DESCRIPTORS = 100_000
"""The maximum number of descriptors; more are an attack on memory, or an accident."""
_MAX_VALUES = 20 * _MAX_DESCRIPTORS
"""The maximum number of values in all descriptors, because each takes memory."""


class _DescriptorFields(msgspec.Struct, rename="camel"):
    digest: str | None = None
    annotations: dict[str, str | None] | None = None


_FIELDS = msgspec.json.Decoder(_DescriptorFields)


@dataclass(frozen=True, slots=True)
class Named:
    """One descriptor."""

    position: int
    tag: str | None
    """None if it has none, or if another descriptor with the same one comes first."""
    digest: Digest | None
    """None if it references nothing, or something unknown."""
    problem: str | None = None
    """Why it is unknown, if so: other tools may know it and need its content."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """The new manifest of a tag."""

    old: Digest | None
    """None if the tag does not exist yet."""
    new: Digest
    size: int
    """Bytes."""
    media_type: str = ""
    """Of the new manifest, if that of the old one is unknown."""


def read_tags(content: bytes) -> tuple[Named, ...]:
    """Read the descriptors. Raises StoreError if this is not an index."""
    seen: set[str] = set()
    named = []
    for position, descriptor in enumerate(_parse(content)[1]):
        one = _read(position, descriptor or {})
        if one.tag in seen:
            one = replace(one, tag=None)
        elif one.tag is not None:
            seen.add(one.tag)
        named.append(one)
    return tuple(named)


def _read(position: int, descriptor: _Descriptor) -> Named:
    problem = _misspelt(descriptor, _DESCRIBED)
    if problem:
        return Named(position, None, None, problem)
    says = _fields_of(descriptor)
    tag = (says.annotations or {}).get(_NAME)
    if not says.digest:
        return Named(position, tag, None)
    if not is_digest(says.digest):
        return Named(
            position, tag, None, f"{printable(says.digest)} is not a digest of a known algorithm"
        )
    return Named(position, tag, Digest(says.digest))


def _misspelt(names: Iterable[str], known: frozenset[str]) -> str | None:
    """Return the problem of a name that differs from a known one only in case, if any."""
    folded = {name.casefold() for name in known}
    for name in names:
        if name not in known and name.casefold() in folded:
            return f"{printable(name)} is spelt in another case"
    return None


def replace_tags(
    content: bytes, replacements: Mapping[str, Replacement]
) -> tuple[bytes, frozenset[str]]:
    """Change the targets of tags; also return the tags that somebody else has changed."""
    whole, descriptors = _parse(content)
    places = {one.tag: one for one in read_tags(content) if one.tag is not None}
    changed = set()
    for tag, replacement in replacements.items():
        place = places.get(tag)
        if place is None and replacement.old is None:
            descriptors.append(_new_descriptor(tag, replacement))
            continue
        if place is None or place.digest != replacement.old:
            changed.add(tag)
            continue
        descriptor = descriptors[place.position] or {}
        descriptor["digest"] = _raw(replacement.new)
        descriptor["size"] = _raw(replacement.size)
        if replacement.media_type:
            descriptor["mediaType"] = _raw(replacement.media_type)
        # The content of the former manifest.
        descriptor.pop("data", None)
    whole[_MANIFESTS] = _raw(descriptors)
    return _ENCODER.encode(whole), frozenset(changed)


def _new_descriptor(tag: str, replacement: Replacement) -> _Descriptor:
    return {
        "mediaType": _raw(replacement.media_type),
        "digest": _raw(replacement.new),
        "size": _raw(replacement.size),
        "annotations": _raw({_NAME: tag}),
    }


def add_exports(content: bytes, before: bytes, after: bytes) -> bytes:
    """Add the descriptors that a build has written to another copy of the index.

    Raises StoreError if one of the two is not an index.
    """
    whole, descriptors = _parse(content)
    known = {_ENCODER.encode(one) for one in _parse(before)[1]}
    _, exported = _parse(after)
    places = {one.tag: one.position for one in read_tags(content) if one.tag is not None}
    changed = False
    for named in read_tags(after):
        descriptor = exported[named.position]
        if _ENCODER.encode(descriptor) in known or descriptor in descriptors:
            continue
        changed = True
        if named.tag in places:
            descriptors[places[named.tag]] = descriptor
        else:
            descriptors.append(descriptor)
    if not changed:
        return content
    whole[_MANIFESTS] = _raw(descriptors)
    return _ENCODER.encode(whole)


def _parse(content: bytes) -> tuple[dict[str, msgspec.Raw], list[_Descriptor | None]]:
    _refuse_too_much(content)
    try:
        whole = _RAW.decode(_ESCAPED.sub(_whole_characters, content))
        descriptors = _LIST.decode(whole.get(_MANIFESTS, b"7")) or []
    except JSON_ERRORS as error:
        raise StoreError(
            f"index.json is not an index of an OCI image layout ({error}): {_WHAT_TO_DO}"
        ) from None
    if problem := _misspelt(whole, frozenset({_MANIFESTS})):
        raise StoreError(f"index.json cannot be interpreted: {problem}")
    if len(descriptors) > _MAX_DESCRIPTORS:
        raise StoreError(
            f"index.json has {len(descriptors):,} descriptors: more than {_MAX_DESCRIPTORS:,}"
        )
    return whole, descriptors


def _refuse_too_much(content: bytes) -> None:
    """Raise StoreError before decoding more than fits into memory."""
    if content.count(b"{") > 4 * _MAX_DESCRIPTORS or content.count(b":") > _MAX_VALUES:
        raise StoreError(f"index.json has more values than {_MAX_DESCRIPTORS:,} descriptors")


def _fields_of(descriptor: _Descriptor) -> _DescriptorFields:
    try:
        return _FIELDS.decode(_ENCODER.encode(descriptor))
    except JSON_ERRORS as error:
        raise StoreError(f"index.json has a malformed descriptor ({error})") from None


def _whole_characters(match: re.Match[bytes]) -> bytes:
    """Replace a lone surrogate by a mark, as builders do."""
    return rb"\ufffd" if match["half"] else match[0]


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_ENCODER.encode(value))
