"""GitHub's REST API for a repository's caches.

Source: https://docs.github.com/rest/actions/cache
"""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from maintainer.emulator.site import Site
from maintainer.emulator.state import Entry
from maintainer.emulator.web import Reason, RefusedError, json_response, read_id

_PER_PAGE = 30
_MAX_PER_PAGE = 100
_GB = 10**9
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)

_SORT: dict[str, Callable[[Entry], tuple[datetime | int, int]]] = {
    "created_at": lambda entry: (entry.created_at, entry.id),
    "last_accessed_at": lambda entry: (entry.last_accessed_at, entry.id),
    "size_in_bytes": lambda entry: (entry.size, entry.id),
}


class Rest:
    """Serves the endpoints below `/repos/{owner}/{repo}/actions`, whatever the repository."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes: list[BaseRoute] = [
            Route("/caches", self.list_caches, methods=["GET"]),
            Route("/caches", self.delete_by_key, methods=["DELETE"]),
            Route("/caches/{id}", self.delete_by_id, methods=["DELETE"]),
            Route("/cache/usage", self.usage, methods=["GET"]),
            Route("/cache/storage-limit", self.storage_limit, methods=["GET"]),
            Route("/cache/retention-limit", self.retention_limit, methods=["GET"]),
            Route("/cache/usage-policy", self.usage_policy, methods=["GET"]),
        ]

    async def list_caches(self, request: HttpRequest) -> Response:
        """Return one page of the entries; this does not count as use."""
        self._permit(request)
        query = request.query_params
        order = _SORT.get(query.get("sort", "last_accessed_at"))
        direction = query.get("direction", "desc")
        if order is None or direction not in ("asc", "desc"):
            raise RefusedError(Reason.INVALID, "sort or direction is not valid")
        prefix, ref = query.get("key", ""), query.get("ref")
        entries = [
            entry
            for entry in self._site.cache.entries()
            if entry.key.startswith(prefix) and ref in (None, entry.ref)
        ]
        entries.sort(key=order, reverse=direction == "desc")
        per_page = min(_number(query.get("per_page"), _PER_PAGE), _MAX_PER_PAGE)
        start = (_number(query.get("page"), 1) - 1) * per_page
        page = entries[start : start + per_page]
        if self._site.cache.lists_tags_below_heads:
            page = [_below_heads(entry) for entry in page]
        return _page(len(entries), page)

    async def delete_by_key(self, request: HttpRequest) -> Response:
        """Delete the entries with this key, in one ref or in all."""
        self._permit(request)
        key, ref = request.query_params.get("key"), request.query_params.get("ref")
        if not key:
            raise RefusedError(Reason.INVALID, "key is missing")
        cache = self._site.cache
        found = [e for e in cache.entries() if e.key == key and ref in (None, e.ref)]
        if not found:
            raise RefusedError(Reason.NOT_FOUND, "Not Found")
        for entry in found:
            cache.evict(entry.id)
        return _page(len(found), found)

    async def delete_by_id(self, request: HttpRequest) -> Response:
        """Delete an entry."""
        self._permit(request)
        if not self._site.cache.evict(read_id(request)):
            raise RefusedError(Reason.NOT_FOUND, "Not Found")
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def usage(self, request: HttpRequest) -> Response:
        """Return the usage; on GitHub it is a few minutes old."""
        self._permit(request)
        path = request.path_params
        return json_response(
            {
                "full_name": f"{path['owner']}/{path['repo']}",
                "active_caches_size_in_bytes": self._site.cache.usage,
                "active_caches_count": len(self._site.cache.entries()),
            }
        )

    async def storage_limit(self, request: HttpRequest) -> Response:
        """Return the quota, which GitHub counts in whole gigabytes."""
        self._permit(request)
        return json_response({"max_cache_size_gb": self._quota})

    async def usage_policy(self, request: HttpRequest) -> Response:
        """Return the quota in the format of Enterprise Server."""
        self._permit(request)
        return json_response({"repo_cache_size_limit_in_gb": self._quota})

    async def retention_limit(self, request: HttpRequest) -> Response:
        """Return how long GitHub keeps an unused entry; here none expires."""
        self._permit(request)
        return json_response({"max_cache_retention_days": self._site.cache.retention_days})

    @property
    def _quota(self) -> int:
        return max(1, self._site.cache.quota // _GB)

    def _permit(self, request: HttpRequest) -> None:
        if not self._site.tokens.is_rest_token(request.headers.get("authorization", "")):
            raise RefusedError(Reason.UNAUTHENTICATED, "Bad credentials")

    @staticmethod
    def refuse(_: HttpRequest, error: Exception) -> Response:
        """Return an error in the format of the API."""
        assert isinstance(error, RefusedError)  # noqa: S101
        status = error.reason.status
        body = {
            "message": error.message,
            "documentation_url": "https://docs.github.com/rest/actions/cache",
            "status": str(status.value),
        }
        return json_response(body, status)


def _below_heads(entry: Entry) -> Entry:
    """Return the ref of a tag as GitHub's list may spell it."""
    is_named = entry.ref.startswith("refs/tags/")
    return replace(entry, ref=f"refs/heads/{entry.ref}") if is_named else entry


def _page(total: int, entries: list[Entry]) -> Response:
    caches = [
        {
            "id": entry.id,
            "ref": entry.ref,
            "key": entry.key,
            "version": entry.version,
            "last_accessed_at": _time(entry.last_accessed_at),
            "created_at": _time(entry.created_at),
            "size_in_bytes": entry.size,
        }
        for entry in entries
    ]
    return json_response({"total_count": total, "actions_caches": caches})


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def _number(text: str | None, default: int) -> int:
    """Return a positive number; like GitHub, the default for anything else."""
    if text is None or not _NUMBER.fullmatch(text):
        return default
    return int(text) or default
