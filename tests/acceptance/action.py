"""What a newcomer has: a repository, a workflow to copy, an Actions cache; and no network at all.

The Action itself, its locked dependencies, `act` and GitHub's own client of the cache are real.
The cache service is the emulator. The other actions are stand-ins, in `actions/`: `setup-python`
gives the tests' own Python, `github-script` runs its script, `cache/restore` and `cache/save` call
GitHub's own client, `build-push-action` writes what a build of a small image would, and
`setup-buildx-action` does nothing. As with a real runner, only they see the variables of the cache
service; `run:` steps do not. `checkout` is act's own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from maintainer import REPOSITORY, __version__
from maintainer.emulator.server import Running
from tests.act import REPOSITORY as MY_REPOSITORY
from tests.act import Act, skip_or_fail

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LOCKS = [ROOT / "config" / "action" / name for name in ("uv.txt", "requirements.txt")]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
_STAND_INS = Path(__file__).with_name("actions")
_PARTS = (
    "action.yml",
    "config",
    "examples",
    "maintainer",
    "migrations",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
_PIN = re.compile(r"uses: ([\w-]+/([\w-]+))(?:/[\w/]+)?@([0-9a-f]{40}|v0)\b")
_OUTPUT = re.compile(r"::set-output:: ([\w-]+)=(.*)$", re.MULTILINE)
_SUMMARY = re.compile(r"^\[[^]]+\] +⚙  Summary - (.*?)^\[", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Ran:
    """What came of a workflow."""

    status: int
    log: str

    @property
    def outputs(self) -> dict[str, str]:
        """The outputs of all its steps; later ones win."""
        return dict(_OUTPUT.findall(self.log))

    @property
    def summary(self) -> str:
        """The job summary."""
        return "".join(_SUMMARY.findall(self.log))


@dataclass(frozen=True)
class Newcomer:
    """Somebody who has read the documentation."""

    act: Act
    running: Running
    wheels: Path
    client: Path
    secrets: set[str] = field(default_factory=set)
    """Texts that may be in no log: parts of tokens, as a log shows a whole one as three stars."""

    def copies(self, example: str, without: Iterable[str] = ()) -> None:
        """Put a workflow, without some parts, into the repository, pinned to a commit."""
        text = fill_in((EXAMPLES / example).read_text())
        for part in without:
            assert part in text
            text = text.replace(part, "")
        self.act.add(example, text)

    def runs(self, event: str, *options: str) -> Ran:
        """Run it, as the runner of a host does."""
        own = self.running.environment("refs/heads/main")
        service = self.act.place / "service.json"
        service.write_text(json.dumps({k: v for k, v in own.items() if k.startswith("ACTIONS_")}))
        self.secrets.update(own["ACTIONS_RUNTIME_TOKEN"].split(".")[1:], [own["GITHUB_TOKEN"]])
        variables = {
            "GITHUB_API_URL": own["GITHUB_API_URL"],
            "GITHUB_REPOSITORY": MY_REPOSITORY,
            "GITHUB_RUN_ID": str(time.monotonic_ns()),
            "NO_PROXY": "127.0.0.1",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_NO_INDEX": "1",
            "STAND_IN_BUILDS": str(self.act.place / "builds"),
            "STAND_IN_CLIENT": str(self.client),
            "STAND_IN_PYTHON": sys.executable,
            "STAND_IN_ROOT": str(ROOT),
            "STAND_IN_SERVICE": str(service),
            "TERM": "dumb",
            "UV_FIND_LINKS": str(self.wheels),
            "UV_OFFLINE": "1",
        }
        actions = self._actions()
        options = (
            "--no-cache-server",
            f"--secret=GITHUB_TOKEN={own['GITHUB_TOKEN']}",
            *(f"--local-repository={pin}={folder}" for pin, folder in actions.items()),
            *(f"--env={name}={value}" for name, value in variables.items()),
            *options,
        )
        return Ran(*self.act.run(event, *options))

    def _actions(self) -> dict[str, Path]:
        """Return a folder for each action that the workflows or ours pin, under that pin."""
        checkout = self.act.place / "checkout"
        if not checkout.exists():
            check_out(checkout)
        workflows = (self.act.repository / ".github" / "workflows").glob("*.yml")
        texts = [path.read_text() for path in (checkout / "action.yml", *workflows)]
        return {
            f"{action}@{commit}": checkout if name == "maintainer" else _STAND_INS / name
            for text in texts
            for action, name, commit in _PIN.findall(text)
            if name != "checkout"
        }

    def builds(self) -> list[str]:
        """Return what the builds found, in order."""
        return (self.act.place / "builds").read_text().splitlines()


def make_newcomer(place: Path, running: Running, wheels: Path, client: Path) -> Newcomer:
    """Return somebody with an empty repository."""
    return Newcomer(Act.in_a_new_repository(place), running, wheels, client)


def check_out(checkout: Path) -> None:
    """Copy what the Action needs of this tree."""
    checkout.mkdir()
    for part in _PARTS:
        if (ROOT / part).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, checkout / part, ignore=ignore)
        else:
            shutil.copy(ROOT / part, checkout)


def fill_in(workflow: str) -> str:
    """Pin the Action to a commit, as `maintainer init` does."""
    assert f"{REPOSITORY}@v0\n" in workflow
    return workflow.replace("@v0\n", f"@{COMMIT} # v{__version__}\n")


def fetch_wheels(folder: Path) -> Path:
    """Fetch the locked dependencies of the Action, once for all test processes."""
    wanted = b"".join(lock.read_bytes() for lock in LOCKS)
    with FileLock(folder / "lock"):
        done = folder / "fetched"
        if not done.exists() or done.read_bytes() != wanted:
            done.unlink(missing_ok=True)
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes"]
            files = [argument for lock in LOCKS for argument in ("-r", str(lock))]
            command = [*pip, "--only-binary", ":all:", *files, "--dest", str(folder)]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                skip_or_fail(f"the Action's dependencies cannot be fetched: {ran.stderr[-500:]}")
            done.write_bytes(wanted)
    return folder
