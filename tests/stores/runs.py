"""A run in this process, on a database that is migrated already."""

from datetime import datetime, timedelta

from sqlalchemy import update

from maintainer.collect import collect
from maintainer.graph.tables import LEASE
from maintainer.report import Report
from maintainer.stages.run import Collector, Mode
from maintainer.stores.base import Store
from tests.chosen import choose
from tests.integration.simulated_runs import Memory
from tests.stores.place import How


async def run_on(
    store: Store, memory: Memory, how: How, now: datetime, **settings: object
) -> Report:
    """Do a run that nobody keeps waiting."""
    chosen = choose({"grace": how.grace} | settings)
    collector = Collector(store, memory.database, chosen, clock=lambda: now, sleep=_no_sleep)
    with memory.database.lock():
        mode = Mode(how.dry_run, how.no_sweep, not how.guarded, how.repair)
        return await collect(collector, mode)


async def run_leased(store: Store, memory: Memory, now: datetime) -> Report:
    """Do a run without a grace period that has a lease, which `take_over` takes from it."""
    chosen = choose({"grace": timedelta(0)})
    with memory.database.lease(store.name) as lease:
        collector = Collector(
            store, memory.database, chosen, clock=lambda: now, sleep=_no_sleep, lease=lease
        )
        return await collect(collector, Mode(accept_loss=True))


def take_over(memory: Memory) -> None:
    """Take the lease, as another run would after a long pause of the one that has it."""
    with memory.database.begin() as connection:
        connection.execute(update(LEASE).values(token=LEASE.c.token + 1))


async def _no_sleep(_seconds: float) -> None:
    """Wait for nobody."""
