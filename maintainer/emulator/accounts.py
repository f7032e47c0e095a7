"""The REST API of an organization, and of the GitHub App that is installed in it.

Source: https://docs.github.com/rest/repos/repos and https://docs.github.com/rest/apps
"""

import re
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import jwt
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from maintainer.emulator.account import Account, App
from maintainer.emulator.site import Site
from maintainer.emulator.web import Reason, RefusedError, json_response, read_id

_PER_PAGE = 30
_MAX_PER_PAGE = 100
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_MAX_LIFETIME = timedelta(minutes=10)
"""GitHub refuses an app's token that is valid for longer."""


class Accounts:
    """Serves the endpoints that list repositories, and makes tokens of an installation."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes: list[BaseRoute] = [
            Route("/orgs/{org}/repos", self.list_repositories, methods=["GET"]),
            Route("/installation/repositories", self.list_of_installation, methods=["GET"]),
            Route("/app/installations/{id}/access_tokens", self.make_token, methods=["POST"]),
        ]

    @property
    def _account(self) -> Account:
        return self._site.account

    async def list_repositories(self, request: HttpRequest) -> Response:
        """Return one page of an organization's repositories."""
        self._permit(request)
        if request.path_params["org"].lower() != self._account.login.lower():
            raise RefusedError(Reason.NOT_FOUND, "Not Found")
        return json_response(self._page(request), headers=self._link(request))

    async def list_of_installation(self, request: HttpRequest) -> Response:
        """Return one page of the repositories that an installation may use."""
        if not self._site.tokens.is_installation_token(request.headers.get("authorization", "")):
            raise RefusedError(Reason.DENIED, "Resource not accessible by integration")
        total = len(self._account.repositories)
        content = {"total_count": total, "repositories": self._page(request)}
        return json_response(content, headers=self._link(request))

    async def make_token(self, request: HttpRequest) -> Response:
        """Return a token of an installation, for the App itself."""
        app = self._account.app
        header = request.headers.get("authorization", "")
        if app is None or not _is_of(app, header.partition(" ")[2]):
            raise RefusedError(Reason.UNAUTHENTICATED, "A JSON web token could not be decoded")
        if read_id(request) != app.installation:
            raise RefusedError(Reason.NOT_FOUND, "Not Found")
        self._account.tokens_made += 1
        expires_at = datetime.now(UTC) + self._account.lifetime
        token = self._site.tokens.make_installation_token(expires_at)
        content = {"token": token, "expires_at": f"{expires_at:%Y-%m-%dT%H:%M:%SZ}"}
        return json_response(content, HTTPStatus.CREATED)

    def _link(self, request: HttpRequest) -> dict[str, str]:
        """Return the header that says which page is the last, if there is more than one."""
        pages = -(-len(self._account.repositories) // _per_page(request))
        url = request.url.include_query_params(page=pages)
        return {"Link": f'<{url}>; rel="last"'} if pages > 1 else {}

    def _page(self, request: HttpRequest) -> list[dict[str, object]]:
        per_page = _per_page(request)
        start = (_number(request, "page", 1) - 1) * per_page
        account = self._account
        return [
            {
                "name": name,
                "full_name": f"{account.login}/{name}",
                "archived": name in account.archived,
                "disabled": False,
            }
            for name in account.repositories[start : start + per_page]
        ]

    def _permit(self, request: HttpRequest) -> None:
        if not self._site.tokens.is_rest_token(request.headers.get("authorization", "")):
            raise RefusedError(Reason.UNAUTHENTICATED, "Bad credentials")


def _is_of(app: App, token: str) -> bool:
    """Whether an App has signed a token, for a time that GitHub accepts."""
    try:
        claims = jwt.decode(
            token,
            app.public_key,
            algorithms=["RS256"],
            issuer=str(app.id),
            options={"require": ["exp", "iat", "iss"]},
        )
    except jwt.PyJWTError:
        return False
    return bool(claims["exp"] <= (datetime.now(UTC) + _MAX_LIFETIME).timestamp())


def _per_page(request: HttpRequest) -> int:
    return min(_number(request, "per_page", _PER_PAGE), _MAX_PER_PAGE)


def _number(request: HttpRequest, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) or default if _NUMBER.fullmatch(text) else default
