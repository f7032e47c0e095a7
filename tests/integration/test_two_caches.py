"""The REST API lists one cache, the cache service holds another: neither loses anything by it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.emulator.requests import Request
from maintainer.stores.github.client import are_of_one_cache
from tests.integration.world import MAIN, World, a_world, blob_of, leads_to

GITHUB = "https://api.github.com"


@pytest.fixture
def listed(tmp_path: Path) -> Iterator[World]:
    """Return the cache that the REST API lists."""
    (tmp_path / "listed").mkdir()
    with a_world(tmp_path / "listed") as world:
        yield world


@pytest.fixture
def held(tmp_path: Path) -> Iterator[World]:
    """Return the cache that the cache service holds."""
    (tmp_path / "held").mkdir()
    with a_world(tmp_path / "held") as world:
        yield world


@pytest.mark.parametrize(
    ("api", "service"),
    [
        (GITHUB, "https://results-receiver.actions.githubusercontent.com/"),
        (GITHUB, "https://artifactcache.actions.githubusercontent.com/abc/"),
        ("https://api.octo.ghe.com", "https://results-receiver.actions.octo.ghe.com/"),
        ("https://octo.example/api/v3", "https://octo.example/_services/artifactcache/1/"),
        ("https://octo.example/api/v3", "https://artifactcache.octo.example/1/"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
    ],
)
def test_an_api_belongs_to_the_cache_service_of_its_own_site(api: str, service: str) -> None:
    assert are_of_one_cache(api, service)


@pytest.mark.parametrize(
    ("api", "service"),
    [
        (GITHUB, "http://127.0.0.1:8080/"),
        (GITHUB, "https://cache.runners.example/"),
        (GITHUB, "https://actions.githubusercontent.com.example/"),
        (GITHUB, "https://raw.githubusercontent.com/"),
        ("https://octo.example/api/v3", "https://notocto.example/"),
        ("https://octo.example/api/v3", "https://octo.example:8443/"),
        ("https://octo.example/api/v3", "https://results-receiver.actions.githubusercontent.com/"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8081/"),
    ],
)
def test_an_api_does_not_belong_to_a_cache_service_elsewhere(api: str, service: str) -> None:
    assert not are_of_one_cache(api, service)


def test_what_one_cache_stores_is_not_judged_by_the_indexes_of_another(
    listed: World, held: World, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        listed.build("base", f"step {number}")
        held.build("base", f"other {number}")
    listed.passes(days=9)
    before = listed.entries()
    ours, theirs = listed.running.environment(MAIN), held.running.environment(MAIN)
    service = {name: theirs[name] for name in theirs if name.startswith("ACTIONS_")}

    report = listed.gc_in(ours | service, grace=timedelta(0))

    assert report.status == "done"
    assert report.target == "github:127.0.0.1/example/app", "it is not that of the API"
    assert listed.entries() == before
    assert held.blobs() == leads_to(held.newest())
    assert "is not that of the cache service" in caplog.text
    assert ours["GITHUB_TOKEN"] not in caplog.text


def test_a_list_that_lacks_what_exists_lets_no_blob_go(listed: World) -> None:
    listed.build("base", "api")
    listed.put(f"buildkit-blob-1-{blob_of('orphan')}", size=9)
    listed.passes(days=9)
    hidden = f"buildkit-blob-1-{blob_of('api')}"

    def hide(request: Request) -> None:
        if request.kind == "list":
            listed.evict("api")

    def show(request: Request) -> None:
        if request.kind == "list":
            listed.put(hidden, size=1_003)

    listed.running.observe(before=hide, after=show)
    report = listed.gc(grace=timedelta(0))

    assert blob_of("orphan") in listed.blobs()
    assert any("the list of entries was incomplete" in one.sentence for one in report.actions)
    listed.running.observe()
    listed.passes(hours=1)
    listed.gc(grace=timedelta(0))
    assert blob_of("orphan") not in listed.blobs()
