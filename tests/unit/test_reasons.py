"""Reasons and outcomes: each is a value with a code, a sentence, and a place in the schema."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from maintainer.model import outcome as outcomes
from maintainer.model import reason as reasons
from maintainer.model.outcome import Outcome
from maintainer.model.reason import Reason, code_of
from maintainer.report.actions import make_action
from maintainer.report.json import SCHEMA
from maintainer.report.reasons import format_cause, format_outcome, format_reason

AT = datetime(2026, 8, 1, 12, tzinfo=UTC)
_REASONS: tuple[type[reasons.Base], ...] = get_args(Reason)
_OUTCOMES: tuple[type[outcomes.Base], ...] = get_args(Outcome)


def _examples(kind: type[Any]) -> Iterator[Any]:
    """Make examples of a class: facts that are optional or booleans take both their values."""
    yield kind(**{name: _first(fact) for name, fact in get_type_hints(kind).items()})
    yield kind(**{name: _last(fact) for name, fact in get_type_hints(kind).items()})


def _first(fact: Any) -> Any:
    options = get_args(fact)
    if fact is bool:
        return False
    if type(None) in options:
        return None
    return _value(options[0] if options and not _is_tuple(fact) else fact)


def _last(fact: Any) -> Any:
    options = [one for one in get_args(fact) if one is not type(None)]
    if fact is bool:
        return True
    return _value(options[-1] if options and not _is_tuple(fact) else fact)


def _is_tuple(fact: Any) -> bool:
    return getattr(fact, "__origin__", None) is tuple


def _value(fact: Any) -> Any:
    if isinstance(fact, type) and issubclass(fact, msgspec.Struct):
        return next(_examples(fact))
    if isinstance(fact, type) and issubclass(fact, StrEnum):
        return next(iter(fact))
    if _is_tuple(fact):
        return ("web", "api", "docs", "test") if str in get_args(fact) else (3, 4, 5, 7)
    fixed = {int: 12_345, float: 0.5, bool: True, datetime: AT, str: "some text"}
    return fixed.get(fact, "refs/heads/some")


@pytest.mark.parametrize("kind", _REASONS, ids=lambda kind: kind.__name__)
def test_every_reason_survives_the_graph_and_is_one_sentence(kind: type[Any]) -> None:
    for reason in _examples(kind):
        assert msgspec.json.decode(msgspec.json.encode(reason), type=Reason) == reason
        for sentence in (format_reason(reason), format_cause(reason)):
            assert sentence == " ".join(sentence.split())
            assert not sentence.endswith(".")
            assert "None" not in sentence


@pytest.mark.parametrize("kind", _OUTCOMES, ids=lambda kind: kind.__name__)
def test_every_outcome_survives_the_graph_and_is_one_sentence(kind: type[Any]) -> None:
    for outcome in _examples(kind):
        assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome
        assert format_outcome(outcome).startswith(code_of(outcome).replace("_", " "))


def _leaves(kind: type[Any]) -> Iterator[type[Any]]:
    """Return the classes that are made, and not only built upon."""
    for one in kind.__subclasses__():
        if not one.__name__.startswith("_") and one is not reasons.Overdue:
            yield one
        yield from _leaves(one)


def test_no_reason_and_no_outcome_is_left_out_of_the_unions() -> None:
    assert set(_leaves(reasons.Base)) == set(_REASONS)
    assert set(_leaves(outcomes.Base)) == set(_OUTCOMES)


def test_codes_are_the_names_in_snake_case_and_tell_all_apart() -> None:
    codes = [code_of(next(_examples(kind))) for kind in _REASONS]

    assert len(set(codes)) == len(codes)
    assert code_of(reasons.OpaqueIndex("key", "ref", AT)) == "opaque_index"
    assert code_of(outcomes.AlreadyGone()) == "already_gone"


def test_the_published_schema_has_every_reason_and_every_outcome() -> None:
    definitions = json.loads(SCHEMA.read_text())["$defs"]
    codes = {
        code
        for one in definitions.values()
        for code in one.get("properties", {}).get("code", {}).get("enum", ())
    }

    assert {code_of(next(_examples(kind))) for kind in (*_REASONS, *_OUTCOMES)} <= codes


def test_an_action_is_reported_with_both_sentences() -> None:
    action = make_action(
        "delete",
        "buildkit-blob-1-a",
        "refs/heads/main",
        reasons.Unreferenced(since=AT),
        outcomes.Skipped(reasons.LookedUp()),
        size=9,
    )

    assert action.sentence == (
        "dangling since 2026-08-01 12:00 UTC: no live result of any index needs it"
    )
    assert action.outcome_sentence == "skipped: somebody has looked it up since the run began"
