"""Which of the caches that are found become targets, and what these are called."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from maintainer.errors import UsageError
from maintainer.model.discovery import FoundCache, name_target
from maintainer.serve.discovery import is_valid, select
from maintainer.serve.targets import combine
from maintainer.settings import Settings, TargetSettings
from maintainer.stores.kinds import check
from maintainer.validation import explain


def _settings(*tables: dict[str, object], targets: tuple[dict[str, object], ...] = ()) -> Settings:
    return Settings.model_validate({"discover": tables, "targets": targets})


def _builders(**more: object) -> dict[str, object]:
    return {"name": "builders", "store": "local:/srv/*"} | more


def _found(*names: str) -> list[FoundCache]:
    return [FoundCache(name, f"local:/srv/{name}") for name in names]


def _names(settings: Settings, *names: str) -> list[str]:
    found = {table.name: _found(*names) for table in settings.discover}
    return [one.settings.name for one in select(settings, found).targets]


def test_each_cache_becomes_a_target_with_the_settings_of_its_table() -> None:
    settings = _settings(_builders(quota="5GB", interval="2h"))

    (target,) = combine(settings, {"builders": _found("web")}).values()

    assert target.name == "builders.web"
    assert target.settings.store == "local:/srv/web"
    assert target.settings.quota == 5 * 10**9
    assert str(target.rule) == "every 2h"


def test_patterns_select_and_every_other_cache_is_ignored_with_a_reason() -> None:
    settings = _settings(_builders(include=["web-*", "api"], exclude=["*-old"]))

    selection = select(settings, {"builders": _found("api", "web-1", "web-old", "db")})

    assert [one.settings.name for one in selection.targets] == ["builders.api", "builders.web-1"]
    assert {one.name: one.reason for one in selection.ignored} == {
        "db": "include does not match",
        "web-old": "exclude has *-old",
    }


def test_a_cache_belongs_to_the_first_table_that_has_it() -> None:
    special = _builders(name="special", include=["web"])
    settings = _settings(
        special, _builders(), targets=({"name": "mine", "store": "local:/srv/api"},)
    )

    assert _names(settings, "api", "db", "web") == ["special.web", "builders.db"]
    assert list(combine(settings, {})) == ["mine"]


def test_a_name_that_is_taken_is_not_used_again() -> None:
    settings = _settings(_builders(), targets=({"name": "builders.web", "store": "local:/x"},))

    assert _names(settings, "api", "web") == ["builders.api"]


@pytest.mark.parametrize("spelling", ["{}/web", "{}/web/", "{}//web", "{}/x/../web", "{}/link"])
def test_a_target_takes_its_directory_out_however_it_is_spelled(
    tmp_path: Path, spelling: str
) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "web")
    own: dict[str, object] = {"name": "own", "store": f"local:{spelling.format(tmp_path)}"}
    found = {"builders": [FoundCache("web", f"local:{tmp_path}/web")]}

    assert select(_settings(_builders(), targets=(own,)), found).targets == []


@pytest.mark.parametrize("url", ["https://api.github.com", "https://API.github.com/"])
def test_a_target_takes_its_repository_out_however_its_api_is_spelled(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.delenv("GITHUB_API_URL", raising=False)
    own: dict[str, object] = {"name": "own", "repository": "Octo/App", "api_url": url}
    settings = _settings({"name": "octo", "organization": "octo"}, targets=(own,))

    assert select(settings, {"octo": [FoundCache("app", "github", "octo/app")]}).targets == []


def test_a_folder_among_the_indexes_of_a_target_is_ignored() -> None:
    own: dict[str, object] = {"name": "own", "store": "s3://b/?manifests_prefix=caches/"}
    settings = _settings({"name": "s3", "store": "s3://b/caches/*/"}, targets=(own,))

    selection = select(settings, {"s3": [FoundCache("web", "s3://b/caches/web/")]})

    assert selection.targets == []
    assert "its indexes are among those of target own" in selection.ignored[0].reason


def test_a_name_cannot_be_made_to_be_that_of_another_target() -> None:
    taken = name_target("builders", "my~cache").removeprefix("builders.")

    assert name_target("builders", taken) != name_target("builders", "my~cache")


def test_a_key_in_place_of_its_file_is_refused_and_never_shown() -> None:
    key = "-----BEGIN PRIVATE KEY-----\ns3cr3t"
    app = {"app_id": 1, "installation": 2, "app_key_file": key}

    with pytest.raises(ValidationError) as refused:
        _settings({"name": "octo", "organization": "octo"} | app)

    assert "it is a key itself" in (problem := explain(refused.value.errors()[0]))
    assert "s3cr3t" not in problem


def test_a_configuration_that_only_discovers_does_not_maintain_the_environments_own_cache() -> None:
    assert combine(_settings(_builders()), {}) == {}


@given(st.text(min_size=1))
def test_every_name_gives_a_valid_target_and_only_one(name: str) -> None:
    TargetSettings(name=name_target("x" * 32, name), store="local:/srv")

    assert name_target("a", name) != name_target("a", f"{name}!")
    assert name_target("a", "web") == "a.web"


@pytest.mark.parametrize(
    "name", ["", "new\nline", "tab\t", "\x1b[31m", "\u202egnp", "\udcff", "nul\0", "a" * 513]
)
def test_a_name_that_cannot_be_shown_as_it_is_is_not_valid(name: str) -> None:
    assert not is_valid(FoundCache(name, "local:/srv/x"))
    assert not is_valid(FoundCache("x", f"local:{name}" if name else name * 2 + "\n"))


@pytest.mark.parametrize(
    ("store", "problem"),
    [
        ("local:/srv/cache", "must be a pattern such as"),
        ("local:/srv/**", r"\*\* is not supported"),
        ("ftp:/srv/*", "must be github"),
    ],
)
def test_a_place_that_cannot_be_searched_is_an_error(store: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        check(_settings(_builders(store=store)))


def test_people_see_a_repository_rather_than_the_store_that_all_of_them_have() -> None:
    assert FoundCache("app", "github", "octo/app").place == "octo/app"
    assert FoundCache("web", "local:/srv/web").place == "local:/srv/web"
