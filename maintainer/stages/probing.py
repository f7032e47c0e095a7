"""Probe: what exists in the store."""

from dataclasses import astuple
from datetime import datetime

from maintainer.graph.recall import recall
from maintainer.model.entry import StoreLimits
from maintainer.model.fingerprint import fingerprint
from maintainer.probe import list_entries, probe
from maintainer.stages.run import Listed, Probed, Run


async def list_cache(run: Run, at: datetime, limits: StoreLimits | None = None) -> Listed:
    """List what exists, and ask when it is evicted, if these `limits` are not known."""
    listing = await list_entries(run.store, at, run.context)
    run.report.limits = limits or await run.store.limits(at, run.context)
    run.outlook.fingerprint = fingerprint(
        listing,
        access=run.store.access,
        abilities=run.store.abilities,
        limits=run.report.limits,
        ignored=run.store.ignored,
        settings=run.collector.settings.model_dump_json(),
        mode=astuple(run.mode),
    )
    return Listed(at, listing)


async def probe_cache(run: Run, listed: Listed) -> Probed:
    """Probe the store."""
    with run.begin() as connection:
        known = recall(connection, run.target_id, run.store.access, listed.at)
    seen = await probe(run.store, listed.listing, known, listed.at, run.context)
    return Probed(known, seen)
