"""Applies a changed configuration to a process that runs targets."""

import logging
from collections.abc import Callable

from maintainer.errors import MaintainerError
from maintainer.graph.database import Database
from maintainer.report.words import format_count
from maintainer.serve.targets import read_targets
from maintainer.serve.timetable import reload
from maintainer.serve.worker import Worker
from maintainer.settings import Settings
from maintainer.stages.run import now_utc

log = logging.getLogger(__name__)


def read_again(
    load: Callable[[], Settings], before: Settings, database: Database, worker: Worker
) -> Settings:
    """Read the configuration, and let a worker and the schedule follow it.

    Return the settings: those of `before`, the start, if the new ones are invalid, which is logged.
    """
    try:
        settings = load()
        targets = read_targets(settings)
        # Everything that can fail comes first.
        reload(database, targets.values(), now_utc())
    except MaintainerError as error:
        log.error("the old configuration stays: %s", error)  # noqa: TRY400
        return before
    except Exception:
        log.exception("the old configuration stays: this is a bug in maintainer")
        return before
    for what in ("database", "log_format"):
        if getattr(settings, what) != getattr(before, what):
            log.warning("a change of %s needs a restart", what)
    if settings.serve.listen != before.serve.listen:
        log.warning("a change of serve.listen needs a restart")
    worker.targets = targets
    log.info("the configuration is reloaded: %s", format_count(len(targets), "target"))
    return settings
