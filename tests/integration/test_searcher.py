"""The searches of a service: real directories, an organization over HTTP, and both databases."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from maintainer.clock import now_utc
from maintainer.graph.database import Database
from maintainer.serve.reloading import Changes
from maintainer.serve.searcher import Searcher
from maintainer.serve.worker import Worker
from maintainer.settings import Settings
from tests.empty_database import make_empty, url_of


@dataclass
class Organization:
    """An organization of whose repositories each token sees some."""

    visible: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of repositories, by the token that sees them."""
    url: str = ""


@pytest.fixture
def octo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Organization]:
    """Return an organization `octo`, for the tokens of `TOKEN_A` and `TOKEN_B`."""
    monkeypatch.setenv("TOKEN_A", "a")
    monkeypatch.setenv("TOKEN_B", "b")
    organization = Organization()

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers["authorization"].partition(" ")[2]
            names = organization.visible[token]
            content = json.dumps([{"full_name": f"octo/{name}"} for name in names]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        organization.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield organization
        server.shutdown()
        thread.join()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return a database that knows nothing."""
    make_empty(tmp_path / "graph.db")
    with closing(Database(url_of(tmp_path / "graph.db"))) as database:
        yield database


def _settings(*tables: dict[str, Any]) -> Settings:
    return Settings.model_validate({"discover": tables})


def _of(octo: Organization, name: str, token_env: str) -> dict[str, Any]:
    return {"name": name, "organization": "octo", "api_url": octo.url, "token_env": token_env}


@dataclass
class Service:
    """What a service does about searches."""

    database: Database
    settings: Settings
    changes: Changes = field(init=False)
    searcher: Searcher = field(init=False)

    def __post_init__(self) -> None:
        self.changes = Changes(self.settings, self.database, Worker(self.database, {}, now_utc))
        self.searcher = Searcher(self.database, self.settings, now_utc, self.changes.follow)

    def search(self) -> list[str]:
        """Search once; return the names of the targets."""
        self.searcher.search_once()
        self.changes.follow()
        return self.targets()

    def targets(self) -> list[str]:
        """Return the names of the targets."""
        return sorted(self.changes.worker.targets)


@pytest.mark.each_database
def test_tables_whose_tokens_see_different_repositories_keep_each_what_its_own_sees(
    database: Database, octo: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    octo.visible = {"a": ("app", "web", "both"), "b": ("site", "both")}
    service = Service(database, _settings(_of(octo, "a", "TOKEN_A"), _of(octo, "b", "TOKEN_B")))

    for _ in range(3):
        assert service.search() == ["a.app", "a.both", "a.web", "b.site"]
    assert [line for line in caplog.messages if "gone" in line] == [
        "discovery a: 3 caches new, 0 gone",
        "discovery b: 2 caches new, 0 gone",
    ]

    octo.visible = {"a": ("app", "web"), "b": ("site", "both")}
    assert service.search() == ["a.app", "a.web", "b.both", "b.site"]
    octo.visible = {"a": ("app", "web"), "b": ("site",)}
    assert service.search() == ["a.app", "a.web", "b.site"]
