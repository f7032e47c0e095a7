"""What registries and Docker's configuration say about credentials, well-formed or not."""

import base64
import json
import sys
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.errors import StoreError
from maintainer.stores.distribution import credentials
from maintainer.stores.distribution.auth import Challenge, read_challenges
from maintainer.stores.distribution.credentials import Credentials, find_credentials

_BEARER = 'Bearer realm="https://a.example/token",service="a, b",scope="repository:x:pull"'
_READ = {"realm": "https://a.example/token", "service": "a, b", "scope": "repository:x:pull"}


@pytest.mark.parametrize(
    ("headers", "challenges"),
    [
        ([_BEARER], [Challenge("bearer", _READ)]),
        (
            [f'Basic realm="r", {_BEARER}'],
            [Challenge("basic", {"realm": "r"}), Challenge("bearer", _READ)],
        ),
        (["BASIC realm=r"], [Challenge("basic", {"realm": "r"})]),
        (["Negotiate", "Basic"], [Challenge("negotiate", {}), Challenge("basic", {})]),
        ([r'Bearer realm="a\"b"'], [Challenge("bearer", {"realm": 'a"b'})]),
        (['Bearer realm="a",realm="b"'], [Challenge("bearer", {"realm": "a"})]),
        (['Bearer realm="a'], [Challenge("bearer", {})]),
        (["", "=", '"'], []),
    ],
)
def test_challenges_are_read_as_far_as_they_are_well_formed(
    headers: list[str], challenges: list[Challenge]
) -> None:
    assert read_challenges(headers) == challenges


@given(st.text(alphabet='BearBasic realm=",\\ \t', max_size=200))
def test_no_challenge_makes_a_run_fail(header: str) -> None:
    read_challenges([header])


def _auth(pair: str) -> str:
    return base64.b64encode(pair.encode()).decode()


def _find(folder: Path, config: object, login: str = "ghcr.io") -> Credentials | None:
    content = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(content)
    environment = {"DOCKER_CONFIG": str(folder), "PATH": str(folder)}
    return anyio.run(find_credentials, login, environment)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({}, None),
        ({"auths": {"quay.io": {"auth": _auth("a:b")}}}, None),
        ({"auths": {"ghcr.io": {}}}, None),
        ({"auths": {"ghcr.io": {"auth": _auth("me:p:w")}}}, Credentials("me", "p:w")),
        ({"auths": {"https://ghcr.io/v2/": {"auth": _auth("me:pw")}}}, Credentials("me", "pw")),
        ({"auths": {"ghcr.io": {"username": "me", "password": "pw"}}}, Credentials("me", "pw")),
        (
            {"auths": {"ghcr.io": {"identitytoken": "t"}}, "HttpHeaders": {"x": 1}},
            Credentials(identity_token="t"),
        ),
    ],
)
def test_credentials_are_those_of_docker_login(
    tmp_path: Path, config: object, found: Credentials | None
) -> None:
    assert _find(tmp_path, config) == found


def test_without_a_configuration_there_are_none(tmp_path: Path) -> None:
    for environment in ({"DOCKER_CONFIG": str(tmp_path)}, {"HOME": str(tmp_path)}):
        assert anyio.run(find_credentials, "ghcr.io", environment) is None


def test_a_user_without_a_home_has_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "~" / ".docker").mkdir(parents=True)
    (tmp_path / "~" / ".docker" / "config.json").write_text('{"credsStore": "theirs"}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)

    assert anyio.run(find_credentials, "ghcr.io", {}) is None


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("hush", "is not a configuration of Docker"),
        ("[" * 10_000, "is not a configuration of Docker"),
        ('{"auths": {"ghcr.io": "hush"}}', "is not a configuration of Docker"),
        ('{"auths": {"ghcr.io": {"auth": "hush hush"}}}', "not Base64"),
        ('{"credsStore": "../hush"}', "is not the name of a credential helper"),
        ('{"credHelpers": {"ghcr.io": "missing"}}', "docker-credential-missing cannot be run"),
        (" " * (4 * 2**20 + 1), "more than 4,194,304 bytes"),
    ],
)
def test_a_configuration_that_is_spoiled_is_reported_without_its_contents(
    tmp_path: Path, config: str, problem: str
) -> None:
    with pytest.raises(StoreError, match=problem) as error:
        _find(tmp_path, config)

    assert "hush hush" not in str(error.value)


def _helper(folder: Path, script: str) -> None:
    path = folder / "docker-credential-mine"
    path.write_text(f"#!{sys.executable}\n{script}\n")
    path.chmod(0o755)


_ANSWERS = """
import sys
assert sys.argv[1:] == ['get']
assert sys.stdin.read() == 'ghcr.io'
print('{"ServerURL": "x", "Username": "me", "Secret": "pw"}')
"""
_MINE = {"credHelpers": {"ghcr.io": "mine"}, "credsStore": "other"}


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (_ANSWERS, Credentials("me", "pw")),
        ('print(\'{"Username": "<token>", "Secret": "t"}\')', Credentials(identity_token="t")),
        ("print('credentials not found in native keychain'); exit(1)", None),
    ],
)
def test_a_helper_is_asked_first(tmp_path: Path, script: str, found: Credentials | None) -> None:
    _helper(tmp_path, script)

    assert _find(tmp_path, _MINE) == found


def test_a_helper_that_answers_without_reading_its_input_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "docker-credential-mine"
    path.write_text('#!/bin/sh\necho \'{"Username": "me", "Secret": "pw"}\'\n')
    path.chmod(0o755)

    found = [_find(tmp_path, _MINE) for _ in range(10)]  # It often ends before it is written to.

    assert found == [Credentials("me", "pw")] * 10


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("print('hush')", "malformed answer"),
        ("print('hush'); exit(3)", "ended with status 3"),
        ("while True: print('hush' * 1000)", "malformed answer"),
        ("import os; os.close(0); print('[]')", "malformed answer"),
        ("import time; time.sleep(60)", "did not answer"),
    ],
)
def test_a_helper_that_fails_is_reported_without_what_it_says(
    tmp_path: Path, script: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _helper(tmp_path, script)
    if "sleep" in script:
        monkeypatch.setattr(credentials, "_HELPER_TIMEOUT", 0.5)

    with pytest.raises(StoreError, match=f"docker-credential-mine.*{problem}") as error:
        _find(tmp_path, _MINE)

    assert "hush" not in str(error.value)
