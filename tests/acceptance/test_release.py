"""What release.yml runs itself, on this machine: the notes, the builds, the release and the tag."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

import maintainer

ROOT = Path(maintainer.__file__).parents[1]
_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_VERSION = maintainer.__version__
_PARTS = ("maintainer", "migrations", "examples", "config", "docs")
_RUN = re.compile(r"^ +run: (.+)$", re.MULTILINE)
_GH = """#!/usr/bin/env bash
echo "$@" >> "$RECORD"
[[ "$*" == *"--input -"* ]] && cat >> "$RECORD.sent" && echo >> "$RECORD.sent"
[[ "$*" == *"--jq"* ]] && echo "$*" | sha1sum | cut -d " " -f 1
# With `refs`, GitHub lists what begins like this, and that there is nothing is no error.
[[ "$*" != "api repos/"*"/git/ref/tags/v0" && "$*" != "release view "* ]]
"""
_LINKS = 20
_BUNDLE = "bundle/cpython-311-linux-x86_64-glibc.tar.gz"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what is released, with a `gh` that records what it is asked to do."""
    place = tmp_path / "checkout"
    place.mkdir()
    for part in _PARTS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, place / part, ignore=ignored)
    for file in (*ROOT.glob("*.md"), *(ROOT / name for name in ("LICENSE", "pyproject.toml"))):
        shutil.copy(file, place)
    shutil.copy(ROOT / "Makefile", place)
    (tmp_path / "gh").write_text(_GH)
    (tmp_path / "gh").chmod(0o755)
    return place


def _steps() -> list[str]:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    # The tests are this one, nobody logs in here, and another test builds the archive.
    elsewhere = ("apt-get", "make test", "login", "bundle.sh")
    return [step for step in _RUN.findall(text) if not any(name in step for name in elsewhere)]


def _run(
    checkout: Path, step: str, tag: str, repository: str = maintainer.REPOSITORY, **more: str
) -> subprocess.CompletedProcess[str]:
    installed = sys.prefix
    return subprocess.run(
        [
            "bash",
            "-c",
            step.replace("make ", f"make VENV={installed} -o {installed}/.runs "),
        ],
        cwd=checkout,
        env={
            "PATH": f"{checkout.parent}{os.pathsep}{os.environ['PATH']}",
            "GH_TOKEN": "none",
            "GITHUB_REF_NAME": tag,
            "GITHUB_REPOSITORY": repository,
            "GITHUB_SHA": _COMMIT,
            "RECORD": str(checkout.parent / "record"),
            "SOURCE_DATE_EPOCH": "1700000000",
        }
        | more,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_every_step_of_a_release_does_its_part(checkout: Path) -> None:
    (checkout / "bundle").mkdir()
    (checkout / _BUNDLE).write_bytes(b"all of it")
    for step in _steps():
        ran = _run(checkout, step, f"v{_VERSION}")
        assert ran.returncode == 0, step + ran.stdout + ran.stderr

    (wheel,) = (checkout / "dist").glob("*.whl")
    (sdist,) = (checkout / "dist").glob("*.tar.gz")
    assert wheel.name.startswith(f"buildkit_maintainer-{_VERSION}-")
    with ZipFile(wheel) as opened:
        names = opened.namelist()
        module = opened.read("maintainer/__init__.py").decode()
        (metadata,) = (n for n in names if n.endswith(".dist-info/METADATA"))
        described = opened.read(metadata).decode()
    assert f'COMMIT = "{_COMMIT}"\n' in module
    assert {"maintainer/examples/maintain-cache.yml", "maintainer/migrations/env.py"} <= set(names)
    assert described.startswith("Metadata-Version: ")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", described) if link[0] != "#"]
    assert len(links) > _LINKS
    assert all(link.startswith("https://") for link in links)
    assert "](https://raw.githubusercontent.com/" in described
    assert f"Project-URL: Source, https://github.com/{maintainer.REPOSITORY}\n" in described
    with tarfile.open(sdist) as opened_sdist:
        assert any(name.endswith("/CHANGELOG.md") for name in opened_sdist.getnames())
    notes = (checkout / "notes.md").read_text()
    assert "### Added" in notes
    assert "## [" not in notes.replace("### [", "")
    record = (checkout.parent / "record").read_text()
    assert f"release create v{_VERSION} --verify-tag" in record
    assert f"dist/{wheel.name}" in record
    _check_the_tag(checkout, record)


def _check_the_tag(checkout: Path, record: str) -> None:
    """Check that the tag is moved to a commit that adds the archive to the released one."""
    git = f"repos/{maintainer.REPOSITORY}/git"
    create = f"api --method POST {git}/%s --input - --jq .sha"
    blob, tree, commit = (
        hashlib.sha1(f"{create % what}\n".encode(), usedforsecurity=False).hexdigest()
        for what in ("blobs", "trees", "commits")
    )
    assert record.endswith(f"api --method POST {git}/refs -f ref=refs/tags/v0 -f sha={commit}\n")
    sent = (checkout.parent / "record.sent").read_text().splitlines()
    content, files, made = map(json.loads, sent)
    assert base64.b64decode(content["content"]) == b"all of it"
    (file,) = files["tree"]
    assert (file["path"], file["sha"]) == (f"config/action/{_BUNDLE}", blob)
    assert (made["tree"], made["parents"]) == (tree, [_COMMIT])


@pytest.mark.soak
def test_the_archive_for_the_action_runs_without_being_installed(
    checkout: Path, tmp_path: Path
) -> None:
    for step in ("make dist", "config/release/bundle.sh"):
        ran = _run(checkout, step, f"v{_VERSION}", PYTHON=sys.executable)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    (archive,) = (checkout / "bundle").iterdir()
    if sys.version_info[:2] == (3, 11):
        assert archive.name == Path(_BUNDLE).name
    place = checkout / "config" / "action"
    archive.parent.rename(place / "bundle")
    runner = tmp_path / "a runner's folder"
    runner.mkdir()

    ran = _run(
        checkout,
        'config/action/install.sh && "$RUNNER_TEMP/maintainer/venv/bin/maintainer" demo',
        f"v{_VERSION}",
        PYTHON=sys.executable,
        PIP_NO_INDEX="1",
        UV_OFFLINE="1",
        RUNNER_TEMP=str(runner),
        GITHUB_ACTION_PATH=str(checkout),
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "5. Today. " in ran.stdout
    assert not (runner / "maintainer" / "venv" / "bin" / "python").exists()


def test_the_archive_is_for_the_python_that_the_action_runs_by_default() -> None:
    job = (ROOT / ".github" / "workflows" / "release.yml").read_text().partition("\n  bundle:\n")[2]
    found = re.search(r'python-version: "(.+)"', job)
    action = (ROOT / "action.yml").read_text()
    assert found
    assert f'it, 3.11 or newer.\n    default: "{found[1]}"\n' in action


def test_a_tag_that_is_not_the_version_ends_the_release(checkout: Path) -> None:
    ran = _run(checkout, _steps()[0], "v9.9.9")

    assert ran.returncode == 1
    assert "::error title=release::the tag is v9.9.9" in ran.stdout
    assert 'COMMIT = ""\n' in (checkout / "maintainer" / "__init__.py").read_text()


def test_a_release_in_a_repository_that_it_does_not_name_ends(checkout: Path) -> None:
    ran = _run(checkout, _steps()[0], f"v{_VERSION}", "octo/fork")

    assert ran.returncode == 1
    assert "this is octo/fork, but maintainer/__init__.py names another repository" in ran.stdout


def test_the_owner_is_named_in_one_place() -> None:
    """`make docs` copies it from there; see `test_tables_and_workflows_are_those_of_the_code`."""
    named = {
        str(path.relative_to(ROOT))
        for place in ("maintainer", "migrations", "tests")
        for path in (ROOT / place).rglob("*.py")
        if maintainer.REPOSITORY in path.read_text()
    }
    assert named == {"maintainer/__init__.py"}
