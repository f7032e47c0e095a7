"""When a request is retried, and what is unknown after failed attempts."""

import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta

import httpx2
import stamina

from maintainer.errors import StoreError
from maintainer.stores.http.answers import MalformedAnswerError

log = logging.getLogger(__name__)

_SERVER_ERROR = 500
_NO_TLS = "WRONG_VERSION_NUMBER"
_STAYS_SO = frozenset({_NO_TLS, "CERTIFICATE_VERIFY_FAILED"})
"""What no patience helps against, by OpenSSL's names."""
_DEEPEST = 8
"""How many nested errors are searched for the cause."""
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_OUR_MISTAKE = (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol)
_SILENT = (httpx2.TimeoutException, TimeoutError)
_LOST = (httpx2.TransportError, httpx2.DecodingError, TimeoutError, MalformedAnswerError)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and for how long, one request is retried."""

    attempts: int = 6
    connection_attempts: int = 6
    """As long as the host cannot be reached."""
    silent_attempts: int = 6
    """As long as the server does not answer."""
    silence: timedelta = timedelta(seconds=30)
    """How long the server may say nothing in each attempt."""
    total: timedelta = timedelta(minutes=5)
    """No attempt begins later than this after the first, and none takes longer."""
    first_wait: timedelta = timedelta(seconds=0.5)
    """Before the second attempt, and as much jitter; doubled before each further one."""
    longest_wait: timedelta = timedelta(seconds=30)
    longest_asked_wait: timedelta = timedelta(minutes=5)
    """If a service asks for more, as for an exhausted rate limit, there is no retry."""


HASTY = RetryPolicy(connection_attempts=2, silent_attempts=1, silence=timedelta(seconds=15))
"""For somebody who waits: without a network, or an answer, nothing is gained by patience."""


class PlainHttpError(StoreError):
    """The server does not speak TLS; perhaps it speaks plain HTTP."""


class TryAgainError(Exception):
    """A temporary response."""

    def __init__(self, status: int, wait: timedelta | None) -> None:
        """Take what came, and how long the service asks us to wait, if it does."""
        asked = "" if wait is None else f", asking for {wait.total_seconds():,.0f} s of patience"
        super().__init__(f"HTTP {status}{asked}")
        self.status = status
        self.wait = wait


FAILURES = (httpx2.HTTPError, TryAgainError, TimeoutError, MalformedAnswerError)
"""Errors after which a request may be retried."""


class Attempts:
    """The attempts of one call."""

    def __init__(self, place: str, policy: RetryPolicy) -> None:
        self.place = place
        self.in_doubt = False
        """Whether one may have been carried out although its answer was lost."""
        self._policy = policy
        self._failed = 0

    def since(self, elapsed: float) -> AsyncIterator[stamina.Attempt]:
        """Return the attempts, if the first began so many seconds ago."""
        policy = self._policy
        return aiter(
            stamina.retry_context(
                on=self._again,
                attempts=policy.attempts,
                timeout=policy.total - timedelta(seconds=elapsed),
                wait_initial=policy.first_wait,
                wait_max=policy.longest_wait,
                wait_jitter=policy.first_wait,
            )
        )

    def _again(self, error: Exception) -> bool | timedelta:
        again = self._decide(error)
        self._failed += 1
        if again is not False and self._failed < self._policy.attempts:
            log.info("%s: %s; retrying", self.place, describe(error))
        return again

    def _decide(self, error: Exception) -> bool | timedelta:
        if isinstance(error, TryAgainError):
            self.in_doubt |= error.status >= _SERVER_ERROR
            if error.wait is None:
                return True
            return error.wait if error.wait <= self._policy.longest_asked_wait else False
        if isinstance(error, _OUR_MISTAKE) or _tls_reason(error) in _STAYS_SO:
            return False
        if isinstance(error, _NOT_SENT):
            return self._failed + 1 < self._policy.connection_attempts
        lost = isinstance(error, _LOST)
        self.in_doubt |= lost
        if isinstance(error, _SILENT):
            return self._failed + 1 < self._policy.silent_attempts
        return lost


def failure(place: str, error: Exception) -> StoreError:
    """Return the error for a request whose last attempt has failed."""
    kind = PlainHttpError if _tls_reason(error) == _NO_TLS else StoreError
    return kind(f"{place} failed: {describe(error)}")


def describe(error: Exception) -> str:
    """Describe an error, without the URL that httpx2 may include."""
    if isinstance(error, _SILENT):
        return "timed out"
    if isinstance(error, (TryAgainError, MalformedAnswerError)):
        return str(error)
    cause = _cause(error)
    return cause or type(error).__name__


def _cause(error: BaseException) -> str:
    """Return the system's own message, without the wrapping of the libraries in between."""
    said = ""
    for below in _nested(error):
        if isinstance(below, ssl.SSLError):
            return ", ".join(filter(None, ("TLS", _tls_reason(below))))
        if isinstance(below, socket.gaierror):
            return "host name does not resolve"
        if isinstance(below, OSError) and below.errno:
            said = os.strerror(below.errno)
    return said


def _tls_reason(error: BaseException) -> str | None:
    """Return OpenSSL's name of what went wrong with TLS; None if it did not, or has no name."""
    # An error of aiohttp's own has none, but the one below it has.
    reasons = (
        getattr(one, "reason", None) for one in _nested(error) if isinstance(one, ssl.SSLError)
    )
    return next(filter(None, reasons), None)


def _nested(error: BaseException) -> Iterator[BaseException]:
    """Return an error, and those that have led to it, the last first."""
    below: BaseException | None = error
    for _ in range(_DEEPEST):
        if below is None:
            return
        yield below
        below = below.__cause__ or below.__context__
