"""Opens the cache that the settings name, wherever it lives."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from maintainer.errors import UsageError
from maintainer.settings import GITHUB, LOCAL, GitHubSettings, Settings
from maintainer.stores.base import Store
from maintainer.stores.github import open_store
from maintainer.stores.local import Directory, open_directory


def read_environment(settings: Settings) -> GitHubSettings | None:
    """Read what a workflow's environment says; None if the cache is a directory.

    Raises UsageError.
    """
    if settings.store == GITHUB:
        return GitHubSettings.read()
    return None


@asynccontextmanager
async def open_cache(
    settings: Settings, github: GitHubSettings | None
) -> AsyncIterator[Store | Directory]:
    """Open a cache for one run.

    Raises UsageError if what is said is not enough for one, StoreError if it is not there.
    """
    if github is None:
        with open_directory(
            Path(settings.store.removeprefix(LOCAL)),
            max_index_size=settings.max_index_size,
            verify=settings.verify,
        ) as directory:
            yield directory
        return
    if settings.verify:
        raise UsageError("verify is for directories only: it needs store = local:DIR")
    async with open_store(github, max_index_size=settings.max_index_size) as store:
        yield store
