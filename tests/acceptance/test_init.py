"""`maintainer init`: the first steps in a repository that builds images."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import maintainer
from maintainer.setup.init import FOLDER
from tests.acceptance.action import COMMIT, EXAMPLES
from tests.commands import Outcome, run_here

_BIN = Path(sys.executable).parent
PLACE = FOLDER / "maintain-cache.yml"
REGISTRY = FOLDER / "maintain-registry.yml"
STORE = "registry://ghcr.io/octo/our-cache"


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


@pytest.mark.parametrize(
    ("place", "options"), [(PLACE, ()), (REGISTRY, ("--store", STORE))], ids=["gha", "registry"]
)
def test_the_workflow_is_pinned_to_the_release_and_lint_clean(
    repository: Path, monkeypatch: pytest.MonkeyPatch, place: Path, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(maintainer, "COMMIT", COMMIT)
    (repository / "src").mkdir()

    outcome = _init(repository / "src", *options)

    assert outcome.status == 0, outcome.err
    written = repository / place
    pin = f"uses: {maintainer.REPOSITORY}@{COMMIT} # v{maintainer.__version__}\n"
    assert pin in written.read_text()
    for program, *more in (
        ["actionlint", "-no-color", "-shellcheck=", "-pyflakes="],
        ["zizmor", "--offline", "--pedantic", "--no-progress"],
    ):
        command = [str(_BIN / program), *more, str(written)]
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


def _export_to_a_registry(repository: Path, ref: str, *imports: str) -> int:
    """Let the workflow's builds export to a registry; return the number of that line."""
    workflow = repository / PLACE.parent / "build.yml"
    text = workflow.read_text().replace("type=gha,mode=max", f"type=registry,ref={ref},mode=max")
    text = text.replace("type=gha\n", f"type=registry,ref={ref}\n")
    text = text.replace("            type=gha,scope=maintained\n", "".join(imports))
    workflow.write_text(text)
    return next(n for n, line in enumerate(text.splitlines(), 1) if "cache-to" in line)


def test_for_a_registry_the_merge_of_its_tags_is_to_be_imported(repository: Path) -> None:
    line = _export_to_a_registry(repository, "ghcr.io/octo/our-cache:${{ matrix.image }}")

    outcome = _init(repository, "--store", STORE)

    assert outcome.out.startswith(f"{REGISTRY} was written")
    assert (
        "\n       type=registry,ref=ghcr.io/octo/our-cache:${{ matrix.image }}"
        "\n       type=registry,ref=ghcr.io/octo/our-cache:maintained\n"
    ) in outcome.out
    assert f"belongs next to what exports a cache: build.yml:{line}\n" in outcome.out
    assert "role Admin for the package" in outcome.out
    assert f"\n          store: {STORE}\n" in (repository / REGISTRY).read_text()
    assert "octo/app-cache" not in (repository / REGISTRY).read_text()
    assert not (repository / PLACE).exists()


def test_for_a_registry_whose_merge_is_imported_nothing_is_asked_for(repository: Path) -> None:
    merge = "            type=registry,ref=ghcr.io/octo/our-cache:maintained\n"
    _export_to_a_registry(repository, "ghcr.io/octo/our-cache:api", merge)

    assert "1. All workflows that export" in _init(repository, "--store", STORE).out


@pytest.mark.parametrize("ref", ["ghcr.io/octo/other:api", "ghcr.io/octo/our-cache-2"])
def test_another_repository_of_the_registry_is_another_cache(repository: Path, ref: str) -> None:
    _export_to_a_registry(repository, ref)

    outcome = _init(repository, "--store", STORE)

    assert "`cache-to: type=registry,ref=ghcr.io/octo/our-cache:…` yet" in outcome.out


def test_builds_that_export_to_a_registry_are_led_to_the_workflow_for_it(repository: Path) -> None:
    line = _export_to_a_registry(repository, "ghcr.io/octo/our-cache:api")

    outcome = _init(repository)

    last = f"build.yml:{line} exports to a registry. For its workflow, use\n   maintainer init "
    assert outcome.out.endswith(f"{last}--store {STORE}\n")


@pytest.mark.parametrize("ref", ["ghcr.io/${{ github.repository }}:api", "example.com/a/b:c"])
def test_a_registry_without_a_workflow_to_write_leads_nowhere(repository: Path, ref: str) -> None:
    _export_to_a_registry(repository, ref)

    assert "exports to a registry" not in _init(repository).out


@pytest.mark.parametrize(
    "store",
    ["s3://bucket/app/", "registry://docker.io/octo/app", "registry://ghcr.io/a", f"{STORE}\nx"],
)
def test_for_another_store_there_is_no_workflow_to_write(repository: Path, store: str) -> None:
    outcome = _init(repository, "--store", store)

    assert outcome.status == 2
    assert outcome.problem.startswith("there is no workflow to write for ")
    assert "docs/action.md" in outcome.problem
    assert sorted(one.name for one in (repository / PLACE.parent).iterdir()) == ["build.yml"]


def test_github_may_be_named(repository: Path) -> None:
    outcome = _init(repository, "--store", "github")

    assert outcome.status == 0
    assert (repository / PLACE).exists()


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
