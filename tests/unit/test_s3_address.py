"""The setting `store` of a bucket, in the words of BuildKit's `type=s3`."""

import re
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maintainer.errors import UsageError
from maintainer.settings import Settings, TargetSettings
from maintainer.stores.kinds import check
from maintainer.stores.s3.address import Address, read_address

_PAGE = Path(__file__).parents[2] / "docs" / "s3.md"


def test_the_path_is_the_prefix_to_the_letter_and_the_rest_has_buildkits_defaults() -> None:
    address = read_address("s3://cache/app//v%201/?region=eu-central-1")

    assert address == Address("cache", "app//v 1/", "eu-central-1")
    assert address.layout.blobs == "app//v 1/blobs/"
    assert address.layout.manifests == ("app//v 1/manifests/",)
    assert address.layout.least_grace == timedelta(hours=26)


def test_everything_that_a_build_can_set_can_be_set() -> None:
    address = read_address(
        "s3://cache?endpoint_url=http://localhost:9000/&path_style=true&blobs_prefix=b/"
        "&manifests_prefix=m/&manifests_prefix=n/&touch_refresh=12h&longest_export=30m"
        "&names=web;pr-*;;web"
    )

    assert address == Address(
        bucket="cache",
        endpoint_url="http://localhost:9000",
        path_style=True,
        blobs_prefix="b/",
        manifests_prefixes=("m/", "n/"),
        names=("web", "pr-*"),
        touch_refresh=timedelta(hours=12),
        longest_export=timedelta(minutes=30),
    )


def test_the_name_of_a_cache_does_not_depend_on_how_it_is_reached() -> None:
    here, there = "s3://cache/app/", "s3://cache/app/?path_style=true&touch_refresh=1h&region=x"

    assert read_address(here).name == read_address(there).name == "s3://cache/app/"


def test_a_cache_of_which_other_names_are_maintained_is_another_one() -> None:
    place = "s3://cache/app/?names=web;pr-*"

    assert read_address(place).name == place


@pytest.mark.parametrize(
    ("key", "is_maintained"),
    [
        ("app/m/web", True),
        ("app/m/pr-1/x", True),
        ("app/n/web", True),
        ("app/n/[a]", True),
        ("app/n/a", False),
        ("app/m/website", False),
        ("app/m/api", False),
    ],
)
def test_names_are_those_after_the_prefix_and_brackets_mean_themselves(
    key: str, *, is_maintained: bool
) -> None:
    given = "manifests_prefix=m/&manifests_prefix=n/&names=web;pr-?*;[a]"

    assert read_address(f"s3://cache/app/?{given}").layout.maintains(key) is is_maintained


def test_everything_that_can_be_set_is_on_the_page() -> None:
    table = _PAGE.read_text().partition("## The setting")[2].partition("## What")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)

    with pytest.raises(UsageError, match=f"use {', '.join(sorted(documented))}$"):
        read_address("s3://cache/?else=b")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("s3:cache", "must be s3://BUCKET/PREFIX"),
        ("s3://key:secret@cache/app/", "credentials are those of the AWS SDK"),
        ("s3://cache/app/?secret_access_key=hush", "secret_access_key is unknown"),
        ("s3://cache/?region=a&region=b", "region is given 2 times"),
        ("s3://cache/?region=a&names=", "names is empty: leave it out to maintain all names"),
        ("s3://cache/?region", "must be NAME=VALUE"),
        ("s3://cache/?path_style=perhaps", "path_style must be true or false"),
        ("s3://cache/?touch_refresh=soon", "touch_refresh is not a valid duration"),
        ("s3://cache/?manifests_prefix=", "may begin with the other"),
        ("s3://cache/?blobs_prefix=", "may begin with the other"),
        ("s3://cache/?blobs_prefix=manifests/b/", "may begin with the other"),
        ("s3://cache/?manifests_prefix=m/&manifests_prefix=blobs/m/", "may begin with the other"),
        ("s3://cache/?endpoint_url=ftp://x", "endpoint_url must be a URL"),
        ("s3://cache/?endpoint_url=http://key:hush@x", "without a user"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as error:
        read_address(text)

    assert "hush" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", ""),
        ("", "&endpoint_url=https://s3.eu-central-1.amazonaws.com"),
        ("&endpoint_url=https://S3.example.com/", "&endpoint_url=http://s3.example.com"),
        ("&endpoint_url=https://s3.example.com:443", "&endpoint_url=https://s3.example.com"),
        ("&endpoint_url=http://s3.example.com:80/x/", "&endpoint_url=http://s3.example.com/x"),
    ],
)
def test_two_targets_that_share_their_blobs_are_refused(one: str, other: str) -> None:
    first = TargetSettings(name="web", store=f"s3://cache/app/?manifests_prefix=web/{one}")
    second = TargetSettings(name="api", store=f"s3://cache/app/?manifests_prefix=api/{other}")

    with pytest.raises(UsageError, match="its blobs are those of target web"):
        check(Settings(targets=(first, second)))


@pytest.mark.parametrize(
    ("one", "other", "is_refused"),
    [
        ("manifests_prefix=m/", "blobs_prefix=b/&manifests_prefix=m/team/", True),
        ("manifests_prefix=m/team/", "blobs_prefix=b/&manifests_prefix=m/", True),
        ("manifests_prefix=m/", "blobs_prefix=b/&manifests_prefix=m/", True),
        ("manifests_prefix=m/", "blobs_prefix=b/&manifests_prefix=n/", False),
        ("manifests_prefix=m/", "endpoint_url=http://x&manifests_prefix=m/team/", False),
    ],
)
def test_two_targets_of_which_one_is_among_the_indexes_of_the_other_are_refused(
    one: str, other: str, *, is_refused: bool
) -> None:
    first = TargetSettings(name="web", store=f"s3://cache/app/?{one}")
    second = TargetSettings(name="api", store=f"s3://cache/app/?{other}")

    told: AbstractContextManager[Any] = nullcontext()
    if is_refused:
        told = pytest.raises(UsageError, match="among those of target web")
    with told:
        check(Settings(targets=(first, second)))
