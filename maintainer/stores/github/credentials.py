"""What requests to GitHub's REST API are signed with: a token, or an installation of a GitHub App.

Source: https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Protocol

import httpx2
import jwt
import msgspec
from pydantic import SecretStr

from maintainer.errors import StoreError, UsageError, how_to_install
from maintainer.settings import AppSettings
from maintainer.stores.http.answers import Answer, malformed, parse, refused, to_web_url
from maintainer.stores.http.client import Call, Http, headers_for
from maintainer.stores.http.limits import service_now

_TOKEN = re.compile(r"[!-~]+")
_BEFORE_ITS_END = timedelta(minutes=5)
"""How long before its end a token is renewed: a request may wait."""
_LONGEST_USE = timedelta(minutes=50)
_SKEW = timedelta(minutes=1)
"""How far our clock may be ahead of GitHub's."""
_VALID_FOR = timedelta(minutes=8)
"""GitHub allows an App's own token ten minutes."""

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=8_000)]


class Credentials(Protocol):
    """Signs requests to one API."""

    @property
    def name(self) -> str:
        """What messages call them: never the token."""

    async def headers(self, http: Http) -> httpx2.Headers:
        """Return the headers of a request. Raises StoreError or UsageError."""


def read_token(variable: str, value: SecretStr | None) -> str:
    """Read a token. Raises UsageError, without it, if it cannot be sent in a header."""
    token = value.get_secret_value() if value else ""
    if token and not _TOKEN.fullmatch(token):
        raise UsageError(f"{variable} holds white space or other characters that no token has")
    return token


def read_url(variable: str, value: str | None) -> str:
    """Check a URL of the environment. Raises UsageError, without it: it may be a secret."""
    if not value:
        return ""
    url = to_web_url(value)
    if url is None or url.userinfo or url.query:
        raise UsageError(f"{variable} is not a valid service URL")
    return value


class Token:
    """A token that somebody else has made."""

    def __init__(self, token: str, variable: str) -> None:
        self.name = variable
        self._headers = headers_for(token)

    async def headers(self, http: Http) -> httpx2.Headers:
        """Return the headers of a request."""
        del http
        return self._headers


class _Made(msgspec.Struct, frozen=True):
    """A token of an installation, as GitHub returns it."""

    token: _Text
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class _Kept:
    """Such a token, in the memory of this process only."""

    headers: httpx2.Headers = field(repr=False)
    until: float
    """By the monotonic clock."""


_KEPT: dict[tuple[str, int, int], _Kept] = {}
"""The tokens of this process, by API, App and installation: all runs use them."""


def forget_token(answer: Answer) -> None:
    """Forget the token that was refused, if it is one of an installation: the next one is new."""
    refused_token = answer.request.headers.get("authorization")
    for key, kept in list(_KEPT.items()):
        if kept.headers["authorization"] == refused_token:
            _KEPT.pop(key, None)


class Installation:
    """An installation of a GitHub App, whose tokens are made when they are needed."""

    def __init__(
        self, app: AppSettings, api_url: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = f"the App's installation {app.installation}"
        self._app = app
        self._clock = clock
        self._api_url = api_url.rstrip("/")
        self._key = (self._api_url, app.app_id, app.installation)

    async def headers(self, http: Http) -> httpx2.Headers:
        """Return the headers of a request, with a token that is valid for some minutes at least."""
        kept = _KEPT.get(self._key)
        if kept is None or kept.until <= self._clock():
            kept = _KEPT[self._key] = await self._make(http)
        return kept.headers

    async def _make(self, http: Http) -> _Kept:
        call = Call(
            kind="token",
            method="POST",
            url=f"{self._api_url}/app/installations/{self._app.installation}/access_tokens",
            headers=headers_for(self._sign(datetime.now(UTC))),
            token_env=self.name,
        )
        began = self._clock()
        return await http.send(call, lambda answer: _read(answer, began))

    def _sign(self, now: datetime) -> str:
        """Return the App's own token."""
        claims = {"iat": now - _SKEW, "exp": now + _VALID_FOR, "iss": str(self._app.app_id)}
        key = self._app.read_key()
        try:
            return jwt.encode(claims, key, algorithm="RS256")
        except NotImplementedError:
            raise UsageError(
                "a GitHub App needs the extra github-app (cryptography is missing): "
                f"{how_to_install('github-app')}"
            ) from None
        except Exception:  # noqa: BLE001 - it is AttributeError for a public key, for one
            # The library's own message may have a part of the key.
            raise UsageError(
                f"{self._app.key_name} is not a private key in PEM format: download one from the "
                "page of the App"
            ) from None


def _read(answer: Answer, began: float) -> _Kept:
    """Read a token. How long it is valid is counted by GitHub's clock: ours may be wrong."""
    if answer.status == HTTPStatus.UNAUTHORIZED:
        raise StoreError(
            f"{answer.place} answered HTTP 401: the private key is not that of the App, or the "
            "clock of this machine is wrong"
        )
    if answer.status == HTTPStatus.NOT_FOUND:
        raise StoreError(f"{answer.place} answered HTTP 404: the App has no such installation")
    if answer.status != HTTPStatus.CREATED:
        raise refused(answer)
    made = parse(answer, _Made)
    if not _TOKEN.fullmatch(made.token) or made.expires_at.tzinfo is None:
        raise malformed(answer, "it is not a token")
    lifetime = made.expires_at - service_now(answer)
    use = min(lifetime - min(_BEFORE_ITS_END, lifetime / 2), _LONGEST_USE)
    return _Kept(headers_for(made.token), began + max(use.total_seconds(), 0.0))
