"""GitHub's REST API: the list of a repository's cache entries, and their deletion.

Source: https://docs.github.com/rest/actions/cache
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, TypeVar
from urllib.parse import quote

import msgspec
from aiolimiter import AsyncLimiter

from maintainer.cacheconfig import ENTRY_VERSION, IndexKey, Ref, hash_ref, parse_key
from maintainer.concurrency import MAX_CONCURRENT, for_each
from maintainer.errors import RefusedError, StoreError, UnknownCacheError
from maintainer.model.entry import LONG_AGO, Listing, StoredEntry, StoreLimits
from maintainer.spool import Mapped, NumberSet, Spool
from maintainer.stores.github.credentials import Credentials, forget_token
from maintainer.stores.github.keyed import MAX_NAME_LENGTH, PAGE
from maintainer.stores.github.pages import linked_pages
from maintainer.stores.http.answers import Answer, malformed, parse, refused, to_utc
from maintainer.stores.http.client import Call, Http

log = logging.getLogger(__name__)

_T = TypeVar("_T")

MAX_PAGES = 10_000
"""A million entries; a list that claims more is refused."""
DELETIONS_A_MINUTE = 180
"""GitHub's secondary limit is 900 points a minute, of which a deletion costs five."""

_PASSES = 3
_MAX_PAGES_READ = 4 * MAX_CONCURRENT
"""The most pages in memory: more than are read concurrently, so that few wait for a slow one."""

_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Gigabytes = Annotated[int, msgspec.Meta(gt=0, le=10**9)]
_LARGEST = 2**40
"""Bytes. A sum of sizes is stored, too."""
_FIRST_YEAR = 2019
"""Of GitHub's cache: an earlier time is none."""
_UNKNOWN_REF = Ref("unknown")


class _Entry(msgspec.Struct, frozen=True):
    """An entry as GitHub lists it. Its description has every field optional."""

    id: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)] | None = None
    key: _Name | None = None
    ref: _Name | None = None
    version: _Name | None = None
    size_in_bytes: _Size | None = None
    created_at: datetime | None = None
    last_accessed_at: datetime | None = None


class _PageBody(msgspec.Struct, frozen=True):
    total_count: _Size
    actions_caches: list[_Entry | None]


class _Page(msgspec.Struct, frozen=True):
    total: int
    entries: dict[int, StoredEntry]
    pages: int
    """How many there must be, by the total and by the links."""
    is_whole: bool
    """Whether all of its entries are known as far as they must be."""


class _StorageLimit(msgspec.Struct):
    """Of a repository on github.com."""

    max_cache_size_gb: _Gigabytes


class _UsagePolicy(msgspec.Struct):
    """Of a repository on an Enterprise Server."""

    repo_cache_size_limit_in_gb: _Gigabytes


class _RetentionLimit(msgspec.Struct):
    max_cache_retention_days: Annotated[int, msgspec.Meta(gt=0, le=3650)]


_DEFAULT = _RetentionLimit(7)
ASSUMED = StoreLimits(10 * 10**9, is_assumed=True)
"""GitHub's default, where it may not be asked."""


class Rest:
    """The part of the REST API that a run needs; the list does not make an entry look used."""

    def __init__(
        self,
        http: Http,
        api_url: str,
        repository: str,
        credentials: Credentials,
        *,
        tags: frozenset[Ref] = frozenset(),
        deletions_a_minute: int | None = DELETIONS_A_MINUTE,
    ) -> None:
        """Speak for a repository, by credentials for this API; `tags` are the tags that it reads.

        `deletions_a_minute` are evenly paced; None for a server that sets no such limit.
        """
        self.deletions_a_minute = deletions_a_minute
        self._http = http
        self._credentials = credentials
        self._tags = _Tags(tags)
        self._pace = AsyncLimiter(1, 60 / deletions_a_minute) if deletions_a_minute else None
        self._repository_url = f"{api_url.rstrip('/')}/repos/{quote(repository)}"
        self._url = f"{self._repository_url}/actions"

    async def list_entries(self) -> Listing:
        """List all entries, in as few pages as there can be, unless some come or go.

        The first page holds the newest hundred entries and the total. The others are read
        concurrently, in the order of creation, so that new entries move nothing. But offset paging
        shifts: when an entry is deleted, those after it move to earlier pages, and are missed if
        these were already read. Whatever makes the list miss an entry (pages that repeat or omit,
        ties sorted differently each time), it then has fewer entries than the total. So it is read
        again: page by page, the last page first, so that deletions move entries to unread pages.
        """
        passes: list[_Pass] = []
        for number in range(_PASSES):
            shown = await self._read_in_order() if number else await self._read_concurrently()
            if shown.holds_all:
                return Listing(self._tags.spell(shown.entries), complete=shown.is_whole)
            passes.append(shown)
            if not shown.is_whole:
                break
        return Listing(self._tags.spell(_united(passes)), complete=False)

    async def list_last(
        self, prefix: str, sort: str, number: int = 1, ref: Ref | None = None
    ) -> tuple[StoredEntry, ...]:
        """List a hundred entries of a ref, or of all, whose keys start with `prefix`, the last by
        `sort` first.
        """
        params = {"per_page": str(PAGE), "sort": sort, "direction": "desc"}
        if prefix:
            params["key"] = prefix
        if ref:
            params["ref"] = ref
        if number > 1:
            params["page"] = str(number)
        page = await self._get("recheck", "caches", _read_page, params)
        if not page.is_whole:
            raise StoreError("GitHub's API lists entries of BuildKit that lack what must be known")
        return tuple(self._tags.spell(page.entries.values()))

    async def ask(self, path: str, parse_answer: Callable[[Answer], _T]) -> _T:
        """Ask for what is at a path below the repository: a pull request, a branch, a tag."""
        url = f"{self._repository_url}/{path}" if path else self._repository_url
        call = Call(
            kind="refs",
            method="GET",
            url=url,
            headers=await self._credentials.headers(self._http),
            token_env=self._credentials.name,
            follow=True,
        )
        return await self._http.send(call, parse_answer)

    async def _read_concurrently(self) -> "_Pass":
        """Read the first page, then concurrently the pages of the entries that are not on it."""
        first = await self._page(1, "desc")
        shown = _Pass(first, in_order=False)
        older = range(first.pages - 1, 0, -1)
        for start in range(0, len(older), _MAX_PAGES_READ):
            pages = await for_each(self._older, older[start : start + _MAX_PAGES_READ])
            for page in pages:
                shown.add(page)
            if not any(page.entries for page in pages):
                break  # The total, or the link to the last page, is wrong.
        return shown

    async def _read_in_order(self) -> "_Pass":
        """Read all pages one by one, including the entries that should be on the first."""
        first = await self._page(1, "desc")
        shown = _Pass(first, in_order=True)
        empty = 0
        for number in range(first.pages, 0, -1):
            page = await self._older(number)
            shown.add(page)
            empty = 0 if page.entries else empty + 1
            if empty == MAX_CONCURRENT:
                break
        return shown

    async def _older(self, number: int) -> _Page:
        return await self._page(number, "asc")

    async def _page(self, number: int, direction: str) -> _Page:
        params = {
            "per_page": str(PAGE),
            "page": str(number),
            "sort": "created_at",
            "direction": direction,
        }
        return await self._get("list", "caches", _read_page, params)

    async def delete(self, entry_id: int) -> bool:
        """Delete an entry by its id, at the allowed rate; return False if it was gone already."""
        call = Call(
            kind="delete",
            method="DELETE",
            url=f"{self._url}/caches/{entry_id}",
            headers=await self._credentials.headers(self._http),
            token_env=self._credentials.name,
            pace=self._pace,
            follow=True,
        )
        return await self._http.send(call, _read_deletion)

    async def limits(self) -> StoreLimits:
        """Ask for the quota and the retention: up to three requests. What is refused is assumed."""
        quota = await self._limit("cache/storage-limit", _StorageLimit)
        if quota is None:
            policy = await self._limit("cache/usage-policy", _UsagePolicy)
            size = policy.repo_cache_size_limit_in_gb if policy else None
        else:
            size = quota.max_cache_size_gb
        return StoreLimits(
            quota=size * 10**9 if size else ASSUMED.quota,
            retention=await self.retention(),
            is_assumed=size is None,
        )

    async def retention(self) -> timedelta | None:
        """Ask how long an unused entry is kept; None if the server does not know or say it.

        Where the token may not ask, it is GitHub's default: a server that refuses has a limit.
        """
        kept = await self._limit("cache/retention-limit", _RetentionLimit, refused=_DEFAULT)
        return timedelta(days=kept.max_cache_retention_days) if kept else None

    async def _limit(self, path: str, kind: type[_T], refused: _T | None = None) -> _T | None:
        """Ask for a limit; `refused` if the token may not, None if the server does not say it."""

        def parse_answer(answer: Answer) -> _T | None:
            if answer.status == HTTPStatus.FORBIDDEN:
                return refused
            return parse(answer, kind) if answer.status == HTTPStatus.OK else None

        try:
            return await self._get("limits", path, parse_answer)
        except StoreError as error:
            log.info("%s: %s", path, error)
            return None

    async def _get(
        self,
        kind: str,
        path: str,
        parse_answer: Callable[[Answer], _T],
        params: Mapping[str, str] | None = None,
    ) -> _T:
        call = Call(
            kind=kind,
            method="GET",
            url=f"{self._url}/{path}",
            headers=await self._credentials.headers(self._http),
            token_env=self._credentials.name,
            params=params,
            follow=True,
            once=kind == "limits",
        )
        return await self._http.send(call, parse_answer)


class _Pass:
    """What one reading of all pages has shown."""

    def __init__(self, first: _Page, *, in_order: bool) -> None:
        self.entries = Spool()
        self.is_whole = True
        self._total = first.total
        self._newest = max((entry.created_at for entry in first.entries.values()), default=None)
        self._in_order = in_order
        self._counted = len(first.entries)
        self._ids = NumberSet()
        self._add(first)

    def add(self, page: _Page) -> None:
        """Add a page after the first."""
        self._counted += sum(map(self._was_there, self._add(page)))

    @property
    def holds_all(self) -> bool:
        """Whether all entries are there that the first answer counted."""
        return self._counted == self._total

    def _add(self, page: _Page) -> Sequence[StoredEntry]:
        """Add a page; return those of its entries that are new."""
        new = [entry for entry in page.entries.values() if self._ids.add(entry.id)]
        self.entries.add(new)
        self.is_whole = self.is_whole and page.is_whole
        return new

    def _was_there(self, entry: StoredEntry) -> bool:
        """Whether an entry existed when the first page was read.

        An entry that was stored since is newer than all of that page, or as new as its newest. If
        pages are read concurrently, such a tie does not count: otherwise a new entry could make up
        for a missed one. Pages that are read in order miss nothing because of deletions.
        """
        if self._newest is None or entry.created_at == self._newest:
            return self._in_order
        return entry.created_at < self._newest


def _united(passes: Iterable[_Pass]) -> Spool:
    """Return what any of several readings has shown, as the last that showed it did."""
    united = Spool()
    shown = NumberSet()
    for one in reversed(list(passes)):
        for entry in one.entries:
            if shown.add(entry.id):
                united.add([entry])
    return united


class _Tags:
    """Spells the refs of tags as tokens do.

    The list may say `refs/heads/refs/tags/v1` for the tag that tokens call `refs/tags/v1`. A branch
    may have such a name too. The key of an index tells which it is; that of a blob does not, so
    where there is such a branch, blobs are taken for its own.
    """

    def __init__(self, tags: frozenset[Ref]) -> None:
        """Begin; `tags` are those whose caches the token reads."""
        self._tags = tags
        self._branches: set[Ref] = set()

    def spell(self, entries: Iterable[StoredEntry]) -> Iterable[StoredEntry]:
        """Return entries with the refs that tokens name. They are read twice, if there are tags."""
        if not self._tags:
            return entries
        for entry in entries:
            key = entry.parsed
            if isinstance(key, IndexKey) and key.ref_hash == hash_ref(entry.ref):
                self._branches.add(entry.ref)
        return Mapped(entries, self._spell)

    def _spell(self, entry: StoredEntry) -> StoredEntry:
        tag = Ref(entry.ref.removeprefix("refs/heads/"))
        if tag == entry.ref or tag not in self._tags:
            return entry
        if isinstance(entry.parsed, IndexKey):
            is_tag = entry.parsed.ref_hash == hash_ref(tag)
        else:
            is_tag = entry.ref not in self._branches
        return msgspec.structs.replace(entry, ref=tag) if is_tag else entry


def _read_page(answer: Answer) -> _Page:
    """Read one page of the list."""
    _check(answer, "refused the list of caches", "actions: read")
    if answer.status == HTTPStatus.NOT_FOUND:
        raise UnknownCacheError(
            "GitHub's API does not know the repository (HTTP 404): check its name, and that "
            f"{answer.token_env} may read it"
        )
    if answer.status != HTTPStatus.OK:
        raise refused(answer)
    body = parse(answer, _PageBody)
    pages = max(1, -(-body.total_count // PAGE), linked_pages(answer))
    if pages > MAX_PAGES:
        raise StoreError(
            f"{answer.place} claims {body.total_count:,} entries on {pages:,} pages; "
            f"more than {MAX_PAGES:,} are not read"
        )
    read = [_entry(entry or _Entry()) for entry in body.actions_caches]
    entries = {entry.id: entry for entry in read if entry}
    return _Page(body.total_count, entries, pages, is_whole=None not in read)


def _read_deletion(answer: Answer) -> bool:
    """Read whether an entry was deleted, or was gone already.

    If the answer to an earlier attempt was lost, that one has deleted it.
    """
    if answer.status == HTTPStatus.NOT_FOUND:
        return answer.in_doubt
    _check(answer, "refused to delete", "actions: write")
    if answer.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.OK):
        raise refused(answer)
    if answer.content:
        # A proxy's page, say. If the entry is gone nevertheless, the next attempt shows it.
        raise malformed(answer, "it says something where nothing is to be said")
    return True


def _check(answer: Answer, what: str, permission: str) -> None:
    """Raise RefusedError if the token is refused; StoreError if an earlier attempt may not be."""
    refusal = StoreError if answer.in_doubt else RefusedError
    if answer.status == HTTPStatus.UNAUTHORIZED:
        forget_token(answer)
        raise refusal(
            f"GitHub's API {what} (HTTP 401): {answer.token_env} holds no token that it knows, "
            "or one that has expired"
        )
    if answer.status == HTTPStatus.FORBIDDEN:
        raise refusal(
            f"GitHub's API {what} (HTTP 403): the token in {answer.token_env} needs the "
            f"permission `{permission}`"
        )


def _entry(entry: _Entry) -> StoredEntry | None:
    """Return an entry; None if one that may be ours lacks what must be known of it.

    Of another tool's entry, what is not known is taken for nothing, or for long ago; it is listed
    under a number by which nobody deletes it.
    """
    created_at, accessed_at = _known_time(entry.created_at), _known_time(entry.last_accessed_at)
    times = created_at, accessed_at
    known = (entry.id, entry.key, entry.ref, entry.version, entry.size_in_bytes, *times)
    parsed = None if entry.key is None else parse_key(entry.key)
    of_our_kind = entry.key is None or parsed is not None
    may_be_ours = of_our_kind and entry.version in (None, ENTRY_VERSION)
    if may_be_ours and None in known:
        log.warning("entry %s of the list lacks what must be known of it", entry.id or "")
        return None
    return StoredEntry(
        id=_stand_in(entry) if entry.id is None or entry.ref is None or None in times else entry.id,
        ref=Ref(entry.ref or _UNKNOWN_REF),
        key=entry.key or "",
        version=entry.version or "",
        size=min(entry.size_in_bytes or 0, _LARGEST),
        created_at=created_at or accessed_at or LONG_AGO,
        last_accessed_at=accessed_at or created_at or LONG_AGO,
        parsed=parsed if may_be_ours else None,
    )


def _known_time(moment: datetime | None) -> datetime | None:
    at = to_utc(moment)
    return at if at and at.year >= _FIRST_YEAR else None


def _stand_in(entry: _Entry) -> int:
    """Return a number for an entry of another tool that is listed without its id, ref or times.

    It is negative, as no id is, and the same in each run; nobody deletes such an entry.
    """
    name = repr((entry.ref, entry.key, entry.version)).encode("utf-8", "surrogatepass")
    return -1 - (int.from_bytes(hashlib.sha256(name).digest()[:8]) >> 1)
