"""GitHub's own client, npm's `@actions/cache`, and ours read what the other wrote."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from maintainer.emulator import ActionsCache, Running, serve_in_thread
from maintainer.emulator.server import Service
from maintainer.settings import GitHubSettings
from maintainer.stores.github.client import open_client
from tests.third_party.github_client import install_github_client

MAIN, TOPIC = "refs/heads/main", "refs/heads/topic"
BUILDKITS_VERSION = "693bb7016429d80366022f036f84856888c9f13e00145f5f6f4dce303a38d6f2"
KEY = "index-web-1-49c8f7d5#1"


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Path:
    return install_github_client(request.config.cache.mkdir("third-party"))


class GitHubClient:
    """A workflow step that uses the client."""

    def __init__(self, script: Path, running: Running, folder: Path) -> None:
        self._script = script
        self._running = running
        self._folder = folder
        self.ref = MAIN
        self.service: Service = "v2"

    def call(self, *arguments: str) -> str | None:
        """Run one of the commands of the script, and give what it answers."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ACTIONS_", "GITHUB_", "RUNNER_"))
        }
        environment = self._running.environment(self.ref, readable=(MAIN,), service=self.service)
        result = subprocess.run(
            ["node", self._script, *arguments],
            env=clean | environment | {"RUNNER_TEMP": str(self._folder), "NO_PROXY": "127.0.0.1"},
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        answer = result.stdout.rpartition("\nanswer: ")[2]
        told: str | None = json.loads(answer)
        return told


@pytest.fixture
def running() -> Iterator[Running]:
    with serve_in_thread(ActionsCache()) as running:
        yield running


@pytest.fixture
def github(installed: Path, running: Running, tmp_path: Path) -> GitHubClient:
    return GitHubClient(installed, running, tmp_path)


def _write(running: Running, content: bytes) -> None:
    async def write() -> None:
        async with open_client(GitHubSettings.model_validate(running.environment(MAIN))) as store:
            await store.write(KEY, content)

    asyncio.run(write())


def _read(running: Running) -> bytes:
    async def read() -> bytes:
        async with open_client(GitHubSettings.model_validate(running.environment(MAIN))) as store:
            found = await store.look_up(KEY)
            assert found
            newest = await store.look_up_newest("index-web-1-49c8f7d5#")
            assert newest
            assert newest.key == KEY
            return await store.read(found)

    return asyncio.run(read())


def test_ours_reads_what_githubs_client_saved(
    github: GitHubClient, running: Running, tmp_path: Path
) -> None:
    content = os.urandom(300_000)
    (tmp_path / "saved").write_bytes(content)
    github.call("saveFile", KEY, BUILDKITS_VERSION, "saved")
    assert _read(running) == content


def test_githubs_client_restores_what_ours_wrote(
    github: GitHubClient, running: Running, tmp_path: Path
) -> None:
    content = os.urandom(300_000)
    _write(running, content)
    assert github.call("restoreFile", KEY, BUILDKITS_VERSION, "restored") == KEY
    assert (tmp_path / "restored").read_bytes() == content


def test_githubs_client_finds_what_ours_wrote_by_its_prefix_and_from_another_ref(
    github: GitHubClient, running: Running, tmp_path: Path
) -> None:
    _write(running, b"{}")
    github.ref = TOPIC
    prefix = "index-web-1-49c8f7d5"
    assert github.call("restoreFile", "none", BUILDKITS_VERSION, "restored", prefix) == KEY
    assert (tmp_path / "restored").read_bytes() == b"{}"
    assert github.call("restoreFile", "none", BUILDKITS_VERSION, "restored") is None


@pytest.mark.parametrize("service", ["v1", "v2"])
def test_githubs_client_saves_and_restores_a_folder(
    github: GitHubClient, running: Running, tmp_path: Path, service: Service
) -> None:
    github.service = service
    folder = tmp_path / "folder"
    folder.mkdir()
    content = os.urandom(200_000)
    (folder / "file").write_bytes(content)
    github.call("saveFolder", "folder-1", str(folder))
    shutil.rmtree(folder)
    assert github.call("restoreFolder", "folder-1", str(folder)) == "folder-1"
    assert (folder / "file").read_bytes() == content
    assert github.call("restoreFolder", "none", str(folder), "folder-") == "folder-1"
    assert running.call(lambda cache: [entry.key for entry in cache.entries()]) == ["folder-1"]
