"""Requests to a container, with the credentials that BuildKit takes; none of them is kept here."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, TypeVar

import anyio
from aiohttp import ClientError as BodyError
from azure.core import MatchConditions
from azure.core.async_paging import AsyncItemPaged
from azure.core.credentials import AccessToken, AccessTokenInfo, AzureNamedKeyCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline import PipelineResponse
from azure.core.pipeline.transport import AsyncHttpResponse as AsyncHttpPart
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.identity.aio import DefaultAzureCredential
from azure.storage.blob import BlobProperties
from azure.storage.blob.aio import (
    BlobPrefix,
    ContainerClient,
    ExponentialRetry,
    StorageStreamDownloader,
)

from maintainer.errors import (
    ChangedError,
    EntryError,
    RefusedError,
    StoreError,
    UnknownCacheError,
    UnreadableError,
)
from maintainer.model.doubt import Cause
from maintainer.model.reason import BlobsArchived, DeletedKept, StoreNote, VersionsKept
from maintainer.sanitize import printable
from maintainer.stores.azblob.address import Address
from maintainer.stores.http.answers import to_utc
from maintainer.stores.http.dates import read_http_date
from maintainer.stores.objects.layout import Layout
from maintainer.stores.objects.requests import (
    CHUNK,
    MAX_SIZE,
    MissingError,
    Object,
    OtherError,
    Sender,
    connecting,
    folder_names,
    malformed,
    refuse_others,
)

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Response = PipelineResponse[HttpRequest, AsyncHttpResponse]

KEY = "AZURE_STORAGE_KEY"
"""The variable of the account key; Azure's own command line reads it, too."""
_WRONG_KEY = f"{KEY} is not a valid account key"
_NO_CREDENTIALS = (
    f"there are no Azure credentials: set {KEY} or AZURE_CLIENT_ID, AZURE_TENANT_ID and "
    "AZURE_CLIENT_SECRET, run `az login`, or run where an identity is attached"
)
_SCOPE = "https://storage.azure.com/.default"
_NOT_AS_EXPECTED = frozenset({"ConditionNotMet", "BlobAlreadyExists"})
_KEPT = {
    "LeaseIdMissing": "somebody holds a lease on it",
    "SnapshotsPresent": "it has snapshots, which would be deleted with it",
    "BlobImmutableDueToPolicy": "an immutability policy protects it",
}
"""Why the service deletes one blob and not another."""
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_PAGE = 5000
_RETRIES = 4
_WAITS = (0, 2, 10)
"""Seconds before each attempt to delete blobs: some of one request may fail, and others not."""


class Container(Sender):
    """One container."""

    def __init__(self, client: ContainerClient) -> None:
        super().__init__(client.container_name, _in_one_line)
        self._client = client
        self._archived: dict[str, int] = {}
        """How many blobs nobody can read, by the beginning of the names that were listed."""

    async def list(self, prefix: str) -> AsyncIterator[Sequence[Object]]:
        """List blobs, up to 5,000 at a time, in the order of their names."""
        self._archived[prefix] = 0
        headers: dict[str, str] = {}
        listed = partial(
            self._client.list_blobs,
            prefix,
            results_per_page=_PAGE,
            raw_response_hook=_keep_headers(headers),
        )
        async for page in self.pages(prefix, lambda marker: _read_page(listed(), marker)):
            self.requests.answered_at = read_http_date(headers.get("date", ""))
            found = [_object(one.name, one) for one in page if not _has_dots(one.name)]
            refuse_others(found, prefix)
            self._archived[prefix] += sum(not one.is_readable for one in found)
            yield found

    async def folders(self, prefix: str) -> AsyncIterator[Sequence[str]]:
        """List folders, page by page."""
        listed = partial(self._client.walk_blobs, prefix, delimiter="/", results_per_page=_PAGE)
        async for page in self.pages(prefix, lambda marker: _read_page(listed(), marker)):
            folders = [one.name for one in page if isinstance(one, BlobPrefix)]
            yield folder_names(folders, prefix)

    async def head(self, key: str) -> Object | None:
        """Look a blob up."""
        headers: dict[str, str] = {}
        blob = self._client.get_blob_client(key)
        try:
            call = blob.get_blob_properties(raw_response_hook=_keep_headers(headers))
            found = await self.send("look-up", key, call)
        except MissingError:
            return None
        return _object(key, found, read_http_date(headers.get("date", "")))

    async def get(
        self, key: str, *, limit: int, is_wanted: Callable[[bytes], bool] = bool
    ) -> tuple[Object, bytes] | None:
        """Read a blob of at most so many bytes, or only its beginning if it is not wanted."""
        try:
            call = self._client.download_blob(key)
            body: StorageStreamDownloader[bytes] = await self.send("download", key, call)
            found = _object(key, body.properties)
            content = await self.download(
                key, found.size, body.read, limit=limit, is_wanted=is_wanted
            )
        except MissingError:
            return None
        return found, content

    async def put(self, key: str, content: bytes, *, over: str | None) -> bool:
        """Write a blob on condition."""
        nothing = {"match_condition": MatchConditions.IfMissing}
        try:
            await self._upload(key, content, _only_over(over) or nothing)
        except (MissingError, OtherError):
            return False
        return True

    async def overwrite(self, key: str, content: bytes) -> None:
        """Write a blob, whatever is there."""
        await self._upload(key, content, {})

    async def _upload(self, key: str, content: bytes, condition: Mapping[str, Any]) -> None:
        blob = self._client.get_blob_client(key)
        call = blob.upload_blob(content, overwrite=True, length=len(content), **condition)
        await self.send("upload", key, call)

    async def delete(self, tags: Mapping[str, str | None]) -> Mapping[str, StoreError]:
        """Delete up to 256 blobs that nobody has written, or written about, since a look-up."""
        answers: dict[str, AsyncHttpPart] = {}
        retried: set[str] = set()
        for wait in _WAITS:
            if left := [key for key in tags if _is_open(answers.get(key))]:
                await anyio.sleep(wait)
                retried |= set(left) if wait else set()
                call = self._delete_all({key: tags[key] for key in left}, retried)
                try:
                    answers |= await self.send("delete", left[0], call)
                except RefusedError as error:
                    raise StoreError(str(error)) if retried else error from None
        problems = {key: _problem(key, answers.get(key), retried) for key in tags}
        return {key: problem for key, problem in problems.items() if problem}

    async def _delete_all(
        self, tags: Mapping[str, str | None], retried: set[str]
    ) -> Mapping[str, AsyncHttpPart]:
        """Delete blobs by one request; return the answer for each: they come in its order.

        If the SDK sends it again, they are added to `retried`.
        """
        deletions = [{"name": key, **_only_over(tag)} for key, tag in tags.items()]
        parts = await self._client.delete_blobs(
            *deletions, raise_on_any_failure=False, retry_hook=lambda **_: retried.update(tags)
        )
        return dict(zip(tags, [part async for part in parts], strict=False))

    async def notes(self, layout: Layout, now: datetime) -> tuple[StoreNote, ...]:
        """Read how the account is set up, as far as that is allowed; rules are not readable."""
        del now
        found: list[StoreNote] = []
        newest = self._client.list_blobs(layout.blobs, include=["versions"], results_per_page=1)
        page = await self.ask(_read_page(newest))
        if page and page[0] and page[0][0].version_id:
            found.append(VersionsKept())
        # The SDK has no other way from a container to its account.
        account = self._client._get_blob_service_client()  # noqa: SLF001
        properties = await self.ask(account.get_service_properties()) or {}
        kept = properties.get("delete_retention_policy")
        if kept and kept.enabled:
            found.append(DeletedKept(kept.days or 1))
        if archived := self._archived.get(layout.blobs, 0):
            found.append(BlobsArchived(archived))
        return tuple(found)


async def _read_page(
    listed: AsyncItemPaged[_T], marker: str | None = None
) -> tuple[list[_T], str | None]:
    """Read one page; return it, and the marker of the next one."""
    pages = listed.by_page(marker)
    page = [one async for one in await anext(pages)]
    return page, getattr(pages, "continuation_token", None) or None


def _only_over(tag: str | None) -> dict[str, Any]:
    return {"match_condition": MatchConditions.IfNotModified, "etag": tag} if tag else {}


def _has_dots(name: str) -> bool:
    """Whether a URL cannot express a name; BuildKit writes none of these."""
    return any(part in (".", "..") for part in name.split("/"))


def _object(key: str, found: BlobProperties, answered_at: datetime | None = None) -> Object:
    """Return what the service says about a blob; lists show its tag without quotes."""
    at = to_utc(found.last_modified)
    if at is None or not found.etag or not 0 <= (found.size or 0) <= MAX_SIZE or found.size is None:
        raise malformed(key)
    tag = '"' + found.etag.strip('"') + '"'
    readable = str(found.blob_tier) != "Archive"
    return Object(key, found.size, at, tag, answered_at, is_readable=readable)


def _keep_headers(headers: dict[str, str]) -> Callable[[_Response], None]:
    def keep(response: _Response) -> None:
        headers.update({k.lower(): v for k, v in response.http_response.headers.items()})

    return keep


class _KeptError(StoreError):
    """The service does not delete or write this one blob."""


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Turn the errors of the SDK into ours."""
    try:
        yield
    except HttpResponseError as error:
        raise _translate(what, error) from None
    except (AzureError, BodyError, OSError) as error:
        raise StoreError(f"{printable(what)}: {_first_line(error)}") from None
    except (AttributeError, KeyError, TypeError, ValueError, HTTPException):
        # The SDK takes answers apart without a check.
        log.debug("the SDK failed", exc_info=True)
        raise malformed(what) from None


def _translate(what: str, error: HttpResponseError) -> StoreError:
    if isinstance(error, ClientAuthenticationError) and error.response is None:
        log.debug("the SDK found no credentials: %s", printable(str(error)))
        return StoreError(_WRONG_KEY if KEY in os.environ else _NO_CREDENTIALS)
    code = getattr(error, "error_code", None) or error.status_code or ""
    code = str(getattr(code, "value", code))
    problem = f"{printable(what)}: {printable(code)}: {_first_line(error)}"
    if code == "BlobArchived":
        archived = f"{printable(what)} is archived: nobody can read it"
        return UnreadableError(Cause.NO_CONTENT, archived)
    if code == "ContainerNotFound":
        return UnknownCacheError(printable(code))
    if code in _KEPT:
        return _KeptError(f"{printable(what)}: {_KEPT[code]}")
    if code in _NOT_AS_EXPECTED:
        return OtherError(problem)
    kind = RefusedError if error.status_code in _REFUSED else StoreError
    return MissingError(problem) if code == "BlobNotFound" else kind(problem)


def _is_open(answer: AsyncHttpPart | None) -> bool:
    """Whether a deletion was not done, and may be if it is tried again."""
    return answer is None or answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR


def _problem(key: str, answer: AsyncHttpPart | None, retried: Collection[str]) -> StoreError | None:
    """Return what went wrong with a deletion, if something did.

    What was retried may have been carried out at first.
    """
    if answer is None:
        return malformed(key)
    code = answer.headers.get("x-ms-error-code", str(answer.status_code))
    if answer.status_code == HTTPStatus.ACCEPTED or code == "BlobNotFound":
        return None
    if code in _NOT_AS_EXPECTED:
        return ChangedError("a build has written it since it was looked up")
    if code in _KEPT:
        return ChangedError(f"{printable(key)}: {_KEPT[code]}")
    is_refused = answer.status_code in _REFUSED and key not in retried
    return (EntryError if is_refused else StoreError)(f"{printable(key)}: {printable(code)}")


def _first_line(error: Exception) -> str:
    return printable((str(getattr(error, "message", "") or error).splitlines() or [""])[0])


@asynccontextmanager
async def open_container(address: Address) -> AsyncIterator[Container]:
    """Connect to the container of a cache."""
    async with AsyncExitStack() as stack:
        with connecting(address.name), _in_one_line(address.name):
            client = ContainerClient(
                address.url,
                address.container,
                await _find_credential(address, stack),
                connection_timeout=10,
                read_timeout=60,
                # A policy belongs to one client: it knows where that sends requests.
                retry_policy=ExponentialRetry(1, increment_base=2, retry_total=_RETRIES),
                permit_redirects=False,
                max_single_get_size=CHUNK,
            )
        yield Container(await stack.enter_async_context(client))


class _StorageCredential(DefaultAzureCredential):
    """Gives tokens for storage only: the SDK asks for whatever the service names in a challenge."""

    async def get_token(self, *scopes: str, **more: Any) -> AccessToken:  # noqa: ANN401 - the SDK's
        _refuse_others(scopes)
        return await super().get_token(*scopes, **more)

    async def get_token_info(self, *scopes: str, **more: Any) -> AccessTokenInfo:  # noqa: ANN401
        _refuse_others(scopes)
        return await super().get_token_info(*scopes, **more)


def _refuse_others(scopes: Sequence[str]) -> None:
    if scopes != (_SCOPE,):
        named = printable(", ".join(scopes))
        raise StoreError(f"the service wants a token for {named}, which is not its own")


async def _find_credential(
    address: Address, stack: AsyncExitStack
) -> AzureNamedKeyCredential | _StorageCredential:
    if key := os.environ.get(KEY):
        return AzureNamedKeyCredential(address.account, key)
    if not address.url.startswith("https:"):
        raise StoreError(f"account_url must begin with https: without TLS only {KEY} is used")
    found = await stack.enter_async_context(_StorageCredential())
    # Requests would be retried without a token, as if the service were busy.
    await found.get_token(_SCOPE)
    return found
