"""The Actions cache of one repository, through the cache service, the REST API, or both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from maintainer.errors import StoreError, UsageError
from maintainer.settings import GitHubSettings
from maintainer.stores.base import Access, Found, Listing, RequestLog
from maintainer.stores.github.http import Http
from maintainer.stores.github.rest import Rest
from maintainer.stores.github.service import CacheService, ServiceV1, ServiceV2
from maintainer.stores.github.token import read_access

MAX_INDEX_SIZE = 256 * 1024 * 1024
"""Bytes; a larger index is refused before it is read whole."""


class GitHubStore:
    """Speaks for one repository. Keys are compared here: the service matches them loosely."""

    def __init__(
        self,
        name: str,
        access: Access,
        http: Http,
        service: CacheService | None,
        rest: Rest | None,
    ) -> None:
        self.name = name
        self.access = access
        self.requests = http.requests
        self._http = http
        self._service = service
        self._rest = rest

    @property
    def lists(self) -> bool:
        """Whether there is a REST API to list and delete with."""
        return self._rest is not None

    @property
    def reads(self) -> bool:
        """Whether there is a runtime token to look up, read and write with."""
        return self._service is not None

    async def list_entries(self) -> Listing:
        """List all entries through the REST API."""
        if self._rest is None:
            raise StoreError("this store cannot list its entries: there is no GITHUB_TOKEN")
        return await self._rest.list_entries()

    async def look_up(self, key: str) -> Found | None:
        """Find the entry with exactly this key, but for case: some services lower it."""
        found = await self._need_service().find(key, prefix=False)
        return found if found and found.key.casefold() == key.casefold() else None

    async def look_up_newest(self, prefix: str) -> Found | None:
        """Find the entry created last among those whose keys start with `prefix`."""
        found = await self._need_service().find(prefix, prefix=True)
        return found if found and found.key.casefold().startswith(prefix.casefold()) else None

    async def read(self, found: Found) -> bytes:
        """Download an index."""
        return await self._http.download("download", found.url, limit=MAX_INDEX_SIZE)

    async def write(self, key: str, content: bytes) -> None:
        """Write a new entry."""
        await self._need_service().write(key, content)

    async def delete(self, entry_id: int) -> bool:
        """Delete an entry through the REST API."""
        if self._rest is None:
            raise StoreError("this store cannot delete entries: there is no GITHUB_TOKEN")
        return await self._rest.delete(entry_id)

    def _need_service(self) -> CacheService:
        if self._service is None:
            raise StoreError("this store cannot be read: there is no ACTIONS_RUNTIME_TOKEN")
        return self._service


@asynccontextmanager
async def open_store(settings: GitHubSettings) -> AsyncIterator[GitHubStore]:
    """Connect as BuildKit's clients do.

    Version 2 if `ACTIONS_CACHE_SERVICE_V2` says so and its URL is set; else version 1 if its URL
    is. Raises UsageError if the environment names neither a service nor a repository.
    """
    async with Http(RequestLog()) as http:
        service, access = _service(settings, http)
        rest = _rest(settings, http)
        if service is None and rest is None:
            raise UsageError(
                "no cache to work on: set ACTIONS_RUNTIME_TOKEN with ACTIONS_RESULTS_URL or "
                "ACTIONS_CACHE_URL, or GITHUB_TOKEN with GITHUB_REPOSITORY, or both"
            )
        yield GitHubStore(_name(settings), access, http, service, rest)


def _service(settings: GitHubSettings, http: Http) -> tuple[CacheService | None, Access]:
    token = settings.runtime_token.get_secret_value() if settings.runtime_token else ""
    version_2 = settings.cache_service_v2 or not settings.cache_url
    if not token or not (settings.results_url or settings.cache_url):
        return None, Access()
    access = read_access(token)
    if settings.results_url and version_2:
        return ServiceV2(http, settings.results_url, token), access
    if settings.cache_url:
        return ServiceV1(http, settings.cache_url, token), access
    return None, Access()


def _rest(settings: GitHubSettings, http: Http) -> Rest | None:
    token = settings.token.get_secret_value() if settings.token else ""
    if not token or not settings.repository:
        return None
    return Rest(http, settings.api_url, settings.repository, token)


def _name(settings: GitHubSettings) -> str:
    if settings.repository:
        return f"github:{settings.repository}"
    return f"github:{urlsplit(settings.results_url or settings.cache_url or '').netloc}"
