"""Requests that are counted, limited, and tried again."""

import email.utils
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Self, TypeVar

import anyio
import httpx
import msgspec
import stamina
from aiolimiter import AsyncLimiter

from maintainer import __version__
from maintainer.errors import StoreError
from maintainer.stores.base import RequestLog

log = logging.getLogger(__name__)

_T = TypeVar("_T")

CONCURRENCY = 8
"""Requests under way at once."""
ATTEMPTS = 6
PATIENCE = timedelta(minutes=5)
"""How long one request, with all its attempts, may take before the run gives it up."""

# GitHub allows 200 uploads a minute. A bucket of 100 that refills within a minute stays below that
# in every minute, even if it was full when the minute began.
_UPLOADS = (100, 60.0)

_RETRIED = {408, 425, 429, 500, 502, 503, 504}


class _TryAgainError(Exception):
    """An answer that may be another one later."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"HTTP {response.status_code}")
        self.wait = _wait(response)


class Http:
    """The one client of a run: a shared pool, bounded concurrency, time-outs and retries."""

    def __init__(self, requests: RequestLog) -> None:
        self.requests = requests
        self._client = httpx.AsyncClient(
            headers={"User-Agent": f"maintainer/{__version__}"},
            timeout=httpx.Timeout(30.0, connect=10.0),
            limits=httpx.Limits(max_connections=CONCURRENCY),
        )
        self._places = anyio.CapacityLimiter(CONCURRENCY)
        self._uploads = AsyncLimiter(*_UPLOADS)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def upload_slot(self) -> None:
        """Wait until one more upload keeps within the service's rate."""
        await self._uploads.acquire()

    async def send(
        self,
        kind: str,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        follow: bool = False,
    ) -> httpx.Response:
        """Send a request until there is an answer that will not change by trying again.

        `follow` follows redirects; httpx takes no Authorization header to another host. Raises
        StoreError, which never shows the query of the URL: it may hold a signature.
        """
        request = self._client.build_request(
            method, url, headers=headers, params=params, content=content
        )
        return await self._attempt(
            f"{method} {_without_query(request.url)}",
            lambda number: self._send_once(kind, number, request, follow=follow),
        )

    async def download(self, kind: str, url: str, *, limit: int) -> bytes:
        """Download at most `limit` bytes. No header of ours goes along: the URL is the permission.

        Raises StoreError if there are more, before they are read.
        """
        return await self._attempt(
            f"GET {_without_query(httpx.URL(url))}",
            lambda number: self._download_once(kind, number, url, limit),
        )

    async def _attempt(self, what: str, once: Callable[[int], Awaitable[_T]]) -> _T:
        try:
            async for attempt in stamina.retry_context(
                on=_when_to_try_again,
                attempts=ATTEMPTS,
                timeout=PATIENCE,
                wait_initial=0.5,
                wait_max=30.0,
            ):
                with attempt:
                    return await once(attempt.num)
        except (httpx.HTTPError, _TryAgainError) as error:
            raise StoreError(f"{what} failed: {_say(error)}") from None
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _send_once(
        self, kind: str, number: int, request: httpx.Request, *, follow: bool
    ) -> httpx.Response:
        async with self._places:
            self.requests.counts[kind] += 1
            self.requests.retries += number > 1
            response = await self._client.send(request, follow_redirects=follow)
        if response.status_code in _RETRIED or _is_rate_limited(response):
            raise _TryAgainError(response)
        return response

    async def _download_once(self, kind: str, number: int, url: str, limit: int) -> bytes:
        content = bytearray()
        async with self._places:
            self.requests.counts[kind] += 1
            self.requests.retries += number > 1
            async with self._client.stream("GET", url, follow_redirects=True) as response:
                if response.status_code in _RETRIED:
                    raise _TryAgainError(response)
                if not response.is_success:
                    raise refused(response)
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > limit:
                        raise StoreError(f"{_place(response)} gave more than {limit:,} bytes")
        return bytes(content)


def parse(response: httpx.Response, kind: type[_T]) -> _T:
    """Read the JSON of an answer. Raises StoreError if it is none, or has another shape."""
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise StoreError(f"{_place(response)} gave no sensible answer ({error})") from None


def refused(response: httpx.Response) -> StoreError:
    """Give the error for an answer that the protocol does not know."""
    return StoreError(f"{_place(response)} answered HTTP {response.status_code}")


def _place(response: httpx.Response) -> str:
    return f"{response.request.method} {_without_query(response.request.url)}"


def _without_query(url: httpx.URL) -> httpx.URL:
    """Give what may be shown of a URL: the query may hold a signature."""
    return url.copy_with(query=None, fragment=None)


def _when_to_try_again(error: Exception) -> bool | timedelta:
    if isinstance(error, _TryAgainError):
        return True if error.wait is None else error.wait
    return isinstance(error, httpx.TransportError)


def _is_rate_limited(response: httpx.Response) -> bool:
    """Tell GitHub's rate limits, which come as 403, from a token that may not."""
    return response.status_code == HTTPStatus.FORBIDDEN and (
        "retry-after" in response.headers or response.headers.get("x-ratelimit-remaining") == "0"
    )


def _wait(response: httpx.Response) -> timedelta | None:
    """Tell how long the service asks us to wait; None if it does not say."""
    now = datetime.now(UTC)
    after = response.headers.get("retry-after", "")
    if after.isascii() and after.isdigit():
        return min(timedelta(seconds=int(after[:9])), PATIENCE)
    if after:
        try:
            return _until(email.utils.parsedate_to_datetime(after), now)
        except (ValueError, TypeError):
            return None
    reset = response.headers.get("x-ratelimit-reset", "")
    if response.headers.get("x-ratelimit-remaining") == "0" and reset.isascii() and reset.isdigit():
        return _until(datetime.fromtimestamp(int(reset[:11]), UTC), now)
    return None


def _until(moment: datetime, now: datetime) -> timedelta:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(moment - now, timedelta(0)), PATIENCE)


def _say(error: Exception) -> str:
    """Put a network error into words without the URL that httpx may put into it."""
    if isinstance(error, httpx.TimeoutException):
        return "timed out"
    if isinstance(error, _TryAgainError):
        return str(error)
    return type(error).__name__
