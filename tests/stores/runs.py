"""A run in this process, on a database that is migrated already."""

from datetime import datetime

from maintainer.collect import collect
from maintainer.report import Report
from maintainer.settings import Settings
from maintainer.stages.run import Collector
from maintainer.stores.base import Store
from tests.integration.simulated_runs import Memory
from tests.stores.place import How


async def run_on(
    store: Store, memory: Memory, how: How, now: datetime, **settings: object
) -> Report:
    """Do a run that nobody keeps waiting."""
    chosen = Settings.model_validate({"grace": how.grace} | settings)
    collector = Collector(store, memory.database, chosen, clock=lambda: now, sleep=_no_sleep)
    with memory.database.lock():
        return await collect(
            collector, dry_run=how.dry_run, no_sweep=how.no_sweep, accept_loss=True
        )


async def _no_sleep(_seconds: float) -> None:
    """Wait for nobody."""
