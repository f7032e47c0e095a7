"""Uploads that killed builds left in `ingest/`.

Source: `plugins/content/local` in containerd, which keeps each upload in a folder of its own, named
by the digest of its reference, until it is complete and is renamed into its place.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from maintainer.errors import ChangedError, StoreError
from maintainer.stores.local.disk import MissingError, translate_errors, translate_refusals
from maintainer.stores.local.files import Files, FileState, close, from_nanoseconds, size_of

_FOLDER = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FILES = frozenset({"data", "ref", "startedat", "total", "updatedat"})
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Upload:
    """An unfinished upload."""

    name: str
    seen: FileState
    """Its size, and when it was last written."""


def find_abandoned(files: Files, before: datetime) -> Iterator[Upload]:
    """Return the uploads that were not written since then.

    A folder with anything but the files of an upload is not an upload, and is ignored.
    """
    ingest = files.directory("ingest")
    if ingest is None:
        return
    with translate_errors("ingest"), os.scandir(ingest) as found:
        names = sorted(entry.name for entry in found if _FOLDER.fullmatch(entry.name))
    for name in names:
        try:
            with _opened(name, ingest) as folder:
                seen = _stat(name, folder)
        except StoreError:
            continue  # The upload has ended, or this is a link or not a folder.
        if seen and seen.modified_at < before:
            yield Upload(name, seen)


def delete_upload(files: Files, name: str, seen: FileState) -> bool:
    """Delete an upload that has not changed; return False if it has ended.

    Raises ChangedError if a build has continued it, and EntryError if it alone cannot be deleted.
    """
    ingest = files.directory("ingest")
    if ingest is None:
        return False
    try:
        with _opened(name, ingest) as folder:
            if _stat(name, folder) != seen:
                raise ChangedError("a build has continued it")
            with translate_refusals(ingest, "ingest"):
                for file in _names(folder):
                    os.unlink(file, dir_fd=folder)
                try:
                    os.rmdir(name, dir_fd=ingest)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:
                        raise
                    raise ChangedError("a build has continued it") from None
    except MissingError:
        return False
    return True


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found if entry.name in _FILES)


@contextmanager
def _opened(name: str, ingest: int) -> Iterator[int]:
    with translate_errors(f"ingest/{name}"):
        folder = os.open(name, _DIRECTORY, dir_fd=ingest)
    try:
        yield folder
    finally:
        close(folder)


def _stat(name: str, folder: int) -> FileState | None:
    """Return the size of an upload and its last write; None if it is not an upload."""
    size, last = 0, os.fstat(folder).st_mtime_ns
    with translate_errors(f"ingest/{name}"), os.scandir(folder) as found:
        for entry in found:
            status = entry.stat(follow_symlinks=False)
            if entry.name not in _FILES or not stat.S_ISREG(status.st_mode):
                return None
            size += size_of(status)
            last = max(last, status.st_mtime_ns)
    return FileState(size, from_nanoseconds(last))
