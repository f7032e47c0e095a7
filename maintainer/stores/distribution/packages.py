"""GitHub's API for packages, which lists and deletes the manifests without a tag of its registry.

Source: https://docs.github.com/rest/packages/packages
"""

from collections.abc import AsyncIterator, Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

import msgspec
from aiolimiter import AsyncLimiter

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.keys import is_digest
from maintainer.errors import ChangedError, StoreError
from maintainer.stores.distribution.client import Recheck
from maintainer.stores.distribution.names import is_repository
from maintainer.stores.http.answers import LATEST, Answer, parse, refused, to_utc
from maintainer.stores.http.client import Call, Http, headers_for

_T = TypeVar("_T", bound=Sized)

_A_PAGE = 100
_MAX_PAGES = 1_000
_DELETIONS_A_MINUTE = 150
"""GitHub's secondary limits allow 180."""
_KEPT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY})
"""The answers of GitHub if it wants to keep a version, such as one with many downloads."""


@dataclass(frozen=True, slots=True)
class Version:
    """One manifest, as GitHub lists it."""

    id: int
    changed_at: datetime
    """When it was pushed, or its tags have changed."""
    is_tagged: bool


class _Container(msgspec.Struct):
    tags: list[str] = []


class _Metadata(msgspec.Struct):
    container: _Container = msgspec.field(default_factory=_Container)


class _Version(msgspec.Struct):
    id: int
    name: str
    created_at: datetime
    updated_at: datetime
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class _Package(msgspec.Struct):
    name: str


class _Message(msgspec.Struct):
    message: str = ""


@dataclass
class Packages:
    """The versions of one package."""

    http: Http
    url: str
    """Of the API."""
    repository: str
    token: str = field(repr=False)
    _place: str = ""
    _pace: AsyncLimiter = field(default_factory=lambda: AsyncLimiter(_DELETIONS_A_MINUTE / 6, 10))

    async def versions(self) -> dict[Digest, Version]:
        """List all versions. Raises StoreError, also if the token does not allow it."""
        owner, _, package = self.repository.partition("/")
        name = quote(package, safe="")
        for place in _places_of(owner):
            self._place = f"{self.url}/{place}/packages/container/{name}/versions"
            with suppress(_NoListError):
                return await self._list()
        raise StoreError(
            f"{self.url} knows no package {self.repository}, or GITHUB_TOKEN may not read it: it "
            "needs read:packages and delete:packages, or `packages: write` and the role Admin"
        )

    async def _list(self) -> dict[Digest, Version]:
        found: dict[Digest, Version] = {}
        async for listed in _pages(
            self.http, self.token, self._place, {"state": "active"}, list[_Version]
        ):
            for one in listed:
                if is_digest(one.name):
                    digest = Digest(one.name)
                    found[digest] = _read(one, found.get(digest))
        return found

    async def delete(self, version: Version, recheck: Recheck | None = None) -> bool:
        """Delete a version; return False if it is gone. Raises ChangedError if GitHub keeps it."""
        await self._pace.acquire()
        url = f"{self._place}/{version.id}"
        answer = await _send(self.http, self.token, "DELETE", url, recheck=recheck)
        if answer.status == HTTPStatus.NOT_FOUND:
            # If the answer to an earlier attempt was lost, that one has deleted it.
            return answer.in_doubt
        if answer.status in _KEPT:
            raise ChangedError(str(refused(answer, _message(answer))))
        if not answer.is_success:
            raise refused(answer, _message(answer))
        return True


async def list_packages(http: Http, url: str, owner: str, token: str) -> list[str]:
    """List the containers of an organization or a user. Raises StoreError."""
    wanted = {"package_type": "container"}
    for place in _places_of(owner):
        found: dict[str, None] = {}
        with suppress(_NoListError):
            async for listed in _pages(
                http, token, f"{url}/{place}/packages", wanted, list[_Package]
            ):
                found |= {one.name: None for one in listed if is_repository(one.name)}
            return list(found)
    raise StoreError(f"{url} knows no packages of {owner}, or the token may not read them")


def _places_of(owner: str) -> tuple[str, str]:
    """Return where the packages of an owner may be: nothing says whether it is an organization."""
    return f"orgs/{owner}", f"users/{owner}"


class _NoListError(Exception):
    """There is no such list."""


async def _pages(
    http: Http, token: str, url: str, wanted: Mapping[str, str], of: type[_T]
) -> AsyncIterator[_T]:
    """Read a list page by page. Raises _NoListError, or StoreError if it does not end."""
    before = b""
    for page in range(1, _MAX_PAGES + 1):
        params = {**wanted, "per_page": str(_A_PAGE), "page": str(page)}
        answer = await _send(http, token, "GET", url, params=params)
        if answer.status == HTTPStatus.NOT_FOUND and page == 1:
            raise _NoListError
        if not answer.is_success:
            raise refused(answer, _message(answer))
        listed = parse(answer, of)
        if answer.content == before:
            break
        yield listed
        if len(listed) < _A_PAGE:
            return
        before = answer.content
    raise StoreError(f"the list at {url} does not end")


async def _send(
    http: Http,
    token: str,
    method: str,
    url: str,
    *,
    params: Mapping[str, str] | None = None,
    recheck: Recheck | None = None,
) -> Answer:
    call = Call(
        kind="packages",
        method=method,
        url=url,
        headers=headers_for(token),
        params=params,
        recheck=recheck,
    )
    return await http.send(call, lambda answer: answer)


def _read(one: _Version, other: Version | None) -> Version:
    """Read a version; `other` is what the list has shown of the same manifest before."""
    changed_at = max(filter(None, map(to_utc, (one.created_at, one.updated_at))), default=LATEST)
    is_tagged = bool(one.metadata.container.tags)
    if other:
        changed_at, is_tagged = max(changed_at, other.changed_at), is_tagged or other.is_tagged
    return Version(one.id, changed_at, is_tagged)


def _message(answer: Answer) -> str:
    try:
        return parse(answer, _Message).message
    except StoreError:
        return ""
