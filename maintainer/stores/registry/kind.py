"""A repository of a registry as a kind of store; its tools are imported when one is opened."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from maintainer.model.discovery import FoundCache
from maintainer.settings import DiscoverSettings, Settings, TargetSettings
from maintainer.stores.discovery import Discoverer
from maintainer.stores.kind import StoreKind
from maintainer.stores.registry.address import FORM, Address, read_address

if TYPE_CHECKING:
    from maintainer.stores.registry.store import RegistryStore

_TOKEN = "GITHUB_TOKEN"  # noqa: S105 - the name of a variable


@dataclass(frozen=True, slots=True)
class _Connection:
    """The location of a cache in a registry."""

    address: Address
    max_index_size: int
    token_env: str = _TOKEN
    """The variable with the token for GitHub's API for packages."""
    limit = ""
    """Runs share none."""

    @property
    def identity(self) -> tuple[str, ...]:
        """The repository."""
        return self.address.identity

    @asynccontextmanager
    async def open(self, *, hasty: bool = False) -> AsyncIterator["RegistryStore"]:
        """Connect to the registry."""
        del hasty
        from maintainer.stores.distribution.client import Client  # noqa: PLC0415
        from maintainer.stores.distribution.credentials import find_credentials  # noqa: PLC0415
        from maintainer.stores.distribution.packages import Packages  # noqa: PLC0415
        from maintainer.stores.http import Http  # noqa: PLC0415
        from maintainer.stores.registry.store import RegistryStore  # noqa: PLC0415
        from maintainer.stores.registry.untagged import ONLY_TAGS  # noqa: PLC0415
        from maintainer.stores.requests import RequestLog  # noqa: PLC0415

        address, token = self.address, os.environ.get(self.token_env, "")
        async with Http(RequestLog()) as http:
            client = Client(http, address.remote, partial(find_credentials, address.remote.login))
            packages, why_none = None, ONLY_TAGS
            if address.packages_url and token:
                packages = Packages(http, address.packages_url, address.repository, token)
            elif address.packages_url:
                why_none = f"{self.token_env} is not set, so GitHub cannot be asked for them"
            yield RegistryStore(
                client, address, packages, why_none, max_index_size=self.max_index_size
            )


def _connect(settings: Settings, target: TargetSettings | None) -> _Connection:
    token_env = target.token_env if target else _TOKEN
    return _Connection(read_address(settings.store), settings.max_index_size, token_env)


def _source(table: DiscoverSettings) -> tuple[str, ...]:
    from maintainer.stores.registry.discovery import find_source  # noqa: PLC0415

    return find_source(table)


def _search(table: DiscoverSettings) -> AsyncIterator[FoundCache]:
    from maintainer.stores.registry.discovery import search  # noqa: PLC0415

    return search(table)


REGISTRY = StoreKind(
    "registry",
    form=FORM,
    what="a repository of a registry, for type=registry",
    has_place=True,
    connect=_connect,
    can_be_opened_early=True,
    discoverer=Discoverer(_source, _search),
    blobs_of=lambda store: read_address(store).identity,
)
