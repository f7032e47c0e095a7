"""Where a path leads."""

import errno
import os
from pathlib import Path


def resolve(path: Path) -> Path:
    """Return where a path leads, through all links, whether something is there or not.

    `Path.resolve` raises a RuntimeError for a link that leads to itself up to Python 3.12, and
    nothing from 3.13 on. Raises OSError.
    """
    found = Path(os.path.realpath(path))
    try:
        found.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise
    return found
