"""What is in a repository: its tags, the manifests of caches, and what else may need these."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Self

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.images import (
    IMAGE_TYPES,
    Child,
    children_of,
    config_of,
    digests_in,
    images_of,
)
from maintainer.cacheconfig.oci import CacheManifest, read_manifest
from maintainer.concurrency import for_each
from maintainer.errors import UnreadableError
from maintainer.model.doubt import Cause
from maintainer.stores.distribution.client import Client, Document

_DIGEST_TAG = re.compile(r"(sha256|sha384|sha512)-([0-9a-f]{64})")
"""The tag of a signature, or of another thing that belongs to a manifest, names the manifest: by
so many of its digits.
"""
_DIGITS = 64
_MAX_DEPTH = 8
_MAX_BELOW = 1_000
"""Indexes below one tag."""


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


@dataclass(frozen=True, slots=True)
class Image:
    """What matters of a manifest that is no cache's."""

    config: Digest | None
    platforms: tuple[Digest, ...]
    """The manifests of an index, as far as these are images."""

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Read it."""
        return cls(config_of(content), tuple(images_of(content)))


@dataclass(slots=True)
class Tagged:
    """What the tags of a repository point to."""

    tags: dict[str, Digest] = field(default_factory=dict)
    """All of them."""
    caches: dict[str, CacheDocument] = field(default_factory=dict)
    """The tags to maintain that are caches."""
    images: dict[str, Image] = field(default_factory=dict)
    """The tags to maintain that are something else."""
    unread: dict[str, str] = field(default_factory=dict)
    """The tags whose manifests could not be read, and why not."""
    absent: set[str] = field(default_factory=set)
    """The tags that were listed, and whose manifests are not shown."""
    reached: set[Digest] = field(default_factory=set)
    """What the manifests of tags lead to."""
    named: set[str] = field(default_factory=set)
    """The beginnings of the digests that the names of tags contain."""

    def leads_to(self, digest: Digest) -> bool:
        """Whether a tag points to a manifest, by its name, directly, or by way of another one."""
        return digest in self.reached or digest in self.tags.values() or self.is_named(digest)

    def is_named(self, digest: Digest) -> bool:
        """Whether the name of a tag contains a digest."""
        algorithm, _, digits = digest.partition(":")
        return f"{algorithm}:{digits[:_DIGITS]}" in self.named


def read_document(document: Document) -> CacheDocument | None:
    """Return the manifest of a cache; None if a document is something else."""
    manifest = read_manifest(document.content)
    return CacheDocument(document, manifest) if manifest else None


async def look_at_tags(
    client: Client,
    tags: Iterable[str],
    is_selected: Callable[[str], bool],
    known: Mapping[str, Digest] | None = None,
    *,
    go_on: Callable[[], None] = lambda: None,
) -> Tagged:
    """Read what tags point to.

    Of the tags in `known` only those are read that point to something else now. `go_on` is called
    before each tag, and may raise StoreError.
    """
    seen = Tagged()

    async def look(tag: str) -> None:
        go_on()
        try:
            if known is None and is_selected(tag):
                await _read_tag(client, tag, seen)
            else:
                await _look_at(client, tag, seen, is_selected, known or {})
        except UnreadableError as error:
            seen.unread[tag] = str(error)

    await for_each(look, tags)
    for tag in seen.tags:
        if named := _DIGEST_TAG.match(tag):
            seen.named.add(f"{named[1]}:{named[2]}")
    return seen


async def _look_at(
    client: Client,
    tag: str,
    seen: Tagged,
    is_selected: Callable[[str], bool],
    known: Mapping[str, Digest],
) -> None:
    """Look what a tag points to, and read that as far as it matters."""
    head = await client.head(tag)
    if head is None:
        seen.absent.add(tag)
    elif known.get(tag) == head.digest:
        seen.tags[tag] = head.digest
    elif is_selected(tag):
        await _read_tag(client, tag, seen)
    else:
        seen.tags[tag] = head.digest
        if head.media_type not in IMAGE_TYPES:
            await _follow(client, tag, head.digest, seen)


async def _read_tag(client: Client, tag: str, seen: Tagged) -> None:
    document = await client.manifest(tag)
    if document is None:
        if await client.head(tag):
            seen.unread[tag] = f"{tag} exists, and its manifest is not there"
        else:
            seen.absent.add(tag)
        return
    seen.tags[tag] = document.digest
    seen.reached |= digests_in(document.content)
    if cache := read_document(document):
        seen.caches[tag] = cache
    else:
        seen.images[tag] = Image.of(document.content)
        await _reach(client, children_of(document.content), seen.reached)


async def _follow(client: Client, tag: str, digest: Digest, seen: Tagged) -> None:
    """Collect everything that an index leads to whose tag is not one to maintain."""
    document = await client.manifest(digest)
    if document is None:
        seen.unread[tag] = f"{tag} points to {digest}, which is not there"
        return
    seen.reached |= digests_in(document.content)
    await _reach(client, children_of(document.content), seen.reached)


async def _reach(client: Client, children: Iterable[Child], reached: set[Digest]) -> None:
    """Follow what may list more, and collect everything that it names.

    Raises UnreadableError if an index is not shown: nobody knows what it leads to. What has another
    media type, and is not shown as a manifest, is none.
    """
    waiting, followed = _by_digest(children), set[Digest]()

    async def follow(child: Child) -> list[Child]:
        document = await client.manifest(child.digest)
        if document is None and child.is_index:
            problem = f"it leads to {child.digest}, which is not shown"
            raise UnreadableError(Cause.NOT_FOUND, problem)
        if document is None:
            return []
        reached.update(digests_in(document.content))
        return children_of(document.content)

    for _ in range(_MAX_DEPTH):
        if len(waiting) > _MAX_BELOW:
            break
        reached.update(waiting)
        followed.update(waiting)
        below = await for_each(follow, [waiting[digest] for digest in sorted(waiting)])
        found = _by_digest(chain.from_iterable(below))
        waiting = {digest: one for digest, one in found.items() if digest not in followed}
    if waiting:
        problem = "it leads to more indexes than a run follows"
        raise UnreadableError(Cause.TOO_LARGE, problem)


def _by_digest(children: Iterable[Child]) -> dict[Digest, Child]:
    """Return each once: as an index, if it is called one anywhere."""
    return {one.digest: one for one in sorted(children, key=lambda one: one.is_index)}
