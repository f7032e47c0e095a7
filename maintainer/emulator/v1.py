"""Version 1 of the cache service.

Source: `@actions/cache` and tonistiigi/go-actions-cache.
"""

import re
from http import HTTPStatus
from typing import Annotated

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from maintainer.emulator.site import Site
from maintainer.emulator.state import KeyTakenError, WrongSizeError
from maintainer.emulator.uploads import Upload, UploadError
from maintainer.emulator.web import (
    MAX_KEY,
    MAX_PIECE,
    Reason,
    RefusedError,
    json_response,
    read_body,
    read_id,
    read_json,
)

_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/(?:\*|[0-9]{1,15})", re.ASCII)
_MAX_KEYS = 10
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**50)]


class _Reserve(msgspec.Struct):
    key: _Key
    version: _Key


class _Commit(msgspec.Struct):
    size: _Size


class VersionOne:
    """Serves the four calls of the service."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes: list[BaseRoute] = [
            Route("/cache", self.look_up, methods=["GET"]),
            Route("/caches", self.reserve, methods=["POST"]),
            Route("/caches/{id}", self.upload, methods=["PATCH"]),
            Route("/caches/{id}", self.commit, methods=["POST"]),
        ]

    async def look_up(self, request: HttpRequest) -> Response:
        """Find an entry by its keys, all of which match as prefixes."""
        refs = self._site.readable(request)
        keys = request.query_params.get("keys", "").split(",")
        version = request.query_params.get("version", "")
        if len(keys) > _MAX_KEYS or not all(0 < len(key) <= MAX_KEY for key in keys):
            raise RefusedError(Reason.INVALID, "keys are missing, too many, or too long")
        entry = self._site.cache.look_up(refs, keys[0], keys, version)
        if entry is None:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return json_response(
            {
                "cacheKey": entry.key,
                "cacheVersion": entry.version,
                "scope": entry.ref,
                "creationTime": entry.created_at,
                "archiveLocation": self._site.signed_url(request, entry.id, "r"),
            }
        )

    async def reserve(self, request: HttpRequest) -> Response:
        """Reserve a key."""
        ref = self._site.writable(request)
        asked = await read_json(request, _Reserve)
        try:
            upload = self._site.cache.reserve(ref, asked.key, asked.version)
        except KeyTakenError:
            raise RefusedError(Reason.TAKEN, "Cache already exists.") from None
        return json_response({"cacheId": upload.id}, HTTPStatus.CREATED)

    async def upload(self, request: HttpRequest) -> Response:
        """Store a chunk."""
        self._find(request)
        match = _RANGE.fullmatch(request.headers.get("content-range", ""))
        if match is None:
            raise RefusedError(Reason.INVALID, "Content-Range is missing or no range")
        content = await read_body(request, MAX_PIECE)
        start, last = int(match[1]), int(match[2])
        if len(content) != last - start + 1:
            raise RefusedError(Reason.INVALID, "Content-Range is not what was sent")
        try:
            self._find(request).write_at(start, content)
        except UploadError as error:
            raise RefusedError(Reason.TOO_LARGE, str(error)) from None
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def commit(self, request: HttpRequest) -> Response:
        """Turn an upload into an entry."""
        self._find(request)
        asked = await read_json(request, _Commit)
        upload = self._find(request)
        if asked.size == 0 and not upload.begun:
            upload.put(b"")  # For empty content, a client sends no chunk.
        try:
            self._site.cache.finalize(upload, asked.size)
        except WrongSizeError:
            raise RefusedError(Reason.INVALID, "size is not what was uploaded") from None
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _find(self, request: HttpRequest) -> Upload:
        ref = self._site.writable(request)
        upload = self._site.cache.upload(read_id(request))
        if upload is None or upload.ref != ref:
            raise RefusedError(Reason.NOT_FOUND, "the cache is not reserved")
        return upload

    @staticmethod
    def refuse(_: HttpRequest, error: Exception) -> Response:
        """Return an error in the format of the service."""
        assert isinstance(error, RefusedError)  # noqa: S101
        name = "".join(part.title() for part in error.reason.code.split("_"))
        body = {
            "typeName": f"GitHub.ArtifactCache.ArtifactCacheItem{name}Exception",
            "typeKey": f"ArtifactCacheItem{name}Exception",
            "message": error.message,
            "errorCode": 0,
        }
        return json_response(body, error.reason.status)
