"""Changes the targets of a process that runs or shows them: by settings, and by what was found."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from maintainer.clock import now_utc
from maintainer.errors import MaintainerError
from maintainer.graph.clock import schedule_now
from maintainer.graph.database import Database
from maintainer.report.words import format_count
from maintainer.serve.discovery import retire
from maintainer.serve.targets import known_targets, read_targets
from maintainer.serve.timetable import join, reload
from maintainer.serve.worker import Worker
from maintainer.settings import Settings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Changes:
    """Changes the targets of a process: several threads do, one at a time."""

    settings: Settings
    database: Database
    worker: Worker
    refused: str = ""
    """Why the configuration that was read last does not apply; empty if it does."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def apply(self, settings: Settings) -> int:
        """Run and schedule by other settings; return how many targets there are.

        Raises MaintainerError.

        Everything that can fail comes first.
        """
        with self._lock:
            read_targets(settings)
            retire(self.database, settings, now_utc)
            targets = known_targets(self.database, settings)
            reload(self.database, targets.values(), schedule_now(self.database, now_utc))
            self.worker.targets, self.settings = targets, settings
            return len(targets)

    def learn(self) -> None:
        """Run what another process has found, which has scheduled it.

        Two processes with different settings would take turns in changing the schedule back.
        """
        with self._lock:
            self.worker.targets = known_targets(self.database, self.settings)

    def follow(self) -> None:
        """Run and schedule what has been found; the targets that were there keep their times."""
        with self._lock:
            targets = known_targets(self.database, self.settings)
            join(self.database, targets.values(), schedule_now(self.database, now_utc))
            self.worker.targets = targets


def read_again(load: Callable[[], Settings], started: Settings, changes: Changes) -> Settings:
    """Read the configuration, and let the targets and the schedule follow it.

    Return the settings that apply now: those of before if the new ones are invalid, which is
    logged and noted in `changes`. What differs from the settings of the start and needs a restart
    is logged, too.
    """
    try:
        settings = load()
        number = changes.apply(settings)
    except MaintainerError as error:
        log.error("the old configuration stays: %s", error)  # noqa: TRY400
        changes.refused = str(error)
        return changes.settings
    except Exception:
        log.exception("the old configuration stays: this is a bug in maintainer")
        changes.refused = "this is a bug in maintainer: see the log"
        return changes.settings
    changes.refused = ""
    for what in ("database", "log_format"):
        if getattr(settings, what) != getattr(started, what):
            log.warning("a change of %s needs a restart", what)
    if settings.serve.listen != started.serve.listen:
        log.warning("a change of serve.listen needs a restart")
    log.info("the configuration is reloaded: %s", format_count(number, "target"))
    return settings
