"""GitHub's API for packages, which lists and deletes the manifests without a tag of its registry.

Source: https://docs.github.com/rest/packages/packages
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
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
        for place in (f"orgs/{owner}", f"users/{owner}"):
            self._place = f"{self.url}/{place}/packages/container/{name}/versions"
            if (found := await self._list()) is not None:
                return found
        raise StoreError(
            f"{self.url} knows no package {self.repository}, or GITHUB_TOKEN may not read it: it "
            "needs read:packages and delete:packages, or `packages: write` and the role Admin"
        )

    async def _list(self) -> dict[Digest, Version] | None:
        found: dict[Digest, Version] = {}
        for page in range(1, _MAX_PAGES + 1):
            params = {"per_page": str(_A_PAGE), "page": str(page), "state": "active"}
            answer = await self._send("GET", self._place, params)
            if answer.status == HTTPStatus.NOT_FOUND and page == 1:
                return None
            if not answer.is_success:
                raise refused(answer, _message(answer))
            listed = parse(answer, list[_Version])
            known = len(found)
            for one in listed:
                if is_digest(one.name):
                    digest = Digest(one.name)
                    found[digest] = _read(one, found.get(digest))
            if len(listed) < _A_PAGE:
                return found
            if len(found) == known:
                break
        raise StoreError(f"the list of versions of {self.repository} does not end")

    async def delete(self, version: Version, recheck: Recheck | None = None) -> bool:
        """Delete a version; return False if it is gone. Raises ChangedError if GitHub keeps it."""
        await self._pace.acquire()
        answer = await self._send("DELETE", f"{self._place}/{version.id}", recheck=recheck)
        if answer.status == HTTPStatus.NOT_FOUND:
            return False
        if answer.status in _KEPT:
            raise ChangedError(str(refused(answer, _message(answer))))
        if not answer.is_success:
            raise refused(answer, _message(answer))
        return True

    async def _send(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None = None,
        recheck: Recheck | None = None,
    ) -> Answer:
        return await _send(self.http, self.token, method, url, params=params, recheck=recheck)


async def list_packages(http: Http, url: str, owner: str, token: str) -> list[str]:
    """List the containers of an organization or a user. Raises StoreError."""
    for place in (f"orgs/{owner}", f"users/{owner}"):
        found: dict[str, None] = {}
        for page in range(1, _MAX_PAGES + 1):
            params = {"package_type": "container", "per_page": str(_A_PAGE), "page": str(page)}
            answer = await _send(http, token, "GET", f"{url}/{place}/packages", params=params)
            if answer.status == HTTPStatus.NOT_FOUND and page == 1:
                break
            if not answer.is_success:
                raise refused(answer, _message(answer))
            listed = parse(answer, list[_Package])
            known = len(found)
            found |= {one.name: None for one in listed if is_repository(one.name)}
            if len(listed) < _A_PAGE:
                return list(found)
            if len(found) == known:
                raise StoreError(f"the list of packages of {owner} does not end")
    raise StoreError(f"{url} knows no packages of {owner}, or the token may not read them")


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
