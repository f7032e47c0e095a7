"""GitHub's API for packages, emulated over the storage of a registry that deletes no manifests."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.integration.world import START
from tests.stores.docker_registry import DockerRegistry
from tests.stores.scripted import serving

TOKEN = "ghs_packages"


@dataclass
class Packages:
    """The API, of an organization or of a user."""

    registry: DockerRegistry
    owner: str = "users"
    url: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path, and Authorization of each request."""
    now: datetime = START
    changed: dict[str, datetime] = field(default_factory=dict)
    """When manifests were pushed; the others at the time of the first list that shows them."""
    kept: set[str] = field(default_factory=set)
    """The manifests that GitHub refuses to delete."""

    def answer(self, method: str, url: str, authorization: str) -> tuple[int, object]:
        """Answer a request."""
        parts = urlsplit(url)
        self.asked.append((method, parts.path, authorization))
        owner, _, name = self.registry.repository.partition("/")
        place = f"/{self.owner}/{owner}/packages/container/{name.replace('/', '%2F')}/versions"
        if authorization != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}
        if method == "GET" and parts.path == place:
            query = parse_qs(parts.query)
            page, per_page = int(query["page"][0]), int(query["per_page"][0])
            return 200, self._versions()[(page - 1) * per_page : page * per_page]
        if method == "DELETE" and (found := re.fullmatch(rf"{re.escape(place)}/(\d+)", parts.path)):
            return self._delete(int(found[1]))
        return 404, {"message": "Package not found."}

    def _versions(self) -> list[dict[str, Any]]:
        tags = self.registry.tags()
        return [
            {
                "id": _number(digest),
                "name": digest,
                "created_at": self._at(digest),
                "updated_at": self._at(digest),
                "metadata": {
                    "package_type": "container",
                    "container": {"tags": [tag for tag, one in tags.items() if one == digest]},
                },
            }
            for digest in sorted(self.registry.manifests())
        ]

    def _at(self, digest: str) -> str:
        return self.changed.setdefault(digest, self.now).isoformat()

    def _delete(self, number: int) -> tuple[int, object]:
        found = [one for one in self.registry.manifests() if _number(one) == number]
        if not found:
            return 404, {"message": "Package not found."}
        if found[0] in self.kept:
            return 400, {"message": "Versions with more than 5000 downloads cannot be deleted."}
        for tag, digest in self.registry.tags().items():
            if digest == found[0]:
                self.registry.untag(tag)
        self.registry.delete_manifest(found[0])
        return 204, None


def _number(digest: str) -> int:
    return int(digest[7:17], 16)


@contextmanager
def packages_of(registry: DockerRegistry, owner: str = "users") -> Iterator[Packages]:
    """Serve the API for the packages of a registry."""
    packages = Packages(registry, owner)

    class Handler(BaseHTTPRequestHandler):
        """Answers as the packages do."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET")

        def do_DELETE(self) -> None:
            self._answer("DELETE")

        def _answer(self, method: str) -> None:
            authorization = self.headers.get("Authorization", "")
            status, body = packages.answer(method, self.path, authorization)
            content = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    with serving(Handler) as packages.url:
        yield packages
