"""Finds the repositories of an organization, or of a GitHub App's installation.

Source: https://docs.github.com/rest/repos/repos#list-organization-repositories and
https://docs.github.com/rest/apps/installations
"""

import logging
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

import msgspec
from pydantic import SecretStr

from maintainer.errors import SettingError, StoreError
from maintainer.model.discovery import FoundCache
from maintainer.sanitize import loggable
from maintainer.settings import DiscoverSettings, api_url_of, shown_variable, token_of
from maintainer.stores.github.credentials import (
    Credentials,
    Installation,
    Token,
    forget_token,
    read_token,
    read_url,
)
from maintainer.stores.github.keyed import PAGE
from maintainer.stores.github.pages import linked_pages
from maintainer.stores.http.answers import Answer, parse, refused
from maintainer.stores.http.client import Call, Http
from maintainer.stores.http.requests import RequestLog

log = logging.getLogger(__name__)

_STORE = "github"
_MAX_PAGES = 1_000
_REPOSITORY = re.compile(r"[A-Za-z0-9_-]{1,64}/[A-Za-z0-9._-]{1,100}", re.ASCII)
_NO_NAME = re.compile(r"\.+")

_Text = Annotated[str, msgspec.Meta(max_length=300)]


class _Repository(msgspec.Struct, frozen=True):
    full_name: _Text
    archived: bool = False
    disabled: bool = False


_Repositories = Annotated[list[_Repository], msgspec.Meta(max_length=PAGE)]


class _OfInstallation(msgspec.Struct, frozen=True):
    """A page of the list of an installation."""

    total_count: Annotated[int, msgspec.Meta(ge=0, le=2**31)]
    repositories: _Repositories


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of a list."""

    repositories: list[_Repository]
    pages: int
    """How many there must be, by the links, and by the total."""
    total_count: int | None = None
    """How many repositories there are, if the list says it."""


def find_source(table: DiscoverSettings) -> tuple[str, ...]:
    """Return what identifies the place that is searched. Raises UsageError."""
    if table.app and not table.organization:
        number = str(table.app.installation)
        return (_STORE, _api_url(table), "installations", str(table.app.app_id), number)
    if table.organization is None:
        raise SettingError(
            f"organization in [[discover]] {table.name}",
            "is missing: set it, or installation, or `store` for another place",
        )
    return (_STORE, _api_url(table), "orgs", table.organization.lower())


def _api_url(table: DiscoverSettings) -> str:
    return read_url("GITHUB_API_URL", api_url_of(table)).rstrip("/")


async def search(table: DiscoverSettings) -> AsyncIterator[FoundCache]:
    """Yield the repositories that may have caches. Raises StoreError or UsageError."""
    api_url, organization = _api_url(table), table.organization
    async with Http(RequestLog()) as http:
        lists = _Lists(http, _credentials(table, api_url))
        if organization is None:
            found = lists.read(f"{api_url}/installation/repositories", {}, _read_installation)
        else:
            order = {"type": "all", "sort": "created", "direction": "asc"}
            found = lists.read(f"{api_url}/orgs/{organization}/repos", order, _read_organization)
        async for one in found:
            owner = one.full_name.partition("/")[0]
            if organization is None or owner.lower() == organization.lower():
                yield _found(one)
            else:
                log.warning("%s is not of %s: ignored", loggable(one.full_name), organization)


def _credentials(table: DiscoverSettings, api_url: str) -> Credentials:
    if table.app:
        return Installation(table.app, api_url)
    variable = shown_variable(table.token_env, "token_env")
    return Token(read_token(variable, SecretStr(token_of(table))), variable)


def _found(repository: _Repository) -> FoundCache:
    name = repository.full_name.partition("/")[2]
    return FoundCache(name, _STORE, repository.full_name)


class _Lists:
    """Reads lists of repositories, page by page."""

    def __init__(self, http: Http, credentials: Credentials) -> None:
        self._http = http
        self._credentials = credentials

    async def read(
        self, url: str, params: dict[str, str], read_page: Callable[[Answer], _Page]
    ) -> AsyncIterator[_Repository]:
        """Yield the repositories of a list that may have caches. Raises StoreError.

        The oldest come first. When one is deleted, those after it move to earlier pages: so the
        last page is read first, and the first one, which tells how many there are, once more.
        """
        seen: set[str] = set()
        first = await self._read_page(url, params, 1, read_page)
        if first.pages > _MAX_PAGES:
            raise StoreError(f"GitHub lists more than {PAGE * _MAX_PAGES:,} repositories")
        page = first
        for number in range(first.pages, 0, -1):
            if first.pages > 1:
                page = await self._read_page(url, params, number, read_page)
            for one in page.repositories:
                if one.full_name not in seen and _is_maintained(one):
                    yield one
                seen.add(one.full_name)
        if len(seen) < (page.total_count or 0):
            raise StoreError(f"GitHub lists {len(seen):,} of {page.total_count:,} repositories")

    async def _read_page(
        self, url: str, params: dict[str, str], number: int, read_page: Callable[[Answer], _Page]
    ) -> _Page:
        call = Call(
            kind="list",
            method="GET",
            url=url,
            headers=await self._credentials.headers(self._http),
            token_env=self._credentials.name,
            params=params | {"per_page": str(PAGE), "page": str(number)},
            follow=True,
        )
        return await self._http.send(call, read_page)


def _is_maintained(repository: _Repository) -> bool:
    """Whether a repository may have a cache that can be changed. Archived ones are read-only."""
    _, _, name = repository.full_name.partition("/")
    if not _REPOSITORY.fullmatch(repository.full_name) or _NO_NAME.fullmatch(name):
        log.warning("%s is not a valid repository: ignored", loggable(repository.full_name))
        return False
    return not (repository.archived or repository.disabled)


def _read_organization(answer: Answer) -> _Page:
    _check(answer)
    return _Page(parse(answer, _Repositories), max(1, linked_pages(answer)))


def _read_installation(answer: Answer) -> _Page:
    _check(answer)
    body = parse(answer, _OfInstallation)
    pages = max(1, linked_pages(answer), -(-body.total_count // PAGE))
    return _Page(body.repositories, pages, body.total_count)


def _check(answer: Answer) -> None:
    if answer.status == HTTPStatus.NOT_FOUND:
        raise StoreError(
            f"{answer.place} answered HTTP 404: check the name, and that {answer.token_env} may "
            "see it"
        )
    if answer.status == HTTPStatus.UNAUTHORIZED:
        forget_token(answer)
        raise StoreError(
            f"{answer.place} answered HTTP 401: {answer.token_env} holds no token that it knows, "
            "or one that has expired"
        )
    if answer.status != HTTPStatus.OK:
        raise refused(answer)
