"""The files of one directory. No symbolic link is followed, and no name is trusted.

Everything is opened relative to an open directory, so that moving or replacing a directory during a
run cannot redirect us. Every function raises StoreError, in one line.
"""

import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from maintainer.cacheconfig import Digest
from maintainer.cacheconfig.keys import is_digest
from maintainer.errors import ChangedError, EntryError, StoreError
from maintainer.sanitize import printable

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
_ACL = "system.posix_acl_access"
"""The attribute with the access control list of a file, on Linux."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PRIVATE = 0o600
"""The mode of a new file, until it is complete."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class MissingError(StoreError):
    """The file does not exist."""


class DiskError(StoreError):
    """The disk cannot give back what it stores there."""


class TooLargeError(StoreError):
    """The file is larger than the limit."""


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
            return _acl_of(number)

    def read_again(self, number: int, *, limit: int) -> bytes:
        """Read an open file from its beginning."""
        with translate_errors(str(self.path)):
            os.lseek(number, 0, os.SEEK_SET)
            return _read(str(self.path), number, limit)[0]

    def look(self, digest: Digest) -> FileState | None:
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
            _give_like(above, where)
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
                number = os.open(name, _NEW, _PRIVATE, dir_fd=self._root)
                with os.fdopen(number, "wb") as file:
                    file.write(content)
                    file.flush()
                    if owner:
                        _give_to(number, owner, mode)
                    _set_acl(number, acl)
                    _set_mode(number, mode)
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


def _give_to(number: int, owner: tuple[int, int], mode: int) -> None:
    """Give a new file the user and group of the one that it replaces."""
    mine = os.fstat(number)
    if owner == (mine.st_uid, mine.st_gid):
        return
    try:
        os.fchown(number, *owner)
    except PermissionError:
        if owner[0] != mine.st_uid:
            raise StoreError(
                f"the old file belongs to user {owner[0]}, and this user cannot give that user the "
                f"new one: run as user {owner[0]}"
            ) from None
        # It matters only if the group has other permissions than everyone else.
        if (mode >> 3) & 7 != mode & 7:
            raise StoreError(
                f"its group is {owner[1]}, which this user is not in: only a member can replace it"
            ) from None


def _give_like(directory: int, new: int) -> None:
    """Let a new directory belong to whom another one belongs, if that is allowed, with its mode."""
    there = os.fstat(directory)
    with suppress(OSError):
        os.fchown(new, there.st_uid, there.st_gid)
    with suppress(OSError):
        os.fchmod(new, stat.S_IMODE(there.st_mode))


def _set_mode(number: int, mode: int) -> None:
    """Set the mode of a new file, unless its file system has one mode for all files and refuses."""
    try:
        os.fchmod(number, mode)
    except OSError:
        if stat.S_IMODE(os.fstat(number).st_mode) == _PRIVATE:
            raise


def _acl_of(number: int) -> bytes:
    if sys.platform != "linux":
        return b""
    try:
        return os.getxattr(number, _ACL)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return b""
        raise


def _set_acl(number: int, acl: bytes | None) -> None:
    """Let the same users read and write a new file as the one that it replaces.

    With a list, the group's bits of a mode are the mask, so the mode alone would lock out the users
    that the list names, and allow the group what it forbids. A list that the new file inherited
    from its directory would do the same to the group of a file that has none.
    """
    if acl is None or sys.platform != "linux":
        return
    if acl:
        os.setxattr(number, _ACL, acl)
    elif _acl_of(number):
        os.removexattr(number, _ACL)


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


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Format a system error in one line."""
    try:
        yield
    except FileNotFoundError:
        raise MissingError(f"there is no {printable(what)}") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise StoreError(
                f"{printable(what)} is a symbolic link or not a directory: not followed"
            ) from None
        kind = DiskError if error.errno == errno.EIO else StoreError
        raise kind(f"{printable(what)}: {error.strerror or error}") from None


@contextmanager
def translate_refusals(where: int, directory: str) -> Iterator[None]:
    """Format an error of a deletion in one line, which does not say what was to be deleted.

    Raises EntryError if the directory can be written, so that other deletions may be allowed.
    """
    try:
        yield
    except FileNotFoundError:
        raise MissingError("it is gone") from None
    except PermissionError as error:
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=where, effective_ids=True):
            raise StoreError(f"{directory} cannot be written: {error.strerror}") from None
        raise EntryError(
            f"{error.strerror}: only its owner may delete it, or it is immutable (`lsattr`)"
        ) from None
    except OSError as error:
        raise StoreError(error.strerror or str(error)) from None


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
