"""Which targets come into the queue of a fleet, and how a worker divides itself among them."""

from datetime import UTC, datetime

import pytest

from maintainer.graph.queue import Waiting
from maintainer.serve import fleet
from maintainer.serve.fleet import choose, share

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
DUE = [Waiting(name, NOW) for name in ("a1", "a2", "b1", "a3", "-", "b2", "--")]


def _host(name: str) -> str:
    """Return the host of a target: its letter."""
    return name.strip("-0123456789")


def _chosen(queued: set[str], limit: int) -> list[str]:
    return [one.name for one in choose(DUE, queued, _host, limit)]


def test_what_is_due_comes_in_order_unless_it_is_there() -> None:
    assert _chosen({"a2", "b2"}, 9) == ["a1", "b1", "a3", "-", "--"]


def test_a_host_has_no_more_jobs_than_the_limit_and_does_not_hold_others_up() -> None:
    assert _chosen(set(), 1) == ["a1", "b1", "-", "--"]
    assert _chosen({"a9"}, 2) == ["a1", "b1", "-", "b2", "--"]


def test_the_queue_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_MAX_WAITING", 3)

    assert _chosen({"z"}, 9) == ["a1", "a2"]


def test_one_place_of_a_worker_is_never_for_long_runs() -> None:
    assert share(1) == [(["maintainer", "maintainer-long"], 1)]
    assert share(4) == [(["maintainer", "maintainer-long"], 3), (["maintainer"], 1)]
