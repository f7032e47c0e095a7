"""One run, as `maintainer gc` does it: SIGINT and SIGTERM end it after its current step."""

import asyncio

import anyio

from maintainer.budget import Budget
from maintainer.clock import now_utc
from maintainer.collect import collect
from maintainer.console import watch
from maintainer.graph.allowances import SharedLimits
from maintainer.graph.clock import check_clock
from maintainer.graph.database import open_database
from maintainer.report import Report
from maintainer.settings import Settings
from maintainer.signals import Interrupted, interruptible
from maintainer.stages.run import Collector, Mode
from maintainer.stores.kinds import connect

_STEP_TIMEOUT = 2.0
"""Seconds that the request under way may take after SIGINT or SIGTERM, before it is cut off."""


def run_once(settings: Settings, mode: Mode, *, quiet: bool) -> tuple[Report | None, Interrupted]:
    """Do one run; there is no report if a signal cut it off."""
    return anyio.run(_collect, settings, mode, quiet)


async def _collect(
    settings: Settings, mode: Mode, quiet: bool
) -> tuple[Report | None, Interrupted]:
    report: Report | None = None
    loop = asyncio.get_running_loop()
    async with connect(settings).open() as store:
        watching = watch(quiet=quiet, log_format=settings.log_format)
        with (
            open_database(settings.database) as database,
            database.lease(store.name) as lease,
            SharedLimits(database).sharing(store.requests.window),
            watching as progress,
        ):
            check_clock(database, now_utc)
            budget = Budget(store.requests, settings, now_utc)
            collector = Collector(
                store, database, settings, progress=progress, budget=budget, lease=lease
            )
            with (
                anyio.CancelScope() as scope,
                interruptible(
                    budget.interrupt,
                    lambda: loop.call_soon_threadsafe(scope.cancel),
                    patience=_STEP_TIMEOUT,
                ) as interrupted,
            ):
                report = await collect(collector, mode)
    return report, interrupted
