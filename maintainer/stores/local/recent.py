"""Exports that were made and replaced between two runs.

Only their manifests remain, which are as young as the exports.
"""

import os
import stat
from collections.abc import Iterator
from datetime import datetime

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.keys import is_digest
from maintainer.cacheconfig.oci import read_manifest
from maintainer.errors import StoreError
from maintainer.stores.local.disk import DiskError, MissingError
from maintainer.stores.local.files import ALGORITHMS, Files, from_nanoseconds

_LARGEST = 4 * 1024 * 1024
"""Bytes of a manifest that references tens of thousands of blobs."""
_BATCH = 10_000


def read_recent_roots(
    files: Files, since: datetime, unread: dict[Digest, str]
) -> Iterator[frozenset[Digest]]:
    """Read the manifests of caches that were written since then; yield the blobs of each.

    What the disk cannot read, which may be a manifest, is added to `unread` with the problem.
    It yields an empty set for every few thousand other files, so that callers can stop there.
    """
    for digest in _young(files, since):
        if digest is None:
            yield frozenset()
            continue
        try:
            content = _document(files, digest)
        except MissingError:
            content = b""
        except DiskError as error:
            content, unread[digest] = b"", str(error)
        manifest = read_manifest(content) if content else None
        yield frozenset(
            blob
            for blob in ((manifest.config, *map(Digest, manifest.descriptors)) if manifest else ())
            if is_digest(blob) and files.stat(blob)
        )


def _young(files: Files, since: datetime) -> Iterator[Digest | None]:
    for algorithm in ALGORITHMS:
        for number, (name, status) in enumerate(files.list_blobs(algorithm), 1):
            if number % _BATCH == 0:
                yield None
            digest = Digest(f"{algorithm}:{name}")
            is_young = from_nanoseconds(status.st_mtime_ns) >= since
            is_small = stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST
            if is_young and is_small and is_digest(digest):
                yield digest


def _document(files: Files, digest: Digest) -> bytes:
    """Read a JSON document; of other files, only the first byte."""
    with files.open_blob(digest) as number:
        if os.read(number, 1) != b"{":
            return b""
    try:
        return files.read_blob(digest, limit=_LARGEST)[0]
    except MissingError:
        raise
    except StoreError:
        return b""  # It is growing, so it is not a manifest.
