"""Version 1 of the cache service: GitHub Enterprise Server, `act`, and several other servers."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, TypeVar
from urllib.parse import urljoin

import httpx2
import msgspec

from maintainer.cacheconfig import ENTRY_VERSION, Ref
from maintainer.errors import StoreError, UnreadableError, WriteRefusedError
from maintainer.model.doubt import Cause
from maintainer.sanitize import printable
from maintainer.stores.github.keyed import CacheHit
from maintainer.stores.github.service import InDoubtError, check_token, key_taken
from maintainer.stores.http.answers import Answer, content_url, malformed, parse, refused
from maintainer.stores.http.client import Call, Http

_T = TypeVar("_T")

CHUNK = 32 * 1024 * 1024
"""Bytes; the service takes no more at once."""
_V1 = "_apis/artifactcache/"


class _Found(msgspec.Struct):
    cache_key: str = msgspec.field(name="cacheKey")
    archive_location: str = msgspec.field(name="archiveLocation")
    scope: object = None


class _Reserved(msgspec.Struct):
    cache_id: Annotated[int, msgspec.Meta(gt=0)] = msgspec.field(name="cacheId")


class ServiceV1:
    """Version 1: GitHub Enterprise Server, and several self-hosted services."""

    def __init__(self, http: Http, url: str, token: str, token_env: str) -> None:
        self._http = http
        self._token_env = token_env
        self._url = f"{url.rstrip('/')}/{_V1}"
        self._look_ups = httpx2.URL(urljoin(self._url, "cache"))
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json;api-version=6.0-preview.1",
        }
        self._headers = httpx2.Headers(headers)
        self._json = httpx2.Headers(headers | {"Content-Type": "application/json"})

    async def find(self, key: str, *, prefix: bool) -> CacheHit | None:
        del prefix  # Version 1 knows only the loose look-up; the caller compares keys.
        if "," in key:
            # Builders can never look it up either.
            raise UnreadableError(
                Cause.NOT_FOUND,
                "version 1 of the cache service cannot look up a key with a comma: "
                f"{printable(key)}",
            )
        call = Call(
            kind="look-up",
            method="GET",
            url=self._look_ups,
            headers=self._headers,
            token_env=self._token_env,
            params={"keys": key, "version": ENTRY_VERSION},
        )
        return await self._http.send(call, _found)

    async def write(self, key: str, content: bytes) -> None:
        url = await self._post(
            "reserve",
            "caches",
            {"key": key, "version": ENTRY_VERSION, "cacheSize": len(content)},
            lambda answer: f"caches/{_reserved(key, answer)}",
        )
        for start in range(0, len(content), CHUNK):
            await self._upload(url, start, content[start : start + CHUNK])
        try:
            await self._post("finalize", url, {"size": len(content)}, _done)
        except StoreError as error:
            raise InDoubtError(error) from None

    async def _upload(self, url: str, start: int, chunk: bytes) -> None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"bytes {start}-{start + len(chunk) - 1}/*",
        }
        call = Call(
            kind="upload",
            method="PATCH",
            url=urljoin(self._url, url),
            headers={**self._headers, **headers},
            token_env=self._token_env,
            content=chunk,
        )
        await self._http.send(call, _done)

    async def _post(
        self,
        kind: str,
        url: str,
        body: Mapping[str, object],
        parse_answer: Callable[[Answer], _T],
    ) -> _T:
        call = Call(
            kind=kind,
            method="POST",
            url=urljoin(self._url, url),
            headers=self._json,
            token_env=self._token_env,
            content=msgspec.json.encode(body),
            pace=self._http.uploads if kind == "reserve" else None,
        )
        return await self._http.send(call, parse_answer)


def _found(answer: Answer) -> CacheHit | None:
    check_token(answer)
    if answer.status == HTTPStatus.NO_CONTENT:
        return None
    if answer.status != HTTPStatus.OK:
        raise refused(answer)
    if not answer.content:
        return None
    found = parse(answer, _Found)
    if not found.cache_key:
        raise malformed(answer, "it names no key")
    return CacheHit(found.cache_key, content_url(answer, found.archive_location), _ref(found.scope))


def _ref(scope: object) -> Ref | None:
    """Read the ref of an entry: GitHub reports it, other servers report nothing or anything."""
    return Ref(scope) if isinstance(scope, str) and scope.startswith("refs/") else None


def _reserved(key: str, answer: Answer) -> int:
    check_token(answer)
    if answer.is_success:
        return parse(answer, _Reserved).cache_id
    if answer.status == HTTPStatus.CONFLICT or b"AlreadyExists" in answer.content:
        raise key_taken(key, answer)
    if answer.status == HTTPStatus.FORBIDDEN:
        raise WriteRefusedError(key, f"HTTP {answer.status}")
    raise refused(answer)


def _done(answer: Answer) -> None:
    check_token(answer)
    if not answer.is_success:
        raise refused(answer)
