"""What a command imports before it does anything: imports are most of the time that it takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.empty_database import change, make_empty

_DATABASE = {"sqlalchemy", "sqlalchemy.orm", "alembic"}
_CACHE = {"httpx2", "stamina"}
_POSTGRESQL = {"psycopg", "sqlalchemy.dialects.postgresql"}
_SERVICE = {"apscheduler", "starlette", "uvicorn"}
_PAGES = {"jinja2"}
_TERMINAL = {"rich"}
_SETTINGS = {"pydantic", "pydantic_settings", "cronsim"}
_HEAVY = _DATABASE | _POSTGRESQL | _CACHE | _SERVICE | _PAGES | _TERMINAL | _SETTINGS

_COUNTING = (
    "import atexit, json, sys\n"
    "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
    "from maintainer.__main__ import main\n"
    "main()\n"
)


def _imported(folder: Path, *arguments: str, status: int = 0, **variables: str) -> set[str]:
    """Run a command in a process of its own; return the modules that it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", _COUNTING, *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a database that knows no run yet."""
    make_empty(tmp_path / "maintainer.db")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["gc", "--help"], 0),
        (["db", "upgrade", "-h"], 0),
        (["nonsense"], 2),
        (["gc", "--nonsense"], 2),
    ],
    ids=repr,
)
def test_help_and_usage_errors_import_nothing_heavy(
    tmp_path: Path, arguments: list[str], status: int
) -> None:
    imported = _imported(tmp_path, *arguments, status=status)

    assert not imported & (_HEAVY | {"asyncio"})
    assert "maintainer.cli.app" in imported
    assert "maintainer.model" not in imported


def test_runs_and_reports_are_read_without_settings(folder: Path) -> None:
    at = ("--database", "maintainer.db")

    assert _imported(folder, "runs", *at) & _HEAVY == {"sqlalchemy", *_TERMINAL}
    assert _imported(folder, "runs", "--json") & _HEAVY == {"sqlalchemy"}
    assert _imported(folder, "report", *at, status=1) & _HEAVY == {"sqlalchemy"}
    assert _imported(folder, "why", "sha256:123456", status=1) & _HEAVY == {
        "sqlalchemy",
        *_TERMINAL,
    }


def test_only_values_that_are_neither_text_nor_unset_need_to_be_checked(folder: Path) -> None:
    assert "pydantic" not in _imported(folder, "tree", "api", status=1)
    assert "pydantic" in _imported(folder, "runs", "--limit", "0", status=2)


@pytest.mark.soak
def test_the_same_commands_in_other_words_import_as_little(folder: Path) -> None:
    assert _imported(folder, "runs") & _HEAVY == {"sqlalchemy", *_TERMINAL}
    assert _imported(folder, "db", "upgrade") & _HEAVY == {"sqlalchemy"}
    assert "pydantic" in _imported(folder, "runs", "--limit", "3")


def test_what_is_configured_costs_the_settings_only(folder: Path) -> None:
    imported = _imported(folder, "runs", "--json", MAINTAINER_DATABASE="sqlite:///maintainer.db")

    assert imported & _HEAVY == {"sqlalchemy", *_SETTINGS}


def test_alembic_is_for_migrations_of_what_exists_only(folder: Path) -> None:
    current = _imported(folder, "db", "upgrade", "--database", "maintainer.db")
    new = _imported(folder, "db", "upgrade", "--database", "sqlite:///new.db")
    change(folder / "maintainer.db", "UPDATE alembic_version SET version_num = '0000'")
    other = _imported(folder, "db", "upgrade", status=1)

    assert current & _HEAVY == {"sqlalchemy"}
    assert new & _DATABASE == {"sqlalchemy"}
    assert other & _DATABASE == {"sqlalchemy", "alembic"}


def test_a_run_imports_neither_the_service_nor_pages_nor_another_store(tmp_path: Path) -> None:
    imported = _imported(tmp_path, "gc", "--store", "local:nowhere", status=1)

    assert not imported & (
        _POSTGRESQL | _SERVICE | _PAGES | _TERMINAL | {"alembic", "sqlalchemy.orm", "httpx2", "jwt"}
    )
