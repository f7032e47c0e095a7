"""Whole runs over HTTP, at growing numbers of entries.

The emulator serves from a thread of the same process: its share of the time is in the numbers.
"""

import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import Tables
from benchmarks.stopwatch import LISTING, grown_cache, run
from maintainer.emulator import Request
from maintainer.report import Report


@pytest.mark.parametrize("count", [100, 200, 400, 800])
def test_first_run(benchmark: BenchmarkFixture, tables: Tables, tmp_path: Path, count: int) -> None:
    with grown_cache(count) as (running, entries):
        report, stopwatch = benchmark.pedantic(  # type: ignore[no-untyped-call]
            run, args=(running, tmp_path / "a.db"), rounds=1
        )
    assert report.status == "done"
    seconds = sum(stopwatch.processor_seconds.values())
    row = _row(count, entries, report) | {"processor seconds": f"{seconds:.1f}"}
    tables.add("a first run", row)


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_second_run_over_ten_thousand_entries(
    benchmark: BenchmarkFixture, tables: Tables, tmp_path: Path, delay: float
) -> None:
    """`delay` is how many seconds a page of the list takes, beside what the emulator needs."""

    def far_away(request: Request) -> None:
        if request.kind == "list":
            time.sleep(delay)

    with grown_cache(1830) as (running, entries):
        run(running, tmp_path / "a.db", sweep=False)
        running.observe(before=far_away)
        report, stopwatch = benchmark.pedantic(  # type: ignore[no-untyped-call]
            run, args=(running, tmp_path / "a.db"), kwargs={"sweep": False}, rounds=1
        )
    assert report.requests.counts.keys() == {"list", "limits"}
    rest = sum(stopwatch.processor_seconds.values()) - stopwatch.processor_seconds[LISTING]
    row = _row(1830, entries, report) | {
        "each takes at least": f"{delay:.1f} s",
        "seconds in them": f"{stopwatch.seconds[LISTING]:.1f}",
        "processor seconds for all else": f"{rest:.1f}",
    }
    tables.add("a second run, with nothing to do", row)


def _row(count: int, entries: int, report: Report) -> dict[str, str]:
    return {
        "entries": f"{entries:,}",
        "generations": f"{count:,}",
        "requests": f"{report.requests.total:,}",
    }
