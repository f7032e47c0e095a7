"""The Actions cache of one repository, through the cache service, the REST API, or both."""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_address

import httpx2

from maintainer.cacheconfig import Ref, why_too_large
from maintainer.errors import StoreError, UnreadableError, UsageError
from maintainer.model.doubt import Cause
from maintainer.model.entry import Access, Listing, StoredEntry, StoreLimits
from maintainer.model.reason import ClosedRef
from maintainer.sanitize import printable
from maintainer.settings import GitHubSettings, Settings
from maintainer.stores.github.credentials import (
    Credentials,
    Installation,
    Token,
    read_token,
    read_url,
)
from maintainer.stores.github.keyed import CacheHit, ClosedRefs, MayAsk
from maintainer.stores.github.limit import limit_of
from maintainer.stores.github.refs import RefFinder
from maintainer.stores.github.rest import ASSUMED, DELETIONS_A_MINUTE, Rest
from maintainer.stores.github.service import CacheService, InDoubtError
from maintainer.stores.github.service_v1 import ServiceV1
from maintainer.stores.github.service_v2 import ServiceV2
from maintainer.stores.github.token import read_access
from maintainer.stores.http.client import ExpiredError, GoneError, Http
from maintainer.stores.http.requests import RateWindow, RequestLog, window_of
from maintainer.stores.http.retry import RetryPolicy

DEFAULT_MAX_INDEX_SIZE: int = Settings.defaults().max_index_size

_GITHUB = "api.github.com"

log = logging.getLogger(__name__)


class ActionsCacheClient:
    """Speaks for one repository. Keys are compared here: the service matches them loosely."""

    def __init__(
        self,
        name: str,
        access: Access,
        http: Http,
        service: CacheService | None,
        rest: Rest | None,
        *,
        max_index_size: int,
    ) -> None:
        self.name = name
        self.access = access
        self.requests = http.requests
        self._http = http
        self._service = service
        self._rest = rest
        self._refs = RefFinder(rest) if rest else None
        self._max_index_size = max_index_size

    @property
    def lists(self) -> bool:
        """Whether there is a REST API to list and delete with."""
        return self._rest is not None

    @property
    def deletions_a_minute(self) -> int | None:
        """How many entries the REST API lets be deleted in a minute."""
        return self._rest.deletions_a_minute if self._rest else None

    @property
    def reads(self) -> bool:
        """Whether there is a runtime token to look up, read and write with."""
        return self._service is not None

    async def list_entries(self) -> Listing:
        """List all entries through the REST API."""
        return await self._need_rest("list entries").list_entries()

    async def closed_refs(self, refs: Iterable[Ref], may_ask: MayAsk) -> ClosedRefs:
        """Find out through the REST API which refs are closed."""
        return await self._refs.find(refs, may_ask) if self._refs else ClosedRefs({})

    async def closed_ref(self, ref: Ref) -> ClosedRef | None:
        """Ask through the REST API again whether a ref is closed."""
        return await self._refs.closed_ref(ref) if self._refs else None

    async def check_refs(self) -> None:
        """Find out whether the token may ask which refs are closed. Raises StoreError."""
        if self._refs:
            await self._refs.check_permissions()

    async def newest_indexes(self) -> tuple[StoredEntry, ...]:
        """List the indexes that were created last, in all refs."""
        return await self._need_rest("list entries").list_last("index-", "created_at")

    async def last_used(
        self, prefix: str, page: int = 1, ref: Ref | None = None
    ) -> tuple[StoredEntry, ...]:
        """List the entries that were used last, in all refs."""
        rest = self._need_rest("list entries")
        return await rest.list_last(prefix, "last_accessed_at", page, ref)

    async def look_up(self, key: str) -> CacheHit | None:
        """Find the entry with exactly this key, but for case: some services lower it."""
        found = await self._need_service().find(key, prefix=False)
        return found if found and found.key.lower() == key.lower() else None

    async def look_up_newest(self, prefix: str) -> CacheHit | None:
        """Find the entry created last among those whose keys start with `prefix`."""
        found = await self._need_service().find(prefix, prefix=True)
        return found if found and found.key.lower().startswith(prefix.lower()) else None

    async def read(self, found: CacheHit) -> bytes:
        """Download an index; once more, from a new URL, if that of the look-up has expired."""
        try:
            content = await self._http.download(found.url, limit=self._max_index_size)
        except ExpiredError:
            again = await self.look_up(found.key)
            if again is None:
                raise StoreError(
                    f"{printable(found.key)} was deleted while it was being read"
                ) from None
            content = await self._download_again(again)
        if reason := why_too_large(content, self._max_index_size):
            raise UnreadableError(Cause.TOO_LARGE, f"{printable(found.key)} {reason}")
        return content

    async def _download_again(self, found: CacheHit) -> bytes:
        try:
            return await self._http.download(found.url, limit=self._max_index_size)
        except GoneError as error:
            raise UnreadableError(Cause.NO_CONTENT, str(error)) from None

    async def has_content(self, found: CacheHit) -> bool:
        """Whether what a look-up has just found can be downloaded, by its first byte."""
        return await self._http.has_content(found.url)

    async def write(self, key: str, content: bytes) -> None:
        """Write a new entry; returns only if it is known to have this content."""
        try:
            await self._need_service().write(key, content)
        except InDoubtError as doubt:
            if not await self._holds(key, content):
                raise doubt.cause from None

    async def _holds(self, key: str, content: bytes) -> bool:
        """Return whether an entry is known to be there with this content."""
        try:
            found = await self.look_up(key)
            return found is not None and await self.read(found) == content
        except StoreError:
            return False

    async def delete(self, entry_id: int) -> bool:
        """Delete an entry through the REST API."""
        return await self._need_rest("delete entries").delete(entry_id)

    async def limits(self) -> StoreLimits:
        """Ask through the REST API when GitHub evicts; what nobody may ask is assumed."""
        return await self._rest.limits() if self._rest else ASSUMED

    async def retention(self) -> timedelta | None:
        """Ask through the REST API how long GitHub keeps what nobody uses."""
        return await self._rest.retention() if self._rest else None

    def _need_rest(self, to_do: str) -> Rest:
        if self._rest is None:
            raise StoreError(
                f"this store cannot {to_do}: there is no GITHUB_TOKEN with GITHUB_REPOSITORY"
            )
        return self._rest

    def _need_service(self) -> CacheService:
        if self._service is None:
            raise StoreError("this store cannot be read: there is no ACTIONS_RUNTIME_TOKEN")
        return self._service


@asynccontextmanager
async def open_client(
    settings: GitHubSettings,
    policy: RetryPolicy | None = None,
    *,
    max_index_size: int = DEFAULT_MAX_INDEX_SIZE,
) -> AsyncIterator[ActionsCacheClient]:
    """Connect as BuildKit's clients do. An index of more than `max_index_size` bytes is refused.

    Version 2 if `ACTIONS_CACHE_SERVICE_V2` says so and `ACTIONS_RESULTS_URL` is set; else version 1
    at `ACTIONS_CACHE_URL` or, without one, at `ACTIONS_RESULTS_URL`. Raises UsageError if the
    environment names neither a service nor a repository, or something that is no URL or token.
    """
    limit = limit_of(settings)
    window = window_of(limit) if limit else RateWindow()
    async with Http(RequestLog(window=window), policy) as http:
        service, access = _service(settings, http)
        rest = _rest(settings, http, access)
        if service and rest and not are_of_one_cache(settings.api_url, _service_url(settings)):
            log.warning(
                "the REST API at %s is not that of the cache service at %s: it is not used, so "
                "nothing is deleted",
                httpx2.URL(settings.api_url).netloc.decode(),
                httpx2.URL(_service_url(settings)).netloc.decode(),
            )
            rest = None
        if service is None and rest is None:
            raise UsageError(
                "no cache to work on: set GITHUB_REPOSITORY and GITHUB_TOKEN (`gh auth token` "
                "prints one) to see what is stored; to maintain it, also ACTIONS_RUNTIME_TOKEN "
                "with ACTIONS_RESULTS_URL or ACTIONS_CACHE_URL, which only workflows have"
            )
        yield ActionsCacheClient(
            _name(settings), access, http, service, rest, max_index_size=max_index_size
        )


def are_of_one_cache(api_url: str, service_url: str) -> bool:
    """Return whether a REST API lists what a cache service stores, as far as their places tell.

    Runners of third parties put a cache of their own in the place of GitHub's, whose API goes on to
    list GitHub's. Judged by the indexes of another cache, needed blobs look unreferenced.
    """
    api, service = httpx2.URL(api_url), httpx2.URL(service_url)
    if api.netloc == service.netloc:
        return True
    site = api.host.removeprefix("api.")
    if site == "github.com":
        return service.host.endswith(".actions.githubusercontent.com")
    # The same host at another port is another server.
    return service.host.endswith(f".{site}") or service.host == site != api.host


def _service(settings: GitHubSettings, http: Http) -> tuple[CacheService | None, Access]:
    token = read_token(settings.runtime_token_env, settings.runtime_token)
    url = _service_url(settings)
    if not token or not url:
        return None, Access()
    version = ServiceV2 if settings.cache_service_v2 and settings.results_url else ServiceV1
    access = read_access(token, settings.runtime_token_env)
    return version(http, url, token, settings.runtime_token_env), access


def _service_url(settings: GitHubSettings) -> str:
    """Choose the place of the cache service, as BuildKit does; empty if there is none."""
    results_url = read_url("ACTIONS_RESULTS_URL", settings.results_url)
    cache_url = read_url("ACTIONS_CACHE_URL", settings.cache_url)
    return results_url if settings.cache_service_v2 and results_url else cache_url or results_url


def _rest(settings: GitHubSettings, http: Http, access: Access) -> Rest | None:
    if not settings.repository or not (settings.token or settings.app):
        return None
    url = read_url("GITHUB_API_URL", settings.api_url)
    # An emulator has no secondary limits.
    pace = None if _is_loopback(httpx2.URL(url).host) else DELETIONS_A_MINUTE
    return Rest(
        http,
        url,
        settings.repository,
        _credentials(settings, url),
        tags=frozenset(ref for ref in access.readable if ref.startswith("refs/tags/")),
        deletions_a_minute=pace,
    )


def _credentials(settings: GitHubSettings, api_url: str) -> Credentials:
    if settings.app:
        return Installation(settings.app, api_url)
    return Token(read_token(settings.token_env, settings.token), settings.token_env)


def _name(settings: GitHubSettings) -> str:
    """Name the cache. Repositories of two hosts may have one name, and entries of one number.

    GitHub ignores the case of a repository's name, so two spellings are one cache.
    """
    api_url, service_url = settings.api_url, _service_url(settings)
    if not settings.repository:
        return f"github:{httpx2.URL(service_url).netloc.decode('ascii')}"
    together = not service_url or are_of_one_cache(api_url, service_url)
    host = httpx2.URL(api_url if together else service_url).host
    here = "" if together and (host == _GITHUB or _is_loopback(host)) else f"{host}/"
    return f"github:{here}{settings.repository.lower()}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
