"""The size limits of an index: larger ones are neither read nor written."""

from maintainer.cacheconfig.codec import encoded_size
from maintainer.cacheconfig.model import CacheConfig
from maintainer.cacheconfig.sink import with_sink

_BYTES_PER_BRACKET = 32
_FEW_BRACKETS = 1_000_000


def why_too_large(content: bytes, limit: int) -> str | None:
    """Return why an index is not read where `limit` bytes are, if so.

    Text that is nothing but brackets would take hundreds of times its size to read; what builders
    write has one bracket per fifty bytes, and each costs about a hundred bytes.
    """
    if len(content) > limit:
        return f"has {len(content):,} bytes, more than the {limit:,} of max_index_size"
    most = max(limit // _BYTES_PER_BRACKET, _FEW_BRACKETS)
    if content.count(b"{") + content.count(b"[") > most:
        return f"holds more than {most:,} objects and lists"
    return None


def has_at_most(config: CacheConfig, limit: int) -> bool:
    """Whether an index has at most `limit` bytes, as it is written."""
    return is_small(config, limit) or size_of(config) <= limit


def size_of(config: CacheConfig) -> int:
    """Return the bytes of an index as it is written."""
    return encoded_size(with_sink(config))


def is_small(config: CacheConfig, limit: int) -> bool:
    """Whether an index fits whatever its names are: most do, and encoding them takes time.

    A character takes six bytes at the most, and nothing else more than what is counted here. Half
    of `limit` is left for the links of the sink, and for the manifest of a directory or registry.
    """
    size = sum(1_000 + 6 * len(layer.media_type) for layer in config.layers)
    for record in config.records:
        size += 100 + 6 * len(record.digest)
        size += sum(100 + 20 * len(result.layers) for result in record.results)
        size += sum(50 + 6 * len(link.selector) for links in record.inputs for link in links)
        if size > limit // 2:
            return False
    return size <= limit // 2
