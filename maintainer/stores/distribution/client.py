"""Requests to one repository of a registry.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from http import HTTPStatus

import httpx2
import msgspec

from maintainer.cacheconfig import NO_CONTENT, Digest, content_digest, matches
from maintainer.cacheconfig.keys import is_digest
from maintainer.cacheconfig.oci import MANIFEST_TYPES
from maintainer.decoding import JSON_ERRORS, decode_json
from maintainer.errors import StoreError, UnreadableError
from maintainer.model.doubt import Cause
from maintainer.stores.distribution.auth import CATALOG, Authorizer, DeniedError
from maintainer.stores.distribution.credentials import Credentials
from maintainer.stores.distribution.names import Repository, is_repository, is_tag
from maintainer.stores.http.answers import (
    Answer,
    MalformedAnswerError,
    malformed,
    parse,
    refused,
)
from maintainer.stores.http.client import Call, Http, download_of
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.http.retry import PlainHttpError

Recheck = Callable[[], Awaitable[None]]
"""Raises StoreError if a request must not be sent again."""
PULL, PUSH, DELETE = "pull", "pull,push", "delete"
MANIFEST_LIMIT = 4 * 1024 * 1024
"""Bytes; registries take no larger manifests."""
_MAX_PAGES = 1_000
_MAX_TAGS = _MAX_REPOSITORIES = 100_000
_LINK = re.compile(r"[\s,]*<([^>]*)>")
_LINK_PARAMETER = re.compile(
    r"""\s*;\s*(?:([\w!#$&+.^`|~*-]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*)?)?"""
)
_OTHER_PAGES = frozenset({"first", "last", "prev", "previous", "self", "start"})
_ACCEPT = {"Accept": ", ".join(sorted(MANIFEST_TYPES))}
_NO_SUCH = frozenset({HTTPStatus.NOT_FOUND})
_BLOB_UNKNOWN = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND})
_UNKNOWN = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"})
_ANY_REFUSAL = frozenset(range(400, 500))
_NO_SUCH_LIST = (frozenset(range(300, 500)) | {501, 505}) - {HTTPStatus.TOO_MANY_REQUESTS}
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


@dataclass(frozen=True, slots=True)
class Head:
    """What a tag points to."""

    digest: Digest
    media_type: str


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest, as it is stored."""

    digest: Digest
    content: bytes


class DeletionRefusedError(StoreError):
    """The registry, or this user, may not delete manifests."""


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class _Catalog(msgspec.Struct):
    repositories: list[str] | None = None


class _Referrers(msgspec.Struct):
    manifests: list[msgspec.Raw] | None = None


class _Type(msgspec.Struct, rename="camel"):
    media_type: str = ""


class BlobUnknownError(StoreError):
    """The registry has not all blobs that a manifest references."""


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] | None = None


class Client:
    """One repository."""

    def __init__(
        self, http: Http, repository: Repository, find: Callable[[], Awaitable[Credentials | None]]
    ) -> None:
        self._http = http
        self._base = httpx2.URL(f"{repository.url}/v2/{repository.name}/")
        self._authorizer = Authorizer(http, repository, find)

    @property
    def requests(self) -> RequestLog:
        """The requests so far."""
        return self._http.requests

    async def tags(self, go_on: Callable[[], None] = lambda: None) -> list[str] | None:
        """List all tags, in order; None if there is no such repository.

        `go_on` is called after each page, and may raise StoreError.
        """
        found: set[str] = set()
        async with aclosing(self._pages("tags/list", "tags", PULL, _NO_SUCH)) as pages:
            async for answer in pages:
                go_on()
                if answer.status == HTTPStatus.NOT_FOUND:
                    return None
                found.update(filter(is_tag, parse(answer, _Tags).tags or ()))
                if len(found) > _MAX_TAGS:
                    raise StoreError(f"{self._base.path} has more than {_MAX_TAGS:,} tags")
        return sorted(found)

    async def catalog(self) -> list[str]:
        """List the repositories of the registry that this user may see."""
        found: set[str] = set()
        async for answer in self._pages("/v2/_catalog?n=1000", "repositories", CATALOG):
            found.update(filter(is_repository, parse(answer, _Catalog).repositories or ()))
            if len(found) > _MAX_REPOSITORIES:
                raise StoreError(
                    f"{self._base.host} has more than {_MAX_REPOSITORIES:,} repositories"
                )
        return sorted(found)

    async def _pages(
        self, path: str, what: str, actions: str, also: Collection[int] = ()
    ) -> AsyncGenerator[Answer]:
        """Read a list page by page. Raises StoreError if it does not end."""
        seen: set[str] = set()
        url: httpx2.URL | None = self._base.join(path)
        while url:
            if str(url) in seen or len(seen) == _MAX_PAGES:
                raise StoreError(f"the list of {what} of {self._base.host} does not end")
            seen.add(str(url))
            answer = await self._send(Call(kind="list", method="GET", url=url), actions, also)
            yield answer
            url = self._next(answer, url)

    def _next(self, answer: Answer, here: httpx2.URL) -> httpx2.URL | None:
        """Return the next page, which is a part of the same list."""
        link = _next_of(answer, here)
        if link is None:
            return None
        try:
            url = here.join(link)
        except httpx2.InvalidURL:
            raise malformed(answer, "it links to no page") from None
        if not self._is_ours(url) or url.path != here.path:
            raise malformed(answer, "it links to another list")
        return url

    def _is_ours(self, url: httpx2.URL) -> bool:
        ours = self._base
        return (url.scheme, url.host, url.port) == (ours.scheme, ours.host, ours.port)

    async def head(self, reference: str) -> Head | None:
        """Return what a tag or digest points to; None if there is nothing."""
        answer = await self._head(reference)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
        if digest := _digest_of(answer):
            return Head(digest, media_type)
        document = await self.manifest(reference)
        return Head(document.digest, media_type) if document else None

    async def _head(self, reference: str) -> Answer:
        url = self._base.join(f"manifests/{reference}")
        call = Call(kind="look-up", method="HEAD", url=url, headers=_ACCEPT, start=True)
        return await self._send(call, PULL, _NO_SUCH)

    async def manifest(self, reference: str) -> Document | None:
        """Read the manifest of a tag or digest; None if there is none.

        Raises UnreadableError if it is too large.
        """
        url = self._base.join(f"manifests/{reference}")
        call = download_of(url, limit=MANIFEST_LIMIT, headers=_ACCEPT, follow=False)
        answer = await self._send(call, PULL, _NO_SUCH)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        wanted = Digest(reference) if is_digest(reference) else _digest_of(answer)
        if wanted is None:
            # An answer without a digest may be anybody's: a second one must not contradict it.
            wanted = _digest_of(await self._head(reference))
        digest = wanted or content_digest(answer.content)
        if not matches(digest, answer.content):
            problem = f"the content of {digest} is another one"
            raise UnreadableError(Cause.OTHER_SIZE, problem)
        return Document(digest, answer.content)

    async def has_referrers(self, digest: Digest) -> bool:
        """Whether something is stored that is about a manifest, such as a signature.

        Registries without this list, which is newer than the others, answer anything. Raises
        StoreError if one says that it fails itself.
        """
        url = self._base.join(f"referrers/{digest}")
        call = replace(download_of(url, limit=MANIFEST_LIMIT, follow=False), once=True)
        try:
            answer = await self._send(call, PULL, _NO_SUCH_LIST)
            return answer.is_success and bool(parse(answer, _Referrers).manifests)
        except UnreadableError:
            return True  # It is long.
        except (DeniedError, MalformedAnswerError):
            return False

    async def has_blob(self, digest: Digest) -> bool:
        """Whether a blob is stored: it is not if HEAD and GET, which builds use, say so.

        Nor is it if both show that it is empty and should not be.
        """
        return await self._shows_blob("HEAD", digest) or await self._shows_blob("GET", digest)

    async def _shows_blob(self, method: str, digest: Digest) -> bool:
        url = self._base.join(f"blobs/{digest}")
        call = Call(kind="look-up", method=method, url=url, follow=True, start=True)
        answer = await self._send(call, PULL, _NO_SUCH)
        is_empty = answer.headers.get("content-length") == "0"
        return answer.is_success and (not is_empty or digest == NO_CONTENT)

    async def blob(self, digest: Digest, *, limit: int) -> bytes | None:
        """Read a small blob, unchecked; None if there is none. Raises UnreadableError."""
        url = self._base.join(f"blobs/{digest}")
        answer = await self._send(download_of(url, limit=limit), PULL, _NO_SUCH)
        return answer.content if answer.is_success else None

    async def push_blob(self, content: bytes) -> None:
        """Store a small blob."""
        digest = content_digest(content)
        if await self._shows_blob("HEAD", digest):
            return
        begin = Call(kind="reserve", method="POST", url=self._base.join("blobs/uploads/"))
        answer = await self._send(begin, PUSH)
        url = self._place_of_upload(answer).copy_merge_params({"digest": digest})
        headers = {"Content-Type": "application/octet-stream"}
        call = Call(kind="upload", method="PUT", url=url, headers=headers, content=content)
        await self._send(call, PUSH)

    def _place_of_upload(self, answer: Answer) -> httpx2.URL:
        """Return where to send a blob: it may be another host, which gets no token."""
        location = answer.headers.get("location", "")
        try:
            url = self._base.join(location)
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if not location or not url.host or url.scheme not in (self._base.scheme, "https"):
            raise malformed(answer, "it names no place for the upload")
        return url

    async def push_manifest(self, tag: str, content: bytes, recheck: Recheck) -> None:
        """Store a manifest under a tag, whatever is there. Raises BlobUnknownError."""
        url = self._base.join(f"manifests/{tag}")
        media_type = decode_json(content, _Type).media_type
        headers = {"Content-Type": media_type}
        call = Call(kind="finalize", method="PUT", url=url, headers=headers, content=content)
        answer = await self._send(replace(call, recheck=recheck), PUSH, _BLOB_UNKNOWN)
        if not answer.is_success:
            problem = refused(answer, self._message(answer))
            is_unknown = any(one.code in _UNKNOWN for one in _errors(answer))
            raise BlobUnknownError(str(problem)) if is_unknown else problem

    async def delete_manifest(self, digest: Digest, recheck: Recheck | None = None) -> bool:
        """Delete a manifest, and all tags that point to it; return False if there was none.

        Raises DeletionRefusedError if the registry, or this user, may not delete any.
        """
        url = self._base.join(f"manifests/{digest}")
        call = Call(kind="delete", method="DELETE", url=url, recheck=recheck)
        try:
            answer = await self._send(call, DELETE, _ANY_REFUSAL)
        except DeniedError as error:
            raise DeletionRefusedError(str(error)) from None
        if answer.is_success or answer.status == HTTPStatus.NOT_FOUND:
            # If the answer to an earlier attempt was lost, that one has deleted it.
            return answer.is_success or answer.in_doubt
        raise DeletionRefusedError(str(refused(answer, self._message(answer))))

    async def why_not_deletable(self, unknown: Digest) -> str | None:
        """Return why manifests cannot be deleted, by asking for one that does not exist."""
        try:
            await self.delete_manifest(unknown)
        except DeletionRefusedError as error:
            return str(error)
        return None

    async def _send(self, call: Call, actions: str, also: Collection[int] = ()) -> Answer:
        """Send a request, with the token that it needs. Raises StoreError for other answers."""
        header = self._authorizer.header(actions)
        answer = await self._ask(call, header)
        # Another host, to which a blob was redirected, must not say where a password goes.
        is_theirs = self._is_ours(answer.redirected_to or answer.request.url)
        if answer.status == HTTPStatus.UNAUTHORIZED and is_theirs:
            header = await self._authorizer.renew(actions, header, answer)
            if call.recheck:
                await call.recheck()
            answer = await self._ask(call, header)
        if answer.status in _REFUSED and answer.status not in also:
            raise self._authorizer.denied(answer)
        if not answer.is_success and answer.status not in also:
            raise refused(answer, self._message(answer))
        return answer

    async def _ask(self, call: Call, header: str | None) -> Answer:
        try:
            return await self._http.send(self._authorized(call, header), _unread)
        except PlainHttpError as error:
            if not self._is_ours(httpx2.URL(call.url)):
                raise
            advice = "if it speaks plain HTTP, add `?insecure=true` to its address"
            raise StoreError(f"{error}: {advice}") from None

    def _message(self, answer: Answer) -> str:
        """Return what a registry says, unless it repeats what it must not."""
        said = ", ".join(one.message for one in _errors(answer))
        return "" if self._authorizer.is_repeated_in(said) else said

    def _authorized(self, call: Call, header: str | None) -> Call:
        """Add a token to a request, if it goes to the registry itself."""
        if header is None or not self._is_ours(httpx2.URL(call.url)):
            return call
        headers: Mapping[str, str] = {**call.headers, "Authorization": header}
        return replace(call, headers=headers)


def _unread(answer: Answer) -> Answer:
    if answer.is_success and answer.headers.get("content-type", "").startswith("text/html"):
        # A proxy's: it would pass for a blob that exists, or a tag that is no cache.
        raise malformed(answer, "it is a page for people")
    return answer


def _next_of(answer: Answer, here: httpx2.URL) -> str | None:
    """Return where the next page is; None if this is the last one. Raises MalformedAnswerError.

    Source: RFC 8288, section 3. httpx's own parser ends at a semicolon within a URL.
    """
    text, place = answer.headers.get("link", ""), 0
    while link := _LINK.match(text, place):
        place, relations = link.end(), set[str]()
        while parameter := _LINK_PARAMETER.match(text, place):
            place = parameter.end()
            if (parameter[1] or "").lower() == "rel":
                relations.update((parameter[2] or "").strip("\"'").lower().split())
        if "next" in relations:
            return link[1]
        if not relations & _OTHER_PAGES and _path_of(link[1], here) == here.path:
            raise malformed(answer, "its Link header may be that of a next page")
    if text[place:].strip(" ,"):
        raise malformed(answer, "its Link header is not valid")
    return None


def _path_of(link: str, here: httpx2.URL) -> str:
    try:
        return here.join(link).path
    except (httpx2.InvalidURL, ValueError):
        return ""


def _digest_of(answer: Answer) -> Digest | None:
    said = answer.headers.get("docker-content-digest", "")
    return Digest(said) if is_digest(said) else None


def _errors(answer: Answer) -> Sequence[_Error]:
    """Return the first errors that the registry reports in the form of the protocol."""
    try:
        return (decode_json(answer.content, _Errors).errors or [])[:3]
    except JSON_ERRORS:
        return ()
