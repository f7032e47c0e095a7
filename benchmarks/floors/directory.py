"""The least that a run on a directory takes.

    python -m benchmarks.floors.directory PATH          stats each file, and parses each index
    python -m benchmarks.floors.directory PATH stat     only stats each file, and reads index.json

It prints the number of files, and how many bytes it has read.
"""

import json
import os
import sys
from pathlib import Path


def main(path: Path, *, reads: bool) -> tuple[int, int]:
    """Return the number of files, and of the bytes read."""
    blobs = path / "blobs" / "sha256"
    with os.scandir(blobs) as found:
        files = [(entry.name, entry.stat(follow_symlinks=False).st_size) for entry in found]
    index = (path / "index.json").read_bytes()
    size = len(index)
    for descriptor in json.loads(index)["manifests"] if reads else ():
        manifest = (blobs / descriptor["digest"][7:]).read_bytes()
        config = (blobs / json.loads(manifest)["config"]["digest"][7:]).read_bytes()
        json.loads(config)
        size += len(manifest) + len(config)
    return len(files), size


if __name__ == "__main__":
    print(*main(Path(sys.argv[1]), reads=not sys.argv[2:]))
