"""Installs GitHub's own client, npm's `@actions/cache`."""

import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

from tests.act import skip_or_fail

_HERE = Path(__file__).parent


def install_github_client(folder: Path) -> Path:
    """Install the client, once for all test processes, where git does not look; give the script."""
    if not (shutil.which("node") and shutil.which("npm")):
        skip_or_fail("node and npm are not installed")
    lock = (_HERE / "package-lock.json").read_bytes()
    with FileLock(folder / "lock"):
        done = folder / "installed"
        if not done.exists() or done.read_bytes() != lock:
            done.unlink(missing_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(_HERE / name, folder)
            npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            result = subprocess.run(npm, cwd=folder, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
            done.write_bytes(lock)
        shutil.copy(_HERE / "github-client.mjs", folder)
    return folder / "github-client.mjs"
