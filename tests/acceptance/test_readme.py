"""The README tells the truth: its commands run, its queries answer, its tables are the code's."""

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from maintainer.demo import load_history, seed
from maintainer.emulator import ActionsCache, serve_in_thread
from tests.readme import README, ROOT, generated, queries
from tests.recorded import DATA

_TEXT = README.read_text()
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BLOCKS = [(match[1], match[2]) for match in _BLOCK.finditer(_TEXT)]
_SHELL = [text for language, text in _BLOCKS if language == "sh" and "make act" not in text]
_TESTED_ELSEWHERE = {query for _, query in queries()}
_QUERIES = [
    text
    for language, text in _BLOCKS
    if language == "sql" and text.strip() not in _TESTED_ELSEWHERE
]
_ELSEWHERE = re.compile(
    r"make (\w+)|python3 -m venv .*|\. .*/activate|pip install \.|maintainer demo > demo.txt"
)
"""Lines of a shell block that another test or a fixture runs, or that run this one."""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the environment of a workflow's step, on a cache of some age, and a directory."""
    with tarfile.open(DATA / "local-cache.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "localcache").rename(tmp_path / "build-cache")
    cache = ActionsCache()
    ends_at = datetime.now(UTC) - timedelta(hours=30)
    seed(cache, load_history()[:60], ends_at=ends_at, lasted=timedelta(days=5))
    ours = re.compile("GITHUB_|ACTIONS_|MAINTAINER_")
    clean = {name: value for name, value in os.environ.items() if not ours.match(name)}
    clean["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    with serve_in_thread(cache) as running:
        yield clean | running.environment("refs/heads/main")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the database that the demo leaves, and what it prints."""
    folder = tmp_path_factory.mktemp("demo")
    result = subprocess.run(
        [Path(sys.executable).with_name("maintainer"), "demo"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return folder / "maintainer-demo.db", result.stdout


@pytest.mark.parametrize("block", _SHELL, ids=lambda block: block.splitlines()[-1])
def test_every_shell_block_runs_without_an_error(
    block: str, environment: dict[str, str], tmp_path: Path, demo: tuple[Path, str]
) -> None:
    shutil.copy(demo[0], tmp_path)
    here = [line for line in block.splitlines() if not _ELSEWHERE.fullmatch(line)]
    if "curl" in block and shutil.which("curl") is None:
        pytest.skip("there is no curl")
    port = str(_free_port())
    environment["MAINTAINER_SERVE"] = json.dumps({"listen": f"127.0.0.1:{port}"})
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(here).replace("9309", port)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_every_make_target_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make (\w+)$|`make (\w+)`", _TEXT, re.MULTILINE))
    named = {one or other for one, other in named}
    assert {"demo", "test", "bench", "readme"} <= named
    assert named <= targets


@pytest.mark.parametrize("query", _QUERIES, ids=lambda query: query.splitlines()[0])
def test_every_query_gives_rows_on_the_database_of_the_demo(
    query: str, demo: tuple[Path, str]
) -> None:
    with closing(sqlite3.connect(demo[0])) as connection:
        assert connection.execute(query).fetchall()


def test_there_are_queries_and_shell_blocks_to_run() -> None:
    assert len(_QUERIES) >= 3
    assert len(_SHELL) >= 4


def test_its_picture_shows_the_numbers_of_the_demo(demo: tuple[Path, str]) -> None:
    found = re.search(r"^ *buildkit +(\d+) → (\d+) ", demo[1], re.MULTILINE)
    assert found
    drawn = re.search(r"(\d+) cache keys have a result +(\d+) cache keys have", _TEXT)
    assert drawn
    assert drawn.groups() == found.groups()
    assert f"{len(load_history())} entries" in demo[1]


def test_its_tables_and_its_workflow_are_those_of_the_code() -> None:
    assert generated(_TEXT) == _TEXT, "run `make readme`"


def test_its_links_lead_to_files_and_headings() -> None:
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", _TEXT, re.MULTILINE)
    }
    links = re.findall(r"\]\(([^)]+)\)", _TEXT)
    assert links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
        else:
            assert (ROOT / link).is_file(), link
