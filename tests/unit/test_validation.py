"""What is wrong with a value is said in our words, and the value is not shown."""

from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ByteSize, Field, TypeAdapter, ValidationError

from maintainer.validation import explain


class _Table(BaseModel):
    key: int


class _Choice(Enum):
    A = "a"
    B = "b"


_CASES: list[tuple[Any, Any, str]] = [
    (int, "SECRET", "is not a whole number"),
    (int, 1.5, "is not a whole number"),
    (float, "SECRET", "is not a number"),
    (bool, "SECRET", "must be true or false"),
    (str, 1, "must be text"),
    (tuple[str, ...], "SECRET", "must be a list"),
    (list[str], 1, "must be a list"),
    (_Table, "SECRET", "must be a table"),
    (dict[str, str], 1, "must be a table"),
    (ByteSize, "SECRET", "is not a valid size; use 10GB or 256MiB"),
    (ByteSize, "1 SECRET", "is not a valid size; use 10GB or 256MiB"),
    (Literal["a", "b"], "SECRET", "must be 'a' or 'b'"),
    (_Choice, "SECRET", "must be 'a' or 'b'"),
    (Annotated[int, Field(ge=1)], 0, "must be at least 1"),
    (Annotated[int, Field(gt=1)], 1, "must be more than 1"),
    (Annotated[int, Field(le=1)], 2, "must be at most 1"),
    (Annotated[int, Field(lt=1)], 2, "must be less than 1"),
    (
        Annotated[timedelta, Field(le=timedelta(days=3650))],
        timedelta(days=9999),
        "must be at most ",
    ),
    (Annotated[str, Field(min_length=1)], "", "must not be empty"),
    (Annotated[str, Field(max_length=1)], "SECRET", "is too long"),
    (Annotated[str, Field(pattern="^a$")], "SECRET", "is not valid"),
    (complex, "SECRET", "is not valid"),
]


@pytest.mark.parametrize(("kind", "value", "text"), _CASES, ids=range(len(_CASES)))
def test_every_kind_of_problem_has_words_of_ours(kind: Any, value: Any, text: str) -> None:
    found = explain(_problem(kind, value))

    assert found.startswith(text)
    assert "SECRET" not in found
    assert "should" not in found.lower()


def _problem(kind: Any, value: Any) -> Any:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return caught.value.errors()[0]


def test_a_key_with_a_form_of_its_own_says_which() -> None:
    wrong = {"type": "string_pattern_mismatch", "loc": ("targets", 0, "token_env"), "msg": ""}

    assert explain(wrong) == "is not valid; use the name of a variable"


def test_what_our_own_checks_say_is_kept() -> None:
    wrong = {"type": "value_error", "loc": (), "msg": "Value error, Is not a store; use github."}

    assert explain(wrong) == "is not a store; use github"
