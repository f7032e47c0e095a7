"""A week of the recorded history, in which somebody first looks on and then lets runs happen."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random

from maintainer.demo.history import (
    RecordedEntry,
    evict_least_recently_used,
    evict_named_layers,
    load_history,
)
from maintainer.report import Report
from tests.integration.world import MAIN, World, a_world

QUOTA = 11_000_000
"""Bytes: the history alone takes 12 MB."""
_DAYS = 5


@dataclass(frozen=True)
class Week:
    """A database with nine runs, and what some of them reported."""

    database: Path
    before: Report
    """The last of the dry runs, which watched the builds for five days."""
    after: Report
    """The first run that did something."""
    last: Report
    """Two quiet days later."""


def tell_a_week(folder: Path) -> Week:
    """Let builds run for five days, watched by dry runs; then let runs put the cache right."""
    with a_world(folder) as world:
        entries = sorted(load_history(), key=lambda entry: entry.created_at)
        share = len(entries) // _DAYS + 1
        for day in range(_DAYS):
            _build(world, day, entries[day * share : (day + 1) * share])
            _use(world, entries[: (day + 1) * share], since=entries[day * share].created_at)
            world.passes(hours=6)
            world.running.call(lambda cache: evict_least_recently_used(cache, QUOTA))
            before = world.gc(dry_run=True, quota=QUOTA)
        world.running.call(lambda c: evict_named_layers(c, MAIN, count=6, random=Random(3)))
        world.passes(hours=20)
        before = world.gc(dry_run=True, quota=QUOTA)
        world.passes(minutes=20)
        after = world.gc(quota=QUOTA)
        world.passes(days=1)
        world.gc(quota=QUOTA)
        world.passes(days=1)
        last = world.gc(quota=QUOTA)
    return Week(world.database, before, after, last)


def _use(world: World, entries: list[RecordedEntry], since: datetime) -> None:
    """Look up what was used later than `since`, so that the host takes it for used."""
    for entry in entries:
        if entry.last_accessed_at >= since:
            ref, key, version = entry.ref, entry.key, entry.version
            world.cache.look_up([ref], key, [], version)


def _build(world: World, day: int, entries: list[RecordedEntry]) -> None:
    """Store a day's entries in their order, and what other tools store every day."""
    world.put(f"setup-node-Linux-x64-npm-{day:032x}", size=150_000)
    world.put(f"v0-rust-build-Linux-x86_64-{day:032x}", size=260_000)
    world.put(f"Linux-pip-{day}", size=40_000)
    for entry in entries:
        world.passes(minutes=5)
        content = None if entry.content is None else entry.content.encode()
        world.put(entry.key, content, ref=entry.ref, size=entry.size_in_bytes)
