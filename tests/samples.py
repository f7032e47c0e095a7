"""What `make test` takes of cases that repeat one another; `make soak` takes all of them."""

from collections.abc import Iterable
from typing import Any

import pytest


def every_other(cases: Iterable[Any]) -> list[Any]:
    """Return the cases as parameters, of which the second, the fourth and so on are for soak."""
    return [
        pytest.param(case, marks=pytest.mark.soak if number % 2 else ())
        for number, case in enumerate(cases)
    ]


def once_each(rows: Iterable[Any], columns: Iterable[Any]) -> list[Any]:
    """Return all pairs as parameters; all but one of each row are for soak, in turn."""
    wanted = list(columns)
    return [
        pytest.param(
            row, column, marks=() if number % len(wanted) == position else pytest.mark.soak
        )
        for number, row in enumerate(rows)
        for position, column in enumerate(wanted)
    ]
