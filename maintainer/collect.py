"""One run: probe → record → mark → plan → rewrite → sweep → report."""

import logging

from maintainer.errors import (
    BudgetExhaustedError,
    MaintainerError,
    UnfinishedError,
)
from maintainer.logs import log_context
from maintainer.report import Report
from maintainer.report.reasons import format_reason
from maintainer.stages.acting import rewrite_indexes, sweep_entries
from maintainer.stages.looking import probe_cache, record_probe
from maintainer.stages.marking import mark_cache
from maintainer.stages.planning import plan_actions
from maintainer.stages.reporting import report_run
from maintainer.stages.run import Collector, Mode, begin

log = logging.getLogger(__name__)


async def collect(
    collector: Collector,
    *,
    dry_run: bool = False,
    no_sweep: bool = False,
    accept_loss: bool = False,
    repair: bool = False,
) -> Report:
    """Do one run, on a database that the caller holds.

    A dry run is the same run, which stops after the plan. `accept_loss` goes on even if most of
    what was known is gone. `repair` only rewrites what is not valid or names missing blobs. What
    goes wrong is in the report, whose status then is `failed`; only a database that cannot be used
    raises (DatabaseError).
    """
    run = begin(collector, Mode(dry_run, no_sweep or repair, accept_loss, repair))
    with log_context(run=run.report.run, target=collector.store.name):
        log.info("run %d on %s begins", run.report.run, collector.store.name)
        try:
            seen = await record_probe(run, await probe_cache(run, run.report.started_at))
            if marked := await mark_cache(run, seen):
                plan = await plan_actions(run, marked)
                if not dry_run:
                    await rewrite_indexes(run, marked, plan)
                    await sweep_entries(run, marked)
        except BudgetExhaustedError as error:
            # Only a list ends like that, of which a part says nothing; so nothing was recorded.
            run.budget.stop(error.reason)
            run.deferred.listed = False
        except UnfinishedError as error:
            run.report.problems.append(f"{error}: {format_reason(error.reason)}")
        except MaintainerError as error:
            run.report.problems.append(str(error))
        except BaseException:
            report_run(run, "interrupted")
            raise
        return report_run(run)
