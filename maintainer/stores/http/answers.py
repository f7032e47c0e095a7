"""Responses, and how to describe them without revealing secrets."""

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import httpx2

from maintainer.decoding import JSON_ERRORS, decode_json
from maintainer.errors import StoreError
from maintainer.sanitize import printable

_T = TypeVar("_T")

_RECOGNIZED = 40
"""So many characters of a token are as secret as all of it."""
_QUERY = re.compile(r"\?[^\s?]+")
_SIGNATURE = re.compile(r"\b(sig(?:nature)?(?:=|%3d))[^\s&]+", re.IGNORECASE)
_OPAQUE = re.compile(r"(?<!sha256:)\b(?![0-9a-f-]{36}\b)[\w+=%~-]{32,}", re.ASCII)
"""What may be a part of a token; not a digest, nor the id of a request."""
_SHOWN = 1_000
"""Characters of a message that are looked at."""
_PORTS = 2**16
_LAST_YEAR = 9000
LATEST = datetime(_LAST_YEAR, 1, 1, tzinfo=UTC)
"""For what has no plausible time: it never seems to be old."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete response of a service."""

    status: int
    headers: httpx2.Headers = field(repr=False)
    content: bytes = field(repr=False)
    request: httpx2.Request = field(repr=False)
    token_env: str = ""
    """The variable that holds the token which the request carried, for messages."""
    in_doubt: bool = False
    """Whether an earlier attempt may have been carried out although its answer was lost."""
    redirected_to: httpx2.URL | None = field(repr=False, default=None)
    """Where the answer comes from, if redirects led there."""

    @property
    def place(self) -> str:
        """Method and URL, as far as they may be shown."""
        return place(self.request)

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx."""
        return httpx2.codes.is_success(self.status)


class MalformedAnswerError(StoreError):
    """A response that breaks the protocol: worth another attempt, never a fact."""


def parse(answer: Answer, kind: type[_T]) -> _T:
    """Read the JSON of an answer. Raises MalformedAnswerError if it is malformed."""
    try:
        return decode_json(answer.content, kind)
    except JSON_ERRORS as error:
        raise malformed(answer, str(error)) from None


def malformed(answer: Answer, problem: str) -> MalformedAnswerError:
    """Return the error for an answer that breaks the protocol."""
    return MalformedAnswerError(f"{answer.place} gave a malformed response: {printable(problem)}")


def refused(answer: Answer, message: str = "") -> StoreError:
    """Return the error for an unexpected answer, with what may be shown of its message."""
    shown = without_secrets(answer, message).rstrip(" .")
    said = f": {printable(shown)}" if shown else ""
    return StoreError(f"{answer.place} answered HTTP {answer.status}{said}")


def without_secrets(answer: Answer, message: str) -> str:
    """Return what may be shown of a service's message: nothing if it repeats the token or password
    of the request, or the beginning of it; of URLs no query, which may be a signature; and nothing
    that looks like another token, or a part of one.
    """
    if repeats_one_of(message, secrets_in(answer.request.headers.get("authorization", ""))):
        return ""
    shown = _SIGNATURE.sub(r"\1…", _QUERY.sub("?…", message[:_SHOWN]))
    return _OPAQUE.sub("…", shown)


def repeats_one_of(message: str, secrets: Iterable[str]) -> bool:
    """Whether a message repeats a secret, or the beginning of it."""
    return any(one[:_RECOGNIZED] in message for one in secrets)


def secrets_in(authorization: str) -> Iterator[str]:
    """Return what a message must not repeat of a header: a token, or also a password."""
    scheme, _, token = authorization.partition(" ")
    if token:
        yield token
    if scheme == "Basic" and (password := b64decode(token).decode().partition(":")[2]):
        yield password


def content_url(answer: Answer, text: str) -> httpx2.URL:
    """Return where a service says that content is. Raises MalformedAnswerError."""
    if url := to_web_url(text):
        return url
    raise malformed(answer, "it names no URL for the content")


def to_web_url(text: str | httpx2.URL) -> httpx2.URL | None:
    """Return an absolute URL that can be asked; None if `text` is none."""
    try:
        url = httpx2.URL(text)
        can_be_asked = url.scheme in {"http", "https"} and url.host and (url.port or 0) < _PORTS
    except (httpx2.InvalidURL, ValueError):  # The latter for a host of IDNA that is none.
        return None
    return url if can_be_asked else None


def to_utc(moment: datetime | None) -> datetime | None:
    """Return a time in UTC; None if it is not known, or no grace period can be added to it."""
    if moment is None:
        return None
    try:
        utc = _in_utc(moment)
    except OverflowError:
        return None
    return utc if utc.year <= _LAST_YEAR else None


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is UTC:
        return moment
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def place(request: httpx2.Request) -> str:
    """Return what may be shown of a request: paths hold tokens too, queries hold signatures."""
    url = request.url
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = "" if url.port is None else f":{url.port}"
    *above, last = url.path.rstrip("/").split("/")
    path = f"/…/{last}" if any(above) else f"/{last}"
    return printable(f"{request.method} {url.scheme}://{host}{port}{path}")
