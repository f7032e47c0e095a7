"""Which tokens a target is given, what is said when there are none, and which cache it is."""

import pytest

from maintainer.errors import UsageError
from maintainer.model.limits import KeepFree
from maintainer.serve.clock import Rule
from maintainer.serve.targets import ServedTarget, read_targets
from maintainer.settings import (
    GitHubSettings,
    RoomSettings,
    Settings,
    TargetSettings,
    split_listen,
)
from maintainer.stores.kinds import check, connect

SECRET = "ghs_0123456789abcdefSECRET"
OWN = {
    "GITHUB_TOKEN": "own",
    "GITHUB_REPOSITORY": "octo/own",
    "GITHUB_API_URL": "https://github.example.com/api/v3",
    "ACTIONS_RUNTIME_TOKEN": "runtime",
    "ACTIONS_RESULTS_URL": "https://results.example.com/",
    "ACTIONS_CACHE_SERVICE_V2": "true",
}


def _of(environment: dict[str, str], **target: object) -> dict[str, object]:
    given = TargetSettings.model_validate({"name": "web", "repository": "octo/web"} | target)
    found = GitHubSettings.of_target(given, environment)
    shown = found.model_dump(exclude_none=True) | {
        name: secret.get_secret_value()
        for name in ("token", "runtime_token")
        if (secret := getattr(found, name))
    }
    return {name: value for name, value in shown.items() if value}


def test_another_repository_is_given_no_runtime_token() -> None:
    assert _of(OWN) == {
        "token": "own",
        "repository": "octo/web",
        "api_url": "https://github.example.com/api/v3",
        "token_env": "GITHUB_TOKEN",
        "runtime_token_env": "ACTIONS_RUNTIME_TOKEN",
    }


def test_the_environments_own_repository_is_given_its_runtime_token() -> None:
    found = _of(OWN, repository="Octo/Own")

    assert found["runtime_token"] == "runtime"
    assert found["results_url"] == "https://results.example.com/"
    assert found["cache_service_v2"] is True


def test_a_target_may_name_its_own_token_and_api() -> None:
    found = _of(
        OWN | {"WEB_TOKEN": "web"}, token_env="WEB_TOKEN", api_url="https://api.example.com"
    )

    assert found["token"] == "web"
    assert found["token_env"] == "WEB_TOKEN"
    assert found["api_url"] == "https://api.example.com"


@pytest.mark.parametrize(("place", "version_2"), [("results_url", True), ("cache_url", False)])
def test_a_target_may_have_a_cache_service_of_its_own(place: str, version_2: bool) -> None:
    environment = {"RUNTIME": "mine"}

    found = _of(environment, runtime_token_env="RUNTIME", **{place: "https://cache.example.com/"})

    assert found["runtime_token"] == "mine"
    assert found[place] == "https://cache.example.com/"
    assert bool(found.get("cache_service_v2")) == version_2
    assert "token" not in found


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({}, "GITHUB_TOKEN is not set: set it, or name another variable by token_env"),
        ({"token_env": SECRET}, "token_env names a variable that is not set"),
        ({"token_env": SECRET.upper() * 2}, "token_env names a variable that is not set"),
        (
            {"runtime_token_env": SECRET, "cache_url": "https://c.example/"},
            "runtime_token_env names a variable that is not set",
        ),
    ],
)
def test_a_missing_token_is_told_by_its_variable_unless_that_may_be_the_token_itself(
    target: dict[str, str], told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        _of({}, **target)

    assert str(caught.value) == f"target web: {told}"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:9309", ("127.0.0.1", 9309)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_where_to_listen_is_an_address_and_a_port(text: str, place: tuple[str, int]) -> None:
    assert split_listen(text) == place


@pytest.mark.parametrize(
    "text", ["", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "host:80", "127.0.0.1:-1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid address"):
        split_listen(text)


# Which cache.

PLACE = {
    "GITHUB_REPOSITORY": "octo/web",
    "GITHUB_API_URL": "https://api.example.com",
    "ACTIONS_RESULTS_URL": "https://results.example.com/",
    "ACTIONS_CACHE_URL": "https://cache.example.com/",
}


def _cache(environment: dict[str, str], store: str = "github") -> str:
    settings = Settings.defaults().model_copy(update={"store": store})
    with pytest.MonkeyPatch.context() as patch:
        for variable in PLACE:
            patch.delenv(variable, raising=False)
        for variable, value in environment.items():
            patch.setenv(variable, value)
        connection = connect(settings)
    return ServedTarget("web", Rule.of(settings.serve, None), settings, connection).cache


@pytest.mark.parametrize("variable", PLACE)
def test_another_repository_or_url_is_another_cache(variable: str) -> None:
    assert _cache(PLACE | {variable: f"{PLACE[variable]}x"}) != _cache(PLACE)


def test_a_directory_is_a_cache_of_its_own() -> None:
    assert len({_cache(PLACE, store) for store in ("github", "local:a", "local:b")}) == 3


def test_another_token_or_case_is_the_same_cache() -> None:
    changed = PLACE | {"GITHUB_TOKEN": SECRET, "GITHUB_REPOSITORY": "Octo/Web"}

    assert _cache(changed) == _cache(PLACE)


def test_the_name_of_a_cache_gives_no_secret_away() -> None:
    assert SECRET not in _cache(PLACE | {"ACTIONS_CACHE_URL": f"https://example.com/{SECRET}/"})


@pytest.mark.parametrize(
    ("key", "value", "known_to"),
    [
        ("merged_tag", "all", {"local", "s3", "azblob", "registry"}),
        ("verify", True, {"local"}),
        ("merged_scope", "all", {"github"}),
        ("scopes", ("web",), {"github"}),
        ("api_url", "https://github.example.com/api/v3", {"github"}),
        ("results_url", "https://results.example.com", {"github"}),
        ("token_env", "TOKEN_OF_APP", {"github", "registry"}),
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        "github",
        "local:cache",
        "s3://b/app/?region=eu-west-1",
        "azblob://account/app/",
        "registry://ghcr.io/octo/app",
    ],
)
def test_a_setting_without_an_effect_on_the_store_of_a_target_is_refused(
    key: str, value: object, known_to: set[str], place: str
) -> None:
    kind = place.partition(":")[0]
    where = {"repository": "octo/app"} if kind == "github" else {"store": place}
    target = TargetSettings.model_validate({"name": "app", key: value} | where)
    settings = Settings(targets=(target,))

    if kind in known_to:
        check(settings)
    else:
        place = rf"setting {key} in \[\[targets\]\] app is for .* on {kind}: leave it out$"
        with pytest.raises(UsageError, match=place):
            check(settings)


def test_a_common_setting_may_be_for_some_targets_only() -> None:
    target = TargetSettings(name="app", repository="octo/app")

    check(Settings(merged_tag="all", merged_scope="all", targets=(target,)))


def test_a_target_may_have_its_own_quota_and_room() -> None:
    targets: list[dict[str, object]] = [
        {"name": "own", "store": "local:/a", "quota": "1GB", "room": {"keep_free": "10%"}},
        {"name": "empty", "store": "local:/b", "room": {}},
        {"name": "common", "store": "local:/c"},
    ]
    common = {"quota": "2GB", "room": {"closed_refs": True}, "targets": targets}

    found = read_targets(Settings.model_validate(common))

    assert found["own"].settings.quota == 10**9
    assert found["own"].settings.room == RoomSettings(keep_free=KeepFree(share=0.1))
    assert found["empty"].settings.room == RoomSettings()
    assert found["common"].settings.quota == 2 * 10**9
    assert found["common"].settings.room == RoomSettings(closed_refs=True)
