"""What `pip install .` gives: a command that works anywhere, with all the files that it needs."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install into an environment outside of the tree, which borrows the dependencies of ours."""
    folder = tmp_path_factory.mktemp("installed")
    wheels = folder / "wheels"
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
    ]
    _run([*build, "--wheel-dir", wheels, ROOT], folder)
    (wheel,) = wheels.glob("*.whl")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    install: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
    ]
    _run([*install, "--no-deps", "--no-index", wheel], folder)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    ours = Path(pytest.__file__).parents[1]
    # Last on the path, and without its .pth files: the package itself can only be the wheel's.
    (site / "dependencies.pth").write_text(f"{ours}\n")
    return folder / "venv" / "bin" / "maintainer"


def _run(command: list[str | Path], folder: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MAINTAINER_"))}
    result = subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, check=False, timeout=240
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_installed_package_is_the_one_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    told = _run([installed.with_name("python"), "-c", _WHERE], tmp_path)
    assert Path(told.strip()).is_relative_to(installed.parents[1])


def test_help_works_when_installed(installed: Path, tmp_path: Path) -> None:
    assert "gc" in _run([installed, "--help"], tmp_path)


def test_the_history_of_the_demo_and_the_migrations_are_found_when_installed(
    installed: Path, tmp_path: Path
) -> None:
    entries = _run([installed.with_name("python"), "-c", _HISTORY], tmp_path)
    assert int(entries) > 1_000

    _run([installed, "db", "upgrade"], tmp_path)
    assert (tmp_path / "maintainer.db").is_file()


@pytest.mark.soak
def test_the_demo_runs_when_installed(installed: Path, tmp_path: Path) -> None:
    assert "before → after" in _run([installed, "demo"], tmp_path)
    assert (tmp_path / "maintainer-demo.db").is_file()


_HISTORY = "from maintainer.demo import load_history; print(len(load_history()))"
_WHERE = "import maintainer; print(maintainer.__file__)"
