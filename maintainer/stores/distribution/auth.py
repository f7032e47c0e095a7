"""What a registry wants to see: a password, or a token of the service that it names.

Source: https://distribution.github.io/distribution/spec/auth/token/
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import anyio
import httpx2
import msgspec

from maintainer.errors import StoreError
from maintainer.sanitize import printable
from maintainer.stores.distribution.credentials import Credentials
from maintainer.stores.distribution.names import Repository
from maintainer.stores.http.answers import (
    Answer,
    malformed,
    parse,
    repeats_one_of,
    secrets_in,
    to_web_url,
)
from maintainer.stores.http.client import Call, Http

_SCHEME = re.compile(r"\s*,?\s*([A-Za-z]+)(?=\s|,|$)\s*")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_TOKEN = re.compile(r"[!-~]{1,32768}")
_MAX_CHALLENGE = 8 * 1024
_MAX_TOKEN_ANSWER = 256 * 1024
_CLIENT = "maintainer"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate that a registry offers."""

    scheme: str
    """In lower case."""
    parameters: Mapping[str, str]


CATALOG = "catalog"
"""What a request does that lists the repositories of a registry."""


class DeniedError(StoreError):
    """The credentials do not allow a request, or there are none."""


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


def read_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read the headers `WWW-Authenticate`; what is not well-formed ends the reading."""
    found: list[Challenge] = []
    for header in headers:
        text, place = header[:_MAX_CHALLENGE], 0
        while scheme := _SCHEME.match(text, place):
            place = scheme.end()
            parameters: dict[str, str] = {}
            while pair := _PARAMETER.match(text, place):
                place = pair.end()
                value = re.sub(r"\\(.)", r"\1", pair[2]) if pair[2] is not None else pair[3]
                parameters.setdefault(pair[1].lower(), value)
            found.append(Challenge(scheme[1].lower(), parameters))
    return found


class Authorizer:
    """The header `Authorization` of each request to one registry, by what the request does."""

    def __init__(
        self, http: Http, repository: Repository, find: Callable[[], Awaitable[Credentials | None]]
    ) -> None:
        """Begin; `find` is called when the registry first wants to see credentials."""
        self._http = http
        self._repository = repository
        self._find = find
        self._headers: dict[str, str] = {}
        self._credentials: Credentials | None = None
        self._is_found = False
        self._lock = anyio.Lock()

    def header(self, actions: str) -> str | None:
        """Return what to send with a request that does this, such as `pull,push`."""
        return self._headers.get(actions)

    async def renew(self, actions: str, refused: str | None, answer: Answer) -> str:
        """Return a header in place of one that was refused. Raises StoreError if there is none."""
        async with self._lock:
            known = self._headers.get(actions)
            if known is None or known == refused:
                known = self._headers[actions] = await self._get_header(actions, answer)
            return known

    async def _get_header(self, actions: str, answer: Answer) -> str:
        if not self._is_found:
            self._credentials = await self._find()
            self._is_found = True
        challenges = read_challenges(answer.headers.get_list("www-authenticate"))
        by_scheme = {one.scheme: one.parameters for one in reversed(challenges)}
        if "bearer" in by_scheme:
            return f"Bearer {await self._get_token(by_scheme['bearer'], actions, answer)}"
        if "basic" in by_scheme and self._credentials and self._credentials.username:
            return self._credentials.basic
        raise self.denied(answer)

    def is_repeated_in(self, message: str) -> bool:
        """Whether a message repeats a token or password of any request so far."""
        headers = list(self._headers.values())
        if known := self._credentials:
            headers += [known.basic, f"Bearer {known.identity_token}"]
        return repeats_one_of(message, (one for header in headers for one in secrets_in(header)))

    def denied(self, answer: Answer) -> DeniedError:
        """Return the error for a request that is not allowed, with what to do."""
        host = self._repository.host
        advice = f"run `docker login {host}`"
        if self._credentials:
            advice = f"the credentials of `docker login {host}` do not allow it"
        return DeniedError(f"{answer.place} answered HTTP {answer.status}: {advice}")

    async def _get_token(self, parameters: Mapping[str, str], actions: str, answer: Answer) -> str:
        realm = parameters.get("realm", "")
        is_safe = realm.startswith("https://") or self._repository.insecure
        url = to_web_url(realm)
        if url is None or not is_safe or url.userinfo:
            raise malformed(answer, f"it names no token service: {printable(realm)}")
        scope = f"repository:{self._repository.name}:{actions}"
        asked = {"scope": "registry:catalog:*" if actions == CATALOG else scope}
        if service := parameters.get("service"):
            asked["service"] = service
        return await self._http.send(self._call(realm, asked), self._read_token)

    def _call(self, realm: str, asked: Mapping[str, str]) -> Call:
        known = self._credentials
        if known and known.identity_token:
            form = {
                **asked,
                "client_id": _CLIENT,
                "grant_type": "refresh_token",
                "refresh_token": known.identity_token,
            }
            return Call(
                kind="look-up",
                method="POST",
                url=realm,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                content=urlencode(form).encode(),
                limit=_MAX_TOKEN_ANSWER,
            )
        headers = {"Authorization": known.basic} if known else {}
        url = httpx2.URL(realm).copy_merge_params(dict(asked))
        return Call(kind="look-up", method="GET", url=url, headers=headers, limit=_MAX_TOKEN_ANSWER)

    def _read_token(self, answer: Answer) -> str:
        if not answer.is_success:
            raise self.denied(answer)
        found = parse(answer, _Token)
        token = found.token or found.access_token
        if not _TOKEN.fullmatch(token):
            raise malformed(answer, "it has no token")
        return token
