"""Histories of any length: the recorded one, repeated, with changes from one time to the next.

Every fifty generations are the first fifty that were recorded, under other digests, so that twice
the generations are twice the work. What keeps coming back in them stays the same throughout, as
base images and unchanged steps do; such records gather links with every epoch.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from itertools import islice

import msgspec

from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    Digest,
    IndexId,
    IndexKey,
    Layer,
    Record,
    Ref,
    Scope,
    decode,
    encode,
    parse_key,
)
from maintainer.demo import load_history
from maintainer.emulator import ActionsCache

MAIN = Ref("refs/heads/main")
INDEX = IndexId(MAIN, Scope("buildkit"))
OTHERS = (Scope("api"), Scope("tools"), Scope("web"), Scope("worker"))
_EPOCH = 50
"""Generations, after which the recorded history repeats."""
_LASTING = 5
"""What so many generations of an epoch name is the same in every epoch."""


def generations(count: int) -> Iterator[CacheConfig]:
    """Return so many generations of one scope, oldest first."""
    recorded = _recorded()
    counts = Counter(name for config in recorded for name in _names(config))
    lasting = {name for name, count_ in counts.items() if count_ >= _LASTING}
    for number in range(count):
        epoch, position = divmod(number, _EPOCH)
        yield _moved(recorded[position], epoch, lasting)


def other_generations(count: int, others: int) -> Iterator[CacheConfig]:
    """Return generations for other scopes of a cache that has `count` of one: the last hundred are
    later, and those before them are the same.
    """
    return islice(generations(count + 100), count + 100 - others, None)


def fill(
    cache_: ActionsCache,
    configs: Iterable[CacheConfig],
    ends_at: datetime,
    scopes: Sequence[Scope] = (INDEX.scope,),
) -> int:
    """Store generations and the layers that are not stored yet, one build a minute, each in the
    next of the scopes; return the number of new entries.
    """
    before = cache_.entries()
    stored = {entry.key for entry in before}
    builds = list(configs)
    for number, config in enumerate(builds):
        at = ends_at - timedelta(minutes=len(builds) - number - 1)
        for layer in config.layers:
            key = str(BlobKey(layer.blob))
            if key not in stored:
                stored.add(key)
                cache_.put(key, ref=MAIN, size=layer.size, created_at=at)
        generation, place = divmod(number, len(scopes))
        index = IndexId(MAIN, scopes[place])
        cache_.put(str(index.key(generation + 1)), encode(config), ref=MAIN, created_at=at)
    return len(stored) - len(before) + len(builds)


@cache
def _recorded() -> tuple[CacheConfig, ...]:
    found = []
    for entry in load_history():
        key = parse_key(entry.key)
        if isinstance(key, IndexKey) and entry.ref == MAIN and key.scope == INDEX.scope:
            found.append(decode((entry.content or "").encode()))
    return tuple(found[:_EPOCH])


def _names(config: CacheConfig) -> set[str]:
    names: set[str] = {record.digest for record in config.records}
    for layer in config.layers:
        names |= {layer.blob, layer.diff_id}
    return names


def _moved(config: CacheConfig, epoch: int, lasting: set[str]) -> CacheConfig:
    """Return an index as a later epoch would have written it."""

    def moved(name: str) -> str:
        if not epoch or name in lasting:
            return name
        return f"sha256:{hashlib.sha256(f'{epoch} {name}'.encode()).hexdigest()}"

    def move_layer(layer: Layer) -> Layer:
        blob, diff_id = Digest(moved(layer.blob)), Digest(moved(layer.diff_id))
        return msgspec.structs.replace(layer, blob=blob, diff_id=diff_id)

    def move_record(record: Record) -> Record:
        return msgspec.structs.replace(record, digest=moved(record.digest))

    return CacheConfig(
        tuple(map(move_layer, config.layers)), tuple(map(move_record, config.records))
    )
