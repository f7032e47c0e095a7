"""Whom a new file or directory belongs to, and who may use it: as the one that it replaces."""

import errno
import os
import stat
import sys
from contextlib import suppress

from maintainer.errors import StoreError

PRIVATE = 0o600
"""The mode of a new file, until it is complete."""
_ACL = "system.posix_acl_access"
"""The attribute with the access control list of a file, on Linux."""


def give_to(number: int, owner: tuple[int, int], mode: int) -> None:
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


def give_like(directory: int, new: int) -> None:
    """Let a new directory belong to whom another one belongs, if that is allowed, with its mode."""
    there = os.fstat(directory)
    with suppress(OSError):
        os.fchown(new, there.st_uid, there.st_gid)
    with suppress(OSError):
        os.fchmod(new, stat.S_IMODE(there.st_mode))


def set_mode(number: int, mode: int) -> None:
    """Set the mode of a new file, unless its file system has one mode for all files and refuses."""
    try:
        os.fchmod(number, mode)
    except OSError:
        if stat.S_IMODE(os.fstat(number).st_mode) == PRIVATE:
            raise


def acl_of(number: int) -> bytes:
    """Return the access control list of an open file; nothing if it has only a mode."""
    if sys.platform != "linux":
        return b""
    try:
        return os.getxattr(number, _ACL)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return b""
        raise


def set_acl(number: int, acl: bytes | None) -> None:
    """Let the same users read and write a new file as the one that it replaces.

    With a list, the group's bits of a mode are the mask, so the mode alone would lock out the users
    that the list names, and allow the group what it forbids. A list that the new file inherited
    from its directory would do the same to the group of a file that has none.
    """
    if acl is None or sys.platform != "linux":
        return
    if acl:
        os.setxattr(number, _ACL, acl)
    elif acl_of(number):
        os.removexattr(number, _ACL)
