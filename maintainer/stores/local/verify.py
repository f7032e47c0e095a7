"""Checks the content of blobs against their digests. This is slow, but can be stopped anywhere."""

import errno
import hashlib
import os
from collections.abc import Collection

import anyio.lowlevel

from maintainer.budget import Budget
from maintainer.cacheconfig import Digest
from maintainer.errors import UnfinishedError
from maintainer.stores.local.disk import DiskError, MissingError
from maintainer.stores.local.files import Files, size_of

_DAMAGED = "its content does not match its digest"
_CHUNK = 1024 * 1024


async def find_damage(files: Files, blob: Digest, sizes: Collection[int], budget: Budget) -> str:
    """Return why a blob does not match its digest; nothing if it does.

    It must have one of the sizes, if any are given, and a disk that cannot read it has damaged it.
    Raises UnfinishedError if the budget ends it.
    """
    algorithm, _, digits = blob.partition(":")
    hashed = hashlib.new(algorithm)
    try:
        with files.open_blob(blob) as number:
            if sizes and size_of(os.fstat(number)) not in sizes:
                return _DAMAGED
            while piece := os.read(number, _CHUNK):
                hashed.update(piece)
                if reason := budget.reserve(0):
                    raise UnfinishedError("the blobs could not all be read", reason)
                await anyio.lowlevel.checkpoint()
    except MissingError:
        return "it is gone"
    except DiskError:
        return f"it cannot be read ({os.strerror(errno.EIO)})"
    return "" if hashed.hexdigest() == digits else _DAMAGED
