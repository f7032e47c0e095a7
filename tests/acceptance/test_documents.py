"""The documentation tells the truth: its commands run, its queries answer, its tables are the
code's, its links lead somewhere.
"""

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from maintainer.cacheconfig import CacheConfig
from maintainer.demo import load_history, seed
from maintainer.emulator import ActionsCache, serve_in_thread
from maintainer.report.json import SCHEMA
from maintainer.settings import load_settings
from tests import processes
from tests.acceptance.demo import Demo
from tests.commands import run_here
from tests.documents import (
    DOCS,
    DOCUMENTS,
    NAMING_THE_OWNER,
    PARTS,
    README,
    ROOT,
    VIEWS,
    generated,
    queries,
    views,
)
from tests.ports import free_port
from tests.recorded import unpack_directory
from tests.stores import azblob
from tests.stores.docker_registry import DockerRegistry, a_registry
from tests.stores.s3 import ENVIRONMENT, a_server

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FOR_DEVELOPERS = (
    "add-a-policy.md",
    "add-a-store.md",
    "benchmarks.md",
    "development.md",
    "policies.md",
)
"""Commands there are tested elsewhere, or measure for minutes."""
_FOR_USERS = [one for one in DOCUMENTS if one.name not in _FOR_DEVELOPERS]
_ALL = [*DOCUMENTS, *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "SAFETY", "SECURITY"))]
_MAX_README_LINES = 150


def _blocks(language: str, documents: Iterable[Path] = _FOR_USERS) -> list[str]:
    """Return the blocks of code of one language, by default in what users read."""
    found = [match for one in documents for match in _BLOCK.finditer(one.read_text())]
    return [match[2] for match in found if match[1] == language]


_SHELL = [text for text in _blocks("sh") if "make act" not in text]
_TESTED_ELSEWHERE = {query for _, query in queries()}
_QUERIES = [text for text in _blocks("sql") if text.strip() not in _TESTED_ELSEWHERE]
_SETTINGS = sorted(set(_blocks("toml", DOCUMENTS)))
_ELSEWHERE = re.compile(
    r"make (\w+)|python3 -m venv .*|\. .*/activate|pip install '?\..*|maintainer demo > demo.txt"
)
"""Lines of a shell block that another test or a fixture runs, or that run this one."""


_AGAIN = "maintainer emulator --history -- maintainer gc --dry-run\n"
"""The line below it does the same work on the same history, and more; `make soak` runs both."""


def _in_turn(blocks: Iterable[str]) -> Iterator[Any]:
    """Return the shell blocks as parameters, and what is left out of them as one for soak."""
    for block in blocks:
        yield pytest.param(block.replace(_AGAIN, ""), id=block.splitlines()[-1])
    yield pytest.param(_AGAIN, id=_AGAIN.strip(), marks=pytest.mark.soak)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the environment of a workflow's step, on a cache of some age, and a directory."""
    unpack_directory(tmp_path).rename(tmp_path / "build-cache")
    cache = ActionsCache()
    ends_at = datetime.now(UTC) - timedelta(hours=30)
    seed(cache, load_history()[:60], ends_at=ends_at, lasted=timedelta(days=5))
    ours = re.compile("GITHUB_|ACTIONS_|MAINTAINER_")
    clean = {name: value for name, value in os.environ.items() if not ours.match(name)}
    clean["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    with serve_in_thread(cache) as running:
        yield clean | running.environment("refs/heads/main")


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """Return what leads to the bucket of the documents."""
    with a_server("my-bucket") as server:
        server.now = datetime.now(UTC)
        yield ENVIRONMENT | {"AWS_ENDPOINT_URL_S3": server.url}


@pytest.fixture(scope="module")
def container(request: pytest.FixtureRequest) -> Iterator[azblob.Azurite]:
    """Serve the container of the documents."""
    with azblob.a_server(request.config.cache.mkdir("azurite"), "my-container") as server:
        server.now = datetime.now(UTC)
        yield server


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Return the registry of the documents."""
    with a_registry(tmp_path_factory.mktemp("registry")) as registry:
        registry.export("web", CacheConfig())
        yield registry


def _on_loopback(block: str, registry: DockerRegistry) -> str:
    here = f"{registry.host}/{registry.repository}?insecure=true"
    return re.sub(r"ghcr\.io/octo/app-cache(\?)?", lambda at: here + ("&" if at[1] else ""), block)


@pytest.mark.waits
@pytest.mark.parametrize("block", list(_in_turn(_SHELL)))
def test_every_shell_block_runs_without_an_error(
    block: str,
    environment: dict[str, str],
    tmp_path: Path,
    demo: Demo,
    request: pytest.FixtureRequest,
) -> None:
    shutil.copy(demo.database, tmp_path)
    if "s3://" in block:
        environment |= request.getfixturevalue("bucket")
    if "azblob://" in block:
        server = request.getfixturevalue("container")
        environment["AZURE_STORAGE_KEY"] = azblob.ACCOUNT_KEY
        there = f"azblob://{azblob.ACCOUNT}/my-container/app?account_url={server.url}"
        block = block.replace("azblob://myaccount/my-container/app", there)
    if "registry://" in block:
        block = _on_loopback(block, request.getfixturevalue("repository"))
    here = [line for line in block.splitlines() if not _ELSEWHERE.fullmatch(line)]
    if "curl" in block and shutil.which("curl") is None:
        pytest.skip("there is no curl")
    if all(re.match("maintainer |export ", line) for line in here):
        for line in here:
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                environment[name] = value
            else:
                _run_forked(line, tmp_path, environment)
        return
    port = str(free_port())
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


def _run_forked(line: str, folder: Path, environment: dict[str, str]) -> None:
    """Run one command without a shell and without the second in which Python starts."""
    command, _, file = line.partition(" > ")
    _, *arguments = shlex.split(command, comments=True)
    ran = processes.run(folder, environment, *arguments)
    assert ran.status == 0, ran.err
    assert "Traceback" not in ran.err
    if file:
        (folder / shlex.split(file, comments=True)[0]).write_text(ran.out)


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(one.read_text() for one in _ALL)
    named = set(re.findall(r"^make (\w+)\b|`make (\w+)`", text, re.MULTILINE))
    named = {one or other for one, other in named}
    assert {"demo", "test", "bench", "docs"} <= named
    assert named <= targets


@pytest.mark.parametrize("query", _QUERIES, ids=lambda query: query.splitlines()[0])
def test_every_query_gives_rows_on_the_database_of_the_demo(query: str, demo: Demo) -> None:
    with closing(sqlite3.connect(demo.database)) as connection:
        assert connection.execute(query).fetchall()


@pytest.mark.parametrize("text", _SETTINGS, ids=count())
def test_settings_in_the_documents_are_valid(text: str, tmp_path: Path) -> None:
    file = tmp_path / "maintainer.toml"
    file.write_text(text)

    load_settings(file, {})


def test_the_workflow_of_the_recipes_says_what_their_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "policies.md").read_text()
    (as_json,) = re.findall(r"^ +room: '(.+)'$", page, re.MULTILINE)
    file = tmp_path / "maintainer.toml"
    file.write_text(
        '[room]\nclosed_refs = true\n[[room.rules]]\nprefix = "setup-node-"\nkeep_newest = 2\n'
    )
    expected = load_settings(file, {}).room

    monkeypatch.setenv("MAINTAINER_ROOM", as_json)
    assert load_settings(None, {}).room == expected


def test_there_are_queries_and_shell_blocks_to_run() -> None:
    assert len(_QUERIES) >= 3
    assert len(_SHELL) >= 4
    assert [_AGAIN in block for block in _SHELL].count(True) == 1


def test_the_picture_of_the_first_page_shows_the_numbers_of_the_demo(
    demo: Demo,
) -> None:
    found = re.search(r"^ *buildkit +(\d+) → (\d+) ", demo.out, re.MULTILINE)
    assert found
    drawn = re.search(r"(\d+) cache keys have a result +(\d+) cache keys have", README.read_text())
    assert drawn
    assert drawn.groups() == found.groups()
    assert f"{len(load_history()):,} entries" in demo.out


def test_the_first_page_is_short_and_leads_to_every_page() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= _MAX_README_LINES
    assert set(re.findall(r"\(docs/([\w-]+\.md)", text)) == {one.name for one in DOCS.iterdir()}


@pytest.mark.parametrize("document", NAMING_THE_OWNER, ids=lambda path: path.name)
def test_tables_and_workflows_are_those_of_the_code(document: Path) -> None:
    text = document.read_text()
    assert generated(text) == text, "run `make docs`"


def test_the_views_that_are_described_are_those_of_a_new_database() -> None:
    assert [name for name, _ in views()] == sorted(VIEWS)


def test_the_columns_that_are_explained_are_columns_of_views() -> None:
    _, _, table = (DOCS / "database.md").read_text().partition("| column | what it is |\n")
    explained = re.findall(r"^\| (`.+?`) \|", table.partition("\n\n")[0], re.MULTILINE)
    names = {name for cell in explained for name in re.findall(r"`(\w+)`", cell)}

    assert len(names) >= 10
    assert names <= {column for _, columns in views() for column in columns}


@pytest.mark.parametrize(
    ("page", "address"),
    [
        ("s3.md", "s3://my-bucket/app/"),
        ("azure.md", "azblob://myaccount/my-container/app"),
        ("registries.md", "registry://ghcr.io/octo/app-cache"),
    ],
)
def test_what_may_follow_an_address_is_in_the_table(
    page: str, address: str, tmp_path: Path
) -> None:
    _, _, text = (DOCS / page).read_text().partition("\n## The setting\n")
    table = re.findall(r"^\| `(\w+)` \|", text.partition("\n## ")[0], re.MULTILINE)

    refused = run_here(tmp_path, {}, "gc", "--store", f"{address}?nope=1").problem

    assert refused == f"--store: nope is unknown; use {', '.join(sorted(table))}"


def test_the_example_of_a_reason_fits_the_schema() -> None:
    (example,) = _blocks("json", [DOCS / "cli.md"])
    definitions = json.loads(SCHEMA.read_text())["$defs"]

    jsonschema.validate(json.loads(example), {"$ref": "#/$defs/ActionReport", "$defs": definitions})


def test_every_generated_part_is_in_one_document() -> None:
    text = "\n".join(one.read_text() for one in DOCUMENTS)
    assert [text.count(f"<!-- {name}: made by `make docs` -->") for name in PARTS] == [1] * len(
        PARTS
    )


@pytest.mark.parametrize("document", _ALL, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", _without_code(document.read_text()))
    for link in links:
        path, _, heading = link.partition("#")
        if not link.startswith("https://"):
            target = (document.parent / path).resolve() if path else document
            assert target.is_file(), link
            assert not heading or heading in _headings(target), link


def _headings(document: Path) -> set[str]:
    """Return the names by which links lead to the headings of a document."""
    titles = re.findall(r"^#+ (.+)$", _without_code(document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def _without_code(text: str) -> str:
    return _BLOCK.sub("", text)
