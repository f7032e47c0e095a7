"""Workflows and the Action are valid and safe: people copy the former and trust the latter."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maintainer import REPOSITORY
from maintainer.settings import Settings
from tests.acceptance.action import EXAMPLES, fill_in
from tests.documents import ROOT, action_part

_BIN = Path(sys.executable).parent
_TO_COPY = sorted(EXAMPLES.glob("*.yml"))
_WORKFLOWS = [*_TO_COPY, *sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
_ACTION = ROOT / "action.yml"
_PIN = re.compile(r"uses: ([\w-]+/[\w-]+)[\w/-]*@(.+)$", re.MULTILINE)
_PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
_OURS = re.compile(rf"\./[\w.-]* # .+|{REPOSITORY}@v0")

each_workflow = pytest.mark.parametrize("workflow", _WORKFLOWS, ids=lambda path: path.name)
each_file = pytest.mark.parametrize("file", [*_WORKFLOWS, _ACTION], ids=lambda path: path.name)


@pytest.fixture
def copied(workflow: Path, tmp_path: Path) -> Path:
    """Return the workflow as `maintainer init` pins it, if it is one to copy."""
    return _copy(workflow, tmp_path)


def _copy(file: Path, folder: Path) -> Path:
    text = file.read_text()
    copy = folder / file.name
    copy.write_text(fill_in(text) if file in _TO_COPY else text)
    return copy


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = command
    return subprocess.run(
        [_BIN / program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def _validate(workflow: Path) -> subprocess.CompletedProcess[str]:
    return _run("act", "--validate", "--strict", "--workflows", workflow)


def _lint(workflow: Path) -> subprocess.CompletedProcess[str]:
    return _run("actionlint", "-no-color", "-shellcheck=", "-pyflakes=", workflow)


def _audit(file: Path) -> subprocess.CompletedProcess[str]:
    return _run("zizmor", "--offline", "--pedantic", "--no-progress", file)


@each_workflow
def test_keys_and_expressions_are_those_that_github_knows(copied: Path) -> None:
    result = _validate(copied)
    assert result.returncode == 0, result.stderr


@each_workflow
def test_a_linter_finds_nothing_wrong(copied: Path) -> None:
    result = _lint(copied)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("check", [_validate, _lint])
def test_a_misspelt_key_or_expression_would_be_found(check: Any, tmp_path: Path) -> None:
    text = (EXAMPLES / "build-images.yml").read_text()
    for right, wrong in (("timeout-minutes", "timeout-minuets"), ("matrix.image", "matrics.image")):
        assert right in text
        bad = tmp_path / "bad.yml"
        bad.write_text(text.replace(right, wrong))
        assert check(bad).returncode == 1


@each_file
def test_an_auditor_finds_nothing_unsafe(file: Path, tmp_path: Path) -> None:
    result = _audit(_copy(file, tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_input_that_becomes_shell_would_be_found(tmp_path: Path) -> None:
    bad = tmp_path / "action.yml"
    bad.write_text(
        _ACTION.read_text().replace("install.sh\"'", "install.sh\" ${{ inputs.grace }}'")
    )
    assert bad.read_text() != _ACTION.read_text()
    assert "template-injection" in _audit(bad).stdout


@each_file
def test_every_action_is_pinned_to_a_commit_and_names_its_version(file: Path) -> None:
    uses = re.findall(r"^ *(?:- )?uses: (.+)$", file.read_text(), re.MULTILINE)
    assert uses
    for action in uses:
        assert _PINNED.fullmatch(action) or _OURS.fullmatch(action), action


def test_all_files_use_the_same_version_of_an_action() -> None:
    pins: dict[str, set[str]] = {}
    for file in (*_WORKFLOWS, _ACTION):
        for action, pin in _PIN.findall(file.read_text()):
            pins.setdefault(action, set()).add(pin)
    assert {action: len(pin) for action, pin in pins.items()} == dict.fromkeys(pins, 1)


@pytest.mark.parametrize(
    ("example", "permissions"),
    [
        ("maintain-cache.yml", {"actions": "write"}),
        ("build-images.yml", {"actions": "read", "contents": "read"}),
        ("maintain-registry.yml", {"packages": "write"}),
    ],
)
def test_a_workflow_to_copy_may_do_no_more_than_it_must(
    example: str, permissions: dict[str, str]
) -> None:
    text = (EXAMPLES / example).read_text()
    assert dict(re.findall(r"^ +(\S+): (read|write)\b", text, re.MULTILINE)) == permissions
    assert "\npermissions: {}\n" in text


@pytest.mark.parametrize("example", _TO_COPY, ids=lambda path: path.name)
def test_a_workflow_to_copy_says_nothing_about_the_repository_of_this_project(
    example: Path,
) -> None:
    text = example.read_text().replace(f"uses: {REPOSITORY}@v0\n", "")
    assert REPOSITORY not in text
    assert "github.repository" not in text


def _read_run() -> str:
    """Return which inputs the Action's script makes variables of."""
    text = (ROOT / "config" / "action" / "run.sh").read_text()
    return text.partition('settings="')[2].partition('"')[0]


def test_every_setting_of_a_run_is_an_input_of_the_action_that_reaches_it() -> None:
    text = _ACTION.read_text()
    elsewhere = {"database", "log_format", "serve", "targets", "discover"}
    elsewhere |= {"verify"}  # A runner's directories do not outlive it.
    for name in Settings.model_fields.keys() - elsewhere:
        # The key has to be that of the other steps, whatever variables the job has.
        kind = "MAINTAINER" if name == "database_key" else "SETTING"
        assert kind == "MAINTAINER" or re.search(rf"\b{name.upper()}\b", _read_run()), name
        line = f"{kind}_{name.upper()}: ${{{{ inputs.{name.replace('_', '-')} }}}}\n"
        assert line in text, name


def test_every_input_is_described_and_used_and_no_other_is() -> None:
    described = {name for name, *_ in action_part("inputs")}
    used = set(re.findall(r"inputs\.([\w-]+)", _ACTION.read_text()))
    assert described == used


def test_every_output_is_described_and_comes_from_the_run() -> None:
    text = _ACTION.read_text()
    for name, description, _ in action_part("outputs"):
        assert description
        assert f"value: ${{{{ steps.run.outputs.{name} }}}}\n" in text


def test_the_token_of_the_cache_service_reaches_one_step_and_is_masked() -> None:
    text = _ACTION.read_text()
    assert text.count("steps.service.outputs.token") == 1
    assert "core.setSecret(env.ACTIONS_RUNTIME_TOKEN);\n" in text
    assert text.index("core.setSecret") < text.index('core.setOutput("token"')


def test_the_database_is_kept_under_a_key_that_no_build_looks_for() -> None:
    keys = re.findall(r"^ +(?:restore-)?keys?: (.+)$", _ACTION.read_text(), re.MULTILINE)
    assert len(keys) == 3
    assert all(key.startswith("${{ inputs.database-key }}#") for key in keys)
    defaults = {name: default for name, _, default in action_part("inputs")}
    assert defaults["database-key"] == "maintainer-db"
