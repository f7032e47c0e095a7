"""A service that runs for long on a cache that never rests."""

import itertools
import os
import statistics
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from maintainer.emulator.state import KeyTakenError
from tests.integration.service import Place, Service
from tests.integration.world import MAIN, World, a_world

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
INTERVAL = 5
SCOPES = ("buildkit", "web", "docs")
QUOTA = 400_000
"""Bytes; a blob has about a thousand."""
MIB = 1024**2
MOST_GROWTH = 16 * MIB
"""Of the resident memory, from the first quarter of the time to the last."""


@dataclass(frozen=True)
class Look:
    """What there was to see at one moment."""

    at: float
    resident: int
    """Bytes."""
    threads: int
    files: int


def _look(service: Service) -> Look:
    proc = Path(f"/proc/{service.process.pid}")
    pages = int((proc / "statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    threads, files = (sum(1 for _ in (proc / name).iterdir()) for name in ("task", "fd"))
    return Look(time.monotonic(), resident, threads, files)


def _change(world: World, random: Random, number: int) -> None:
    """Build something, and let the host evict what was used least recently."""
    world.now = datetime.now(UTC)
    steps = ["base", f"step {random.randrange(40)}", f"commit {number}"]
    _build(world, steps, random.choice(SCOPES))
    if number % 7 == 0:
        world.put(f"setup-node-{number}", size=2_000)
    by_use = sorted(world.entries(), key=lambda entry: (entry.last_accessed_at, entry.id))
    excess = sum(entry.size for entry in by_use) - QUOTA
    too_many = itertools.accumulate((entry.size for entry in by_use), initial=0)
    world.evict_entries(
        [entry for entry, before in zip(by_use, too_many, strict=False) if before < excess]
    )


def _build(world: World, steps: list[str], scope: str) -> None:
    """Export a build; like a builder, take the next number if the service was faster."""
    for _ in range(10):
        with suppress(KeyTakenError):
            world.build(*steps, scope=scope)
            return
    pytest.fail("each number was taken")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 + 600)
def test_memory_stays_flat_and_every_run_is_recorded(tmp_path: Path, world: World) -> None:
    random = Random(1)
    place = Place(tmp_path, world.running.environment(MAIN))
    # Without the quota, what goes within an interval on a slow machine would look like an outage.
    place.configure(
        f'grace = "30s"\nquota = "{QUOTA}B"\n[serve]\ninterval = "{INTERVAL}s"\nbackoff_max = "5s"'
    )
    _change(world, random, 0)
    looks: list[Look] = []
    end = time.monotonic() + MINUTES * 60
    with place.serving() as service:
        service.wait_until_ready()
        for number in itertools.count(1):
            if time.monotonic() >= end:
                break
            _change(world, random, number)
            service.get("")
            service.get("metrics")
            service.get("targets/default")
            looks.append(_look(service))
            time.sleep(2)
        assert service.end() == 0
        begun = {line["run"] for line in service.lines() if line["message"].endswith(" starts")}

    runs = place.runs()
    print(_tell(looks, runs, service))  # noqa: T201 - figures for whoever runs this
    assert {status for status, *_ in runs} <= {"done", "interrupted", "failed"}
    # A cache as small as this one may lose more than half of what is needed within an interval; the
    # run then keeps to what it takes for an outage, until it is none any more.
    failed = place.query("SELECT report FROM run WHERE status = 'failed'")
    reports = [zlib.decompress(report).decode() for (report,) in failed]
    assert all("probably an outage, not an eviction" in report for report in reports)
    assert len(failed) <= len(runs) / 20
    assert len(begun) == len(runs)
    assert len(runs) >= MINUTES * 60 / INTERVAL * 0.5
    for earlier, later in itertools.pairwise(runs):
        assert earlier[3] <= later[2], "two runs overlapped"
    first, last = _quarter(looks, 0), _quarter(looks, 3)
    assert _median(last) - _median(first) < MOST_GROWTH
    assert max(look.threads for look in last) <= max(look.threads for look in first) + 2
    assert max(look.files for look in last) <= max(look.files for look in first) + 8


def _quarter(looks: list[Look], number: int) -> list[Look]:
    """Take a quarter of the looks."""
    size = len(looks) // 4
    return looks[number * size : (number + 1) * size]


def _median(looks: list[Look]) -> float:
    return statistics.median(look.resident for look in looks)


def _tell(looks: list[Look], runs: list[tuple[object, ...]], service: Service) -> str:
    took = [_seconds(start, finish) for _, _, start, finish in runs]
    quarters = ", ".join(f"{_median(_quarter(looks, n)) / MIB:.1f}" for n in range(4))
    return (
        f"{(looks[-1].at - looks[0].at) / 60:.1f} minutes, {len(runs)} runs of "
        f"{statistics.median(took):.2f} s (median; at the most {max(took):.2f} s); resident MiB, "
        f"median of each quarter: {quarters}; at the most "
        f"{max(look.resident for look in looks) / MIB:.1f}; threads at the most "
        f"{max(look.threads for look in looks)}, files {max(look.files for look in looks)}; log "
        f"{service.log.stat().st_size / MIB:.1f} MiB, database "
        f"{service.place.database.stat().st_size / MIB:.1f} MiB"
    )


def _seconds(start: object, finish: object) -> float:
    between = datetime.fromisoformat(str(finish)) - datetime.fromisoformat(str(start))
    return between / timedelta(seconds=1)
