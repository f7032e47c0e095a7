"""The page on how to add a store, followed step by step."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from maintainer.cacheconfig import encode
from maintainer.cli.app import app
from maintainer.errors import UsageError
from maintainer.settings import Settings
from maintainer.stores import kinds
from tests.integration.world import START, blob_of, built
from tests.stores.contract import Contract
from tests.stores.memory import Vault

_PAGE = Path(__file__).parents[2] / "docs" / "add-a-store.md"


def _blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)


def _run(block: str, **known: object) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "followed", **known}
    exec(compile(block, str(_PAGE), "exec", dont_inherit=True), names)
    return names


def test_a_store_that_joins_in_one_line_is_maintained_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, line, _ = _blocks()
    followed = _run(kind)
    names = ("GITHUB", "LOCAL", "S3", "AZBLOB", "REGISTRY")
    known = {name: getattr(kinds, name) for name in names}
    monkeypatch.setattr(kinds, "KINDS", _run(line, **known, **followed)["KINDS"])
    vault = followed["VAULTS"]["memory:mine"] = Vault()
    for step in ("base", "api"):
        vault.blobs[blob_of(step)] = START
    vault.write("api", encode(built("base", "api")), START)
    del vault.blobs[blob_of("api")]
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(app, ["gc", "--store", "memory:mine"])

    assert done.exit_code == 0, done.output
    assert blob_of("api") not in vault.indexes["api"][1].decode()
    assert "maintained" in vault.indexes


def test_a_store_that_is_not_in_the_list_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"must be github \(.*\), local:DIR \("):
        kinds.connect(Settings(store="memory:mine"))


def test_the_test_on_the_page_runs_the_contract() -> None:
    followed = _run(_blocks()[2])

    assert issubclass(followed["TestMemory"], Contract)
