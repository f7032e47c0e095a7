"""Stores as a workflow opens them: by the environment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import jwt
import msgspec
import pytest

from maintainer.settings import GitHubSettings, TargetSettings
from maintainer.stores.github.client import ActionsCacheClient, open_client
from maintainer.stores.http.retry import RetryPolicy

RUNTIME_TOKEN = jwt.encode(
    {"ac": msgspec.json.encode([{"Scope": "refs/heads/main", "Permission": 3}]).decode()},
    "a key of the length that PyJWT asks for",
)
API_TOKEN = "ghs_0123456789abcdefSECRET"
AT_ONCE = RetryPolicy(first_wait=timedelta(0))
"""All attempts, without waiting between them."""


def in_environment(**variables: str) -> GitHubSettings:
    """Read the settings with just these variables of GitHub's set."""
    return GitHubSettings.read(variables)


@asynccontextmanager
async def store_v2(
    url: str, policy: RetryPolicy = AT_ONCE, max_index_size: int = 10**6
) -> AsyncIterator[ActionsCacheClient]:
    """Open a store that speaks version 2 of the cache service."""
    settings = in_environment(
        ACTIONS_RESULTS_URL=url,
        ACTIONS_CACHE_SERVICE_V2="True",
        ACTIONS_RUNTIME_TOKEN=RUNTIME_TOKEN,
    )
    async with open_client(settings, policy, max_index_size=max_index_size) as store:
        yield store


@asynccontextmanager
async def store_v1(url: str, policy: RetryPolicy = AT_ONCE) -> AsyncIterator[ActionsCacheClient]:
    """Open a store that speaks version 1 of the cache service."""
    settings = in_environment(ACTIONS_CACHE_URL=url, ACTIONS_RUNTIME_TOKEN=RUNTIME_TOKEN)
    async with open_client(settings, policy) as store:
        yield store


@asynccontextmanager
async def store_rest(
    url: str, policy: RetryPolicy = AT_ONCE, token_env: str = "GITHUB_TOKEN"
) -> AsyncIterator[ActionsCacheClient]:
    """Open a store that speaks the REST API only, with the token that a variable holds."""
    target = TargetSettings(name="it", repository="octo/cache", api_url=url, token_env=token_env)
    settings = GitHubSettings.of_target(target, {token_env: API_TOKEN})
    async with open_client(settings, policy) as store:
        yield store


WITH = ("aiohttp", "httpx2")
"""What sends requests: aiohttp those of long runs, httpx2 the first ones."""


def send_with(name: str, patch: pytest.MonkeyPatch) -> None:
    """Send all requests by one of them."""
    patch.setattr("maintainer.stores.http.transport.FIRST", 0 if name == WITH[0] else 1_000_000)


def beside_a_proxy(patch: pytest.MonkeyPatch) -> None:
    """Name a proxy that is for other hosts: then httpx2's client sends all requests."""
    patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    patch.setenv("NO_PROXY", "127.0.0.1,localhost")
