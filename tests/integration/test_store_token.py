"""What a runtime token says that it may do; anything else is one line that does not show it."""

from typing import Any

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import Ref
from maintainer.errors import UsageError
from maintainer.model.entry import Access
from maintainer.stores.github.token import read_access

MAIN, PULL = Ref("refs/heads/main"), Ref("refs/pull/7/merge")
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def _token(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, "a key of the length that PyJWT asks for")


def _granting(*grants: object) -> str:
    return _token({"ac": msgspec.json.encode(grants).decode()})


@pytest.mark.parametrize(
    ("grants", "access"),
    [
        ([], Access()),
        ([{"Scope": MAIN, "Permission": 3}], Access(frozenset({MAIN}), frozenset({MAIN}))),
        ([{"Scope": MAIN, "Permission": 1}], Access(frozenset({MAIN}), frozenset())),
        ([{"Scope": "", "Permission": 2}], Access(frozenset({Ref("")}), frozenset({Ref("")}))),
        ([{"Scope": MAIN, "Permission": 0}], Access()),
        # No ref is called that, and PostgreSQL cannot store it.
        (
            [{"Scope": "refs/heads/a\0b", "Permission": 3}, {"Scope": MAIN, "Permission": 1}],
            Access(frozenset({MAIN}), frozenset()),
        ),
        (
            [{"Scope": PULL, "Permission": 3}, {"Scope": MAIN, "Permission": 1, "More": 1}],
            Access(frozenset({MAIN, PULL}), frozenset({PULL})),
        ),
    ],
)
def test_what_a_token_may(grants: list[object], access: Access) -> None:
    assert read_access(_granting(*grants)) == access


def test_being_over_is_for_the_service_to_say() -> None:
    expired = _token({"ac": "[]", "exp": 1, "nbf": 2**40})

    assert read_access(expired) == Access()


BAD_TOKENS = {
    "no token": "secret",
    "three parts": "secret.secret.secret",
    "no claim": _token({}),
    "claim is a list": _token({"ac": []}),
    "claim is null": _token({"ac": None}),
    "claim is no JSON": _token({"ac": "[{"}),
    "claim is an object": _token({"ac": "{}"}),
    "no scope": _granting({"Permission": 1}),
    "scope is a number": _granting({"Scope": 1, "Permission": 1}),
    "scope is long": _granting({"Scope": "r" * 4097, "Permission": 1}),
    "permission is a word": _granting({"Scope": MAIN, "Permission": "3"}),
    "permission is negative": _granting({"Scope": MAIN, "Permission": -1}),
    "deep": _token({"ac": "[" * 100_000}),
}


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
def test_what_is_no_runtime_token(token: str) -> None:
    with pytest.raises(UsageError, match=r"^ACTIONS_RUNTIME_TOKEN is not the runtime token"):
        read_access(token)


@given(st.text() | _JSON.map(lambda claim: _token({"ac": claim})) | _JSON.map(_granting))
def test_any_token_is_read_or_refused_without_being_told(token: str) -> None:
    try:
        access = read_access(token)
    except UsageError as error:
        said = str(error)
        assert said.isprintable()
        assert len(token) < 20 or token not in said
    else:
        assert access.writable <= access.readable
