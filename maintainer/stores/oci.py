"""Indexes as a manifest and a config, as tags of directories and of registries have them."""

from collections.abc import Mapping
from datetime import datetime

from maintainer.cacheconfig import Digest, IndexId, encode, matches, with_sink
from maintainer.cacheconfig.codec import Decoded
from maintainer.cacheconfig.oci import (
    IMPORT_LIMIT,
    CacheManifest,
    Descriptor,
    Encoded,
    decode_oci,
    encode_oci,
)
from maintainer.errors import InvalidIndexError
from maintainer.model.content import Content
from maintainer.model.index import ReadGeneration
from maintainer.stores.base import Change
from maintainer.stores.decoding import read_content

NUMBER = 1
"""A tag has one manifest at a time, and keeps no count of them."""


def decode_tag(manifest: CacheManifest, config: bytes, size: int) -> tuple[Decoded | None, str]:
    """Decode an index, whose manifest has `size` bytes; also return why importers would refuse it.

    The reason is empty if they would not.
    """
    if not matches(manifest.config, config):
        return None, f"the content of its config is not {manifest.config}"
    try:
        decoded = decode_oci(manifest, config)
    except InvalidIndexError as error:
        return None, str(error)
    return decoded, _why_too_large(size, len(config))


def _why_too_large(manifest: int, config: int) -> str:
    """Return why importers refuse an otherwise valid index, if they do; sizes are in bytes."""
    for what, size in (("manifest", manifest), ("config", config)):
        if size > IMPORT_LIMIT:
            return f"its {what} has {size:,} bytes, and importers read {IMPORT_LIMIT:,}"
    return ""


def read_tag(
    index: IndexId,
    digest: Digest,
    decoded: Decoded | None,
    violation: str,
    created_at: datetime,
    *,
    undecoded: bytes = b"",
) -> ReadGeneration:
    """Return what was read of a tag, in the form of the graph: with the data from the manifest.

    `digest` is that of its manifest. `undecoded` is a config that could not be decoded.
    """
    content = undecoded if decoded is None else _encode(decoded)
    return ReadGeneration(
        index=index,
        number=NUMBER,
        content=Content.of(content),
        config=decoded.config if decoded else None,
        violation=violation or None,
        created_at=created_at,
        store_id=None,
        location=digest,
        sink=decoded.sink if decoded else None,
    )


def read_written(change: Change, written_at: datetime, digest: Digest) -> ReadGeneration:
    """Return a tag that was just written, as `read_tag` would; `digest` is its manifest's."""
    content = encode(with_sink(change.content, change.sink))
    return read_content(change.index, NUMBER, content, written_at, location=digest)


def _encode(decoded: Decoded) -> bytes:
    return encode(with_sink(decoded.config, decoded.sink) if decoded.sink else decoded.config)


def encode_tag(
    change: Change,
    form: CacheManifest | None,
    described: Mapping[str, Descriptor],
    *,
    padding: int = 0,
) -> Encoded | None:
    """Return a manifest that fits into importers' limits, perhaps without optional parts."""
    for known in (described, {}):
        encoded = encode_oci(
            change.content,
            form=form,
            described=known,
            sink=change.sink,
            stamp=change.stamp,
            padding=padding,
        )
        if max(len(encoded.config), len(encoded.manifest)) <= IMPORT_LIMIT:
            return encoded
    return None
