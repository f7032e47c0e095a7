"""Workflows are valid by GitHub's schema, and safe: people copy one, and CI runs the others."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme import ROOT, WORKFLOW

_BIN = Path(sys.executable).parent
_WORKFLOWS = [WORKFLOW, *sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
_PIN = re.compile(r"uses: ([\w-]+/[\w-]+)[\w/-]*@(.+)$", re.MULTILINE)
_PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")

each_workflow = pytest.mark.parametrize("workflow", _WORKFLOWS, ids=lambda path: path.name)


def _validate(workflow: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [_BIN / "act", "--validate", "--strict", "--workflows", workflow]
    return subprocess.run(
        command, cwd=workflow.parent, capture_output=True, text=True, check=False, timeout=60
    )


@each_workflow
def test_keys_and_expressions_are_those_that_github_knows(workflow: Path) -> None:
    result = _validate(workflow)
    assert result.returncode == 0, result.stderr


def test_a_misspelt_key_or_expression_would_be_found(tmp_path: Path) -> None:
    text = WORKFLOW.read_text()
    for right, wrong in (("timeout-minutes", "timeout-minuets"), ("github.token", "githob.token")):
        assert right in text
        bad = tmp_path / "bad.yml"
        bad.write_text(text.replace(right, wrong))
        assert _validate(bad).returncode == 1


@each_workflow
def test_an_auditor_finds_nothing_unsafe(workflow: Path) -> None:
    command: list[str | Path] = [
        _BIN / "zizmor",
        "--offline",
        "--pedantic",
        "--no-progress",
        workflow,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


@each_workflow
def test_every_action_is_pinned_to_a_commit_and_names_its_version(workflow: Path) -> None:
    uses = re.findall(r"^ *(?:- )?uses: (.+)$", workflow.read_text(), re.MULTILINE)
    assert uses
    for action in uses:
        assert _PINNED.fullmatch(action), action


def test_all_workflows_use_the_same_version_of_an_action() -> None:
    pins: dict[str, set[str]] = {}
    for workflow in _WORKFLOWS:
        for action, pin in _PIN.findall(workflow.read_text()):
            pins.setdefault(action, set()).add(pin)
    assert {action: len(pin) for action, pin in pins.items()} == dict.fromkeys(pins, 1)


def test_the_workflow_to_copy_may_do_no_more_than_it_must() -> None:
    granted = re.findall(r"^ +(\S+): (read|write)\b", WORKFLOW.read_text(), re.MULTILINE)
    assert sorted(granted) == [("actions", "write"), ("contents", "read")]
    assert "\npermissions: {}\n" in WORKFLOW.read_text()


def test_the_database_is_kept_under_a_key_that_no_build_looks_for() -> None:
    keys = re.findall(r"^ +(?:restore-)?keys?: (.+)$", WORKFLOW.read_text(), re.MULTILINE)
    assert len(keys) == 3
    assert all(key.startswith("maintainer-db-") for key in keys)
