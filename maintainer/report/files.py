"""Files that are written atomically."""

import os
import tempfile
from pathlib import Path

from maintainer.errors import MaintainerError
from maintainer.paths import resolve

_SQLITE = b"SQLite format 3\0"
"""How each database of SQLite begins: https://www.sqlite.org/fileformat2.html#magic_header_string
"""


def write_atomically(path: Path, text: str) -> None:
    """Replace a file, with the permissions of a new file.

    A link is followed. A device or a pipe is not replaced, but written to.
    Raises MaintainerError, in one line, if that fails; then nothing has changed.
    """
    temporary: Path | None = None
    try:
        path = resolve(path)
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        if _is_database(path):
            raise MaintainerError(f"{path} is a database: write to another file")
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        raise MaintainerError(f"{path} cannot be written: {error.strerror or error}") from None


def _is_database(path: Path) -> bool:
    """Whether a file is one of SQLite's, which no text must replace."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
