"""The file `index.json`, which builders rewrite concurrently: in place, under a lock."""

import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from maintainer.errors import StoreError
from maintainer.sanitize import printable
from maintainer.stores.local import lock
from maintainer.stores.local.disk import MissingError, translate_errors
from maintainer.stores.local.files import LEFT_OVER, Files, FileState
from maintainer.stores.local.tags import add_exports, read_tags

NAME = "index.json"
_READS = 50
_PAUSE = 0.02
_LATE = 0.1
"""Seconds after which a build that has opened the file has written it."""
_FRESH = 2.0
"""Seconds within which two writes may have the same time of modification on some file systems."""

_WHERE_IT_IS = "restore it, or let a build end an export to this directory"
_HIDDEN = ".fuse_hidden"
"""The beginning of the names that FUSE gives to files that are replaced or removed while open."""


class ReplacedError(StoreError):
    """It was replaced, and then something failed."""


Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Trace:
    """Changes with every write, unless it comes within a tick of the one before."""

    inode: int
    size: int
    modified: int
    changed: int


class IndexFile:
    """Reads and replaces the file, and detects whether somebody else has written it since."""

    def __init__(self, files: Files, *, limit: int) -> None:
        self._files = files
        self._limit = limit
        self._expected = b""
        self._trace: Trace | None = None

    async def read(self, sleep: Sleep) -> tuple[bytes, FileState]:
        """Read it whole. No lock: even a shared one can fail a build.

        Builders write it in place, so it is read until two consecutive reads are equal and valid.
        """
        problem = StoreError(f"{NAME} keeps changing")
        before: bytes | None = None
        for _ in range(_READS):
            try:
                content, seen = self._files.read(NAME, limit=self._limit)
            except MissingError as error:
                raise MissingError(f"{error}: {self._where_it_is()}") from None
            if content == before:
                try:
                    read_tags(content)
                except StoreError as error:
                    problem = error
                else:
                    return content, seen
            before = content
            await sleep(_PAUSE if content else 2 * _PAUSE)
        raise problem

    def expect(self, content: bytes) -> None:
        """Treat this as its content until somebody else writes it: a plan is based on it."""
        self._expected, self._trace = content, None

    def check_owner(self) -> None:
        """Raise StoreError if this user cannot give a new file to whom this one belongs."""
        mode, owner = self._mode_and_owner()
        if owner != (os.geteuid(), os.getegid()):
            # Who may give what to whom depends on the directory too, so it is tried.
            with self._files.temporary(b"", mode=mode, owner=owner):
                pass

    def _mode_and_owner(self) -> tuple[int, tuple[int, int]]:
        """Return what a new file must have too. Raises StoreError if it cannot have the owner."""
        with translate_errors(NAME):
            found = os.stat(NAME, dir_fd=self._files.root, follow_symlinks=False)
        if found.st_uid != os.geteuid() != 0:
            raise StoreError(
                f"{NAME} belongs to user {found.st_uid}: only that user can replace it"
            )
        return stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)

    async def replace(
        self,
        expected: bytes,
        content: bytes,
        sleep: Sleep,
        *,
        trace: Trace | None = None,
        foreign: bool = False,
    ) -> bool:
        """Replace it if it still has the expected content; return whether it had.

        With a `trace`, it must not have been written since either, not even with the same content.
        `foreign` content counts as written by somebody else. An export that was written to the
        replaced file a moment later is restored, so read the file again afterwards.
        The lock is held only for the replacement. Raises LockedError if a build holds the lock, and
        ReplacedError if something fails after the replacement.
        """
        mode, owner = self._mode_and_owner()
        with (
            self._files.opened(NAME) as replaced,
            self._files.temporary(
                content, mode=mode, owner=owner, acl=self._files.acl(replaced)
            ) as temporary,
        ):
            async with lock.hold(self._files.root, sleep):
                is_there = self._files.is_at(replaced, NAME)
                if not is_there or self._read_again(replaced) != expected:
                    return False
                if trace is not None and self.trace() != trace:
                    return False
                self._rename(temporary)
            if self._expected == expected and not foreign:
                self.expect(content)
            try:
                self._make_durable()
            finally:
                with _after_replacing():
                    await self._save_export(replaced, expected, sleep)
        return True

    def _make_durable(self) -> None:
        try:
            self._files.sync()
        except StoreError as error:
            raise ReplacedError(
                f"{NAME} was replaced, and that may not last ({error}): check the disk, run again"
            ) from None

    async def _save_export(self, replaced: int, expected: bytes, sleep: Sleep) -> None:
        """Restore what a build has written into the replaced file, if one has.

        A build removes the lock file after it has unlocked it. Another build that locks it in
        between holds a lock that nobody finds, so it can open the file while we replace it.
        """
        written = await self._read_after_replacing(replaced, expected, sleep)
        while written != expected:
            current, _ = await self.read(sleep)
            content = add_exports(current, expected, written)
            if content == current or await self.replace(current, content, sleep, foreign=True):
                return

    async def _read_after_replacing(self, replaced: int, expected: bytes, sleep: Sleep) -> bytes:
        """Read a file until two reads are equal and it is valid, as a build writes it in place.

        If it never becomes valid, nobody has exported: then what was expected.
        """
        before = expected
        for _ in range(_READS):
            await sleep(_LATE)
            written = self._read_again(replaced)
            if written == before and (written == expected or _is_index(written)):
                return written
            before = written
        if _is_index(before):
            raise StoreError("it never stops changing")
        return expected

    def _read_again(self, number: int) -> bytes:
        return self._files.read_again(number, limit=self._limit)

    def _rename(self, temporary: str) -> None:
        """Replace it by a temporary file, which is kept if it is the only index that is left.

        FUSE renames an open file that is to be replaced to another name, and then the new one to
        the name that is free. If the second step fails, nothing has the name any more.
        """
        root = self._files.root
        with translate_errors(NAME):
            try:
                os.rename(temporary, NAME, src_dir_fd=root, dst_dir_fd=root)
            except OSError:
                if self._files.is_there(NAME):
                    raise
            else:
                return
        try:
            os.rename(temporary, NAME, src_dir_fd=root, dst_dir_fd=root)
        except OSError as error:
            self._files.keep(temporary)
            raise StoreError(
                f"{NAME} is gone, because this file system removed it and could not put the new "
                f"one in its place ({error.strerror or error}): rename {temporary} to {NAME}"
            ) from None

    def _where_it_is(self) -> str:
        """Return what to do about a missing index: a replacement may have left it elsewhere."""
        names = self._files.names()
        ours = [name for name in names if LEFT_OVER.fullmatch(name)]
        for name in (*ours, *(name for name in names if name.startswith(_HIDDEN))):
            with suppress(StoreError):
                if _is_index(self._files.read(name, limit=self._limit)[0]):
                    may_be = f"{printable(name)} may be it: if so, rename it to {NAME}"
                    return f"{may_be}; or {_WHERE_IT_IS}"
        return _WHERE_IT_IS

    def has_changed(self) -> bool:
        """Whether somebody else has written it since a plan was based on it."""
        trace = self.trace()
        is_old = time.time() - max(trace.modified, trace.changed) / 1e9 > _FRESH
        if is_old and trace == self._trace:
            return False
        if self._files.read(NAME, limit=self._limit)[0] != self._expected:
            return True
        self._trace = trace
        return False

    def trace(self) -> Trace:
        """Return the trace of the last write."""
        with translate_errors(NAME):
            found = os.stat(NAME, dir_fd=self._files.root, follow_symlinks=False)
        return Trace(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@contextmanager
def _after_replacing() -> Iterator[None]:
    """Say of an error that the file is replaced, and what may be lost."""
    try:
        yield
    except ReplacedError:
        raise
    except StoreError as error:
        raise ReplacedError(
            f"{NAME} was replaced, and if a build has exported to the old one at that moment, this "
            f"could not be restored ({error}): let it export again"
        ) from None


def _is_index(content: bytes) -> bool:
    try:
        read_tags(content)
    except StoreError:
        return False
    return True
