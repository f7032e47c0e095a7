"""`maintainer init`: the first steps in a repository that builds images."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import maintainer
from maintainer.setup.init import PLACE
from tests.acceptance.action import COMMIT, EXAMPLES
from tests.commands import Outcome, run_here

_BIN = Path(sys.executable).parent


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with one workflow, which builds two images."""
    root = tmp_path / "app"
    (root / ".git").mkdir(parents=True)
    (root / PLACE.parent).mkdir(parents=True)
    shutil.copy(EXAMPLES / "build-images.yml", root / PLACE.parent / "build.yml")
    return root


def _init(folder: Path, *arguments: str) -> Outcome:
    return run_here(folder, {}, "init", *arguments)


def test_the_workflow_is_pinned_to_the_release_and_lint_clean(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintainer, "COMMIT", COMMIT)
    (repository / "src").mkdir()

    outcome = _init(repository / "src")

    assert outcome.status == 0, outcome.err
    written = repository / PLACE
    pin = f"uses: {maintainer.REPOSITORY}@{COMMIT} # v{maintainer.__version__}\n"
    assert pin in written.read_text()
    for program, *options in (
        ["actionlint", "-no-color", "-shellcheck=", "-pyflakes="],
        ["zizmor", "--offline", "--pedantic", "--no-progress"],
    ):
        command = [str(_BIN / program), *options, str(written)]
        ran = subprocess.run(command, capture_output=True, check=False)
        assert ran.returncode == 0, ran.stdout.decode()
    assert "not a release" not in outcome.out


def test_the_line_to_add_is_printed_with_the_places_where_it_belongs(repository: Path) -> None:
    workflow = repository / PLACE.parent / "build.yml"
    lines = workflow.read_text().splitlines()
    lines.remove("            type=gha,scope=maintained")
    workflow.write_text("\n".join(lines))

    outcome = _init(repository)

    assert "\n       type=gha\n       type=gha,scope=maintained\n" in outcome.out
    place = lines.index("          cache-to: type=gha,mode=max") + 1
    assert f"build.yml:{place}\n" in outcome.out
    assert "not a release" in outcome.out


def test_a_line_that_all_workflows_have_is_not_asked_for(repository: Path) -> None:
    outcome = _init(repository)

    assert "1. All workflows that export a cache import the merge of all" in outcome.out
    assert "cache-from" not in outcome.out
    assert "2. Commit the workflow" in outcome.out


def test_each_repository_has_a_minute_of_its_own(tmp_path: Path) -> None:
    minutes = set()
    for name in ("api", "web", "tools", "worker"):
        (tmp_path / name / ".git").mkdir(parents=True)
        assert _init(tmp_path / name).status == 0
        found = re.search(r'cron: "(\d+) 3 \* \* \*"', (tmp_path / name / PLACE).read_text())
        assert found
        minutes.add(found[1])
    assert len(minutes) > 1


def test_nothing_is_overwritten_without_being_told(repository: Path) -> None:
    assert _init(repository).status == 0
    assert f"{PLACE} is up to date" in _init(repository).out
    (repository / PLACE).write_text("mine")

    refused = _init(repository)

    assert refused.status == 2
    assert refused.problem == f"{PLACE} exists, and differs: --overwrite replaces it"
    assert (repository / PLACE).read_text() == "mine"
    assert _init(repository, "--overwrite").status == 0
    assert (repository / PLACE).read_text() != "mine"


def test_outside_of_a_repository_nothing_is_written(tmp_path: Path) -> None:
    outcome = _init(tmp_path)

    assert outcome.status == 2
    assert outcome.problem.startswith("this is not a git repository")
    assert list(tmp_path.iterdir()) == []
