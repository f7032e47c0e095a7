"""Twice the history is twice the work, counted in steps and not in seconds."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import Engine, event

from benchmarks.grown import generations
from benchmarks.stopwatch import grown_cache, run
from maintainer.cacheconfig import CacheConfig, Link, Record, merge
from maintainer.cacheconfig.difference import only_new

_ABOUT_TWICE = 2.3
_STEPS = 100


class _Counter:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1


@contextmanager
def _counted_steps_of_sqlite() -> Iterator[_Counter]:
    """Count the instructions that SQLite carries out, by the hundred: rows read, whatever for."""
    counter = _Counter()

    def connected(connection: Connection, _: object) -> None:
        connection.set_progress_handler(counter, _STEPS)

    event.listen(Engine, "connect", connected)
    try:
        yield counter
    finally:
        event.remove(Engine, "connect", connected)


def _calls(job: Callable[[], object]) -> int:
    """Count the calls of functions that a job makes, built-in ones too."""
    count = 0

    def called(_: FrameType, what: str, __: Any) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    sys.setprofile(called)
    try:
        job()
    finally:
        sys.setprofile(None)
    return count


def test_merging_twice_the_generations_takes_about_twice_the_calls() -> None:
    few, many = list(generations(100)), list(generations(200))
    assert _calls(lambda: merge(many)) < _ABOUT_TWICE * _calls(lambda: merge(few))


def test_merging_takes_no_more_for_each_link_that_one_record_has_gathered() -> None:
    """A step that every build reaches in a way of its own, beside one that they share."""

    def builds(count: int) -> list[CacheConfig]:
        return [
            CacheConfig(
                records=(
                    Record("shared", (), ()),
                    Record(f"own {number}", (), ()),
                    Record("step", (), ((Link(0, ""), Link(1, "")),)),
                )
            )
            for number in range(count)
        ]

    few, many = builds(200), builds(400)
    assert _calls(lambda: merge(many)) < _ABOUT_TWICE * _calls(lambda: merge(few))


def test_comparing_takes_about_twice_the_calls_for_twice_the_keys_of_one_step() -> None:
    def compare(count: int) -> int:
        def index(first: int) -> CacheConfig:
            keys = [((Link(0, str(first + number)),),) for number in range(count)]
            return CacheConfig(
                records=(Record("source", (), ()), *(Record("step", (), key) for key in keys))
            )

        one, other = index(0), index(count)
        return _calls(lambda: only_new(one, [other]))

    assert compare(400) < 3 * compare(200)


@pytest.fixture(scope="module")
def grown_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, int]]]:
    """Do two runs on each of two caches, one twice as old as the other; give what they took."""
    folder = tmp_path_factory.mktemp("grown")
    return {count: [*_two_runs(folder / f"{count}.db", count)] for count in (20, 40)}


def _two_runs(database: Path, count: int) -> Iterator[dict[str, int]]:
    with grown_cache(count) as (running, stored):
        entries = stored
        for _ in range(2):
            with _counted_steps_of_sqlite() as steps:
                report, _stopwatch = run(running, database)
            assert report.status == "done"
            taken = {"entries": entries, "generations": count, "steps": steps.count}
            taken["checked"] = report.contents.checked
            yield taken | dict(report.requests.counts)
            entries -= len(report.deleted) - report.indexes_written


@pytest.mark.parametrize("number", [0, 1], ids=["first run", "second run"])
def test_the_database_does_about_twice_the_work_for_twice_the_generations(
    grown_runs: dict[int, list[dict[str, int]]], number: int
) -> None:
    few, many = grown_runs[20][number], grown_runs[40][number]
    assert few["steps"] > 100
    assert many["steps"] < _ABOUT_TWICE * few["steps"]


def test_a_run_sends_requests_for_pages_for_new_generations_and_for_what_it_changes(
    grown_runs: dict[int, list[dict[str, int]]],
) -> None:
    for count, (first, second) in grown_runs.items():
        assert first["list"] == -(-first["entries"] // 100)
        # What was written is read back: the index, and the merge of all. Of a blob, one byte is.
        assert first["download"] == count + 2 + first["checked"]
        asked = second.keys() - {"entries", "generations", "steps", "checked"}
        assert asked == {"list", "limits"}
        assert second["checked"] == 0
        assert second["list"] == -(-second["entries"] // 100)
