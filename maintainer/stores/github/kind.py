"""The Actions cache as a kind of store; what it works with is imported when one is opened."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from maintainer.errors import UsageError
from maintainer.model.discovery import FoundCache
from maintainer.model.finding import Finding
from maintainer.settings import DiscoverSettings, GitHubSettings, Settings, TargetSettings
from maintainer.stores.discovery import Discoverer
from maintainer.stores.kind import StoreKind

if TYPE_CHECKING:
    from maintainer.stores.github.store import GitHubStore


@dataclass(frozen=True, slots=True)
class _Connection:
    """What a workflow's environment says, or a target of the configuration."""

    github: GitHubSettings
    max_index_size: int
    problem: str = ""
    """Why it cannot be opened: a token is not set."""

    @property
    def identity(self) -> tuple[str, ...]:
        """The repository, and the URLs."""
        urls = (self.github.api_url, self.github.results_url, self.github.cache_url)
        return ("github", (self.github.repository or "").lower(), *(url or "" for url in urls))

    @property
    def limit(self) -> str:
        """That of the token or the installation."""
        from maintainer.stores.github.limit import limit_of  # noqa: PLC0415

        return limit_of(self.github)

    @asynccontextmanager
    async def open(self, *, hasty: bool = False) -> AsyncIterator["GitHubStore"]:
        """Connect to the cache service and the REST API."""
        if self.problem:
            raise UsageError(self.problem)
        from maintainer.stores.github.client import open_client  # noqa: PLC0415
        from maintainer.stores.github.store import GitHubStore  # noqa: PLC0415
        from maintainer.stores.http.retry import HASTY  # noqa: PLC0415

        policy, size = HASTY if hasty else None, self.max_index_size
        async with open_client(self.github, policy, max_index_size=size) as client:
            yield GitHubStore(client)


def _connect(settings: Settings, target: TargetSettings | None) -> _Connection:
    size = settings.max_index_size
    if target is None:
        return _Connection(GitHubSettings.read(), size)
    try:
        return _Connection(GitHubSettings.of_target(target), size)
    except UsageError as error:
        located = GitHubSettings.of_target(target, needs_tokens=False)
        return _Connection(located, size, str(error))


async def _diagnose(
    settings: Settings, target: TargetSettings | None, clock: Callable[[], datetime]
) -> AsyncIterator[Finding]:
    from maintainer.stores.github.diagnose import diagnose  # noqa: PLC0415

    async for finding in diagnose(_connect(settings, target).github, settings, clock):
        yield finding


def _source(table: DiscoverSettings) -> tuple[str, ...]:
    from maintainer.stores.github.discovery import find_source  # noqa: PLC0415

    return find_source(table)


def _search(table: DiscoverSettings) -> AsyncIterator[FoundCache]:
    from maintainer.stores.github.discovery import search  # noqa: PLC0415

    return search(table)


_OWN = (
    "api_url",
    "app_id",
    "app_key_env",
    "app_key_file",
    "cache_url",
    "installation",
    "results_url",
    "runtime_token_env",
)
"""The settings of a target that are for this kind alone."""

GITHUB = StoreKind(
    "github",
    form="github",
    what="the Actions cache that the environment names, for type=gha",
    has_place=False,
    connect=_connect,
    can_be_opened_early=True,
    uses_repository=True,
    uses=frozenset({"merged_scope", "scopes", "token_env", *_OWN}),
    discoverer=Discoverer(_source, _search),
    diagnose=_diagnose,
)
