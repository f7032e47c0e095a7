"""Caches that are found in buckets, containers and registries: real servers, emulated or not."""

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from maintainer.errors import UsageError
from maintainer.graph.discovered import Search
from maintainer.serve.discovery import search
from maintainer.settings import DiscoverSettings, Settings
from maintainer.stores.kinds import check
from tests.integration.scripted import Reply, Request, json, serve
from tests.stores.docker_registry import DockerRegistry, a_registry
from tests.stores.s3 import BUCKET, Moto, a_server


def _search(store: str, **more: Any) -> Search:
    return anyio.run(search, DiscoverSettings(name="found", store=store, **more))


def _found(done: Search) -> list[tuple[str, str]]:
    assert done.problem is None
    return [(one.name, one.store) for one in done.found]


# Buckets.


@pytest.fixture(scope="module")
def bucket() -> Iterator[Moto]:
    with a_server() as moto:
        for folder in ("web", "api", "a b", "only-blobs"):
            moto.put(f"caches/{folder}/blobs/sha256:0", b"x")
            if folder != "only-blobs":
                moto.put(f"caches/{folder}/manifests/buildkit", b"{}")
        moto.put("caches/readme", b"x")
        yield moto


def test_each_folder_of_a_bucket_with_an_index_is_a_cache(bucket: Moto) -> None:
    query = f"?region=us-east-1&endpoint_url={bucket.url}&path_style=true"

    found = _found(_search(f"s3://{BUCKET}/caches/*/{query}"))

    assert found == [
        (name, f"s3://{BUCKET}/caches/{spelled}/{query}")
        for name, spelled in (("a b", "a%20b"), ("api", "api"), ("web", "web"))
    ]
    assert "NoSuchBucket" in str(_search(f"s3://missing/caches/*/{query}").problem)


@pytest.mark.parametrize(
    "store",
    ["s3://bucket/caches/", "s3://bucket/*/*/", "s3://bucket/a*/", "s3://bucket/caches/?region=*"],
)
def test_a_bucket_needs_one_star_in_place_of_a_folder(store: str) -> None:
    _refuse(store, "must have one")


def _refuse(store: str, problem: str) -> None:
    table = {"name": "found", "store": store}
    with pytest.raises(UsageError, match=problem):
        check(Settings.model_validate({"discover": [table]}))


# Registries.


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with a_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def test_the_catalog_of_a_registry_is_searched(registry: DockerRegistry) -> None:
    registry.put_blob(b"layer")
    host = registry.address().host

    found = _found(_search(f"registry://{host}/octo/*-cache?insecure=true"))

    assert found == [("app-cache", f"registry://{host}/octo/app-cache?insecure=true")]
    assert _found(_search(f"registry://{host}/other/*?insecure=true")) == []


def test_the_packages_of_an_owner_are_searched_on_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "t0ken")
    names = ["app-cache", "app", "Bad/../name", "web/cache"]

    def answer(request: Request) -> Reply:
        if request.path.startswith("/orgs/"):
            return json({"message": "Not Found"}, 404)
        return json([{"name": name} for name in names])

    with serve() as server:
        server.on("packages", answer)
        found = _search(f"registry://ghcr.io/octo/*cache?packages_url={server.url}&insecure=true")

    assert [one.name for one in found.found] == ["app-cache", "web/cache"]
    assert {one.headers["authorization"] for one in server.requests} == {"Bearer t0ken"}
    assert "name it" in str(_search("registry://ghcr.io/*").problem)


def test_a_registry_needs_a_pattern() -> None:
    _refuse("registry://ghcr.io/octo/app", "must be a pattern")
