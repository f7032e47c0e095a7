"""Repositories of an organization, found with a token and by a GitHub App, on the emulator."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from maintainer.emulator import ActionsCache, Fault, FaultPlan, Running, serve_in_thread
from maintainer.emulator.account import App
from maintainer.errors import MaintainerError
from maintainer.graph.discovered import Search
from maintainer.serve.discovery import search
from maintainer.settings import AppSettings, DiscoverSettings
from maintainer.stores.github.credentials import Installation
from maintainer.stores.http.client import Http
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.http.retry import RetryPolicy
from tests.commands import Outcome, run_here
from tests.empty_database import make_empty

INSTALLATION = 6789


@cache
def _key() -> RSAPrivateKey:
    return generate_private_key(65_537, 2048)


def _pem() -> str:
    return _key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _public() -> str:
    public = _key().public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Return GitHub, with an organization that has 230 repositories, and an App."""
    with serve_in_thread(ActionsCache()) as running:
        account = running.account
        account.repositories = [f"app-{number}" for number in range(230)]
        account.archived = frozenset({"app-7"})
        account.app = App(12345, INSTALLATION, _public().encode())
        for name, value in running.environment("refs/heads/main").items():
            if name.startswith("GITHUB_"):
                monkeypatch.setenv(name, value)
        monkeypatch.setenv("APP_KEY", _pem().replace("\n", "\\n"))
        monkeypatch.setattr("maintainer.stores.github.credentials._KEPT", {})
        yield running


def _search(**table: Any) -> Search:
    return anyio.run(search, DiscoverSettings(name="octo", **table))


APP = {"app_id": 12345, "installation": INSTALLATION, "app_key_env": "APP_KEY"}


# An organization.


def test_all_repositories_of_an_organization_are_found_page_by_page(github: Running) -> None:
    found = _search(organization="Octo")

    assert found.problem is None
    assert {one.repository for one in found.found} == {
        f"octo/app-{number}" for number in range(230) if number != 7
    }
    assert {one.store for one in found.found} == {"github"}
    assert "app-0" in {one.name for one in found.found}


def test_names_that_are_not_repositories_are_ignored(github: Running) -> None:
    github.account.repositories = ["..", ".", "a/b", "x" * 101, "a b", "a%2f", "é", ".github"]

    assert [one.name for one in _search(organization="octo").found] == [".github"]


def test_the_name_of_an_organization_has_no_case(github: Running) -> None:
    github.account.repositories = ["app"]
    github.account.login = "OCTO"
    assert [one.repository for one in _search(organization="octo").found] == ["OCTO/app"]


@pytest.mark.parametrize(
    ("table", "environment", "problem"),
    [
        ({"organization": "other"}, {}, "HTTP 404: check the name, and that GITHUB_TOKEN may see"),
        ({"organization": "octo"}, {"GITHUB_TOKEN": "wrong"}, "GITHUB_TOKEN holds no token that"),
        ({"organization": "octo"}, {"GITHUB_TOKEN": ""}, "GITHUB_TOKEN is not set: set it, or"),
        ({"organization": "octo", "token_env": "SECRET" * 9}, {}, "the variable of token_env"),
        (APP | {"installation": 1}, {}, "HTTP 404: the App has no such installation"),
        (APP | {"app_id": 1}, {}, "HTTP 401: the private key is not that of the App"),
        (APP, {"APP_KEY": ""}, "the private key of the GitHub App: APP_KEY is not set"),
        (APP, {"APP_KEY": _public()}, "APP_KEY is not a private key in PEM format"),
        (APP, {"APP_KEY": "s3cr3t"}, "APP_KEY is not a private key in PEM format"),
        (
            APP | {"app_key_env": None, "app_key_file": "/nowhere/key.pem"},
            {},
            "/nowhere/key.pem: No such file or directory",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_a_secret(
    github: Running,
    monkeypatch: pytest.MonkeyPatch,
    table: dict[str, Any],
    environment: dict[str, str],
    problem: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    found = _search(**{key: value for key, value in table.items() if value is not None})

    assert found.found == ()
    assert found.problem
    assert problem in found.problem
    assert "\n" not in found.problem
    assert "s3cr3t" not in found.problem


# An App.


def test_an_app_finds_what_its_installation_may_use_with_one_token(
    github: Running, tmp_path: Path
) -> None:
    found = _search(**APP)

    assert found.problem is None
    assert len(found.found) == 229

    (tmp_path / "key.pem").write_text(_pem())
    key = {"app_key_env": None, "app_key_file": str(tmp_path / "key.pem")}
    again = _search(**{k: v for k, v in (APP | key).items() if v is not None}, organization="octo")
    assert again.problem is None
    assert len(again.found) == 229
    assert github.account.tokens_made == 1


@dataclass
class Clock:
    """A monotonic clock that can be set."""

    now: float = 0.0
    made: list[httpx2.Headers] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now


def test_a_token_is_renewed_before_it_ends(github: Running) -> None:
    clock = Clock()
    app = AppSettings(app_id=12345, installation=INSTALLATION, key_env="APP_KEY")
    installation = Installation(app, github.url, clock)

    async def ask() -> str:
        async with Http(RequestLog()) as http:
            return (await installation.headers(http))["Authorization"]

    first = anyio.run(ask)
    clock.now = 49 * 60
    assert anyio.run(ask) == first
    clock.now = 51 * 60
    assert anyio.run(ask) != first
    assert github.account.tokens_made == 2


def test_a_token_that_is_refused_is_not_used_again(github: Running) -> None:
    assert _search(**APP).problem is None
    github.inject(FaultPlan((Fault(kind="status", status=401, request="other", times=1),)))
    assert "HTTP 401" in str(_search(**APP).problem)

    assert _search(**APP).problem is None
    assert github.account.tokens_made == 2


@pytest.mark.parametrize("table", [APP, {"organization": "octo"}], ids=["App", "organization"])
def test_a_deletion_while_the_list_is_read_hides_no_repository(
    github: Running, table: dict[str, Any]
) -> None:
    pages: list[str] = []

    def remove_one(request: Any) -> None:
        if request.path.endswith(("/repositories", "/repos")):
            pages.append(request.path)
            if len(pages) in (2, 3, 4):
                github.account.repositories = github.account.repositories[1:]

    github.observe(before=remove_one)
    found = _search(**table)

    assert found.problem is None
    assert len(pages) == 4
    there = set(github.account.repositories) - {"app-7"}
    assert {one.name for one in found.found} >= there


def test_a_list_that_is_shorter_than_it_says_is_not_complete(github: Running) -> None:
    github.account.repositories = ["app", "app", "site"]

    found = _search(**APP)

    assert [one.name for one in found.found] == ["app", "site"]
    assert found.problem == "GitHub lists 2 of 3 repositories"


# The service.


CONFIGURATION = f"""
[[discover]]
name = "octo"
app_id = 12345
installation = {INSTALLATION}
app_key_env = "APP_KEY"
include = ["app-1", "app-2"]
"""


def test_each_repository_is_maintained_and_no_secret_is_left_anywhere(
    github: Running, tmp_path: Path
) -> None:
    github.call(lambda cache: cache.put("setup-node-1", size=10, ref="refs/heads/main"))
    make_empty(tmp_path / "maintainer.db")
    (tmp_path / "maintainer.toml").write_text(CONFIGURATION)
    environment = {"APP_KEY": _pem(), "GITHUB_API_URL": github.url, "GITHUB_TOKEN": ""}

    def run(*arguments: str) -> Outcome:
        return run_here(tmp_path, environment, *arguments, "--config", "maintainer.toml")

    outcomes = [run("serve", "--once"), run("schedule", "--json"), run("config", "show")]

    assert [one.status for one in outcomes] == [0, 0, 0]
    status = outcomes[1].json
    assert [(one["name"], one["last_status"]) for one in status] == [
        ("octo.app-1", "done"),
        ("octo.app-2", "done"),
    ]
    assert github.account.tokens_made == 1
    said = "".join(one.shown for one in outcomes)
    with closing(sqlite3.connect(tmp_path / "maintainer.db")) as database:
        said += "".join(database.iterdump())
    (piece,) = _pem().splitlines()[3:4]
    assert piece not in said
    assert "ghs_emulator" not in said
    assert 'app_key_env = "APP_KEY"' in said


def test_an_app_that_is_suspended_fails_its_targets_and_retires_none(
    github: Running, tmp_path: Path
) -> None:
    del tmp_path
    github.inject(FaultPlan((Fault(kind="status", status=403, request="other"),)))
    app = AppSettings(app_id=12345, installation=INSTALLATION, key_env="APP_KEY")

    async def ask() -> None:
        async with Http(RequestLog(), RetryPolicy(attempts=1)) as http:
            await Installation(app, github.url).headers(http)

    with pytest.raises(MaintainerError, match="answered HTTP 403"):
        anyio.run(ask)
    assert _search(**APP).problem
