"""Finds caches in an object storage: each folder of a bucket that has indexes of builds."""

import re
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from maintainer.concurrency import for_each
from maintainer.errors import SettingError
from maintainer.model.discovery import FoundCache
from maintainer.settings import DiscoverSettings

if TYPE_CHECKING:
    from maintainer.stores.objects.requests import Objects

_STAR = re.compile(r"[^*?]*/\*(/[^*?]*)?(\?[^*]*)?")


def check_pattern(table: DiscoverSettings) -> None:
    """Raise SettingError if a place has not exactly one folder that may be called anything."""
    if not _STAR.fullmatch(table.store):
        raise SettingError(
            f"store in [[discover]] {table.name}",
            "must have one * in place of a folder, such as s3://BUCKET/caches/*/",
        )


def place_of(store: str, folder: str) -> str:
    """Return the setting `store` for one folder."""
    return store.replace("*", quote(folder, safe=""), 1)


async def search_folders(
    table: DiscoverSettings,
    objects: "Objects",
    before: str,
    manifests_of: Callable[[str], str],
) -> AsyncIterator[FoundCache]:
    """Yield the folders whose names begin like this, and that have an index.

    `manifests_of` returns where the indexes of a cache are, by its setting `store`.
    """

    async def has_index(folder: str) -> bool:
        prefix = manifests_of(place_of(table.store, folder))
        async for page in objects.list(prefix):
            if page:
                return True
        return False

    async for found in objects.folders(before):
        folders = [one for one in found if one.strip(".")]
        for folder, is_cache in zip(folders, await for_each(has_index, folders), strict=True):
            if is_cache:
                yield FoundCache(folder, place_of(table.store, folder))
