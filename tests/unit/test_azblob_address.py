"""The setting `store` of a container, in the words of BuildKit's `type=azblob`."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.errors import UsageError
from maintainer.settings import Settings, TargetSettings
from maintainer.stores.azblob.address import Address, read_address
from maintainer.stores.kinds import check

_PAGE = Path(__file__).parents[2] / "docs" / "azure.md"


def test_the_path_is_the_container_and_the_prefix_and_the_rest_has_buildkits_defaults() -> None:
    address = read_address("azblob://account/my-cache/app/v%201")

    assert address == Address("account", "my-cache", "app/v 1")
    assert address.url == "https://account.blob.core.windows.net"
    assert address.layout.prefix == "app/v 1/"
    assert address.layout.blobs == "app/v 1/blobs/"
    assert address.layout.manifests == ("app/v 1/manifests/",)
    assert address.layout.least_grace == timedelta(hours=2)
    assert not address.layout.touches


@pytest.mark.parametrize(
    ("prefix", "blobs"),
    [
        ("", "blobs/"),
        ("/", "blobs/"),
        ("/app", "app/blobs/"),
        ("app//v1/./x/../", "app/v1/blobs/"),
        ("/../app", "app/blobs/"),
        ("//app//", "app/blobs/"),
    ],
)
def test_names_are_cleaned_as_buildkit_cleans_them(prefix: str, blobs: str) -> None:
    assert Address("account", "cache", prefix).layout.blobs == blobs


def test_everything_that_a_build_can_set_can_be_set() -> None:
    address = read_address(
        "azblob://account/cache?account_url=http://localhost:10000/account/&blobs_prefix=b/"
        "&manifests_prefix=m&manifests_prefix=n&longest_export=30m"
    )

    assert address == Address(
        account="account",
        container="cache",
        account_url="http://localhost:10000/account",
        blobs_prefix="b/",
        manifests_prefixes=("m", "n"),
        longest_export=timedelta(minutes=30),
    )
    assert address.layout.blobs == "b/"
    assert address.layout.manifests == ("m/", "n/")


def test_names_to_maintain_are_a_part_of_the_name_of_a_cache() -> None:
    address = read_address("azblob://account/cache/app?names=web;pr-*")

    assert address.name == "azblob://account/cache/app?names=web;pr-*"
    assert address.layout.maintains("app/manifests/pr-1")
    assert not address.layout.maintains("app/manifests/api")


def test_everything_that_can_be_set_is_on_the_page() -> None:
    table = _PAGE.read_text().partition("## The setting")[2].partition("## What")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)

    with pytest.raises(UsageError, match=f"use {', '.join(sorted(documented))}$"):
        read_address("azblob://account/cache?else=b")


def test_the_name_of_a_cache_does_not_depend_on_how_it_is_written() -> None:
    here, there = "azblob://account/cache/app", "azblob://account/cache//app/?longest_export=1h"

    assert read_address(here).name == read_address(there).name == here


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("azblob:account", "must be azblob://ACCOUNT/CONTAINER/PREFIX"),
        ("azblob://account", "a container has 3 to 63"),
        ("azblob://account/Cache", "a container has 3 to 63"),
        ("azblob://account/a--b", "a container has 3 to 63"),
        ("azblob://account/cache%2Fx%00", "must be UTF-8"),
        ("azblob://evil.example.com/cache", "an account has 3 to 24"),
        ("azblob://account:80/cache", "an account has 3 to 24"),
        ("azblob://%61ccount/cache", "an account has 3 to 24"),
        ("azblob://key:hush@account/cache", "credentials are those of AZURE_STORAGE_KEY"),
        ("azblob://account/cache?secret_access_key=hush", "secret_access_key is unknown"),
        ("azblob://account/cache?sig=hush", "sig is unknown"),
        ("azblob://account/cache?account_url=a&account_url=b", "account_url is given 2 times"),
        ("azblob://account/cache?names=;", "names is empty: leave it out to maintain all names"),
        ("azblob://account/cache?account_url=ftp://x", "account_url must be a URL"),
        ("azblob://account/cache?account_url=http://key:hush@x", "without a user"),
        ("azblob://account/cache?account_url=https://x/?sig=hush", "without a user or a query"),
        ("azblob://account/cache?account_url=https://x:y/", "account_url must be a URL"),
        ("azblob://account/cache?longest_export=soon", "longest_export is not a valid duration"),
        ("azblob://account/cache/../..", "leads out of the container"),
        ("azblob://account/cache?blobs_prefix=../../x", "leads out of the container"),
        ("azblob://account/cache/a%00b", "must be UTF-8"),
        ("azblob://account/cache/a%0Ab", "must be printable"),
        ("azblob://account/cache/%FF", "must be UTF-8"),
        ("azblob://account/cache/" + "x" * 1000, "shorter than a name may be"),
        ("azblob://account/cache?manifests_prefix=", "may begin with the other"),
        ("azblob://account/cache?blobs_prefix=", "may begin with the other"),
        ("azblob://account/cache?blobs_prefix=manifests/./b", "may begin with the other"),
        ("azblob://account/cache?manifests_prefix=x/../blobs", "may begin with the other"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as error:
        read_address(text)

    assert "hush" not in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(), st.text(), st.text())
def test_whatever_is_written_is_an_address_or_refused(host: str, path: str, query: str) -> None:
    text = f"azblob://{host}/{path}?{query}"
    try:
        layout = read_address(text).layout
    except UsageError:
        return
    assert layout.blobs.endswith("/")
    assert not layout.blobs.startswith("/")
    assert layout.digest_of(f"{layout.blobs}sha256:{'0' * 64}")


@pytest.mark.parametrize(
    "second",
    [
        "azblob://account/cache/app?manifests_prefix=api",
        "azblob://account/cache//app/.?manifests_prefix=api",
        "azblob://account/cache?blobs_prefix=app/blobs&manifests_prefix=api",
        "azblob://account/cache/app?account_url=https://Account.blob.core.windows.net/",
        "azblob://account/cache/app?account_url=https://account.blob.core.windows.net:443",
    ],
)
def test_two_targets_that_share_their_blobs_are_refused(second: str) -> None:
    first = TargetSettings(name="web", store="azblob://account/cache/app?manifests_prefix=web")

    with pytest.raises(UsageError, match="its blobs are those of target web"):
        check(Settings(targets=(first, TargetSettings(name="api", store=second))))
