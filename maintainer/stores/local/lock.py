"""The lock that builders take to replace `index.json`.

Source: `client/ociindex` in moby/buildkit, which locks the file `index.json.lock` with flock(2),
without waiting, and removes it afterwards. A build that finds it locked fails, so a run holds the
lock only for a moment, and waits while a builder holds it.
"""

import fcntl
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from maintainer.errors import StoreError
from maintainer.stores.local.disk import translate_errors
from maintainer.stores.local.files import close

NAME = "index.json.lock"

_WAIT = 10.0
"""Seconds to wait for a builder; a hanging build may hold it permanently."""
_PAUSE = 0.02


class LockedError(StoreError):
    """A builder holds the lock."""


@asynccontextmanager
async def hold(
    root: int, sleep: Callable[[float], Awaitable[None]], wait: float = _WAIT
) -> AsyncIterator[None]:
    """Hold the lock of the directory `root`. Raises LockedError if a builder keeps it."""
    for _ in range(max(1, round(wait / _PAUSE))):
        if (lock := _try(root)) is not None:
            break
        await sleep(_PAUSE)
    else:
        raise LockedError(f"a build holds {NAME}")
    number, is_ours = lock
    try:
        yield
    finally:
        # Removed while it is locked: others who open it from now on open another file.
        _release(number, root, is_ours=is_ours)


def _release(number: int, root: int, *, is_ours: bool) -> None:
    if is_ours:
        with suppress(OSError):
            os.unlink(NAME, dir_fd=root)
    close(number)


def _try(root: int) -> tuple[int, bool] | None:
    """Acquire the lock; return whether that created the file, or None if it is locked."""
    with translate_errors(NAME):
        try:
            number, is_ours = _open(root)
        except FileNotFoundError:
            return None
        try:
            _refuse_what_is_no_file(number)
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(number, root):
                return number, is_ours
        except BlockingIOError:
            pass
        except BaseException:
            # As where nobody can lock it: builds must not find a file that only we have made.
            _release(number, root, is_ours=is_ours)
            raise
        close(number)
        return None


def _open(root: int) -> tuple[int, bool]:
    # Opening a pipe of this name would block until somebody writes to it.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        number = os.open(NAME, flags | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=root)
    except FileExistsError:
        return os.open(NAME, flags, dir_fd=root), False
    # Builders that run as another user must be able to open it, whatever our umask is.
    with suppress(OSError):
        os.fchmod(number, 0o644)
    return number, True


def _refuse_what_is_no_file(number: int) -> None:
    if not stat.S_ISREG(os.fstat(number).st_mode):
        raise StoreError(f"{NAME} is not a regular file")


def _is_there(number: int, root: int) -> bool:
    """Whether others find the same lock file: it may have been removed."""
    try:
        found = os.stat(NAME, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        return False
    mine = os.fstat(number)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)
