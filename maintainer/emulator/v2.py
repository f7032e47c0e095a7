"""Version 2 of the cache service: Twirp, in its JSON form.

Source: `@actions/cache` and tonistiigi/go-actions-cache. Both field names of Twirp's JSON are
read (`size_bytes`, `sizeBytes`), and integers also as strings.
"""

from typing import Annotated

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from maintainer.emulator.site import WRITE_DENIED, Site
from maintainer.emulator.state import KeyTakenError, NotReservedError, WrongSizeError
from maintainer.emulator.web import MAX_KEY, Reason, RefusedError, json_response, read_json

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY)]
_Keys = Annotated[list[Key], msgspec.Meta(max_length=10)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
_SizeText = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,15}$")]


class _LookUp(msgspec.Struct):
    key: Key
    version: Key
    restore_keys: _Keys = []
    restoreKeys: _Keys = []  # noqa: N815


class _Create(msgspec.Struct):
    key: Key
    version: Key


class _Finalize(msgspec.Struct):
    key: Key
    version: Key
    size_bytes: _Size | _SizeText | None = None
    sizeBytes: _Size | _SizeText | None = None  # noqa: N815


class VersionTwo:
    """Serves the three calls of the service."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes: list[BaseRoute] = [
            Route("/GetCacheEntryDownloadURL", self.look_up, methods=["POST"]),
            Route("/CreateCacheEntry", self.create, methods=["POST"]),
            Route("/FinalizeCacheEntryUpload", self.finalize, methods=["POST"]),
        ]

    async def look_up(self, request: HttpRequest) -> Response:
        """Find an entry, and return its download URL."""
        refs = self._site.readable(request)
        asked = await read_json(request, _LookUp)
        restore_keys = asked.restore_keys or asked.restoreKeys
        entry = self._site.cache.look_up(refs, asked.key, restore_keys, asked.version)
        if entry is None:
            return json_response({"ok": False, "signed_download_url": "", "matched_key": ""})
        url = self._site.signed_url(request, entry.id, "r")
        return json_response({"ok": True, "signed_download_url": url, "matched_key": entry.key})

    async def create(self, request: HttpRequest) -> Response:
        """Reserve a key, and return its upload URL."""
        ref = self._site.permissions(request).writable
        asked = await read_json(request, _Create)
        if ref is None:  # GitHub's client expects this message in a response with status 200.
            return json_response({"ok": False, "signed_upload_url": "", "message": WRITE_DENIED})
        try:
            upload = self._site.cache.reserve(ref, asked.key, asked.version)
        except KeyTakenError:
            raise RefusedError(Reason.TAKEN, "cache entry with the same key exists") from None
        url = self._site.signed_url(request, upload.id, "w")
        return json_response({"ok": True, "signed_upload_url": url, "message": ""})

    async def finalize(self, request: HttpRequest) -> Response:
        """Turn an upload into an entry."""
        ref = self._site.writable(request)
        asked = await read_json(request, _Finalize)
        size = asked.sizeBytes if asked.size_bytes is None else asked.size_bytes
        cache = self._site.cache
        try:
            upload = cache.find_upload(ref, asked.key, asked.version)
            entry = cache.finalize(upload, int(size or 0))
        except NotReservedError:
            raise RefusedError(Reason.NOT_FOUND, "the key is not reserved") from None
        except WrongSizeError:
            raise RefusedError(Reason.INVALID, "size_bytes is not what was uploaded") from None
        return json_response({"ok": True, "entry_id": str(entry.id), "message": ""})

    @staticmethod
    def refuse(_: HttpRequest, error: Exception) -> Response:
        """Return an error in Twirp's format."""
        assert isinstance(error, RefusedError)  # noqa: S101
        body = {"code": error.reason.code, "msg": error.message}
        return json_response(body, error.reason.status)
