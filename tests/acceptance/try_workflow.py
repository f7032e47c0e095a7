"""Runs the workflows of a repository by `act`, on an emulated cache: `make act REPOSITORY=folder`.

They run in a copy of the folder, with all of it committed. The cache has seen some builds of four
images. See `action.py` for what else is not as on GitHub.
"""

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from maintainer.demo import load_history, seed
from maintainer.emulator import ActionsCache, serve_in_thread
from tests.acceptance.action import ROOT, Newcomer, fetch_wheels
from tests.act import Act
from tests.third_party.github_client import install_github_client

_CACHE = ROOT / ".pytest_cache" / "d"


def run(repository: Path, event: str) -> int:
    """Run what is on `event`; print the log, and give the exit status."""
    wheels, client = _CACHE / "action-wheels", _CACHE / "third-party"
    for folder in (wheels, client):
        folder.mkdir(parents=True, exist_ok=True)
    cache = ActionsCache()
    ends_at = datetime.now(UTC) - timedelta(hours=30)
    seed(cache, load_history(), ends_at=ends_at, lasted=timedelta(days=5))
    with tempfile.TemporaryDirectory() as place, serve_in_thread(cache) as running:
        act = Act.with_a_copy_of(repository, Path(place))
        script = install_github_client(client)
        ran = Newcomer(act, running, fetch_wheels(wheels), script).runs(event)
        sys.stdout.write(ran.log)
        return ran.status


def find_problem(repository: Path) -> str | None:
    """Return what keeps its workflows from running, if anything does."""
    workflows = sorted((repository / ".github" / "workflows").glob("*.y*ml"))
    if not workflows:
        return f"{repository} has no workflows in .github/workflows: say REPOSITORY=FOLDER"
    return None


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if problem := find_problem(folder):
        sys.exit(f"make act: {problem}")
    sys.exit(run(folder.resolve(), sys.argv[2]))
