"""What `make test` takes of cases that repeat one another; `make soak` takes all of them."""

import os
from collections.abc import Container, Iterable
from typing import Any

import pytest


def examples(few: int, many: int) -> int:
    """Return how many examples an expensive test takes: many in `make soak` alone."""
    return many if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else few


def every_other(cases: Iterable[Any]) -> list[Any]:
    """Return the cases as parameters, of which the second, the fourth and so on are for soak."""
    return one_in(2, cases)


def one_in(count: int, cases: Iterable[Any], *, but: Container[Any] = ()) -> list[Any]:
    """Return the cases as parameters: one of so many, and some more; all others are for soak."""
    return [
        pytest.param(case, marks=() if number % count == 0 or case in but else pytest.mark.soak)
        for number, case in enumerate(cases)
    ]


def once_each(rows: Iterable[Any], columns: Iterable[Any], *, of: int = 1) -> list[Any]:
    """Return all pairs as parameters; all but one of each row, or of one in so many, are for soak.

    The columns take turns.
    """
    wanted = list(columns)
    return [
        pytest.param(
            row,
            column,
            marks=() if number % (of * len(wanted)) == of * position else pytest.mark.soak,
        )
        for number, row in enumerate(rows)
        for position, column in enumerate(wanted)
    ]
