"""Every policy has a name and a docstring for people, and one public function."""

import ast
from pathlib import Path

import pytest

from maintainer import policy
from maintainer.plan import DECIDERS, INDEXES, TOOLS, VETOES
from maintainer.policy import headroom, loss, protected, retention, room

_FILES = sorted(Path(policy.__file__).parent.glob("[!_]*.py"))
_POLICIES = [path for path in _FILES if path.stem != "context"]
_LONGEST = 200
"""Lines; a policy is small."""


def _assigned(module: ast.Module) -> list[str]:
    targets = [one.targets[0] for one in module.body if isinstance(one, ast.Assign)]
    return [one.id for one in targets if isinstance(one, ast.Name)]


@pytest.mark.parametrize("path", _POLICIES, ids=lambda path: path.stem)
def test_a_policy_is_a_name_two_sentences_and_one_function(path: Path) -> None:
    module = ast.parse(path.read_text())
    functions = [one.name for one in module.body if isinstance(one, ast.FunctionDef)]
    sentences = " ".join((ast.get_docstring(module) or "").split())

    assert [one for one in functions if not one.startswith("_")] == functions[:1]
    assert "NAME" in _assigned(module)
    assert sentences.endswith(".")
    assert sentences.count(". ") == 1
    assert len(path.read_text().splitlines()) <= _LONGEST


def test_every_policy_takes_part_and_has_a_name_of_its_own() -> None:
    names = [INDEXES.NAME, TOOLS.NAME, retention.NAME, loss.NAME, protected.NAME, room.NAME]
    names.append(headroom.NAME)
    names += [one.NAME for one in DECIDERS] + [one.NAME for one in VETOES]

    assert len(set(names)) == len(names) == len(_POLICIES)
