"""The page about policies is correct: its example becomes a policy that runs apply."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maintainer.plan import DECIDERS, INDEXES, TOOLS, VETOES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-policy.md").read_text()

_PART = re.compile(r"^`([\w/.]+)`:$|^```(python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^```sh\npython (.*)\n```$", re.MULTILINE)
_ROW = re.compile(r"^\| ([^|]+) \| `(\w+)\.py`", re.MULTILINE)
_PLAN = "maintainer/plan.py"
_TEST = "tests/unit/test_nightly.py"
_OTHER_TESTS = ["tests/unit/test_policies.py", "tests/unit/test_reasons.py"]


def _blocks() -> Iterator[tuple[str, str, str]]:
    """Return the blocks of code in order: the file, `python` or `diff`, and the text."""
    file = ""
    for part in _PART.finditer(PAGE):
        file = part[1] or file
        if part[2]:
            yield file, part[2], part[3]


def _apply(checkout: Path, file: str, kind: str, text: str) -> None:
    """Create a file, or change one where the lines of a diff without numbers say."""
    path = checkout / file
    if kind == "python":
        assert not path.exists()
        path.write_text(text)
        return
    lines = text.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    content = path.read_text()
    assert content.count(before) == 1, f"the page does not fit {file}: {before}"
    path.write_text(content.replace(before, after))


def _run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _test(checkout: Path, *files: str) -> subprocess.CompletedProcess[str]:
    return _run(checkout, "pytest", "-q", "-p", "no:cacheprovider", *files)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the program, and of the tests that the page is about."""
    shutil.copytree(ROOT / "maintainer", tmp_path / "maintainer")
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    for file in ("pyproject.toml", "tests/snapshots.py", *_OTHER_TESTS):
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def test_whoever_follows_the_page_has_a_policy_that_a_plan_obeys(checkout: Path) -> None:
    blocks = list(_blocks())
    for block in blocks:
        if block[0] != _PLAN:
            _apply(checkout, *block)

    without = _test(checkout, _TEST)
    for block in blocks:
        if block[0] == _PLAN:
            _apply(checkout, *block)
    for command in _COMMAND.findall(PAGE):
        written = _run(checkout, *command.removeprefix("-m ").split())
        assert written.returncode == 0, written.stderr
    followed = _test(checkout, _TEST, *_OTHER_TESTS)

    assert "1 failed, 2 passed" in without.stdout
    assert "test_an_export_of_the_nightly_build_is_kept_for_a_week" in without.stdout
    assert followed.returncode == 0, followed.stdout


def test_what_the_page_adds_is_clean(checkout: Path) -> None:
    for block in _blocks():
        _apply(checkout, *block)
    files = sorted({file for file, _, _ in _blocks()})

    for command in (["check"], ["format", "--check"]):
        checked = _run(checkout, "ruff", *command, "--no-cache", *files)
        assert checked.returncode == 0, checked.stdout


def test_the_page_lists_the_policies_in_their_order() -> None:
    policies = [INDEXES.NAME]
    policies += [one.NAME for one in DECIDERS] + [TOOLS.NAME] + [one.NAME for one in VETOES]

    assert [name for name, _ in _ROW.findall(PAGE)] == policies
    for _, module in _ROW.findall(PAGE):
        assert (ROOT / "maintainer" / "policy" / f"{module}.py").exists()
