"""What builds find under a quota, replayed: docs/policies.md holds the table."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest

from benchmarks.quota import history, orders
from benchmarks.quota.__main__ import QUOTAS
from benchmarks.quota.orders import count_found
from maintainer.model.history import History
from maintainer.simulation import github

_PAGE = Path(__file__).parents[2] / "docs" / "policies.md"
_HISTORIES: Mapping[str, Callable[[], History]] = {
    "recorded": history.recorded,
    "generated": history.generated,
}


_SOON = {("recorded", 13), ("recorded", 15), ("recorded", 25), ("generated", 13)}
"""What `make test` replays; `make soak` replays all."""

_CASES = [
    pytest.param(name, percent, marks=() if (name, percent) in _SOON else pytest.mark.soak)
    for name in _HISTORIES
    for percent in QUOTAS
]


@cache
def _history(name: str) -> History:
    return _HISTORIES[name]()


def _rows(name: str) -> list[dict[str, str]]:
    """Return the rows of the table of a history, by their columns."""
    tables = [one for one in _PAGE.read_text().split("\n\n") if one.startswith("| quota |")]
    head, _, *rows = tables[[*_HISTORIES].index(name)].splitlines()
    columns, *cells = ([cell.strip(" *") for cell in row.split("|")[1:-1]] for row in (head, *rows))
    return [dict(zip(columns, row, strict=True)) for row in cells]


@pytest.mark.parametrize(("name", "percent"), _CASES)
def test_builds_find_no_less_than_by_the_order_of_github(name: str, percent: int) -> None:
    past = _history(name)
    quota = past.written * percent // 100
    row = _rows(name)[QUOTAS.index(percent)]

    chosen, alone = (count_found(past, quota, order) for order in (orders.room, github))

    assert chosen >= alone
    assert row["quota"] == f"{percent} %"
    assert row["chosen"] == f"{100 * chosen / past.findable:.1f}"
    assert row["GitHub's"] == f"{100 * alone / past.findable:.1f}"


@pytest.mark.parametrize("percent", [13, 15])
def test_builds_find_most_of_what_any_cache_could_return(percent: int) -> None:
    past = _history("recorded")
    quota = past.written * percent // 100

    from benchmarks.quota.bound import solve

    assert count_found(past, quota, orders.room) >= 0.7 * solve(past, quota)


@pytest.mark.parametrize("name", _HISTORIES)
def test_the_page_shows_the_same_for_both_histories(name: str) -> None:
    shares = {row["quota"]: float(row["chosen/bound"]) for row in _rows(name)}

    assert min(shares["13 %"], shares["15 %"]) >= 0.7


def test_without_a_quota_builds_find_everything() -> None:
    past = _history("recorded")

    assert count_found(past, past.written, orders.room) == past.findable
