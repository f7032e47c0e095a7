"""A fleet: workers on one PostgreSQL server that share the targets of one configuration.

    python -m benchmarks.fleet 500 10000
    python -m benchmarks.fleet 10000 10000 2

serves an emulated GitHub, starts a server of its own, which waits for no disk, and four workers,
lets 500 of 10,000 targets run three times, or all of them twice, and prints what a run cost: alone,
in the fleet, and as an empty job of the engine, how much the database has grown, and how long pages
took.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx2
import psycopg

from benchmarks.processes import MAINTAINER, empty_folder, expect, module
from tests.integration.world import MAIN, a_world
from tests.postgresql import create_database, server

_WORKERS = 4
_CONCURRENCY = 2
_ALONE = 100
"""So many targets run in one process, for comparison."""
_PAGES = 30
_TICKS = os.sysconf("SC_CLK_TCK")


def main(due: int, targets: int, periods: int = 3) -> None:
    """Measure, and print one line for each figure."""
    with empty_folder() as folder, a_world(folder) as world:
        world.now = datetime.now(UTC)
        world.build("base", "api")
        world.build("base", "web")
        variables = world.running.environment(MAIN)
        _measure_alone(_Place(folder, variables, create_database(empty=True)))
        _measure_floor(create_database(empty=True), due)
        _measure_fleet(_Place(folder, variables, create_database()), due, targets, periods)


@dataclass(frozen=True)
class _Place:
    folder: Path
    variables: dict[str, str]
    database: str

    def configure(self, targets: int) -> None:
        lines = ['[serve]\ninterval = "1d"\nlisten = "127.0.0.1:9319"\n']
        lines += (
            f'[[targets]]\nname = "t{number}"\nrepository = "example/r{number}"\n'
            for number in range(targets)
        )
        (self.folder / "maintainer.toml").write_text("".join(lines))

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        environment = {"PATH": os.environ["PATH"], "MAINTAINER_DATABASE": self.database}
        command = (*MAINTAINER, *arguments, "--config", "maintainer.toml", "--quiet")
        process = subprocess.Popen(command, cwd=self.folder, env=environment | self.variables)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            expect(process.wait(60) == 0, f"{arguments} ended with {process.returncode}")


@dataclass(frozen=True)
class _Cost:
    """What something took, and how often it was done."""

    name: str
    number: int
    wall: float
    clients: float
    """CPU seconds."""
    server: float
    """CPU seconds of PostgreSQL."""

    def show(self) -> None:
        each = 1_000 / self.number
        print(
            f"{self.name}: {self.number} in {self.wall:.1f} s; each {self.clients * each:.1f} ms "
            f"CPU, and {self.server * each:.1f} ms of the server",
            flush=True,
        )


@contextmanager
def _counting(name: str, number: int, processes: Sequence[int]) -> Iterator[None]:
    """Print what the processes and the server take while the context lasts."""
    before, began = (_cpu(processes), _server_cpu()), time.perf_counter()
    yield
    wall = time.perf_counter() - began
    _Cost(name, number, wall, _cpu(processes) - before[0], _server_cpu() - before[1]).show()


def _cpu(processes: Sequence[int]) -> float:
    """Return the CPU seconds of processes, and of their children that have ended."""
    return sum(sum(map(int, _stat(one)[11:15])) for one in processes) / _TICKS


def _stat(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 20


def _server_cpu() -> float:
    postmaster = int((server().folder / "data/postmaster.pid").read_text().split()[0])
    numbers = (int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit())
    children = [one for one in numbers if _stat(one)[1] == str(postmaster)]
    return _cpu([postmaster, *children])


def _query(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def _wait(url: str, sql: str) -> None:
    while not _query(url, sql)[0][0]:
        time.sleep(0.5)


_IN_2100 = 4_102_444_800_000_000
_DUE = "UPDATE scheduled SET next_run_at = 1, due_at = 1"
_ALL_DONE = (
    "SELECT bool_and(coalesce(status = 'done' AND finished_at > {since}, FALSE)) FROM scheduled"
)


def _measure_alone(place: _Place) -> None:
    place.configure(_ALONE)
    for name in ("alone, first run", "alone, quiet run"):
        since = time.time_ns() // 1_000
        with _counting(f"{name} (with start-up)", _ALONE, [os.getpid()]):
            environment = {"PATH": os.environ["PATH"], "MAINTAINER_DATABASE": place.database}
            command = (*MAINTAINER, "serve", "--once", "--config", "maintainer.toml", "--quiet")
            began = _own_cpu()
            subprocess.run(command, cwd=place.folder, env=environment | place.variables, check=True)
            emulator = _own_cpu() - began
        print(f"  of which {emulator / _ALONE * 1_000:.1f} ms CPU are the emulator's")
        expect(_query(place.database, _ALL_DONE.format(since=since))[0][0], "not all are done")
        _query(place.database, _DUE)


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system


def _measure_floor(url: str, jobs: int) -> None:
    """Let as many workers of the engine drain as many jobs that do nothing."""
    subprocess.run(module("floors.empty_jobs", "create", url), check=True)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(module("floors.empty_jobs", _CONCURRENCY, url)))
            for _ in range(_WORKERS)
        ]
        time.sleep(3)
        with _counting("empty job of the engine", jobs, [one.pid for one in processes]):
            subprocess.run(module("floors.empty_jobs", "defer", url, jobs), check=True)
            _wait(url, "SELECT count(*) = 0 FROM procrastinate_jobs")
        for process in processes:
            process.terminate()


def _measure_fleet(place: _Place, targets: int, configured: int, periods: int) -> None:
    place.configure(configured)
    with place.running("serve", "--pages-only"):
        _wait(place.database, f"SELECT count(*) = {configured} FROM scheduled")
    _query(
        place.database, f"UPDATE scheduled SET next_run_at = {_IN_2100} WHERE position >= {targets}"
    )
    with ExitStack() as stack:
        workers = [
            stack.enter_context(place.running("worker", "--concurrency", str(_CONCURRENCY))).pid
            for _ in range(_WORKERS)
        ]
        sizes = []
        for period in range(1, periods + 1):
            name = "first run" if period == 1 else "quiet run"
            with _counting(f"in the fleet, {name}", targets, workers):
                since = time.time_ns() // 1_000 if period > 1 else 0
                if since:
                    _query(place.database, f"{_DUE} WHERE position < {targets}")
                done = f"{_ALL_DONE} WHERE position < {targets}"
                _wait(place.database, done.format(since=since))
            _check(place.database, targets, period)
            sizes.append(_size(place.database))
        began = _cpu(workers), _server_cpu()
        time.sleep(10)
        idle = _cpu(workers) - began[0], _server_cpu() - began[1]
        print(f"nothing is due: {idle[0] * 10:.1f} % CPU of all workers, {idle[1] * 10:.1f} %")
    grown = [round((later - size) / targets) for size, later in pairwise(sizes)]
    print(f"database: {sizes[0] / targets:.0f} bytes a target after its first run")
    print(f"  bytes that each quiet run adds: {grown}")
    _measure_pages(place)


def _check(url: str, targets: int, periods: int) -> None:
    """Check that each target has run once in each period, and never twice at once."""
    ((runs, done),) = _query(
        url, "SELECT count(*), count(*) FILTER (WHERE status = 'done') FROM run"
    )
    expect(runs == done == targets * periods, f"{runs} runs, {done} done")
    overlapping = _query(
        url,
        "SELECT count(*) FROM run a JOIN run b ON a.target_id = b.target_id AND a.id < b.id "
        "WHERE b.started_at < a.finished_at",
    )
    expect(overlapping == [(0,)], "a target ran twice at once")
    most = "SELECT max(n) FROM (SELECT count(*) AS n FROM run GROUP BY target_id) AS each"
    expect(_query(url, most) == [(periods,)], "a target ran twice in a period")


def _size(url: str) -> int:
    """Return the bytes of the database, as autovacuum would leave it."""
    _query(url, "VACUUM")
    return int(_query(url, "SELECT pg_database_size(current_database())")[0][0])


def _measure_pages(place: _Place) -> None:
    with place.running("serve", "--pages-only"), httpx2.Client(timeout=600) as client:
        for path in ("healthz", "", "metrics"):
            taken = []
            for number in range(_PAGES):
                began = time.perf_counter()
                _get(client, f"http://127.0.0.1:9319/{path}")
                taken.append(time.perf_counter() - began)
                if number and sum(taken) > _PAGES / 2:
                    break
            cuts = quantiles(taken, n=100, method="inclusive")
            print(f"/{path}: p50 {cuts[49] * 1_000:.0f} ms, p99 {cuts[98] * 1_000:.0f} ms")


def _get(client: httpx2.Client, url: str) -> None:
    for _ in range(1_200):
        try:
            expect(client.get(url).status_code == httpx2.codes.OK, url)
        except httpx2.ConnectError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(url)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
