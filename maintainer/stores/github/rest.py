"""GitHub's REST API: the list of a repository's cache entries, and their deletion.

Source: https://docs.github.com/rest/actions/cache
"""

import math
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import quote

import msgspec

from maintainer.cacheconfig import Ref
from maintainer.errors import StoreError
from maintainer.stores.base import Listing, StoredEntry
from maintainer.stores.github.http import Http, parse, refused

PAGE = 100
_PASSES = 3


class _Entry(msgspec.Struct):
    id: int
    key: str
    ref: str
    version: str
    size_in_bytes: int
    created_at: datetime
    last_accessed_at: datetime


class _Page(msgspec.Struct):
    total_count: int
    actions_caches: list[_Entry]


class Rest:
    """The part of the REST API that a run needs; the list does not make an entry look used."""

    def __init__(self, http: Http, api_url: str, repository: str, token: str) -> None:
        self._http = http
        self._url = f"{api_url.rstrip('/')}/repos/{quote(repository)}/actions/caches"
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    async def list_entries(self) -> Listing:
        """List all entries, in as few pages as there can be, unless some go meanwhile.

        Offset paging shifts when an entry before the offset goes, and what moves to a page that was
        read already is not shown. The pages are in the order of creation and, behind the first,
        read from the last to the second, so that only what goes from the first page can do that;
        the total then shrinks, and the list is read again.
        """
        entries: dict[int, StoredEntry] = {}
        complete = False
        for _ in range(_PASSES):
            complete = await self._list_once(entries)
            if complete:
                break
        return Listing(tuple(entries[key] for key in sorted(entries)), complete)

    async def _list_once(self, entries: dict[int, StoredEntry]) -> bool:
        first = await self._page(1)
        totals = [first.total_count]
        shown = {entry.id: entry for entry in first.actions_caches}
        for number in range(math.ceil(first.total_count / PAGE), 1, -1):
            page = await self._page(number)
            totals.append(page.total_count)
            shown |= {entry.id: entry for entry in page.actions_caches}
        entries |= {key: _entry(entry) for key, entry in shown.items()}
        return min(totals) >= first.total_count and len(shown) >= first.total_count

    async def _page(self, number: int) -> _Page:
        response = await self._http.send(
            "list",
            "GET",
            self._url,
            headers=self._headers,
            params={
                "per_page": str(PAGE),
                "page": str(number),
                "sort": "created_at",
                "direction": "asc",
            },
            follow=True,
        )
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise StoreError(
                f"GitHub's API refused the list of caches (HTTP {response.status_code}): "
                "GITHUB_TOKEN needs the permission `actions: write`"
            )
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise StoreError(
                "GitHub's API does not know the repository (HTTP 404): check GITHUB_REPOSITORY, "
                "and that GITHUB_TOKEN may read it"
            )
        if response.status_code != HTTPStatus.OK:
            raise refused(response)
        return parse(response, _Page)

    async def delete(self, entry_id: int) -> bool:
        """Delete an entry by its id; False if it was gone already."""
        response = await self._http.send(
            "delete", "DELETE", f"{self._url}/{entry_id}", headers=self._headers, follow=True
        )
        if response.status_code == HTTPStatus.NOT_FOUND:
            return False
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise StoreError(
                f"GitHub's API refused to delete (HTTP {response.status_code}): "
                "GITHUB_TOKEN needs the permission `actions: write`"
            )
        if not response.is_success:
            raise refused(response)
        return True


def _entry(entry: _Entry) -> StoredEntry:
    return StoredEntry(
        id=entry.id,
        ref=Ref(entry.ref),
        key=entry.key,
        version=entry.version,
        size=entry.size_in_bytes,
        created_at=_utc(entry.created_at),
        last_accessed_at=_utc(entry.last_accessed_at),
    )


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
