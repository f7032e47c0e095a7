"""`maintainer config show`: the settings, their sources, and no secret."""

import os
import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import maintainer
from maintainer.errors import UsageError
from maintainer.settings import Settings, load_settings
from maintainer.setup.effective import EffectiveSettings, Origin, find_effective, format_effective

SECRET = "ghs_0123456789abcdefSECRET"
_EXAMPLE = Path(maintainer.__file__).parents[1] / "config" / "maintainer.toml"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in list(os.environ):
        if variable.upper().startswith("MAINTAINER_"):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


def _origins(found: EffectiveSettings) -> dict[str, tuple[Any, Origin, str]]:
    return {one.key: (one.value, one.origin, one.source) for one in found.settings}


def _text(found: EffectiveSettings) -> str:
    return "\n".join(format_effective(found))


def test_the_source_of_each_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my.toml").write_text('grace = "1h"\nquota = "5GB"\n[serve]\ninterval = "1d12h"\n')
    monkeypatch.setenv("MAINTAINER_QUOTA", "6GB")
    monkeypatch.setenv("MAINTAINER_ROOM", '{"closed_refs": true}')
    monkeypatch.setenv("MAINTAINER_SCOPES", "")

    found = _origins(find_effective(Path("my.toml"), {"store": "local:cache"}))

    assert found["grace"] == ("1h", Origin.FILE, "my.toml")
    assert found["quota"] == ("6GB", Origin.ENVIRONMENT, "MAINTAINER_QUOTA")
    assert found["store"] == ("local:cache", Origin.COMMAND_LINE, "--store")
    assert found["room.closed_refs"] == (True, Origin.ENVIRONMENT, "MAINTAINER_ROOM")
    assert found["room.keep_free"] == (None, Origin.DEFAULT, "")
    assert found["serve.interval"] == ("36h", Origin.FILE, "my.toml")
    assert found["scopes"] == (["buildkit"], Origin.DEFAULT, "")


def test_the_text_is_a_file_that_sets_the_same(tmp_path: Path) -> None:
    everything = re.sub(r"^#(?=[a-z[])", "", _EXAMPLE.read_text(), flags=re.MULTILINE)
    everything = everything.replace('keep_free = ""', 'keep_free = "12.5%"')
    Path("all.toml").write_text(everything)

    Path("again.toml").write_text(_text(find_effective(Path("all.toml"), {})))

    again = load_settings(Path("again.toml"), {})
    assert again.model_dump() == load_settings(Path("all.toml"), {}).model_dump()


def test_the_defaults_are_spelled_as_the_documentation_spells_them() -> None:
    shown = tomllib.loads(_text(find_effective(None, {})))

    assert (shown["grace"], shown["keep_alive"], shown["export_wait"]) == ("24h", "14d", "2m")
    assert shown["max_index_size"] == "256MiB"
    assert {one.key.partition(".")[0] for one in find_effective(None, {}).settings} == set(
        Settings.model_fields
    )


def test_a_name_that_breaks_lines_stays_in_its_line() -> None:
    shown = _text(find_effective(None, {"scopes": ["a\nb\x7f\x9b\u202e"]}))

    assert tomllib.loads(shown)["scopes"] == ["a\nb\x7f\x9b\u202e"]
    assert all(line.isprintable() for line in shown.splitlines())


def test_no_secret_is_shown() -> None:
    Path("my.toml").write_text(
        f'[[targets]]\nname = "app"\nrepository = "octo/app"\ntoken_env = "{SECRET}"\n'
    )
    environment = {"GITHUB_REPOSITORY": "octo/app", "GITHUB_TOKEN": SECRET}
    environment["ACTIONS_CACHE_URL"] = f"https://cache.example.com/{SECRET}/"

    found = find_effective(Path("my.toml"), {}, environment)

    assert SECRET not in repr(found)
    assert "# GITHUB_TOKEN: set\n" in _text(found)
    assert "# ACTIONS_RUNTIME_TOKEN: not set\n" in _text(found)
    assert "# GITHUB_REPOSITORY: octo/app\n" in _text(found)


def test_what_is_wrong_is_reported_as_a_run_reports_it() -> None:
    with pytest.raises(UsageError, match="setting grace is not"):
        find_effective(None, {"grace": "soon"})


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(seconds=90), "1m30s"),
        (timedelta(hours=36), "36h"),
        (timedelta(days=2, hours=12), "2d12h"),
        (timedelta(0), "0s"),
    ],
)
def test_durations_are_spelled_so_that_they_can_be_read(duration: timedelta, text: str) -> None:
    assert _origins(find_effective(None, {"grace": duration}))["grace"][0] == text
