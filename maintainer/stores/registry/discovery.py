"""Finds repositories of a registry: by its catalog or, on GitHub's registry, by its API.

Source: https://distribution.github.io/distribution/spec/api/#listing-repositories
"""

import re
from collections.abc import AsyncIterator, Iterator
from fnmatch import fnmatchcase
from functools import partial

from maintainer.errors import SettingError, UsageError
from maintainer.model.discovery import FoundCache
from maintainer.settings import DiscoverSettings, token_of
from maintainer.stores.distribution.client import Client
from maintainer.stores.distribution.credentials import find_credentials
from maintainer.stores.distribution.packages import list_packages
from maintainer.stores.http.client import Http
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.registry.address import Address, read_address

_PATTERN = re.compile(r"registry://([^/?*]+)/([^?]*\*[^?]*)(\?.*)?")
_STAND_IN = "x"


def find_source(table: DiscoverSettings) -> tuple[str, ...]:
    """Return what identifies the place that is searched. Raises UsageError."""
    return (*_read(table).identity, table.store)


def _read(table: DiscoverSettings) -> Address:
    """Read the pattern as the address of a repository. Raises UsageError."""
    if not _PATTERN.fullmatch(table.store):
        raise SettingError(
            f"store in [[discover]] {table.name}",
            "must be a pattern such as registry://HOST/octo/*-cache",
        )
    return read_address(table.store.replace("*", _STAND_IN))


async def search(table: DiscoverSettings) -> AsyncIterator[FoundCache]:
    """Yield the repositories that match. Raises StoreError or UsageError."""
    address = _read(table)
    async with Http(RequestLog()) as http:
        if address.packages_url:
            names = await _list_packages(http, address, table)
        else:
            client = Client(http, address.remote, partial(find_credentials, address.remote.login))
            names = await client.catalog()
    for one in _select(names, table.store):
        yield one


def _select(names: list[str], store: str) -> Iterator[FoundCache]:
    match = _PATTERN.fullmatch(store)
    if match is None:
        return
    host, pattern, query = match[1], match[2], match[3] or ""
    fixed = pattern.partition("*")[0].rpartition("/")
    folder = f"{fixed[0]}/" if fixed[1] else ""
    for name in names:
        if fnmatchcase(name, pattern):
            yield FoundCache(name.removeprefix(folder), f"registry://{host}/{name}{query}")


async def _list_packages(http: Http, address: Address, table: DiscoverSettings) -> list[str]:
    owner = address.repository.partition("/")[0]
    if "*" in table.store.partition("://")[2].split("/")[1]:
        raise UsageError(f"{address.host} lists the repositories of one owner: name it")
    packages = await list_packages(http, address.packages_url or "", owner, token_of(table))
    return [f"{owner}/{one}" for one in packages]
