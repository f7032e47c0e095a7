"""Inline caches: a cache in the config of an image, which runs count and never rewrite."""

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.images import config_of, holds_cache
from maintainer.errors import StoreError
from maintainer.stores.distribution.client import Client
from maintainer.stores.registry.look import Image

_MAX_CONFIG = 4 * 1024 * 1024
_MAX_PLATFORMS = 4
"""Of an image of several platforms, so many are looked at: builds write all or none."""


async def has_inline_cache(client: Client, image: Image) -> bool:
    """Whether an image, of one platform or of several, has an inline cache, as far as it shows."""
    try:
        return await _has_inline_cache(client, image)
    except StoreError:
        return False  # It is only counted.


async def _has_inline_cache(client: Client, image: Image) -> bool:
    if image.config:
        return await _has_cache(client, image.config)
    for digest in image.platforms[:_MAX_PLATFORMS]:
        child = await client.manifest(digest)
        if child and (config := config_of(child.content)) and await _has_cache(client, config):
            return True
    return False


async def _has_cache(client: Client, digest: Digest) -> bool:
    content = await client.blob(digest, limit=_MAX_CONFIG)
    return content is not None and holds_cache(content)
