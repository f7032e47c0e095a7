"""GitHub's REST API: the list of a repository's cache entries, and their deletion.

Source: https://docs.github.com/rest/actions/cache
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from maintainer.cacheconfig import ENTRY_VERSION, Ref, parse_key
from maintainer.errors import StoreError
from maintainer.stores.base import MAX_NAME_LENGTH, Listing, StoredEntry, StoreLimits
from maintainer.stores.github.answers import Answer, parse, refused, senseless
from maintainer.stores.github.http import Call, Http

_T = TypeVar("_T")

PAGE = 100
MAX_PAGES = 10_000
"""A million entries; whoever claims more is not listed."""
DEFAULT_LIMIT = 10 * 10**9
"""Bytes; what GitHub gives a repository that has bought no more."""

_LAST_YEAR = 9000
_PASSES = 3
_NEXT_LINK = re.compile(r'<([^<>]*)>\s*;\s*rel="?(next|last)"?')

_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Entry(msgspec.Struct, frozen=True):
    id: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)]
    key: _Name
    ref: _Name
    version: _Name
    size_in_bytes: _Size
    created_at: datetime
    last_accessed_at: datetime


class _PageBody(msgspec.Struct, frozen=True):
    total_count: _Size
    actions_caches: list[_Entry]


class _Page(msgspec.Struct, frozen=True):
    total: int
    entries: dict[int, StoredEntry]
    pages: int
    """How many there must be, by the total and by the links."""


class _Usage(msgspec.Struct):
    active_caches_size_in_bytes: _Size


class _StorageLimit(msgspec.Struct):
    max_cache_size_gb: Annotated[int, msgspec.Meta(gt=0, le=10**9)]


class Rest:
    """The part of the REST API that a run needs; the list does not make an entry look used."""

    def __init__(self, http: Http, api_url: str, repository: str, token: str) -> None:
        self._http = http
        self._url = f"{api_url.rstrip('/')}/repos/{quote(repository)}/actions"
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    async def list_entries(self) -> Listing:
        """List all entries, in as few pages as there can be, unless some come or go meanwhile.

        Offset paging shifts: when an entry goes, those behind it move to pages before, and are not
        seen if those were read already. So the newest hundred are read first, newest first, and
        then the older ones in the order of creation from the last page to the first: what goes
        moves the others to pages still to be read, and what comes moves nothing. Whatever else
        makes an entry missing (pages that repeat or leave out, ties sorted now this, now that way)
        leaves fewer than were counted, and the list is read again.
        """
        seen: dict[int, StoredEntry] = {}
        for number in range(_PASSES):
            first = await self._page(1, "desc")
            shown = await self._older(first, again=number > 0)
            if _holds_all(first, shown):
                return _listing(shown, complete=True)
            seen |= shown
        return _listing(seen, complete=False)

    async def list_last(self, prefix: str, sort: str, number: int = 1) -> tuple[StoredEntry, ...]:
        """List a hundred entries whose keys start with `prefix`, the last by `sort` first."""
        params = {"key": prefix, "per_page": str(PAGE), "sort": sort, "direction": "desc"}
        if number > 1:
            params["page"] = str(number)
        page = await self._get("recheck", "caches", _page, params)
        return tuple(page.entries.values())

    async def _older(self, first: _Page, *, again: bool) -> dict[int, StoredEntry]:
        """Read what is not on the first page; `again` reads what ought to be there too."""
        shown = dict(first.entries)
        for number in range(first.pages if again else first.pages - 1, 0, -1):
            shown |= (await self._page(number, "asc")).entries
        return shown

    async def _page(self, number: int, direction: str) -> _Page:
        params = {
            "per_page": str(PAGE),
            "page": str(number),
            "sort": "created_at",
            "direction": direction,
        }
        return await self._get("list", "caches", _page, params)

    async def delete(self, entry_id: int) -> bool:
        """Delete an entry by its id; False if it was gone already."""
        call = Call(
            kind="delete",
            method="DELETE",
            url=f"{self._url}/caches/{entry_id}",
            headers=self._headers,
            follow=True,
        )
        return await self._http.ask(call, _deleted)

    async def limits(self) -> StoreLimits:
        """Ask how full the cache is, and how full it may be."""
        used = await self._get("limits", "cache/usage", _used)
        return StoreLimits(used, await self._get("limits", "cache/storage-limit", _limit))

    async def _get(
        self,
        kind: str,
        path: str,
        understand: Callable[[Answer], _T],
        params: Mapping[str, str] | None = None,
    ) -> _T:
        call = Call(
            kind=kind,
            method="GET",
            url=f"{self._url}/{path}",
            headers=self._headers,
            params=params,
            follow=True,
        )
        return await self._http.ask(call, understand)


def _holds_all(first: _Page, shown: Mapping[int, StoredEntry]) -> bool:
    """Tell whether all entries are there that the first answer counted.

    Those created later than the newest on the first page were not counted.
    """
    newest = max((entry.created_at for entry in first.entries.values()), default=None)
    counted = sum(newest is None or entry.created_at <= newest for entry in shown.values())
    return counted == first.total


def _listing(entries: Mapping[int, StoredEntry], *, complete: bool) -> Listing:
    return Listing(tuple(entries[key] for key in sorted(entries)), complete)


def _page(answer: Answer) -> _Page:
    _check(answer, "refused the list of caches")
    if answer.status == HTTPStatus.NOT_FOUND:
        raise StoreError(
            "GitHub's API does not know the repository (HTTP 404): check GITHUB_REPOSITORY, "
            "and that GITHUB_TOKEN may read it"
        )
    if answer.status != HTTPStatus.OK:
        raise refused(answer)
    body = parse(answer, _PageBody)
    pages = max(1, -(-body.total_count // PAGE), _linked(answer))
    if pages > MAX_PAGES:
        raise StoreError(
            f"{answer.place} claims {body.total_count:,} entries on {pages:,} pages; "
            f"more than {MAX_PAGES:,} are not read"
        )
    entries = {entry.id: _entry(answer, entry) for entry in body.actions_caches}
    return _Page(body.total_count, entries, pages)


def _linked(answer: Answer) -> int:
    """Give the highest page number that the header `Link` names; 0 without one."""
    highest = 0
    for url, _ in _NEXT_LINK.findall(answer.headers.get("link", "")[:10_000]):
        for number in parse_qs(urlsplit(url).query).get("page", []):
            if number.isascii() and number.isdigit():
                highest = max(highest, int(number[:9]))
    return highest


def _deleted(answer: Answer) -> bool:
    if answer.status == HTTPStatus.NOT_FOUND:
        return False
    _check(answer, "refused to delete")
    if answer.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.OK):
        raise refused(answer)
    if answer.content:
        # A proxy's page, say. If the entry is gone all the same, the next attempt tells.
        raise senseless(answer, "it says something where nothing is to be said")
    return True


def _check(answer: Answer, what: str) -> None:
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise StoreError(
            f"GitHub's API {what} (HTTP {answer.status}): "
            "GITHUB_TOKEN needs the permission `actions: write`"
        )


def _used(answer: Answer) -> int:
    if answer.status != HTTPStatus.OK:
        raise refused(answer)
    return parse(answer, _Usage).active_caches_size_in_bytes


def _limit(answer: Answer) -> int:
    """Read the limit; older servers have none, and it takes an administrator's token to read it."""
    if answer.status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
        return DEFAULT_LIMIT
    if answer.status != HTTPStatus.OK:
        raise refused(answer)
    return parse(answer, _StorageLimit).max_cache_size_gb * 10**9


def _entry(answer: Answer, entry: _Entry) -> StoredEntry:
    try:
        return StoredEntry(
            id=entry.id,
            ref=Ref(entry.ref),
            key=entry.key,
            version=entry.version,
            size=entry.size_in_bytes,
            created_at=_time(entry.created_at),
            last_accessed_at=_time(entry.last_accessed_at),
            parsed=parse_key(entry.key) if entry.version == ENTRY_VERSION else None,
        )
    except OverflowError:
        raise senseless(answer, f"entry {entry.id} is from no time") from None


def _time(moment: datetime) -> datetime:
    """Read a time. Raises OverflowError if no grace period can be added to it."""
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if utc.year > _LAST_YEAR:
        raise OverflowError
    return utc
