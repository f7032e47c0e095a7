"""Installs GitHub's own client, npm's `@actions/cache`."""

import shutil
from pathlib import Path

from tests.third_party.npm import install

_HERE = Path(__file__).parent


def install_github_client(folder: Path) -> Path:
    """Install the client; return the script that uses it."""
    install(_HERE, folder)
    shutil.copy(_HERE / "github-client.mjs", folder)
    return folder / "github-client.mjs"
