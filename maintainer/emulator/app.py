"""All protocols of the emulator at one address."""

from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from maintainer.emulator.accounts import Accounts
from maintainer.emulator.blobs import Blobs
from maintainer.emulator.refs import Refs
from maintainer.emulator.requests import ARTIFACT_CACHE, BLOBS, TWIRP
from maintainer.emulator.rest import Rest
from maintainer.emulator.site import Site
from maintainer.emulator.v1 import VersionOne
from maintainer.emulator.v2 import VersionTwo
from maintainer.emulator.web import RefusedError


class _Part(Protocol):
    routes: list[BaseRoute]

    @staticmethod
    def refuse(_: HttpRequest, error: Exception) -> Response: ...


def make_app(site: Site) -> Starlette:
    """Return the ASGI application that serves `site`."""
    refs = Refs(site)
    return Starlette(
        routes=[
            _mount(TWIRP, VersionTwo(site)),
            _mount(ARTIFACT_CACHE, VersionOne(site)),
            _mount(BLOBS, Blobs(site)),
            _mount("/repos/{owner}/{repo}/actions", Rest(site)),
            _mount("/repos/{owner}/{repo}", refs),
            Route("/repos/{owner}/{repo}", refs.repository, methods=["GET"]),
            *Accounts(site).routes,
        ],
        exception_handlers={RefusedError: refs.refuse},
    )


def _mount(path: str, part: _Part) -> Mount:
    app = Starlette(routes=part.routes, exception_handlers={RefusedError: part.refuse})
    return Mount(path, app)
