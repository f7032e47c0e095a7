"""The requests to an object storage: what differs between services."""

import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

import anyio

from maintainer.cacheconfig import NO_CONTENT, Digest
from maintainer.errors import BudgetExhaustedError, StoreError, UnknownCacheError, UnreadableError
from maintainer.model.doubt import Cause
from maintainer.model.reason import StoreNote
from maintainer.sanitize import printable
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.objects.layout import Layout

log = logging.getLogger(__name__)

_T = TypeVar("_T")

CHUNK = 4 * 1024 * 1024
"""Bytes that are read at once: of something large that is not wanted, no more are read."""
MAX_SIZE = 2**50
"""Bytes; no service stores larger objects."""
_LONGEST = timedelta(minutes=10)
"""The longest time that a request may take, with its retries."""
_CONNECTING = timedelta(minutes=1)
"""The longest time until there are credentials: an SDK waits for a program without a limit."""


@dataclass(frozen=True, slots=True)
class Object:
    """An object, as a list or a look-up shows it."""

    key: str
    size: int
    """Bytes."""
    modified_at: datetime
    tag: str
    """Of its content: another content has another one."""
    answered_at: datetime | None = None
    """The time of the service's clock at a look-up, if it reports that."""
    is_readable: bool = True
    """Whether builds can download it."""

    def is_blob(self, digest: Digest) -> bool:
        """Whether it may have the content of a blob: without a byte it has not."""
        return self.is_readable and (self.size > 0 or digest == NO_CONTENT)


class Objects(Protocol):
    """The requests to one bucket. Each may raise StoreError."""

    @property
    def requests(self) -> RequestLog:
        """The requests so far."""

    def list(self, prefix: str) -> AsyncIterator[Sequence[Object]]:
        """List the objects whose keys begin like this, some at a time."""

    def folders(self, prefix: str) -> AsyncIterator[Sequence[str]]:
        """List what follows a prefix in keys up to the next slash: each name once."""

    async def head(self, key: str) -> Object | None:
        """Look an object up; None if there is none."""

    async def get(
        self, key: str, *, limit: int, is_wanted: Callable[[bytes], bool] = bool
    ) -> tuple[Object, bytes] | None:
        """Read an object of at most so many bytes; None if there is none.

        If its first bytes show that it is not wanted, only these are read. Raises UnreadableError
        if it is larger.
        """

    async def put(self, key: str, content: bytes, *, over: str | None) -> bool:
        """Write an object over the one with this tag, or where there is none.

        Return False if there is something else. A service may ignore that condition.
        """

    async def overwrite(self, key: str, content: bytes) -> None:
        """Write an object, whatever is there."""

    async def delete(self, tags: Mapping[str, str | None]) -> Mapping[str, StoreError]:
        """Delete objects; return what went wrong, by key.

        An object with a tag is deleted only if it still has that one, if the service can do that.
        """

    async def notes(self, layout: Layout, now: datetime) -> tuple[StoreNote, ...]:
        """Return what the owner should change at the bucket; nothing if it may not be read."""


class Sender:
    """Sends requests through the SDK of a service, and counts them."""

    def __init__(
        self, name: str, in_one_line: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        """Begin; `name` is the bucket's, and `in_one_line` turns errors of the SDK into ours:
        UnknownCacheError, with the service's code, if there is no such bucket.
        """
        self.requests = RequestLog()
        self._name = name
        self._in_one_line = in_one_line

    async def send(self, kind: str, what: str, call: Awaitable[_T]) -> _T:
        """Send a request about some object. Raises StoreError."""
        try:
            self.requests.count(kind, again=False)
        except BudgetExhaustedError:
            if isinstance(call, Coroutine):
                call.close()  # Python warns of one that is never awaited.
            raise
        with self.limited(what):
            return await call

    async def pages(
        self, prefix: str, read: Callable[[str | None], Awaitable[tuple[_T, str | None]]]
    ) -> AsyncIterator[_T]:
        """Read a list page by page; `read` returns one, and where the next one begins, if any.

        Raises StoreError if the list does not end, or if the next page cannot be found.
        """
        marker: str | None = None
        seen = {""}
        while True:
            page, marker = await self.send("list", prefix, read(marker))
            yield page
            if marker is None:
                return
            if marker in seen:
                raise StoreError(f"the list of {printable(prefix)} breaks off")
            seen.add(marker)

    async def download(
        self,
        key: str,
        size: int | None,
        read: Callable[[int], Awaitable[bytes]],
        *,
        limit: int,
        is_wanted: Callable[[bytes], bool],
    ) -> bytes:
        """Read a body of so many bytes, or only its beginning if it is not wanted.

        Raises UnreadableError if it is too large.
        """
        with self.limited(key):
            content = await read(CHUNK)
            if content and not is_wanted(content):
                return content
            while max(size or 0, len(content)) <= limit and (piece := await read(CHUNK)):
                content += piece
        if max(size or 0, len(content)) > limit:
            problem = f"{printable(key)} has more than {limit:,} bytes: not read"
            raise UnreadableError(Cause.TOO_LARGE, problem)
        if len(content) != (len(content) if size is None else size):
            raise StoreError(f"the download of {printable(key)} broke off")
        return content

    @contextmanager
    def limited(self, what: str) -> Iterator[None]:
        """End what takes too long: the SDKs' limits begin anew with each byte that arrives."""
        try:
            with _within(_LONGEST, f"{printable(what)}: timed out"), self._in_one_line(what):
                yield
        except UnknownCacheError as error:
            name = printable(self._name)
            raise UnknownCacheError(
                f"there is no bucket or container {name} ({error}): check the address"
            ) from None

    async def ask(self, call: Awaitable[_T]) -> _T | None:
        """Ask for something that is good to know; None if the service does not say."""
        try:
            return await self.send("look-up", self._name, call)
        except StoreError as error:
            log.debug("not known: %s", error)
            return None


@contextmanager
def connecting(name: str) -> Iterator[None]:
    """End what takes too long before the first request: to find credentials."""
    seconds = f"{_CONNECTING.total_seconds():.0f} s"
    with _within(_CONNECTING, f"{printable(name)}: no credentials within {seconds}"):
        yield


@contextmanager
def _within(longest: timedelta, problem: str) -> Iterator[None]:
    try:
        with anyio.fail_after(longest.total_seconds()):
            yield
    except TimeoutError:
        raise StoreError(problem) from None


class MissingError(StoreError):
    """There is no such object."""


class OtherError(StoreError):
    """There is something else than expected."""


class UnsupportedError(StoreError):
    """The service does not know what was asked for, such as a condition."""


def refuse_others(found: Sequence[Object], prefix: str) -> None:
    """Raise StoreError if a list shows what was not asked for."""
    for one in found:
        if not one.key.startswith(prefix):
            raise StoreError(
                f"the list of {printable(prefix)} shows {printable(one.key)}: the service ignores "
                "prefixes"
            )


def malformed(key: str) -> StoreError:
    """Return the error for an answer that lacks something: it proves nothing."""
    return StoreError(f"{printable(key)}: the answer of the service is malformed")


def folder_names(found: Iterable[str], prefix: str) -> list[str]:
    """Return the names of folders that a list shows by their keys. Raises StoreError."""
    names = []
    for key in found:
        if not key.startswith(prefix) or not key.endswith("/"):
            raise StoreError(f"the list of {printable(prefix)} shows {printable(key)}")
        names.append(key.removeprefix(prefix).removesuffix("/"))
    return [one for one in names if one and "/" not in one]
