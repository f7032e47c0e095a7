"""A week of the recorded history, in which somebody first looks on and then lets runs happen."""

from datetime import datetime
from pathlib import Path
from random import Random

from maintainer.demo.history import (
    RecordedEntry,
    evict_least_recently_used,
    evict_named_layers,
    load_history,
    scale,
)
from tests.integration.world import MAIN, World, a_world

QUOTA = 10_000_000_000
"""Bytes, as GitHub has them: the history and the other tools take more."""
_FACTOR = 900
"""The history is shown so many times as large as it is."""
_DAYS = 5

BEFORE, AFTER, LAST = 6, 7, 9
"""The last of the dry runs, which watched the builds for five days; the first run that did
something; and one two quiet days later.
"""


def tell_a_week(database: Path) -> None:
    """Let builds run for five days, watched by dry runs; then let runs put the cache right."""
    with a_world(database.parent) as world:
        world.database = database
        entries = sorted(scale(load_history(), _FACTOR), key=lambda entry: entry.created_at)
        share = len(entries) // _DAYS + 1
        for day in range(_DAYS):
            _build(world, day, entries[day * share : (day + 1) * share])
            _use(world, entries[: (day + 1) * share], since=entries[day * share].created_at)
            world.passes(hours=6)
            world.running.call(lambda cache: evict_least_recently_used(cache, QUOTA))
            world.gc(dry_run=True, quota=QUOTA)
        world.running.call(lambda c: evict_named_layers(c, MAIN, count=6, random=Random(3)))
        world.passes(hours=20)
        world.gc(dry_run=True, quota=QUOTA)
        world.passes(minutes=20)
        world.gc(quota=QUOTA)
        world.passes(days=1)
        world.gc(quota=QUOTA)
        world.passes(days=1)
        world.gc(quota=QUOTA)


def _use(world: World, entries: list[RecordedEntry], since: datetime) -> None:
    """Look up what was used later than `since`, so that the host takes it for used."""
    for entry in entries:
        if entry.last_accessed_at >= since:
            ref, key, version = entry.ref, entry.key, entry.version
            world.cache.look_up([ref], key, [], version)


def _build(world: World, day: int, entries: list[RecordedEntry]) -> None:
    """Store a day's entries in their order, and what other tools store every day."""
    world.put(f"setup-node-Linux-x64-npm-{day:032x}", size=140_000_000)
    world.put(f"v0-rust-build-Linux-x86_64-{day:032x}", size=240_000_000)
    world.put(f"Linux-pip-{day}", size=36_000_000)
    for entry in entries:
        world.passes(minutes=5)
        content = None if entry.content is None else entry.content.encode()
        world.put(entry.key, content, ref=entry.ref, size=entry.size_in_bytes)
