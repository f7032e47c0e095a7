"""Finds configurations that share the blobs of a cache and do not know each other.

What only another's indexes need would be deleted as unreferenced. So runs write beside the blobs
where the indexes are that their configuration knows: all that share the blobs find that.
"""

import msgspec

from maintainer.decoding import decode_json
from maintainer.errors import StoreError, UnreadableError
from maintainer.sanitize import printable
from maintainer.stores.layout import Layout
from maintainer.stores.object_requests import Objects

_LIMIT = 64 * 1024
"""Bytes."""
_MAX_PREFIXES = 100


class Claims:
    """Where the indexes are that use these blobs, as far as runs have said it."""

    def __init__(self, objects: Objects, layout: Layout) -> None:
        self._objects = objects
        self._own = layout.manifests
        self._key = f"{layout.blobs.rstrip('/')}.maintainer"
        self._others: list[str] | None = None

    async def add(self) -> None:
        """Write where our indexes are, unless it is known."""
        if self._others is not None:
            return
        claimed = await self._read()
        others = [one for one in claimed if not one.startswith(self._own)]
        self._others = [one for one in others if await self._is_used(one)]
        wanted = sorted({*self._own, *self._others})
        if wanted != claimed:
            await self._objects.overwrite(self._key, msgspec.json.encode(wanted))

    async def refuse_others(self) -> None:
        """Raise StoreError if others share the blobs, and this configuration does not know it."""
        await self.add()
        if self._others:
            places = " and ".join(map(printable, self._others))
            raise StoreError(
                f"indexes under {places} use the same blobs, says {printable(self._key)}: nothing "
                "is deleted until one configuration names all of them, each as manifests_prefix"
            )

    async def _is_used(self, prefix: str) -> bool:
        async for page in self._objects.list(prefix):
            if page:
                return True
        return False

    async def _read(self) -> list[str]:
        try:
            found = await self._objects.get(self._key, limit=_LIMIT)
            claimed = decode_json(found[1], list[str]) if found else []
        except (UnreadableError, msgspec.DecodeError, UnicodeError, RecursionError):
            claimed = None
        if claimed is None or len(claimed) > _MAX_PREFIXES:
            raise StoreError(f"{printable(self._key)} is not what runs have written: delete it")
        return claimed
