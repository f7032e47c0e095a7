"""A lean client: it does what any program has to do, with eight concurrent requests.

    python -m benchmarks.floors.client        lists all entries
    python -m benchmarks.floors.client FILE   then looks up and downloads each index, and deletes
                                              the entries whose ids FILE lists as JSON

It prints the number of entries.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

CONCURRENCY = 8
PAGE = 100
_VERSION = "693bb7016429d80366022f036f84856888c9f13e00145f5f6f4dce303a38d6f2"  # BuildKit's

_T = TypeVar("_T")


class Client:
    """Speaks version 2 of the cache service, and the REST API."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        api, repository = os.environ["GITHUB_API_URL"], os.environ["GITHUB_REPOSITORY"]
        self._caches = f"{api}/repos/{repository}/actions/caches"
        service = "twirp/github.actions.results.api.v1.CacheService/GetCacheEntryDownloadURL"
        self._service = f"{os.environ['ACTIONS_RESULTS_URL']}{service}"
        self._rest = {"Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}"}
        self._runtime = {"Authorization": f"Bearer {os.environ['ACTIONS_RUNTIME_TOKEN']}"}
        self.entries: list[dict[str, Any]] = []

    async def list_entries(self) -> None:
        """List all entries: the first page tells how many there are."""
        total = await self._list_page(1)
        await concurrently(self._list_page, range(2, -(-total // PAGE) + 1))

    async def _list_page(self, number: int) -> int:
        query = f"per_page={PAGE}&page={number}&sort=created_at&direction=asc"
        async with self._session.get(f"{self._caches}?{query}", headers=self._rest) as answer:
            page = json.loads(await answer.read())
        self.entries += page["actions_caches"]
        return int(page["total_count"])

    async def download_indexes(self) -> None:
        """Look up and download each index."""
        keys = (entry["key"] for entry in self.entries if entry["key"].startswith("index-"))
        await concurrently(self._download, keys)

    async def _download(self, key: str) -> None:
        body = json.dumps({"key": key, "restore_keys": [], "version": _VERSION})
        async with self._session.post(self._service, data=body, headers=self._runtime) as answer:
            url = json.loads(await answer.read())["signed_download_url"]
        async with self._session.get(url) as answer:
            json.loads(await answer.read())

    async def delete(self, entry: int) -> None:
        """Delete an entry."""
        url = f"{self._caches}/{entry}"
        async with self._session.delete(url, headers=self._rest) as answer:
            answer.raise_for_status()


async def concurrently(action: Callable[[_T], Awaitable[object]], items: Iterable[_T]) -> None:
    """Do something with each item, eight at a time."""
    remaining = iter(items)

    async def work() -> None:
        for item in remaining:
            await action(item)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def main(deleted: Sequence[int] | None) -> None:
    """List; if entries are to be deleted, download the indexes and delete them."""
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector) as session:
        client = Client(session)
        await client.list_entries()
        if deleted is not None:
            await client.download_indexes()
            await concurrently(client.delete, deleted)
    print(len(client.entries))


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_bytes()) if sys.argv[1:] else None))
