"""Probe: what exists in the store."""

from dataclasses import astuple
from datetime import datetime, timedelta

from maintainer.errors import StoreError
from maintainer.graph.recall import recall
from maintainer.model.entry import StoreLimits
from maintainer.model.fingerprint import fingerprint
from maintainer.probe import list_entries, probe
from maintainer.report.words import format_duration
from maintainer.stages.run import Listed, Probed, Run

_AHEAD = timedelta(days=1)
"""No mistake about time zones is larger."""


async def list_cache(run: Run, at: datetime, limits: StoreLimits | None = None) -> Listed:
    """List what exists, and ask when it is evicted, if these `limits` are not known."""
    listing = await list_entries(run.store, at, run.context)
    _refuse_to_be_ahead(run)
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


def _refuse_to_be_ahead(run: Run) -> None:
    """Raise StoreError if our clock is far ahead: what is young would be deleted as old."""
    answered_at = run.store.requests.answered_at
    ahead = run.collector.clock() - answered_at if answered_at else timedelta(0)
    if ahead > _AHEAD:
        raise StoreError(
            f"this machine's clock is {format_duration(ahead)} ahead of the service's: set it"
        )


async def probe_cache(run: Run, listed: Listed) -> Probed:
    """Probe the store."""
    with run.begin() as connection:
        known = recall(connection, run.target_id, run.store.access, listed.at)
    seen = await probe(run.store, listed.listing, known, listed.at, run.context)
    return Probed(known, seen)
