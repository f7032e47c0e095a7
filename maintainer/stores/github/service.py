"""The cache service, which builds talk to: version 2 (Twirp) and version 1.

Source: the clients that BuildKit and `@actions/cache` use. The bearer token goes to the service
only, never to a download or upload URL, and service requests follow no redirect.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urljoin

import httpx
import msgspec

from maintainer.errors import AlreadyExistsError, StoreError, WriteRefusedError
from maintainer.stores.base import Found
from maintainer.stores.github.http import Http, parse, refused

ENTRY_VERSION = "693bb7016429d80366022f036f84856888c9f13e00145f5f6f4dce303a38d6f2"
"""sha256("|go-actionscache-1.0"): the version of every entry that BuildKit writes."""

_TWIRP = "twirp/github.actions.results.api.v1.CacheService/"
_V1 = "_apis/artifactcache/"
_V1_CHUNK = 32 * 1024 * 1024


class CacheService(Protocol):
    """What both versions can do; keys are found by GitHub's loose matching."""

    async def find(self, key: str, *, prefix: bool) -> Found | None:
        """Find `key`; with `prefix`, or else the entry created last that starts with it."""

    async def write(self, key: str, content: bytes) -> None:
        """Reserve, upload and finalize."""


class _V2Found(msgspec.Struct):
    ok: bool = False
    signed_download_url: str = ""
    matched_key: str = ""


class _V2Reserved(msgspec.Struct):
    ok: bool = False
    signed_upload_url: str = ""


class _V2Finalized(msgspec.Struct):
    ok: bool = False


class _V2Error(msgspec.Struct):
    code: str = ""
    msg: str = ""


class ServiceV2:
    """Version 2: github.com."""

    def __init__(self, http: Http, url: str, token: str) -> None:
        self._http = http
        self._url = urljoin(_with_slash(url), _TWIRP)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    async def find(self, key: str, *, prefix: bool) -> Found | None:
        response = await self._call(
            "look-up",
            "GetCacheEntryDownloadURL",
            {"key": key, "restore_keys": [key] if prefix else [], "version": ENTRY_VERSION},
        )
        if response.status_code == HTTPStatus.NOT_FOUND:
            return None
        if response.status_code != HTTPStatus.OK:
            raise refused(response)
        found = parse(response, _V2Found)
        if not found.ok:
            return None
        if not found.signed_download_url:
            raise refused(response)
        return Found(found.matched_key, found.signed_download_url)

    async def write(self, key: str, content: bytes) -> None:
        await self._http.upload_slot()
        url = await self._reserve(key)
        response = await self._http.send(
            "upload",
            "PUT",
            url,
            headers={"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"},
            content=content,
        )
        if response.status_code != HTTPStatus.CREATED:
            raise refused(response)
        response = await self._call(
            "finalize",
            "FinalizeCacheEntryUpload",
            {"key": key, "version": ENTRY_VERSION, "size_bytes": str(len(content))},
        )
        if response.status_code != HTTPStatus.OK or not parse(response, _V2Finalized).ok:
            raise refused(response)

    async def _reserve(self, key: str) -> str:
        response = await self._call(
            "reserve", "CreateCacheEntry", {"key": key, "version": ENTRY_VERSION}
        )
        if response.status_code == HTTPStatus.CONFLICT:
            raise AlreadyExistsError(f"{key} exists already")
        if response.status_code in (HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED):
            raise WriteRefusedError(key, f"HTTP {response.status_code}")
        if response.status_code != HTTPStatus.OK:
            if parse(response, _V2Error).code == "already_exists":
                raise AlreadyExistsError(f"{key} exists already")
            raise refused(response)
        reserved = parse(response, _V2Reserved)
        if not reserved.ok or not reserved.signed_upload_url:
            raise AlreadyExistsError(f"{key} cannot be reserved")
        return reserved.signed_upload_url

    async def _call(self, kind: str, method: str, body: Mapping[str, object]) -> httpx.Response:
        return await self._http.send(
            kind,
            "POST",
            urljoin(self._url, method),
            headers=self._headers,
            content=msgspec.json.encode(body),
        )


class _V1Found(msgspec.Struct):
    cache_key: str = msgspec.field(name="cacheKey", default="")
    archive_location: str = msgspec.field(name="archiveLocation", default="")


class _V1Reserved(msgspec.Struct):
    cache_id: int = msgspec.field(name="cacheId")


class ServiceV1:
    """Version 1: GitHub Enterprise Server, and several self-hosted services."""

    def __init__(self, http: Http, url: str, token: str) -> None:
        self._http = http
        self._url = urljoin(_with_slash(url), _V1)
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json;api-version=6.0-preview.1",
        }

    async def find(self, key: str, *, prefix: bool) -> Found | None:
        del prefix  # Version 1 knows only the loose look-up; the caller compares keys.
        if "," in key:
            raise StoreError(f"version 1 of the cache service cannot look up a comma: {key}")
        response = await self._http.send(
            "look-up",
            "GET",
            urljoin(self._url, "cache"),
            headers=self._headers,
            params={"keys": key, "version": ENTRY_VERSION},
        )
        if response.status_code in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND):
            return None
        if response.status_code != HTTPStatus.OK:
            raise refused(response)
        if not response.content:
            return None
        found = parse(response, _V1Found)
        if not found.cache_key or not found.archive_location:
            return None
        return Found(found.cache_key, found.archive_location)

    async def write(self, key: str, content: bytes) -> None:
        await self._http.upload_slot()
        url = urljoin(self._url, f"caches/{await self._reserve(key, len(content))}")
        for start in range(0, len(content), _V1_CHUNK):
            chunk = content[start : start + _V1_CHUNK]
            response = await self._http.send(
                "upload",
                "PATCH",
                url,
                headers=self._headers
                | {
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"bytes {start}-{start + len(chunk) - 1}/*",
                },
                content=chunk,
            )
            if not response.is_success:
                raise refused(response)
        response = await self._send_json("finalize", url, {"size": len(content)})
        if not response.is_success:
            raise refused(response)

    async def _reserve(self, key: str, size: int) -> int:
        response = await self._send_json(
            "reserve",
            urljoin(self._url, "caches"),
            {"key": key, "version": ENTRY_VERSION, "cacheSize": size},
        )
        if response.status_code == HTTPStatus.CONFLICT or b"AlreadyExists" in response.content:
            raise AlreadyExistsError(f"{key} exists already")
        if response.status_code in (HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED):
            raise WriteRefusedError(key, f"HTTP {response.status_code}")
        if not response.is_success:
            raise refused(response)
        return parse(response, _V1Reserved).cache_id

    async def _send_json(self, kind: str, url: str, body: Mapping[str, object]) -> httpx.Response:
        return await self._http.send(
            kind,
            "POST",
            url,
            headers=self._headers | {"Content-Type": "application/json"},
            content=msgspec.json.encode(body),
        )


def _with_slash(url: str) -> str:
    return url if url.endswith("/") else f"{url}/"
