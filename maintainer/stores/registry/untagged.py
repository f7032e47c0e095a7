"""The manifests of caches that no tag leads to, as far as anybody knows of them."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from maintainer.cacheconfig import Digest, content_digest
from maintainer.cacheconfig.images import digests_in
from maintainer.cacheconfig.keys import is_digest
from maintainer.concurrency import for_each
from maintainer.errors import StoreError, UnreadableError
from maintainer.stores.distribution.client import Client
from maintainer.stores.distribution.packages import Packages, Version
from maintainer.stores.registry.look import CacheDocument, Tagged, read_document

MANIFESTS = "manifests/"
"""The beginning of the key of an entry that is a manifest."""
ONLY_TAGS = "the protocol of registries lists only what has a tag; a run after each build sees all"


@dataclass(slots=True)
class Untagged:
    """The manifests of caches that no tag leads to."""

    caches: dict[Digest, CacheDocument] = field(default_factory=dict)
    versions: Mapping[Digest, Version] = field(default_factory=dict)
    """All manifests, if the registry has an API that lists them."""
    problem: str | None = None
    """Why there may be others, if so."""
    refusal: str | None = None
    """Why none of them can be deleted, if so."""
    hidden: Digest | None = None
    """One that is listed, and not shown: it may be an index that leads to others."""


async def find_untagged(
    client: Client,
    packages: Packages | None,
    why_none: str,
    tagged: Tagged,
    remembered: Mapping[str, datetime],
) -> Untagged:
    """Find them by the API of the registry; or without one, those that earlier runs have seen.

    `why_none` is why there is no such API.
    """
    found = Untagged(problem=why_none)
    if packages:
        try:
            found.versions, found.problem = await packages.versions(), None
        except StoreError as error:
            found.problem = str(error)
    # Also what earlier runs have written: their locations are digests.
    keys = (Digest(key.removeprefix(MANIFESTS)) for key in remembered)
    known = {one for one in keys if is_digest(one)}
    listed = {one for one, version in found.versions.items() if not version.is_tagged}
    candidates = listed if found.versions else known
    # A tag that names an index is that of its signature, and shows nothing of what it lists.
    unread = {one for one in candidates if tagged.is_named(one) or not tagged.leads_to(one)}
    await _read(client, unread, found, tagged)
    if found.caches and not found.versions:
        # Nothing has this digest, so nothing is deleted.
        nothing = content_digest(secrets.token_bytes(32))
        found.refusal = await client.why_not_deletable(nothing)
    return found


async def _read(client: Client, candidates: set[Digest], found: Untagged, tagged: Tagged) -> None:
    """Read manifests without a tag: what is not a cache may be an index that leads to one."""

    async def read(digest: Digest) -> None:
        try:
            document = await client.manifest(digest)
        except UnreadableError:
            document = None
        if document is None:
            # What earlier runs have seen may be gone; what is listed by now is not.
            found.hidden = digest if found.versions else found.hidden
        elif cache := read_document(document):
            found.caches[digest] = cache
        else:
            tagged.reached |= digests_in(document.content)

    await for_each(read, sorted(candidates))
    found.caches = {k: cache for k, cache in found.caches.items() if not tagged.leads_to(k)}
