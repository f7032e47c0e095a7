"""The searches of a service: real directories, an organization over HTTP, and both databases."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

import pytest

from maintainer.clock import now_utc
from maintainer.graph.database import Database
from maintainer.serve.discovery import retire
from maintainer.serve.reloading import Changes
from maintainer.serve.searcher import Searcher
from maintainer.serve.worker import Worker
from maintainer.settings import Settings
from tests.empty_database import make_empty, on_postgresql, url_of
from tests.integration.service import PATIENCE, wait_until
from tests.postgresql import create_database


@dataclass
class Organization:
    """An organization of whose repositories each token sees some."""

    visible: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of repositories, by the token that sees them."""
    patience: int = 0
    """Seconds of patience that it asks for, instead of an answer."""
    asked: int = 0
    """How often it was asked."""
    url: str = ""


@pytest.fixture
def octo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Organization]:
    """Return an organization `octo`, for the tokens of `TOKEN_A` and `TOKEN_B`."""
    monkeypatch.setenv("TOKEN_A", "a")
    monkeypatch.setenv("TOKEN_B", "b")
    organization = Organization()

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            organization.asked += 1
            if organization.patience:
                self.send_response(429)
                self.send_header("Retry-After", str(organization.patience))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
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


def _settings(*tables: dict[str, Any], every: str = "12h") -> Settings:
    return Settings.model_validate({"serve": {"discover_interval": every}, "discover": tables})


def _of(octo: Organization, name: str, token_env: str) -> dict[str, Any]:
    return {"name": name, "organization": "octo", "api_url": octo.url, "token_env": token_env}


def _here(folder: Path) -> dict[str, Any]:
    return {"name": "here", "store": f"local:{folder}/*"}


def _make(folder: Path, name: str) -> None:
    (folder / name / "blobs").mkdir(parents=True)


@dataclass
class Service:
    """What a service does about searches."""

    database: Database
    settings: Settings
    clock: Callable[[], datetime] = now_utc
    seen: list[list[str]] = field(default_factory=list)
    """The targets after each search that may have changed them."""
    changes: Changes = field(init=False)
    searcher: Searcher = field(init=False)

    def __post_init__(self) -> None:
        self.changes = Changes(self.settings, self.database, Worker(self.database, {}, now_utc))
        self.searcher = Searcher(self.database, self.settings, self.clock, self._follow)

    def _follow(self) -> None:
        self.changes.follow()
        self.seen.append(self.targets())

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Search again and again."""
        with self.searcher.searching(PATIENCE):
            yield
            cut_off_at = monotonic()
        assert monotonic() - cut_off_at < PATIENCE, "an active search was not cut off"

    def reload(self, settings: Settings) -> None:
        """Do what a SIGHUP does."""
        self.changes.apply(settings)
        self.searcher.reload(settings)

    def search(self) -> list[str]:
        """Search once; return the names of the targets."""
        self.searcher.search_once()
        self.changes.follow()
        return self.targets()

    def targets(self) -> list[str]:
        """Return the names of the targets."""
        return sorted(self.changes.worker.targets)

    def has(self, name: str) -> bool:
        """Return whether there is a target of this name."""
        return name in self.changes.worker.targets


@pytest.mark.each_database
def test_tables_whose_tokens_see_different_repositories_keep_each_what_its_own_sees(
    database: Database, octo: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    octo.visible = {"a": ("app", "web", "both"), "b": ("site", "both")}
    service = Service(database, _settings(_of(octo, "a", "TOKEN_A"), _of(octo, "b", "TOKEN_B")))

    for _ in range(3):
        assert service.search() == ["a.app", "a.both", "a.web", "b.site"]
    assert service.seen == [["a.app", "a.both", "a.web", "b.site"]], "no cache changes hands"
    assert [line for line in caplog.messages if "gone" in line] == [
        "discovery a: 3 caches new, 0 gone",
        "discovery b: 2 caches new, 0 gone",
    ]

    octo.visible = {"a": ("app", "web"), "b": ("site", "both")}
    assert service.search() == ["a.app", "a.web", "b.both", "b.site"]
    octo.visible = {"a": ("app", "web"), "b": ("site",)}
    assert service.search() == ["a.app", "a.web", "b.site"]


def test_a_place_that_asks_for_patience_holds_up_no_other_and_a_reload_ends_its_search(
    database: Database, octo: Organization, tmp_path: Path
) -> None:
    octo.patience = 280
    _make(tmp_path, "web")
    here, there = _here(tmp_path), _of(octo, "octo", "TOKEN_A")
    service = Service(database, _settings(there, here))

    with service.searching():
        wait_until(lambda: service.targets() == ["here.web"])
        wait_until(lambda: octo.asked)

        _make(tmp_path, "api")
        service.reload(_settings(here))
        wait_until(lambda: service.targets() == ["here.api", "here.web"])

    assert (octo.asked, service.searcher.trouble) == (1, {})


def test_a_place_that_is_not_searched_any_more_has_no_problems(
    database: Database, tmp_path: Path
) -> None:
    missing = {"name": "away", "store": f"local:{tmp_path}/away/*"}
    service = Service(database, _settings(_here(tmp_path), missing))
    service.search()
    assert list(service.searcher.trouble) == ["discovery away"]

    service.reload(_settings(_here(tmp_path)))

    assert not service.searcher.trouble


def test_a_change_of_discover_interval_applies_at_a_reload(
    database: Database, tmp_path: Path
) -> None:
    _make(tmp_path, "web")
    service = Service(database, _settings(_here(tmp_path)))

    with service.searching():
        wait_until(lambda: service.targets() == ["here.web"])
        service.reload(_settings(_here(tmp_path), every="1s"))
        for name in ("api", "db"):
            _make(tmp_path, name)
            wait_until(partial(service.has, f"here.{name}"))


def test_a_database_that_cannot_be_used_is_one_problem_however_many_places_there_are(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = [{**_here(tmp_path / name), "name": name} for name in ("one", "two", "three")]
    service = Service(database, _settings(*places))
    with database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE discovered RENAME TO lost")

    with service.searching():
        wait_until(lambda: service.searcher.trouble)

    assert list(service.searcher.trouble) == ["discovery"]
    assert "no such table: discovered" in service.searcher.trouble["discovery"]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("ahead", [timedelta(days=40), -timedelta(days=40)])
def test_with_a_wrong_clock_nothing_is_retired_or_forgotten(
    tmp_path: Path, ahead: timedelta
) -> None:
    """A cache on a disk that is not mounted, one that has just gone, and one of another place."""
    with on_postgresql(), closing(Database(create_database())) as database:
        mounted, other = tmp_path / "mounted", tmp_path / "other"
        for name in ("web", "api", "db"):
            _make(mounted, name)
        _make(other, "own")
        settings = _settings(_here(mounted))
        Service(database, _settings(_here(mounted), {**_here(other), "name": "other"})).search()
        right = Service(database, settings)
        (mounted / "db").rename(tmp_path / "db")
        assert right.search() == ["here.api", "here.web"]
        mounted.rename(tmp_path / "away")
        mounted.mkdir()
        assert right.search() == ["here.api", "here.web"]
        before = _known(database)

        def clock() -> datetime:
            return now_utc() + ahead

        retire(database, _settings(), clock)
        wrong = Service(database, settings, clock)
        wrong.search()

        assert _known(database) == before
        assert "this machine's clock is 3,45" in wrong.searcher.trouble["discovery here"]
        assert right.search() == ["here.api", "here.web"]


def _known(database: Database) -> list[tuple[Any, ...]]:
    with database.reading() as connection:
        places = connection.exec_driver_sql("SELECT * FROM discovery ORDER BY name")
        caches = connection.exec_driver_sql("SELECT * FROM discovered ORDER BY store")
        return [tuple(row) for row in (*places, *caches)]
