"""The files of one directory. No symbolic link is followed, and no name is trusted.

Everything is opened relative to an open directory, so that moving or replacing a directory during a
run cannot redirect us. Every function raises StoreError, in one line.
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.keys import is_digest
from maintainer.errors import ChangedError, StoreError
from maintainer.sanitize import printable
from maintainer.stores.local.disk import (
    MissingError,
    TooLargeError,
    translate_errors,
    translate_refusals,
)
from maintainer.stores.local.permissions import (
    PRIVATE,
    acl_of,
    give_like,
    give_to,
    set_acl,
    set_mode,
)

ALGORITHMS = ("sha256", "sha384", "sha512")
_TEMPORARY = ".maintainer-"
"""The beginning of the names of our temporary files, which are only in DIR itself."""
LEFT_OVER = re.compile(re.escape(_TEMPORARY) + r"[0-9a-f]{16}\.tmp", re.ASCII)
"""The names of our temporary files."""

_CHUNK = 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_OF_TIME = datetime(9000, 1, 1, tzinfo=UTC)
"""The latest time of a file: any grace period after it fits into the calendar."""
_LARGEST = 1 << 42
"""Bytes. Larger sizes count as this, so that sums of sizes fit into 64 bits."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileState:
    """Distinguishes a file from a later one of the same name."""

    size: int
    """Bytes."""
    modified_at: datetime


WHERE_NONE_IS = "check the path and whether its disk is mounted, or let a build export to it first"
"""What to do where no cache is."""


class Files:
    """An open directory, and the directories of blobs in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[str, int] = {}
        self._kept: set[str] = set()
        """The temporary files that are not removed: they hold what exists nowhere else."""
        with translate_errors(str(path)):
            # The user has chosen this path, so links in it are followed.
            try:
                self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except NotADirectoryError:
                raise StoreError(f"{printable(str(path))} is not a directory") from None
            except FileNotFoundError:
                missing = f"there is no {printable(str(path))}: {WHERE_NONE_IS}"
                raise MissingError(missing) from None

    def close(self) -> None:
        """Close it."""
        for number in (*self._open.values(), self._root):
            close(number)

    @property
    def root(self) -> int:
        """The directory itself."""
        return self._root

    @property
    def is_mounted_read_only(self) -> bool:
        """Whether nobody can write it, whatever its mode is."""
        with translate_errors(str(self.path)):
            return bool(os.fstatvfs(self._root).f_flag & os.ST_RDONLY)

    def directory(self, name: str) -> int | None:
        """Open a directory below, `blobs/sha256` for one; None if there is none."""
        if name not in self._open:
            parent, _, own = name.rpartition("/")
            above = self.directory(parent) if parent else self._root
            if above is None:
                return None
            try:
                with translate_errors(f"{self.path}/{name}"):
                    self._open[name] = os.open(own, _DIRECTORY, dir_fd=above)
            except MissingError:
                return None
        return self._open[name]

    def list_blobs(self, algorithm: str) -> Iterator[tuple[str, os.stat_result]]:
        """List everything in the directory of the blobs of one algorithm."""
        where = self.directory(f"blobs/{algorithm}")
        if where is None:
            return
        with translate_errors(f"blobs/{algorithm}"), os.scandir(where) as found:
            for entry in found:
                try:
                    with translate_errors(f"blobs/{algorithm}/{entry.name}"):
                        status = entry.stat(follow_symlinks=False)
                except MissingError:
                    continue
                yield entry.name, status

    def check_places(self) -> None:
        """Raise StoreError if an open directory was replaced: its content is useless."""
        for name, number in self._open.items():
            parent, _, own = name.rpartition("/")
            above = self._open[parent] if parent else self._root
            with translate_errors(f"{self.path}/{name}"):
                there = os.stat(own, dir_fd=above, follow_symlinks=False)
            if not os.path.samestat(there, os.fstat(number)):
                raise StoreError(f"{self.path}/{name} was replaced since the run began")

    def read(self, name: str, *, limit: int) -> tuple[bytes, FileState]:
        """Read a whole file of the directory itself, of at most `limit` bytes."""
        with translate_errors(name), _opened(name, self._root) as number:
            return _read(name, number, limit)

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """Keep a file of the directory itself open, even if it is renamed or replaced."""
        with translate_errors(name):
            number = os.open(name, _FILE, dir_fd=self._root)
        try:
            yield number
        finally:
            close(number)

    def is_at(self, number: int, name: str) -> bool:
        """Whether an open file still has this name."""
        with translate_errors(name):
            there = os.stat(name, dir_fd=self._root, follow_symlinks=False)
        return os.path.samestat(there, os.fstat(number))

    def acl(self, number: int) -> bytes:
        """Return the access control list of an open file; nothing if it has only a mode."""
        with translate_errors("its access control list"):
            return acl_of(number)

    def read_again(self, number: int, *, limit: int) -> bytes:
        """Read an open file from its beginning."""
        with translate_errors(str(self.path)):
            os.lseek(number, 0, os.SEEK_SET)
            return _read(str(self.path), number, limit)[0]

    def stat(self, digest: Digest) -> FileState | None:
        """Stat a blob; None if it does not exist, or is not a file."""
        where, name = self._place(digest)
        if where is None:
            return None
        try:
            with translate_errors(digest):
                found = os.stat(name, dir_fd=where, follow_symlinks=False)
        except MissingError:
            return None
        return _seen(found) if stat.S_ISREG(found.st_mode) else None

    def is_taken(self, digest: Digest) -> bool:
        """Whether anything has the name of a blob, even a link or a folder."""
        where, name = self._place(digest)
        return where is not None and _exists(name, where, digest)

    def read_blob(self, digest: Digest, *, limit: int) -> tuple[bytes, FileState]:
        """Read a blob of at most `limit` bytes."""
        with self.open_blob(digest) as number:
            return _read(digest, number, limit)

    @contextmanager
    def open_blob(self, digest: Digest) -> Iterator[int]:
        """Open a blob, to read it in pieces."""
        where, name = self._place(digest)
        if where is None:
            raise MissingError(f"there is no {digest}")
        with translate_errors(digest), _opened(name, where) as number:
            yield number

    def write_blob(self, digest: Digest, content: bytes) -> None:
        """Write a blob durably, and replace any old one.

        Its time of modification is then now, so a run that is about to delete the old one notices.
        """
        where, name = self._place(digest)
        if where is None:
            where = self._make_place(digest)
        with self.temporary(content, mode=0o444) as temporary, translate_errors(digest):
            try:
                os.rename(temporary, name, src_dir_fd=self._root, dst_dir_fd=where)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise self._of_another_file_system(digest) from None
                raise
            _sync_directory(where)

    def _of_another_file_system(self, digest: Digest) -> StoreError:
        return StoreError(
            f"blobs/{digest.partition(':')[0]} is on another file system than {self.path}, and "
            "nothing can be renamed from one to the other: mount the whole directory as one"
        )

    def _make_place(self, digest: Digest) -> int:
        """Create the directory of an algorithm that had no blobs yet, for all who use `blobs`."""
        above = self.directory("blobs")
        if above is None:
            raise StoreError(f"{self.path} has no directory for blobs")
        is_ours = False
        with translate_errors(f"{self.path}/blobs"), suppress(FileExistsError):
            os.mkdir(digest.partition(":")[0], dir_fd=above)
            is_ours = True
            _sync_directory(above)
        where, _ = self._place(digest)
        if where is None:
            raise StoreError(f"{self.path} has no directory for {digest}")
        if is_ours:
            give_like(above, where)
        return where

    @contextmanager
    def temporary(
        self,
        content: bytes,
        *,
        mode: int,
        owner: tuple[int, int] | None = None,
        acl: bytes | None = None,
    ) -> Iterator[str]:
        """Write a durable file under a temporary name; remove it at the end if it still exists.

        Its access control list is `acl`, none if that is empty; if it is None, what the directory
        gives to new files.
        """
        name = f"{_TEMPORARY}{secrets.token_hex(8)}.tmp"
        try:
            with translate_errors(f"{self.path}/{name}"):
                number = os.open(name, _NEW, PRIVATE, dir_fd=self._root)
                with os.fdopen(number, "wb") as file:
                    file.write(content)
                    file.flush()
                    if owner:
                        give_to(number, owner, mode)
                    set_acl(number, acl)
                    set_mode(number, mode)
                    os.fsync(number)
            yield name
        finally:
            if name not in self._kept:
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._root)

    def keep(self, temporary: str) -> None:
        """Do not remove a temporary file."""
        self._kept.add(temporary)

    def is_there(self, name: str) -> bool:
        """Whether anything has this name in the directory itself."""
        return _exists(name, self._root, name)

    def names(self) -> list[str]:
        """Return the names of everything in the directory itself."""
        with translate_errors(str(self.path)), os.scandir(self._root) as found:
            return sorted(entry.name for entry in found)

    def sync(self) -> None:
        """Make renames in the directory itself durable."""
        with translate_errors(str(self.path)):
            _sync_directory(self._root)

    def delete_blob(self, digest: Digest, seen: FileState) -> bool:
        """Delete a blob if it is still the same file; return False if it is gone already.

        Raises ChangedError if it is another one, and EntryError if it alone cannot be deleted.
        """
        where, name = self._place(digest)
        if where is None:
            return False
        try:
            with translate_refusals(where, f"blobs/{digest.partition(':')[0]}"):
                found = os.stat(name, dir_fd=where, follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode) or _seen(found) != seen:
                    raise ChangedError("it was rewritten since the run began")
                os.unlink(name, dir_fd=where)
        except MissingError:
            return False
        return True

    def delete_left_over(self, name: str, before: datetime) -> None:
        """Delete a temporary file that was last written before, if that is possible."""
        with suppress(OSError):
            found = os.stat(name, dir_fd=self._root, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and from_nanoseconds(found.st_mtime_ns) < before:
                os.unlink(name, dir_fd=self._root)

    def _place(self, digest: Digest) -> tuple[int | None, str]:
        """Return the directory and the name of a blob; the name is a valid digest."""
        if not is_digest(digest):
            raise StoreError(f"{printable(digest)} is not a valid digest")
        algorithm, _, name = digest.partition(":")
        return self.directory(f"blobs/{algorithm}"), name


def _sync_directory(number: int) -> None:
    """Make renames in a directory durable, unless its file system cannot (EINVAL)."""
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _read(name: str, number: int, limit: int) -> tuple[bytes, FileState]:
    found = os.fstat(number)
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"{printable(name)} is not a regular file")
    pieces: list[bytes] = []
    length = 0
    while piece := os.read(number, min(_CHUNK, limit + 1 - length)):
        pieces.append(piece)
        length += len(piece)
        if length > limit:
            raise TooLargeError(f"{printable(name)} has more than {limit:,} bytes: not read")
    return b"".join(pieces), _seen(found)


def _exists(name: str, where: int, what: str) -> bool:
    """Whether anything has a name in a directory; errors name it `what`."""
    try:
        with translate_errors(what):
            os.stat(name, dir_fd=where, follow_symlinks=False)
    except MissingError:
        return False
    return True


@contextmanager
def _opened(name: str, where: int) -> Iterator[int]:
    number = os.open(name, _FILE, dir_fd=where)
    try:
        yield number
    finally:
        close(number)


def close(number: int) -> None:
    """Close what was only read: an error, as on a network, says nothing about what was read."""
    with suppress(OSError):
        os.close(number)


def _seen(found: os.stat_result) -> FileState:
    return FileState(size_of(found), from_nanoseconds(found.st_mtime_ns))


def size_of(found: os.stat_result) -> int:
    """Return the size of a file in bytes, limited: a sparse file may claim any size."""
    return min(found.st_size, _LARGEST)


def from_nanoseconds(moment: int) -> datetime:
    """Return a time to the microsecond, limited to the days of the calendar."""
    try:
        return min(_EPOCH + timedelta(microseconds=moment // 1000), _END_OF_TIME)
    except OverflowError:
        return _EPOCH if moment < 0 else _END_OF_TIME
