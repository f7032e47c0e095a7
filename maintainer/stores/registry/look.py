"""What is in a repository: its tags, the manifests of caches, and what else may need these."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.keys import is_digest
from maintainer.cacheconfig.oci import MANIFEST_TYPES, CacheManifest, read_manifest
from maintainer.concurrency import for_each
from maintainer.errors import StoreError, UnreadableError
from maintainer.stores.registry.client import Client, Document

_DIGEST = re.compile(
    rb"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})(?![0-9a-f])"
)
_DIGEST_TAG = re.compile(r"(sha256|sha384|sha512)-([0-9a-f]{64,128})(?![0-9a-f])")
"""The tag of a signature, or of another thing that belongs to a manifest, names the manifest."""
_INDEXES = frozenset(one for one in MANIFEST_TYPES if "index" in one or "list" in one)
_IMAGES = MANIFEST_TYPES - _INDEXES
_MAX_DEPTH = 8
_MAX_BELOW = 1_000
"""Indexes below one tag."""


class _Listed(msgspec.Struct, rename="camel"):
    media_type: str = ""
    digest: str = ""


class _Image(msgspec.Struct, rename="camel"):
    manifests: list[_Listed] | None = None
    config: _Listed | None = None


@dataclass(frozen=True, slots=True)
class CacheDocument:
    """The manifest of a cache."""

    document: Document
    manifest: CacheManifest

    @property
    def digest(self) -> Digest:
        """Its digest."""
        return self.document.digest

    @property
    def content(self) -> bytes:
        """Its bytes."""
        return self.document.content

    @property
    def blobs(self) -> frozenset[Digest]:
        """The blobs that it references, beside its config."""
        return frozenset(map(Digest, self.manifest.descriptors))


@dataclass(slots=True)
class Tagged:
    """What the tags of a repository point to."""

    tags: dict[str, Digest] = field(default_factory=dict)
    """All of them."""
    caches: dict[str, CacheDocument] = field(default_factory=dict)
    """The tags to maintain that are caches."""
    images: dict[str, Document] = field(default_factory=dict)
    """The tags to maintain that are something else."""
    unread: dict[str, str] = field(default_factory=dict)
    """The tags to maintain whose manifests could not be read, and why not."""
    reached: set[Digest] = field(default_factory=set)
    """What the manifests of tags, and their names, lead to."""

    def leads_to(self, digest: Digest) -> bool:
        """Whether a tag points to a manifest, directly or by way of another one."""
        return digest in self.reached or digest in self.tags.values()


def read_document(document: Document) -> CacheDocument | None:
    """Return the manifest of a cache; None if a document is something else."""
    manifest = read_manifest(document.content)
    return CacheDocument(document, manifest) if manifest else None


def digests_in(content: bytes) -> set[Digest]:
    """Return every digest in a document, whatever its field, and however it is spelled."""
    plain = b""
    if b"\\u" in content:
        with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            plain = msgspec.json.encode(msgspec.json.decode(content))
    return {Digest(one.decode()) for one in _DIGEST.findall(content + b"\n" + plain)}


def children_of(content: bytes, *, images: bool = False) -> list[Digest]:
    """Return the indexes that an index lists; or its images, which list nothing further."""
    listed = _read_image(content).manifests or []
    return [
        Digest(one.digest)
        for one in listed
        if is_digest(one.digest) and (one.media_type in _IMAGES) == images
    ]


def config_of(content: bytes) -> Digest | None:
    """Return the config of an image."""
    config = _read_image(content).config
    return Digest(config.digest) if config and is_digest(config.digest) else None


def _read_image(content: bytes) -> _Image:
    try:
        return msgspec.json.decode(content, type=_Image)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _Image()


async def look_at_tags(
    client: Client,
    tags: Iterable[str],
    is_selected: Callable[[str], bool],
    known: Mapping[str, Digest] | None = None,
) -> Tagged:
    """Read what tags point to. Those that are gone are left out.

    Of the tags in `known` only those are read that point to something else now.
    """
    seen = Tagged()

    async def look(tag: str) -> None:
        if known is None and is_selected(tag):
            await _read_tag(client, tag, seen)
            return
        head = await client.head(tag)
        if head is None:
            return
        if (known or {}).get(tag) == head.digest:
            seen.tags[tag] = head.digest
        elif is_selected(tag):
            await _read_tag(client, tag, seen)
        else:
            seen.tags[tag] = head.digest
            if head.media_type not in _IMAGES:
                await _reach(client, [head.digest], seen.reached)

    await for_each(look, tags)
    for tag in seen.tags:
        if named := _DIGEST_TAG.match(tag):
            seen.reached.add(Digest(f"{named[1]}:{named[2]}"))
    return seen


async def _read_tag(client: Client, tag: str, seen: Tagged) -> None:
    try:
        document = await client.manifest(tag)
    except UnreadableError as error:
        seen.unread[tag] = str(error)
        return
    if document is None:
        return
    seen.tags[tag] = document.digest
    seen.reached |= digests_in(document.content)
    if cache := read_document(document):
        seen.caches[tag] = cache
    else:
        seen.images[tag] = document
        await _reach(client, children_of(document.content), seen.reached)


async def _reach(client: Client, digests: Iterable[Digest], reached: set[Digest]) -> None:
    """Follow manifests, and collect everything that they name. Raises StoreError at doubts."""
    waiting = set(digests)
    for _ in range(_MAX_DEPTH):
        below: set[Digest] = set()
        for digest in sorted(waiting):
            reached.add(digest)
            if document := await client.manifest(digest):
                reached |= digests_in(document.content)
                below |= set(children_of(document.content))
        waiting = below - waiting
        if len(waiting) > _MAX_BELOW:
            break
    if waiting:
        raise StoreError("an index leads to more indexes than a run follows")
