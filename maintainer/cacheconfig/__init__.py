"""What an index is: keys, format, merging, pruning. Pure: no I/O, no clock, no logging."""

from maintainer.cacheconfig.apart import stamp_of
from maintainer.cacheconfig.bounds import why_too_large
from maintainer.cacheconfig.codec import decode, decode_whole, encode
from maintainer.cacheconfig.keys import (
    BLOB_PREFIX,
    ENTRY_VERSION,
    MAX_GENERATION,
    MAX_KEY_LENGTH,
    NO_REF,
    BlobKey,
    Digest,
    Generation,
    IndexId,
    IndexKey,
    Key,
    Ref,
    Scope,
    SignatureKey,
    UploadKey,
    content_digest,
    hash_ref,
    matches,
    may_be_buildkits,
    may_be_index,
    parse_key,
)
from maintainer.cacheconfig.merge import count_results, merge
from maintainer.cacheconfig.model import CacheConfig, Layer, Link, Record, Result
from maintainer.cacheconfig.prune import forget, prune
from maintainer.cacheconfig.sink import Sink, loses_links, with_sink

__all__ = [
    "BLOB_PREFIX",
    "ENTRY_VERSION",
    "MAX_GENERATION",
    "MAX_KEY_LENGTH",
    "NO_REF",
    "BlobKey",
    "CacheConfig",
    "Digest",
    "Generation",
    "IndexId",
    "IndexKey",
    "Key",
    "Layer",
    "Link",
    "Record",
    "Ref",
    "Result",
    "Scope",
    "SignatureKey",
    "Sink",
    "UploadKey",
    "content_digest",
    "count_results",
    "decode",
    "decode_whole",
    "encode",
    "forget",
    "hash_ref",
    "loses_links",
    "matches",
    "may_be_buildkits",
    "may_be_index",
    "merge",
    "parse_key",
    "prune",
    "stamp_of",
    "why_too_large",
    "with_sink",
]
