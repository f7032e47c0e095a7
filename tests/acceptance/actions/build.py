"""What stands in for the build of an image: it reads the newest indexes, then exports its records.

As BuildKit does, it uploads the layers that are not stored yet, and writes the next generation with
nothing but its own records. What it found is appended to a file.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from maintainer.cacheconfig import (
    CacheConfig,
    IndexId,
    IndexKey,
    Scope,
    decode,
    encode,
    parse_key,
)
from maintainer.errors import AlreadyExistsError
from maintainer.settings import GitHubSettings
from maintainer.stores.github.client import ActionsCacheClient, open_client
from tests.snapshots import MAIN, an_index, blob_key
from tests.worlds import leads_to

INDEX = IndexId(MAIN, Scope("buildkit"))


async def _import(store: ActionsCacheClient, index: IndexId) -> tuple[int, CacheConfig]:
    """Return the number of the newest generation and what it says."""
    found = await store.look_up_newest(index.prefix)
    if found is None:
        return 0, CacheConfig()
    key = parse_key(found.key)
    assert isinstance(key, IndexKey)
    return key.generation, decode(await store.read(found))


async def _export(store: ActionsCacheClient, newest: int, layers: tuple[str, ...]) -> None:
    for layer in layers:
        if await store.look_up(blob_key(layer)) is None:
            await _write(store, blob_key(layer), layer.encode())
    while not await _write(store, str(INDEX.key(newest + 1)), encode(an_index(layers))):
        newest += 1


async def _write(store: ActionsCacheClient, key: str, content: bytes) -> bool:
    try:
        await store.write(key, content)
    except AlreadyExistsError:
        return False
    return True


async def _build(image: str, settings: GitHubSettings, cache_from: str, *, exports: bool) -> bool:
    """Build one image; tell whether all of it was cached."""
    layers = ("base", image)
    async with open_client(settings) as store:
        known = [(await _import(store, index))[1] for index in _indexes(cache_from)]
        if exports:
            newest, _ = await _import(store, INDEX)
            await _export(store, newest, layers)
    wanted = leads_to(an_index(layers)).items()
    return any(
        all(chains <= leads_to(config).get(key, set()) for key, chains in wanted)
        for config in known
    )


def _indexes(cache_from: str) -> list[IndexId]:
    """Read `type=gha` and `type=gha,scope=NAME`, one a line."""
    lines = [dict(part.split("=") for part in line.split(",")) for line in cache_from.split()]
    return [IndexId(MAIN, Scope(line.get("scope", INDEX.scope))) for line in lines]


if __name__ == "__main__":
    built, cache_from, cache_to = sys.argv[1:]
    service = json.loads(Path(os.environ["STAND_IN_SERVICE"]).read_text())
    cached = asyncio.run(
        _build(built, GitHubSettings.model_validate(service), cache_from, exports=bool(cache_to))
    )
    with Path(os.environ["STAND_IN_BUILDS"]).open("a") as builds:
        builds.write(f"{built} {'cached' if cached else 'built'}\n")
