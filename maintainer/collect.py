"""One run: probe → record → mark → plan → rewrite → sweep → report."""

import logging

from maintainer.errors import (
    BudgetExhaustedError,
    MaintainerError,
    UnfinishedError,
    UnknownCacheError,
)
from maintainer.graph.runs import forget_run
from maintainer.logs import log_context
from maintainer.report import Report
from maintainer.report.reasons import format_reason
from maintainer.stages.acting import rewrite_indexes, sweep_entries
from maintainer.stages.idling import remember_idle, repeat_report
from maintainer.stages.marking import mark_cache
from maintainer.stages.planning import plan_actions
from maintainer.stages.probing import list_cache, probe_cache
from maintainer.stages.recording import record_probe
from maintainer.stages.reporting import report_run
from maintainer.stages.run import Collector, Mode, start_run

log = logging.getLogger(__name__)

_WHOLE = Mode()


async def collect(collector: Collector, mode: Mode = _WHOLE) -> Report:
    """Do one run, on a database that the caller has locked.

    Errors are in the report, whose status is then `failed`. Raises DatabaseError if the database
    cannot be used, and UnknownCacheError if the first run on a cache finds none: then nothing is
    recorded.
    """
    run = start_run(collector, mode)
    with log_context(run=run.report.run, target=collector.store.name):
        log.info("run %d on %s starts", run.report.run, collector.store.name)
        try:
            listed = await list_cache(run, run.report.started_at)
            if report := repeat_report(run):
                return report
            seen = await record_probe(run, await probe_cache(run, listed))
            if marked := await mark_cache(run, seen):
                plan = await plan_actions(run, marked)
                if not mode.dry_run:
                    await rewrite_indexes(run, marked, plan)
                    await sweep_entries(run, marked)
        except UnknownCacheError as error:
            with run.begin() as connection:
                was_first = forget_run(connection, run.report.run)
            if was_first:
                raise  # A name that was never right needs no history.
            run.report.problems.append(str(error))
        except BudgetExhaustedError as error:
            # Only listing raises this. Part of a list is useless, so nothing was recorded.
            run.budget.stop(error.reason)
            run.deferred.listed = False
        except UnfinishedError as error:
            run.report.problems.append(f"{error}: {format_reason(error.reason)}")
        except MaintainerError as error:
            run.report.problems.append(str(error))
        except BaseException:
            report_run(run, "interrupted")
            raise
        report = report_run(run)
        remember_idle(run, report)
        return report
