"""Version 2 of the cache service: Twirp, in JSON. Github.com speaks it."""

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urljoin

import httpx2
import msgspec

from maintainer.cacheconfig import ENTRY_VERSION
from maintainer.decoding import JSON_ERRORS, decode_json
from maintainer.errors import StoreError, WriteRefusedError
from maintainer.stores.github.keyed import CacheHit
from maintainer.stores.github.service import InDoubtError, check_token, key_taken
from maintainer.stores.http.answers import (
    Answer,
    content_url,
    malformed,
    parse,
    refused,
    without_secrets,
)
from maintainer.stores.http.client import Call, Http

_T = TypeVar("_T")

_TWIRP = "twirp/github.actions.results.api.v1.CacheService/"
_METHODS = ("GetCacheEntryDownloadURL", "CreateCacheEntry", "FinalizeCacheEntryUpload")
_MAY_NOT = re.compile(
    r"permission|read.?only|denied|forbidden|not allowed|unauthori[sz]ed", re.IGNORECASE
)


class _Found(msgspec.Struct):
    ok: bool | msgspec.UnsetType = msgspec.UNSET
    signed_download_url: str = ""
    matched_key: str = ""


class _Reserved(msgspec.Struct):
    ok: bool = False
    signed_upload_url: str = ""
    message: str = ""


class _Finalized(msgspec.Struct):
    ok: bool = False
    message: str = ""


class _Problem(msgspec.Struct):
    code: str
    msg: str = ""


class ServiceV2:
    """Version 2: github.com."""

    def __init__(self, http: Http, url: str, token: str, token_env: str) -> None:
        self._http = http
        self._token_env = token_env
        base = f"{url.rstrip('/')}/{_TWIRP}"
        self._urls = {method: httpx2.URL(urljoin(base, method)) for method in _METHODS}
        self._headers = httpx2.Headers(
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        )

    async def find(self, key: str, *, prefix: bool) -> CacheHit | None:
        body = {"key": key, "restore_keys": [key] if prefix else [], "version": ENTRY_VERSION}
        return await self._call("look-up", "GetCacheEntryDownloadURL", body, _found)

    async def write(self, key: str, content: bytes) -> None:
        body = {"key": key, "version": ENTRY_VERSION}
        url = await self._call(
            "reserve", "CreateCacheEntry", body, lambda answer: _reserved(key, answer)
        )
        await self._upload(url, content)
        body["size_bytes"] = str(len(content))
        try:
            await self._call("finalize", "FinalizeCacheEntryUpload", body, _finalized)
        except StoreError as error:
            raise InDoubtError(error) from None

    async def _upload(self, url: httpx2.URL, content: bytes) -> None:
        call = Call(
            kind="upload",
            method="PUT",
            url=url,
            headers={"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"},
            content=content,
        )
        await self._http.send(call, _uploaded)

    async def _call(
        self,
        kind: str,
        method: str,
        body: Mapping[str, object],
        parse_answer: Callable[[Answer], _T],
    ) -> _T:
        call = Call(
            kind=kind,
            method="POST",
            url=self._urls[method],
            headers=self._headers,
            token_env=self._token_env,
            content=msgspec.json.encode(body),
            pace=self._http.uploads if kind == "reserve" else None,
        )
        return await self._http.send(call, parse_answer)


def _found(answer: Answer) -> CacheHit | None:
    if answer.status != HTTPStatus.OK:
        problem = _problem(answer)
        if answer.status == HTTPStatus.NOT_FOUND and problem.code == "not_found":
            return None
        raise refused(answer, problem.msg)
    found = parse(answer, _Found)
    if not found.ok:
        # Protocol buffers leave out what is false; anything else without `ok` is no miss.
        if found.ok is msgspec.UNSET and parse(answer, dict[str, msgspec.Raw]):
            raise malformed(answer, "it lacks `ok`")
        return None
    if not found.matched_key:
        raise malformed(answer, "it lacks `matched_key`")
    return CacheHit(found.matched_key, content_url(answer, found.signed_download_url))


def _reserved(key: str, answer: Answer) -> httpx2.URL:
    if answer.status != HTTPStatus.OK:
        problem = _problem(answer)
        if problem.code == "already_exists":
            raise key_taken(key, answer)
        if problem.code == "permission_denied":
            raise WriteRefusedError(key, f"HTTP {answer.status}")
        raise refused(answer, problem.msg)
    reserved = parse(answer, _Reserved)
    if reserved.ok:
        return content_url(answer, reserved.signed_upload_url)
    if _MAY_NOT.search(reserved.message):
        raise WriteRefusedError(key, without_secrets(answer, reserved.message))
    raise key_taken(key, answer)


def _uploaded(answer: Answer) -> None:
    if not answer.is_success:
        raise refused(answer)


def _finalized(answer: Answer) -> None:
    if answer.status != HTTPStatus.OK:
        raise refused(answer, _problem(answer).msg)
    finalized = parse(answer, _Finalized)
    if not finalized.ok:
        raise refused(answer, finalized.message or "it did not finish the entry")


def _problem(answer: Answer) -> _Problem:
    """Read a Twirp error. Raises StoreError if it is none, as a proxy's page is."""
    check_token(answer)
    try:
        return decode_json(answer.content, _Problem)
    except JSON_ERRORS:
        raise refused(answer) from None
