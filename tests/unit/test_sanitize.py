"""Hostile text becomes one harmless line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.errors import LeaseLostError
from maintainer.sanitize import is_unicode, printable, printable_names, show_nul

_ANY_TEXT = st.text(st.characters())
_ORDINARY = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=200
)


@given(_ANY_TEXT, st.integers(1, 300))
def test_what_comes_out_hides_nothing_and_is_short(text: str, limit: int) -> None:
    shown = printable(text, limit)

    assert len(shown) <= limit
    assert shown.isprintable()


@given(_ANY_TEXT)
def test_what_was_made_safe_stays_as_it_is(text: str) -> None:
    shown = printable(text, 10_000)

    assert printable(shown, 10_000) == shown


@given(_ORDINARY)
def test_ordinary_text_is_not_changed(text: str) -> None:
    assert printable(text) == text


@given(_ANY_TEXT)
def test_escapes_tell_what_was_there(text: str) -> None:
    hidden = [c for c in text if not c.isprintable()]

    shown = printable("".join(hidden), 10_000)

    assert shown.encode("ascii").decode("unicode_escape") == "".join(hidden)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("index-web-1-49c8f7d5#6", "index-web-1-49c8f7d5#6"),
        ("größe 日本語 🐳", "größe 日本語 🐳"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\x1b[2Jcleared", r"\x1b[2Jcleared"),
        ("\x9b2J", r"\x9b2J"),
        ("abc\u202egpj", r"abc\u202egpj"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("para\u2029graph", r"para\u2029graph"),
        ("no\u00a0break, wide\u3000", r"no\xa0break, wide\u3000"),
        ("half \ud83d", r"half \ud83d"),
        ("tag \U000e0041", r"tag \U000e0041"),
    ],
)
def test_each_trick_is_shown_for_what_it_is(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_what_is_too_long_ends_in_an_ellipsis() -> None:
    assert printable("a" * 200) == "a" * 200
    assert printable("a" * 201) == "a" * 199 + "…"
    assert printable("ab\x07\x07", 7) == r"ab\x07…"
    assert printable("ab\x07\x07", 6) == "ab…"
    assert printable("a" * 1_000_000, 1) == "…"


def test_bytes_that_are_no_text_are_told_apart() -> None:
    assert is_unicode("naïve 😀")
    assert not is_unicode(b"\xff".decode("utf-8", "surrogateescape"))


def test_nul_is_shown_because_databases_cannot_store_it() -> None:
    assert show_nul("a\0b") == r"a\x00b"


def test_the_name_of_a_target_that_another_run_has_taken_over_stays_in_one_line() -> None:
    assert str(LeaseLostError("a\nb")).startswith(r"another run has taken a\nb over")


@pytest.mark.parametrize(
    ("names", "shown"),
    [([], ""), (["a", "b\n"], "a, b\\n"), (["a", "b", "c"], "a, b, …")],
)
def test_of_a_list_of_names_the_first_are_shown_and_that_there_are_others(
    names: list[str], shown: str
) -> None:
    assert printable_names(names, 2) == shown
