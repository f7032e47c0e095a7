"""GitHub's REST API for a repository's pull requests, branches and tags, as far as runs need it.

Source: https://docs.github.com/rest/pulls/pulls and https://docs.github.com/rest/git/refs
"""

import re
from datetime import UTC

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from maintainer.emulator.repository import Permission, Pull, Repository
from maintainer.emulator.rest import Rest
from maintainer.emulator.site import Site
from maintainer.emulator.web import Reason, RefusedError, json_response, read_id

_PER_PAGE = 30
_PULL = re.compile(r"refs/pull/([0-9]{1,10})/merge", re.ASCII)


class Refs:
    """Serves the endpoints below `/repos/{owner}/{repo}`, whatever the repository."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes: list[BaseRoute] = [
            Route("/pulls", self.list_pulls, methods=["GET"]),
            Route("/pulls/{id}", self.pull, methods=["GET"]),
            Route("/git/ref/{ref:path}", self.git_ref, methods=["GET"]),
        ]

    @property
    def _repository(self) -> Repository:
        return self._site.cache.repository

    async def repository(self, request: HttpRequest) -> Response:
        """Return what the repository is called, and its default branch."""
        self._permit(request)
        path = request.path_params
        return json_response(
            {
                "full_name": f"{path['owner']}/{path['repo']}",
                "default_branch": self._repository.default_branch,
            }
        )

    async def list_pulls(self, request: HttpRequest) -> Response:
        """Return the pull requests that have caches or were closed; the last closed ones first."""
        self._permit(request, "pull-requests")
        open_ones = {
            int(match[1])
            for entry in self._site.cache.entries()
            if (match := _PULL.fullmatch(entry.ref))
        } - self._repository.closed_pulls.keys()
        pulls = self._repository.pulls() + [Pull(one, None) for one in sorted(open_ones)]
        state = request.query_params.get("state", "open")
        shown = [one for one in map(_pull, pulls) if state in ("all", one["state"])]
        per_page = request.query_params.get("per_page", "")
        most = int(per_page) if per_page.isascii() and per_page.isdigit() else _PER_PAGE
        return json_response(shown[:most])

    async def pull(self, request: HttpRequest) -> Response:
        """Return a pull request."""
        self._permit(request, "pull-requests")
        return json_response(_pull(self._repository.pull(read_id(request))))

    async def git_ref(self, request: HttpRequest) -> Response:
        """Return a branch or a tag."""
        self._permit(request, "contents")
        ref = f"refs/{request.path_params['ref']}"
        if not self._repository.exists(ref):
            raise RefusedError(Reason.NOT_FOUND, "Not Found")
        return json_response({"ref": ref})

    @staticmethod
    def refuse(request: HttpRequest, error: Exception) -> Response:
        """Return an error in the format of the API."""
        return Rest.refuse(request, error)

    def _permit(self, request: HttpRequest, permission: Permission | None = None) -> None:
        if not self._site.tokens.is_rest_token(request.headers.get("authorization", "")):
            raise RefusedError(Reason.UNAUTHENTICATED, "Bad credentials")
        if permission and permission not in self._repository.permissions:
            raise RefusedError(Reason.DENIED, "Resource not accessible by integration")


def _pull(pull: Pull) -> dict[str, object]:
    closed_at = pull.closed_at and f"{pull.closed_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    state = "closed" if pull.closed_at else "open"
    return {"number": pull.number, "state": state, "closed_at": closed_at}
