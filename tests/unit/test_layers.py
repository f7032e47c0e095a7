"""What `pyproject.toml` says of the layers: two lists of the same parts stay the same."""

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def test_the_branches_of_everything_that_is_pure_are_measured() -> None:
    tool: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    [pure] = [one for one in tool["importlinter"]["contracts"] if one["id"] == "pure"]

    measured = [ROOT / one.removesuffix("/*") for one in tool["coverage"]["report"]["include"]]

    assert sorted(measured) == sorted(map(_path, pure["source_modules"]))
    assert [one for one in measured if not one.exists()] == []


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path if path.is_dir() else path.with_suffix(".py")
