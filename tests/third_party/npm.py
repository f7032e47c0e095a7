"""Installs packages of npm that the tests talk to."""

import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

from tests.act import skip_or_fail


def install(source: Path, folder: Path) -> None:
    """Install what a folder locks, once for all test processes, where git does not look."""
    if not (shutil.which("node") and shutil.which("npm")):
        skip_or_fail("node and npm are not installed")
    lock = (source / "package-lock.json").read_bytes()
    with FileLock(folder / "lock"):
        done = folder / "installed"
        if not done.exists() or done.read_bytes() != lock:
            done.unlink(missing_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(source / name, folder)
            npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            result = subprocess.run(npm, cwd=folder, capture_output=True, text=True, check=False)
            if result.returncode:
                skip_or_fail(f"npm cannot install {source.name}: {result.stderr}")
            done.write_bytes(lock)
