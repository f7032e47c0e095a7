"""The setting `store` of a repository of a registry."""

import re
from pathlib import Path

import pytest

from maintainer.errors import UsageError
from maintainer.settings import Settings, TargetSettings
from maintainer.stores.kinds import check
from maintainer.stores.registry.address import Address, read_address

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
        ("registry://host:80/a?insecure=1", "registry://host/a?insecure=1"),
        ("registry://[::1]:443/a", "registry://[::1]/a"),
    ],
)
def test_the_usual_port_makes_no_other_cache(text: str, same: str) -> None:
    address, other = read_address(text), read_address(same)

    assert (address.name, address.identity) == (other.name, other.identity)
    assert (
        read_address("registry://host:80/a").identity != read_address("registry://host/a").identity
    )
    assert address.remote.login == text.split("/")[2], "as `docker login` has stored it"


def test_an_image_of_docker_hub_without_an_owner_is_one_of_the_library() -> None:
    assert read_address("registry://docker.io/app").repository == "library/app"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("registry:app", "must be registry://HOST/REPOSITORY"),
        ("registry://host", "must be registry://HOST/REPOSITORY"),
        ("registry://[::1/a", "must be registry://HOST/REPOSITORY"),
        ("registry://me:hush@host/a", "credentials are those of `docker login`"),
        ("registry://ho st/a", "must be registry://HOST/REPOSITORY"),
        ("registry://host/a:latest", "names a tag"),
        ("registry://host/A", "not the name of a repository"),
        ("registry://host/a/../b", "not the name of a repository"),
        ("registry://host/a//b", "not the name of a repository"),
        (f"registry://host/{'a' * 256}", "not the name of a repository"),
        ("registry://host/a?tag=b", "tag is unknown; use insecure, packages_url, tags"),
        ("registry://host/a?tags=b&tags=c", "tags is given 2 times"),
        ("registry://host/a?tags", "must be NAME=VALUE"),
        ("registry://host/a?tags=b/c", "b/c is not a tag"),
        ("registry://host/a?tags=", "tags is empty: leave it out to maintain all tags"),
        ("registry://host/a?tags=,", "tags is empty: leave it out to maintain all tags"),
        ("registry://host/a?tags=-b", "-b is not a tag"),
        ("registry://host/a?tags=[ab]", "is not a tag"),
        ("registry://host/a?insecure=perhaps", "insecure must be true or false"),
        ("registry://host/a?packages_url=ftp://x", "packages_url must be a URL"),
        ("registry://host/a?packages_url=http://x", "packages_url must be a URL"),
        ("registry://host/a?packages_url=https://me:hush@x", "without a user"),
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
        read_address("registry://host/a?else=b")


def test_two_targets_in_one_repository_are_refused() -> None:
    first = TargetSettings(name="web", store="registry://ghcr.io/octo/cache?tags=web")
    second = TargetSettings(name="api", store="registry://GHCR.IO/octo/cache?tags=api")

    with pytest.raises(UsageError, match="its blobs are those of target web"):
        check(Settings(targets=(first, second)))
