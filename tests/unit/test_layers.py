"""What `pyproject.toml` says of the layers: two lists of the same parts stay the same."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


TOOL: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]


def _pure() -> list[Path]:
    """Return what the contract says is pure, in order."""
    [pure] = [one for one in TOOL["importlinter"]["contracts"] if one["id"] == "pure"]
    return sorted(map(_path, pure["source_modules"]))


def test_the_branches_of_everything_that_is_pure_are_measured() -> None:
    measured = [ROOT / one.removesuffix("/*") for one in TOOL["coverage"]["report"]["include"]]

    assert sorted(measured) == _pure()
    assert [one for one in measured if not one.exists()] == []


def test_only_what_the_contract_checks_calls_itself_pure() -> None:
    claims = [
        path for path in ROOT.glob("maintainer/**/*.py") if re.search(r"\bPure\.", path.read_text())
    ]
    pure = _pure()

    assert [one for one in claims if not {one, *one.parents} & {*pure}] == []


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path if path.is_dir() else path.with_suffix(".py")
