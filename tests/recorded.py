"""The recorded CI history, and what BuildKit's own merge makes of it."""

import gzip
import tarfile
from functools import cache
from pathlib import Path

import msgspec

from maintainer.cacheconfig import Digest
from maintainer.demo import load_history

DATA = Path(__file__).parent / "data"
MAIN = "refs/heads/main"


class Expected(msgspec.Struct, frozen=True):
    """What BuildKit makes of some indexes when only some blobs exist."""

    indexes: list[str]
    live_blobs: frozenset[Digest]
    merged: msgspec.Raw


@cache
def recorded_indexes() -> dict[str, bytes]:
    """Return the text of each index on the main branch by its key."""
    return {
        entry.key: entry.content.encode()
        for entry in load_history()
        if entry.ref == MAIN and entry.content is not None
    }


def unpack_directory(folder: Path) -> Path:
    """Unpack the recorded cache in a directory into a folder, and return the path of the cache."""
    with tarfile.open(DATA / "local-cache.tar.gz") as archive:
        # Some versions of Python 3.11, such as Debian's, do not know the argument of this name.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    return folder / "localcache"


def expected(case: str) -> Expected:
    """Return one of the expected merges by its name."""
    with gzip.open(DATA / f"expected-{case}.json.gz") as file:
        return msgspec.json.decode(file.read(), type=Expected)


CASES = sorted(
    path.name.removeprefix("expected-").removesuffix(".json.gz")
    for path in DATA.glob("expected-*.json.gz")
)
