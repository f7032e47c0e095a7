"""Finds configurations that share the blobs of a cache and do not know each other.

What only another's indexes need would be deleted as unreferenced. So runs write beside the blobs
where the indexes are that their configuration knows: all that share the blobs find that.
"""

import msgspec

from maintainer.decoding import JSON_ERRORS, decode_json
from maintainer.errors import StoreError, UnreadableError
from maintainer.sanitize import printable
from maintainer.stores.objects.layout import Layout
from maintainer.stores.objects.requests import Objects

_LIMIT = 64 * 1024
"""Bytes."""
_MAX_PREFIXES = 100


class _Claims(msgspec.Struct, frozen=True):
    """What runs have written."""

    blobs: str
    """The beginning of the keys of the blobs: of a copy, it is that of the original."""
    manifests: list[str]
    """The beginnings of the keys of indexes."""


class Claims:
    """Where the indexes are that use these blobs, as far as runs have said it."""

    def __init__(self, objects: Objects, layout: Layout) -> None:
        self._objects = objects
        self._own = layout.manifests
        self._blobs = layout.blobs
        self.key = f"{layout.blobs.rstrip('/')}.maintainer"
        self._is_known = False

    async def add(self) -> None:
        """Write where our indexes are, unless this run has done so."""
        if not self._is_known:
            await self._find_others()

    async def refuse_others(self) -> None:
        """Raise StoreError if others share the blobs, and this configuration does not know it."""
        if others := await self._find_others():
            places = " and ".join(map(printable, others))
            raise StoreError(
                f"indexes under {places} use the same blobs, says {printable(self.key)}: nothing "
                "is deleted until one configuration names all of them, each as manifests_prefix, "
                "or these indexes are deleted"
            )

    async def _find_others(self) -> list[str]:
        """Return where others have indexes, after writing where ours are.

        It is read each time: of two first runs at the same time, one may overwrite the other's.
        """
        claimed = await self._read()
        others = [one for one in claimed if not one.startswith(self._own)]
        others = [one for one in others if await self._is_used(one)]
        wanted = sorted({*self._own, *others})
        if wanted != claimed:
            claims = _Claims(self._blobs, wanted)
            await self._objects.overwrite(self.key, msgspec.json.encode(claims))
        self._is_known = True
        return others

    async def _is_used(self, prefix: str) -> bool:
        """Whether something is there, and not only the mark of an empty folder."""
        async for page in self._objects.list(prefix):
            if any(one.size for one in page):
                return True
        return False

    async def _read(self) -> list[str]:
        """Return where others have said that indexes are: nowhere, if the blobs are a copy."""
        try:
            found = await self._objects.get(self.key, limit=_LIMIT)
            if found is None:
                return []
            claims = decode_json(found[1], _Claims)
        except (UnreadableError, *JSON_ERRORS):
            claims = None
        if claims is None or len(claims.manifests) > _MAX_PREFIXES:
            raise StoreError(f"{printable(self.key)} is not what runs have written: delete it")
        return claims.manifests if claims.blobs == self._blobs else []
