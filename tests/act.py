"""Workflows run by `act`: without a container, and with nothing of this machine's."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

import pytest

REPOSITORY = "octo/cache"
_INSTANCE = "github.invalid"
_WHO = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]


def skip_or_fail(reason: str) -> NoReturn:
    """Skip a test for this reason, unless everything has to run."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def find_act() -> str:
    """Find `act`; skips where it, or what it needs, is missing."""
    act = shutil.which("act", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if act is None:
        skip_or_fail("`act` is not installed (dependency group third-party)")
    if sys.platform == "win32":
        skip_or_fail("`act` is run without a container on Linux and macOS only")
    if shutil.which("git") is None:
        skip_or_fail("`act` needs git")
    return act


@dataclass(frozen=True)
class Act:
    """A repository in which `act` runs workflows."""

    command: str
    place: Path
    """What it keeps for itself is in here."""
    repository: Path

    @classmethod
    def in_a_new_repository(cls, place: Path) -> Self:
        """Make a repository with one empty commit on `main`."""
        act = cls(find_act(), place, place / "repository")
        act.repository.mkdir(parents=True)
        for command in (
            ["git", "init", "--quiet", "--initial-branch=main"],
            ["git", *_WHO, "commit", "--quiet", "--allow-empty", "--message=empty"],
            ["git", "remote", "add", "origin", f"https://{_INSTANCE}/{REPOSITORY}.git"],
        ):
            subprocess.run(command, cwd=act.repository, env=act.environment, check=True)
        return act

    @classmethod
    def with_a_copy_of(cls, folder: Path, place: Path) -> Self:
        """Make a repository with one commit of all that is in a folder."""
        act = cls.in_a_new_repository(place)
        leave_out = shutil.ignore_patterns(".git", ".venv", "node_modules")
        shutil.copytree(folder, act.repository, symlinks=True, ignore=leave_out, dirs_exist_ok=True)
        for command in (
            ["git", "add", "--all"],
            ["git", *_WHO, "commit", "--quiet", "--allow-empty", "--message=all"],
        ):
            subprocess.run(command, cwd=act.repository, env=act.environment, check=True)
        return act

    @property
    def environment(self) -> dict[str, str]:
        """Neither this machine's git settings nor its proxies or containers."""
        home = self.place / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def add(self, name: str, workflow: str) -> None:
        """Put a workflow into the repository, in place of all others."""
        folder = self.repository / ".github" / "workflows"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / name).write_text(workflow)

    def run(self, event: str, *options: str) -> tuple[int, str]:
        """Run what is on this event; give the exit status and the log."""
        always = (
            "--platform=ubuntu-latest=-self-hosted",
            f"--action-cache-path={self.place / 'actions'}",
            f"--github-instance={_INSTANCE}",
        )
        ran = subprocess.run(
            [self.command, event, *always, *options],
            cwd=self.repository,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        return ran.returncode, ran.stdout
