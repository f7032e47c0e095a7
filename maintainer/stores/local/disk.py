"""The errors of a disk, each in one line."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from maintainer.errors import EntryError, RefusedError, StoreError
from maintainer.sanitize import printable


class MissingError(StoreError):
    """The file does not exist."""


class DiskError(StoreError):
    """The disk cannot give back what it stores there."""


class TooLargeError(StoreError):
    """The file is larger than the limit."""


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

    Raises RefusedError; EntryError if the directory can be written, so that other deletions may be
    allowed.
    """
    try:
        yield
    except FileNotFoundError:
        raise MissingError("it is gone") from None
    except PermissionError as error:
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=where, effective_ids=True):
            raise RefusedError(f"{directory} cannot be written: {error.strerror}") from None
        raise EntryError(
            f"{error.strerror}: only its owner may delete it, or it is immutable (`lsattr`)"
        ) from None
    except OSError as error:
        raise StoreError(error.strerror or str(error)) from None
