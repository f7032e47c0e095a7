"""Requests that are counted, limited and retried."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from http import HTTPStatus
from ssl import SSLContext
from typing import Self, TypeVar
from urllib.request import getproxies

import anyio
import httpx2
from aiolimiter import AsyncLimiter
from anyio.to_thread import run_sync

from maintainer import __version__
from maintainer.concurrency import MAX_CONCURRENT
from maintainer.errors import DatabaseError, StoreError, UnreadableError
from maintainer.logs import keep_secrets_out_of_logs
from maintainer.model.allowance import Heard
from maintainer.model.doubt import Cause
from maintainer.stores.http.answers import (
    Answer,
    MalformedAnswerError,
    malformed,
    place,
)
from maintainer.stores.http.limits import (
    is_rate_limited,
    note_rate_limit,
    read_limit,
    requested_wait,
    service_now,
)
from maintainer.stores.http.redirects import redirected
from maintainer.stores.http.requests import REST_KINDS, RequestLog
from maintainer.stores.http.retry import FAILURES, Attempts, RetryPolicy, TryAgainError, failure
from maintainer.stores.http.shared_limit import SharedLimit
from maintainer.stores.http.transport import Transport

_T = TypeVar("_T")

MAX_ANSWER_SIZE = 16 * 1024 * 1024
"""Bytes of JSON; a page of a hundred entries has a hundredth of it."""
UPLOADS, UPLOADS_WITHIN = 100, timedelta(minutes=1)
"""GitHub allows 200 uploads a minute. A bucket of 100 that refills within a minute stays below that
in every minute, even if it was full when the minute began."""

_PLAIN = httpx2.Headers({"Accept-Encoding": "identity"})
_FIRST_BYTE = httpx2.Headers({"Accept-Encoding": "identity", "Range": "bytes=0-0"})
_USUAL_HEADERS = {
    "accept": (b"Accept", b"*/*"),
    "accept-encoding": (b"Accept-Encoding", b"gzip, deflate"),
    "user-agent": (b"User-Agent", f"maintainer/{__version__}".encode()),
}
"""What each request has, unless it has another one."""
_CONNECTING = 10.0
"""Seconds that a connection may take."""
_REDIRECTS = 5
_ENCODINGS = frozenset({"br", "compress", "deflate", "gzip", "x-compress", "x-gzip", "zstd"})
"""What changes content. Storages also state others that change nothing, such as `aws-chunked`."""
_NO_CONTENT = {"BlobNotFound", "NoSuchKey", "NoSuchVersion"}
_ERROR_CODE = re.compile(rb"<Code>(\w{1,64})</Code>", re.ASCII)
_ERROR_SIZE = 16 * 1024
"""Bytes of an error that are looked at."""
_RETRIED = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, with its retries."""

    kind: str
    """As it is counted."""
    method: str
    url: httpx2.URL | str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    params: Mapping[str, str] | None = field(repr=False, default=None)
    content: bytes | None = field(repr=False, default=None)
    follow: bool = False
    """Follow redirects, which never take the Authorization header to another host."""
    limit: int = MAX_ANSWER_SIZE
    """Bytes of the answer; what is larger is refused before it is read whole."""
    whole: bool = False
    """Refuse a response that does not show whether it is complete."""
    token_env: str = ""
    """The variable that holds the token in its headers, for messages."""
    start: bool = False
    """Read no more of a successful answer than its first piece, however long it is."""
    pace: AsyncLimiter | None = None
    """What each attempt waits for, where the service allows so many in a minute."""
    once: bool = False
    """Do not retry, because nothing depends on the answer."""
    recheck: Callable[[], Awaitable[None]] | None = None
    """Called before each retry, which may be minutes later: raises StoreError if it must not be."""


def download_of(
    url: httpx2.URL | str,
    *,
    limit: int,
    headers: Mapping[str, str] | None = None,
    follow: bool = True,
) -> Call:
    """Return the request that downloads all of at most `limit` bytes, as they are stored."""
    return Call(
        kind="download",
        method="GET",
        url=url,
        headers={**headers, **_PLAIN} if headers else _PLAIN,
        follow=follow,
        limit=limit,
        whole=True,
    )


def headers_for(token: str) -> httpx2.Headers:
    """Return the headers of a request to GitHub's REST API."""
    return httpx2.Headers(
        {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
    )


def _may_need_proxy() -> bool:
    """Whether the environment names a proxy. For which hosts it is, httpx2 knows."""
    return bool(getproxies().keys() - {"no"})


@cache
def trusted_certificates() -> SSLContext:
    """Return what a client trusts, read once: it takes as long as fifty requests."""
    return httpx2.create_ssl_context()


class Http:
    """The one client of a run: a shared pool, bounded concurrency, time-outs and retries."""

    def __init__(self, requests: RequestLog, policy: RetryPolicy | None = None) -> None:
        keep_secrets_out_of_logs()
        self.requests = requests
        self.policy = policy or RetryPolicy()
        timeout = httpx2.Timeout(self.policy.silence.total_seconds(), connect=_CONNECTING)
        self._timeouts = {"timeout": timeout.as_dict()}
        self._transport = None if _may_need_proxy() else Transport(trusted_certificates())
        self._client = httpx2.AsyncClient(
            limits=httpx2.Limits(max_connections=MAX_CONCURRENT),
            verify=trusted_certificates(),
            transport=self._transport,
        )
        self._places = anyio.CapacityLimiter(MAX_CONCURRENT)
        self.uploads = AsyncLimiter(UPLOADS, UPLOADS_WITHIN.total_seconds())

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(self, call: Call, parse_answer: Callable[[Answer], _T]) -> _T:
        """Send a request until `parse_answer` makes something of the answer.

        It is retried after network errors, after responses that ask for it, and after
        MalformedAnswerError. Raises StoreError, one line without what may be secret of the URL.
        """
        request = self._request(call)
        began = anyio.current_time()
        try:
            try:
                return parse_answer(await self._once(call, request))
            except FAILURES as error:
                return await self._retry(call, request, parse_answer, error, began)
        except (httpx2.HTTPError, TryAgainError, TimeoutError) as error:
            raise failure(place(request), error) from None

    async def _retry(
        self,
        call: Call,
        request: httpx2.Request,
        parse_answer: Callable[[Answer], _T],
        first: Exception,
        began: float,
    ) -> _T:
        """Retry a request whose first attempt has failed; raise the last error."""
        policy = replace(self.policy, attempts=1) if call.once else self.policy
        attempts = Attempts(place(request), policy)
        async for attempt in attempts.since(anyio.current_time() - began):
            with attempt:
                if attempt.num == 1:
                    raise first
                if call.recheck:
                    await call.recheck()
                return parse_answer(await self._once(call, request, attempts))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def download(self, url: httpx2.URL | str, *, limit: int) -> bytes:
        """Download at most `limit` bytes. No header of ours goes along: the URL is the permission.

        Raises ExpiredError if the URL has expired; StoreError for all else.
        """
        return await self.send(download_of(url, limit=limit), _content)

    async def has_content(self, url: httpx2.URL | str) -> bool:
        """Whether there is anything to download: fetches one byte, or a little more.

        Raises StoreError if the answer proves neither.
        """
        call = Call(
            kind="download",
            method="GET",
            url=url,
            headers=_FIRST_BYTE,
            follow=True,
            start=True,
        )
        return await self.send(call, _has_content)

    def _request(self, call: Call) -> httpx2.Request:
        given = httpx2.Headers(call.headers)
        names = given.keys()
        usual = [header for name, header in _USUAL_HEADERS.items() if name not in names]
        return httpx2.Request(
            call.method,
            call.url,
            headers=[*usual, *given.raw],
            params=call.params,
            content=call.content,
            extensions=self._timeouts,
        )

    async def _connect(self, at: httpx2.Request, request: httpx2.Request) -> httpx2.Response:
        """Send a request to where redirects of a first one have led."""
        try:
            if self._transport:
                # What the client adds would take half as long: cookies, events, authentication.
                return await self._transport.handle_async_request(at)
            return await self._client.send(at, stream=True)
        except ValueError:
            # The resolver's, for an invalid host name.
            raise StoreError(f"{place(request)}: its host name does not resolve") from None

    async def _once(
        self, call: Call, request: httpx2.Request, earlier: Attempts | None = None
    ) -> Answer:
        if call.pace:
            await call.pace.acquire()
        shared = self.requests.window.shared if call.kind in REST_KINDS else None
        if shared is None:
            answer = await self._in_its_place(call, request, earlier)
            if call.kind in REST_KINDS:
                note_rate_limit(answer, self.requests)
        else:
            answer = await self._in_its_turn(shared, call, request, earlier)
        if answer.status in _RETRIED or is_rate_limited(answer):
            error = TryAgainError(answer.status, requested_wait(answer, service_now(answer)))
            self.requests.asked_to_wait += error.wait or timedelta(0)
            if shared and error.wait and is_rate_limited(answer):
                with suppress(DatabaseError):  # The next request says it again.
                    await run_sync(shared.pause, error.wait)
            raise error
        return answer

    async def _in_its_turn(
        self, shared: SharedLimit, call: Call, request: httpx2.Request, earlier: Attempts | None
    ) -> Answer:
        """Send a request once the limit that other processes share allows it."""
        window = await self._take(shared, request)
        heard: Heard | None = None
        try:
            answer = await self._in_its_place(call, request, earlier)
            note_rate_limit(answer, self.requests)
            heard = read_limit(answer)
        finally:
            shared.answered(window, heard)
        return answer

    async def _take(self, shared: SharedLimit, request: httpx2.Request) -> int:
        """Take a request of a shared limit; wait for that as long as for a service that asks to."""
        waited = 0.0
        while True:
            window, wait = await run_sync(
                shared.send, self.requests.rest_share, abandon_on_cancel=True
            )
            if not wait:
                return window
            waited += wait
            if waited > self.policy.longest_asked_wait.total_seconds():
                raise StoreError(
                    f"{place(request)} was not sent: the rate limit is exhausted for another "
                    f"{wait:,.0f} s, by all runs that share it"
                )
            self.requests.asked_to_wait += timedelta(seconds=wait)
            await anyio.sleep(wait)

    async def _in_its_place(
        self, call: Call, request: httpx2.Request, earlier: Attempts | None
    ) -> Answer:
        """Send a request, of which so many are sent at once."""
        async with self._places:
            self.requests.count(call.kind, again=earlier is not None)
            with anyio.fail_after(self.policy.total.total_seconds()):
                return await self._send(call, request, in_doubt=bool(earlier and earlier.in_doubt))

    async def _send(self, call: Call, request: httpx2.Request, *, in_doubt: bool) -> Answer:
        at = request
        for _ in range(_REDIRECTS + 1):
            response = await self._connect(at, request)
            try:
                if not call.follow or not response.has_redirect_location:
                    content = await _read(response, call, request)
                    return Answer(
                        response.status_code,
                        response.headers,
                        content,
                        request,
                        call.token_env,
                        in_doubt,
                        None if at is request else at.url,
                    )
            finally:
                await response.aclose()
            following = redirected(at, response)
            if following is None:
                break
            at = following
        where = place(request)
        raise StoreError(f"{where} was redirected too often, to another method, or to nowhere")


class ExpiredError(StoreError):
    """A signed URL that has expired, or content that is gone."""


class GoneError(ExpiredError):
    """There is no content at a signed URL."""


class UnclearError(StoreError):
    """There is nothing at a signed URL, and it is not clear that the storage says so."""


async def _read(response: httpx2.Response, call: Call, request: httpx2.Request) -> bytes:
    """Read an answer. A truncated one of known length raises; others cannot be detected."""
    headers = response.headers
    encodings = [one.strip() for one in headers.get("content-encoding", "").lower().split(",")]
    encodings = [one for one in encodings if one in _ENCODINGS]
    if response.is_success and call.whole:
        chunked = headers.get("transfer-encoding", "").lower().endswith("chunked")
        if not chunked and "content-length" not in headers:
            where = place(request)
            raise MalformedAnswerError(f"{where} does not tell how long its answer is")
        if encodings:
            raise MalformedAnswerError(f"{place(request)} was not asked to encode its answer")
    if len(encodings) > 1:
        raise StoreError(f"{place(request)} encodes its answer more than once")
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > call.limit and not call.start:
        raise _too_large(call, request)
    content = bytearray()
    async for chunk in _pieces(response, is_encoded=bool(encodings)):
        content += chunk
        if call.start and response.is_success and len(content) > 1:
            break
        if len(content) > call.limit:
            raise _too_large(call, request)
    return bytes(content)


def _pieces(response: httpx2.Response, *, is_encoded: bool) -> AsyncIterator[bytes]:
    stream = response.stream
    if not is_encoded and isinstance(stream, httpx2.AsyncByteStream):
        return aiter(stream)  # Which saves two layers of generators.
    return response.aiter_bytes()


def _too_large(call: Call, request: httpx2.Request) -> UnreadableError:
    problem = f"{place(request)} has more than {call.limit:,} bytes to give"
    return UnreadableError(Cause.TOO_LARGE, problem)


def _has_content(answer: Answer) -> bool:
    """Read whether there is content; only storage that knows its URL can say that there is none.

    An empty blob has no first byte, which it answers with 416.
    """
    if answer.headers.get("content-type", "").lower().startswith("text/html"):
        raise malformed(answer, "it is a page for people")
    if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        if not _names_content(answer):
            where = f"{answer.place} answered HTTP {answer.status}"
            raise UnclearError(f"{where}, which may not be the storage's answer")
        return False
    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return True
    if answer.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise StoreError(f"{answer.place} answered HTTP {answer.status}")
    if not answer.content and answer.headers.get("content-length") != "0":
        raise malformed(answer, "it is empty")
    return True


def _names_content(answer: Answer) -> bool:
    """Whether an error of a storage (Azure's, S3, or one that speaks as they do) says that it lacks
    the content. A proxy without a backend answers 404, too, and so does Azure without a container.
    """
    codes = _ERROR_CODE.findall(answer.content[:_ERROR_SIZE])
    said = {answer.headers.get("x-ms-error-code", ""), *(one.decode() for one in codes)}
    return not said.isdisjoint(_NO_CONTENT)


def _content(answer: Answer) -> bytes:
    if answer.status == HTTPStatus.OK:
        if answer.headers.get("content-type", "").lower().startswith("text/html"):
            # A proxy's page; storage knows no better type than bytes for what we keep there.
            raise malformed(answer, "it is a page for people")
        return answer.content
    error = StoreError
    if answer.status in {HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED}:
        error = ExpiredError
    elif answer.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        error = GoneError
    raise error(f"{answer.place} answered HTTP {answer.status}")
