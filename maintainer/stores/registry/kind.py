"""A repository of a registry as a kind of store; its tools are imported when one is opened."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from maintainer.errors import SettingError
from maintainer.model.discovery import FoundCache
from maintainer.sanitize import printable
from maintainer.settings import DiscoverSettings, Settings, TargetSettings
from maintainer.stores.discovery import Discoverer
from maintainer.stores.distribution.names import is_tag
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
        from maintainer.stores.http.client import Http  # noqa: PLC0415
        from maintainer.stores.http.requests import RequestLog  # noqa: PLC0415
        from maintainer.stores.registry.store import RegistryStore  # noqa: PLC0415
        from maintainer.stores.registry.untagged import ONLY_TAGS  # noqa: PLC0415

        address = self.address
        async with Http(RequestLog()) as http:
            client = Client(http, address.remote, partial(find_credentials, address.remote.login))
            packages, why_none = None, ONLY_TAGS
            if address.packages_url:
                token, why_none = find_token(address, self.token_env, os.environ)
                if token:
                    packages = Packages(http, address.packages_url, address.repository, token)
            yield RegistryStore(
                client, address, packages, why_none, max_index_size=self.max_index_size
            )


def find_token(address: Address, name: str, variables: Mapping[str, str]) -> tuple[str, str]:
    """Return the token for the API that lists packages, or why there is none."""
    token, api = variables.get(name, ""), variables.get("GITHUB_API_URL", "").rstrip("/")
    if not token:
        return "", f"{name} is not set, so GitHub cannot be asked for them"
    if name == _TOKEN and api and address.has_usual_packages and api != address.packages_url:
        return "", f"{name} is that of {printable(api)}, so GitHub cannot be asked for them"
    return token, ""


def _connect(settings: Settings, target: TargetSettings | None) -> _Connection:
    if settings.merged_tag and not is_tag(settings.merged_tag):
        raise SettingError("merged_tag", f"{printable(settings.merged_tag)} is not a tag")
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
    uses=frozenset({"merged_tag", "token_env"}),
    discoverer=Discoverer(_source, _search),
    blobs_of=lambda store: read_address(store).identity,
)
