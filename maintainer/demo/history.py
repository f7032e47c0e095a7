"""A recorded CI history: the cache entries of 226 builds of four images, made by a real BuildKit.

Index entries contain their text; layers only their sizes.
"""

import gzip
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random

import msgspec

from maintainer.cacheconfig import BlobKey, IndexKey, Scope, decode, parse_key
from maintainer.emulator.state import ActionsCache, Entry

_HISTORY = Path(__file__).with_name("history.jsonl.gz")
_SIZE = re.compile(r'"size":(\d+)')


class RecordedEntry(msgspec.Struct, frozen=True):
    """One cache entry, in the field names of GitHub's REST list."""

    id: int
    ref: str
    key: str
    version: str
    size_in_bytes: int
    created_at: datetime
    last_accessed_at: datetime
    content: str | None = None
    """The text of an index."""


@cache
def load_history() -> tuple[RecordedEntry, ...]:
    """Return all entries in the order in which they were created."""
    with gzip.open(_HISTORY) as lines:
        return tuple(msgspec.json.decode(line, type=RecordedEntry) for line in lines)


def scale(history: Iterable[RecordedEntry], factor: int) -> list[RecordedEntry]:
    """Return a history whose layers are so many times as large, in indexes too."""
    return [_scaled(entry, factor) for entry in history]


def _scaled(entry: RecordedEntry, factor: int) -> RecordedEntry:
    if entry.content is None:
        return msgspec.structs.replace(entry, size_in_bytes=entry.size_in_bytes * factor)
    content = _SIZE.sub(lambda size: f'"size":{int(size[1]) * factor}', entry.content)
    return msgspec.structs.replace(entry, content=content, size_in_bytes=len(content))


def seed(
    cache: ActionsCache,
    history: Iterable[RecordedEntry],
    *,
    ends_at: datetime,
    lasted: timedelta,
) -> None:
    """Add a history to a cache, as if it had this duration and end."""
    entries = list(history)
    first = min(entry.created_at for entry in entries)
    last = max(entry.last_accessed_at for entry in entries)

    def moved(moment: datetime) -> datetime:
        return ends_at - lasted * ((last - moment) / (last - first))

    for entry in entries:
        cache.put(
            entry.key,
            None if entry.content is None else entry.content.encode(),
            ref=entry.ref,
            version=entry.version,
            size=entry.size_in_bytes,
            created_at=moved(entry.created_at),
            last_accessed_at=moved(entry.last_accessed_at),
        )


def evict_least_recently_used(cache: ActionsCache, quota: int) -> list[Entry]:
    """Evict the least recently used entries, as GitHub does if a quota is full; return them."""
    evicted = []
    size = cache.usage
    for entry in sorted(cache.entries(), key=lambda entry: (entry.last_accessed_at, entry.id)):
        if size <= quota:
            break
        cache.evict(entry.id)
        size -= entry.size
        evicted.append(entry)
    return evicted


def evict_named_layers(cache: ActionsCache, ref: str, *, count: int, random: Random) -> list[Entry]:
    """Evict some layers that the newest indexes of `ref` reference; return them."""
    newest: dict[Scope, Entry] = {}
    for entry in cache.entries():
        key = parse_key(entry.key)
        if isinstance(key, IndexKey) and entry.ref == ref:
            newest[key.scope] = entry
    named = {
        str(BlobKey(blob))
        for entry in newest.values()
        for blob in decode(entry.content or b"").blobs
    }
    layers = [entry for entry in cache.entries() if entry.ref == ref and entry.key in named]
    evicted = sorted(random.sample(layers, min(count, len(layers))), key=lambda entry: entry.id)
    for entry in evicted:
        cache.evict(entry.id)
    return evicted
