"""Decodes the generations of a scope, merges them, prunes what is gone, and encodes the rest.

    python -m benchmarks.merging COUNT          prints the CPU seconds, and the number of records
    python -m benchmarks.merging COUNT FOLDER   writes the input into a folder, for other programs

Of the blobs that only one generation references, one in five is gone.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.grown import generations
from benchmarks.processes import user_seconds
from maintainer.cacheconfig import CacheConfig, Digest, decode, encode, merge, prune

_ROUNDS = 5
_GONE = 5


def existing(configs: Sequence[CacheConfig]) -> frozenset[Digest]:
    """Return the blobs that exist."""
    counts = Counter(blob for config in configs for blob in config.blobs)
    rare = sorted(blob for blob, count in counts.items() if count == 1)
    return frozenset(counts.keys() - set(rare[::_GONE]))


def _measure(indexes: Sequence[bytes], blobs: frozenset[Digest]) -> tuple[float, bytes]:
    began = user_seconds()
    written = encode(prune(merge(map(decode, indexes)), blobs))
    return user_seconds() - began, written


def _write(folder: Path, indexes: Sequence[bytes], blobs: frozenset[Digest]) -> None:
    folder.mkdir(parents=True)
    for number, content in enumerate(indexes):
        (folder / f"{number:05}.json").write_bytes(content)
    (folder / "blobs.txt").write_text("".join(f"{blob}\n" for blob in sorted(blobs)))


def main(count: int, folder: Path | None) -> None:
    """Measure, or write the input."""
    configs = list(generations(count))
    indexes, blobs = [encode(config) for config in configs], existing(configs)
    if folder:
        _write(folder, indexes, blobs)
        return
    del configs
    _, written = _measure(indexes, blobs)
    took = median(_measure(indexes, blobs)[0] for _ in range(_ROUNDS))
    print(took, len(decode(written).records))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
