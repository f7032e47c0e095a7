"""Generations, decoded as they are read."""

from datetime import datetime

from maintainer.cacheconfig import IndexId, decode_whole
from maintainer.errors import InvalidIndexError
from maintainer.model.content import Content
from maintainer.model.index import ReadGeneration


def read_content(
    index: IndexId,
    number: int,
    content: bytes,
    created_at: datetime,
    *,
    store_id: int | None = None,
    location: str | None = None,
) -> ReadGeneration:
    """Decode a generation, or return why an importer would refuse it."""
    config, sink, violation = None, None, None
    try:
        config, sink = decode_whole(content)
    except InvalidIndexError as error:
        violation = str(error)
    return ReadGeneration(
        index,
        number,
        Content.of(content),
        config,
        violation,
        created_at,
        store_id,
        location,
        sink,
    )
