"""The setting `store` of a repository of a registry."""

import re
from pathlib import Path

import httpx2
import pytest

from maintainer.errors import UsageError
from maintainer.settings import Settings, TargetSettings
from maintainer.stores.http.answers import place
from maintainer.stores.kinds import check, connect
from maintainer.stores.registry.address import Address, read_address
from maintainer.stores.registry.kind import find_token

_PAGE = Path(__file__).parents[2] / "docs" / "registries.md"


def test_the_path_is_the_repository_and_the_rest_follows_the_question_mark() -> None:
    address = read_address("registry://GHCR.io/octo/app-cache?tags=main,pr-*&insecure=true")

    assert address == Address(
        "ghcr.io", "octo/app-cache", ("main", "pr-*"), insecure=True,
        packages_url="https://api.github.com",
    )  # fmt: skip
    assert address.name == "registry://ghcr.io/octo/app-cache?tags=main,pr-*"
    assert [address.selects(tag) for tag in ("main", "pr-7", "dev")] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "url", "login"),
    [
        ("registry://localhost:5000/a?insecure=1", "http://localhost:5000", "localhost:5000"),
        ("registry://[::1]:5000/a", "https://[::1]:5000", "[::1]:5000"),
        (
            "registry://docker.io/a",
            "https://registry-1.docker.io",
            "https://index.docker.io/v1/",
        ),
    ],
)
def test_a_registry_is_reached_and_known_as_docker_does_it(text: str, url: str, login: str) -> None:
    address = read_address(text)

    assert (address.remote.url, address.remote.login) == (url, login)
    assert address.selects("anything")
    assert address.packages_url is None


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("registry://ghcr.io:443/octo/a", "registry://ghcr.io/octo/a"),
        ("registry://host.test:80/a?insecure=1", "registry://host.test/a?insecure=1"),
        ("registry://[::1]:443/a", "registry://[::1]/a"),
    ],
)
def test_the_usual_port_makes_no_other_cache(text: str, same: str) -> None:
    address, other = read_address(text), read_address(same)

    assert (address.name, address.identity) == (other.name, other.identity)
    assert (
        read_address("registry://host.test:80/a").identity
        != read_address("registry://host.test/a").identity
    )
    assert address.remote.login == text.split("/")[2], "as `docker login` has stored it"


def test_a_request_to_an_address_of_ipv6_is_named_as_it_can_be_sent() -> None:
    request = httpx2.Request("GET", f"{read_address('registry://[::1]:5000/a').remote.url}/v2/list")

    assert place(request) == "GET https://[::1]:5000/…/list"


def test_an_image_of_docker_hub_without_an_owner_is_one_of_the_library() -> None:
    assert read_address("registry://docker.io/app").repository == "library/app"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("registry:app", "must be registry://HOST/REPOSITORY"),
        ("registry://host.test", "must be registry://HOST/REPOSITORY"),
        ("registry://[::1/a", "must be registry://HOST/REPOSITORY"),
        ("registry://me:hush@host.test/a", "credentials are those of `docker login`"),
        ("registry://ho st/a", "must be registry://HOST/REPOSITORY"),
        ("registry://host.test:0/a", "must be registry://HOST/REPOSITORY"),
        ("registry://[::1]:65536/a", "must be registry://HOST/REPOSITORY"),
        ("registry://host.test/a#b", "without a #"),
        ("registry://octo/a", "for Docker Hub, write registry://docker.io/octo/a"),
        (f"registry://host.test/a@sha256:{'0' * 64}", "names a digest"),
        ("registry://host.test/a:latest", "names a tag"),
        ("registry://host.test/A", "not the name of a repository"),
        ("registry://host.test/a/../b", "not the name of a repository"),
        ("registry://host.test/a//b", "not the name of a repository"),
        (f"registry://host.test/{'a' * 256}", "not the name of a repository"),
        ("registry://host.test/a?tag=b", "tag is unknown; use insecure, packages_url, tags"),
        ("registry://host.test/a?tags=b&tags=c", "tags is given 2 times"),
        ("registry://host.test/a?tags", "must be NAME=VALUE"),
        ("registry://host.test/a?tags=b/c", "b/c is not a tag"),
        ("registry://host.test/a?tags=", "tags is empty: leave it out to maintain all tags"),
        ("registry://host.test/a?tags=,", "tags is empty: leave it out to maintain all tags"),
        ("registry://host.test/a?tags=-b", "-b is not a tag"),
        ("registry://host.test/a?tags=[ab]", "is not a tag"),
        ("registry://host.test/a?insecure=perhaps", "insecure must be true or false"),
        ("registry://host.test/a?packages_url=ftp://x", "packages_url must be a URL"),
        ("registry://host.test/a?packages_url=http://x", "packages_url must be a URL"),
        ("registry://host.test/a?packages_url=https://me:hush@x", "without a user"),
        ("registry://host.test/a?packages_url=https://x:99999", "packages_url must be a URL"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as error:
        read_address(text)

    assert problem in str(error.value)
    assert "hush" not in str(error.value)
    assert "\n" not in str(error.value)


def test_everything_that_can_be_set_is_on_the_page() -> None:
    table = _PAGE.read_text().partition("## The setting")[2].partition("## What")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)

    with pytest.raises(UsageError, match=f"use {', '.join(sorted(documented))}$"):
        read_address("registry://host.test/a?else=b")


@pytest.mark.parametrize("tag", ["bad tag", "../x", "-a", "a" * 129])
def test_a_merge_at_what_is_no_tag_is_refused_before_any_request(tag: str) -> None:
    settings = Settings(store="registry://host.test/a", merged_tag=tag)

    with pytest.raises(UsageError, match=r"^setting merged_tag: .* is not a tag$"):
        connect(settings)
    assert connect(Settings(store="registry://host.test/a", merged_tag="")).identity


_GHES = "https://github.example.com/api/v3"


@pytest.mark.parametrize(
    ("store", "name", "api", "is_sent"),
    [
        ("registry://ghcr.io/octo/a", "GITHUB_TOKEN", "", True),
        ("registry://ghcr.io/octo/a", "GITHUB_TOKEN", "https://api.github.com/", True),
        ("registry://ghcr.io/octo/a", "GITHUB_TOKEN", _GHES, False),
        ("registry://ghcr.io/octo/a", "PACKAGES_TOKEN", _GHES, True),
        (f"registry://containers.example.com/a?packages_url={_GHES}", "GITHUB_TOKEN", _GHES, True),
    ],
)
def test_the_token_of_an_enterprise_server_goes_to_no_other_host(
    store: str, name: str, api: str, is_sent: bool
) -> None:
    token, why_none = find_token(read_address(store), name, {name: "t", "GITHUB_API_URL": api})

    assert (token, not why_none) == (("t", True) if is_sent else ("", False))
    assert why_none == "" or why_none.startswith(f"GITHUB_TOKEN is that of {_GHES}")


def test_two_targets_in_one_repository_are_refused() -> None:
    first = TargetSettings(name="web", store="registry://ghcr.io/octo/cache?tags=web")
    second = TargetSettings(name="api", store="registry://GHCR.IO/octo/cache?tags=api")

    with pytest.raises(UsageError, match="its blobs are those of target web"):
        check(Settings(targets=(first, second)))
