"""Run inside a step of `act`: use its cache server through our client, and tell what it did.

`act` lends the step its environment; the only argument is where to write what came of it.
"""

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from maintainer.errors import AlreadyExistsError, StoreError
from maintainer.settings import GitHubSettings
from maintainer.stores.github.client import ActionsCacheClient, open_client
from maintainer.stores.http.retry import RetryPolicy

SCOPE = "index-Web-1-49C8F7D5"
BLOBS = {f"buildkit-blob-1-sha256:{number:064x}": bytes([number]) * number for number in (1, 2, 3)}
LARGE = "buildkit-blob-1-sha256:" + "f" * 64


async def _read(store: ActionsCacheClient, key: str) -> str | None:
    found = await store.look_up(key)
    return None if found is None else (await store.read(found)).decode("latin-1")


async def _newest(store: ActionsCacheClient, prefix: str) -> str | None:
    found = await store.look_up_newest(prefix)
    return None if found is None else found.key


async def _try_to_overwrite(store: ActionsCacheClient, key: str) -> str:
    try:
        await store.write(key, b"overwritten")
    except AlreadyExistsError as error:
        return f"refused: {error}"
    return "accepted"


async def _use(store: ActionsCacheClient) -> dict[str, Any]:
    told: dict[str, Any] = {"missing": await _read(store, f"{SCOPE}#1")}
    for key, content in BLOBS.items():
        await store.write(key, content)
    told["blobs"] = {key: await _read(store, key) for key in BLOBS}

    await store.write(f"{SCOPE}#12", b"twelve")
    told["loose match of the twelfth"] = await _read(store, f"{SCOPE}#1")
    await store.write(f"{SCOPE}#1", b"one")
    told["first"] = await _read(store, f"{SCOPE}#1")
    told["twelfth"] = await _read(store, f"{SCOPE}#12")
    found = await store.look_up(f"{SCOPE}#12")
    told["spelt"] = found and found.key

    await asyncio.sleep(1.1)  # The server counts whole seconds.
    await store.write(f"{SCOPE}#13", b"thirteen")
    told["newest"] = await _newest(store, f"{SCOPE}#")
    told["newest of another scope"] = await _newest(store, "index-other-1-49c8f7d5#")

    content = bytes(range(256)) * (33 * 4096)
    await store.write(LARGE, content)
    large = await store.look_up(LARGE)
    told["large"] = large is not None and await store.read(large) == content
    told["overwriting"] = await _try_to_overwrite(store, f"{SCOPE}#12")
    told["overwritten"] = await _read(store, f"{SCOPE}#12")
    try:
        await store.look_up("index-a,b-1-49c8f7d5#1")
    except StoreError as error:
        told["comma"] = str(error)
    return told


async def main() -> dict[str, Any]:
    """Use the cache, and tell what came of it."""
    settings = GitHubSettings.read()
    async with open_client(settings, RetryPolicy(first_wait=timedelta(0))) as store:
        told = await _use(store)
        told["name"] = store.name
        told["readable"], told["writable"] = (
            list(store.access.readable),
            list(store.access.writable),
        )
        told["requests"] = dict(store.requests.counts)
    return told


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(asyncio.run(main())))
