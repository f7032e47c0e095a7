"""Checks the content of blobs against their digests. This is slow, but can be stopped anywhere."""

import hashlib
import os
from collections.abc import Collection

import anyio.lowlevel

from maintainer.budget import Budget
from maintainer.cacheconfig import Digest
from maintainer.errors import UnfinishedError
from maintainer.stores.local.files import Files, MissingError, size_of

_CHUNK = 1024 * 1024


async def is_whole(files: Files, blob: Digest, sizes: Collection[int], budget: Budget) -> bool:
    """Return whether a blob matches its digest; it must have one of these sizes, if any are given.

    Raises UnfinishedError if the budget ends it.
    """
    algorithm, _, digits = blob.partition(":")
    hashed = hashlib.new(algorithm)
    try:
        with files.open_blob(blob) as number:
            if sizes and size_of(os.fstat(number)) not in sizes:
                return False
            while piece := os.read(number, _CHUNK):
                hashed.update(piece)
                if reason := budget.reserve(0):
                    raise UnfinishedError("the blobs could not all be read", reason)
                await anyio.lowlevel.checkpoint()
    except MissingError:
        return False
    return hashed.hexdigest() == digits
