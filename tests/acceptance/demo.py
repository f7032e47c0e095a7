"""What `maintainer demo` leaves. It is run once for all test processes, as a newcomer runs it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock


@dataclass(frozen=True)
class Demo:
    """What the demo has printed, and the database that it has left."""

    database: Path
    out: str
    err: str


def run_demo(folder: Path) -> Demo:
    """Run the demo in this folder, or return what another test process has of it."""
    out, err = folder / "out.txt", folder / "err.txt"
    with FileLock(folder.with_suffix(".lock")):
        if not err.exists():
            folder.mkdir()
            ran = subprocess.run(
                [Path(sys.executable).with_name("maintainer"), "demo"],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "COLUMNS": "200", "LANG": "C.UTF-8"},
                capture_output=True,
                encoding="utf-8",
                check=True,
                timeout=120,
            )
            out.write_text(ran.stdout)
            err.write_text(ran.stderr)
    return Demo(folder / "maintainer-demo.db", out.read_text(), err.read_text())
