"""The recorded CI history, and what BuildKit's own merge makes of it."""

import gzip
from functools import cache
from pathlib import Path

import msgspec

from maintainer.cacheconfig import Digest

DATA = Path(__file__).parent / "data"
MAIN = "refs/heads/main"


class RecordedEntry(msgspec.Struct, frozen=True):
    """One cache entry, in the field names of GitHub's REST list."""

    id: int
    ref: str
    key: str
    version: str
    size_in_bytes: int
    created_at: str
    last_accessed_at: str
    content: str | None = None
    """The text of an index; blobs were not kept."""


class Expected(msgspec.Struct, frozen=True):
    """What BuildKit makes of some indexes when only some blobs exist."""

    indexes: list[str]
    live_blobs: frozenset[Digest]
    merged: msgspec.Raw


@cache
def recorded_entries() -> tuple[RecordedEntry, ...]:
    """Give all entries in the order in which they were created."""
    with gzip.open(DATA / "entries.jsonl.gz") as lines:
        return tuple(msgspec.json.decode(line, type=RecordedEntry) for line in lines)


@cache
def recorded_indexes() -> dict[str, bytes]:
    """Give the text of each index on the main branch by its key."""
    return {
        entry.key: entry.content.encode()
        for entry in recorded_entries()
        if entry.ref == MAIN and entry.content is not None
    }


def expected(case: str) -> Expected:
    """Give one of the expected merges by its name."""
    with gzip.open(DATA / f"expected-{case}.json.gz") as file:
        return msgspec.json.decode(file.read(), type=Expected)


CASES = sorted(
    path.name.removeprefix("expected-").removesuffix(".json.gz")
    for path in DATA.glob("expected-*.json.gz")
)
