"""What people see during a run: progress bars on a terminal, plain log lines elsewhere.

Rich takes long to import, so it is imported where something is drawn with it.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from maintainer.logs import JsonLines, LogFormat, keep_secrets_out_of_logs, shorten_trouble
from maintainer.progress import Progress as Watcher
from maintainer.progress import Unwatched
from maintainer.sanitize import loggable, printable

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN_WIDTH = 120
"""The width of tables in files and pipes."""

log = logging.getLogger("maintainer")


def stdout() -> "Console":
    """Return the console for requested output."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)


def stderr() -> "Console":
    """Return the console for all other output."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_error(text: str) -> None:
    """Print an error in one line, formatted like the log."""
    line = loggable(text, 1_000)
    if any(isinstance(one.formatter, JsonLines) for one in logging.getLogger().handlers):
        log.error("%s", line)
    else:
        sys.stderr.write(f"maintainer: {line}\n")


def set_up_logging(*, verbose: bool, quiet: bool, log_format: LogFormat = "text") -> None:
    """Log to stderr: coloured on a terminal, plain lines with UTC times elsewhere, or JSON."""
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    handler: logging.Handler
    if log_format == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
    elif sys.stderr.isatty():
        from rich.highlighter import NullHighlighter
        from rich.logging import RichHandler

        handler = RichHandler(
            console=stderr(),
            show_path=False,
            show_time=False,
            show_level=verbose,
            # Its own takes the b:e in github:example for an address.
            highlighter=NullHighlighter(),
        )
        handler.setFormatter(_Printable("%(asctime)s %(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_Printable("%(asctime)s %(levelname)-7s %(message)s"))
    handler.addFilter(shorten_trouble)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(level)
    keep_secrets_out_of_logs()


class _Printable(logging.Formatter):
    """Keys and refs are untrusted text: one record is one line, without control characters."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%SZ"
    default_msec_format = None

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return printable(super().format(record), limit=2_000)


@contextmanager
def watch(*, quiet: bool, log_format: LogFormat = "text") -> Iterator[Watcher]:
    """Show the progress of a run."""
    if quiet:
        yield Unwatched()
    elif log_format == "text" and sys.stderr.isatty():
        from maintainer.bars import show_bars

        with show_bars(stderr()) as bars:
            yield bars
    else:
        yield LoggedProgress()


class LoggedProgress:
    """One log line for each stage that does something."""

    def stage(self, name: str, total: int | None = None) -> None:
        if total != 0:
            log.info("%s%s", name, "" if total is None else f": {total}")

    def advance(self, steps: int = 1) -> None:
        """Do nothing: a log has no bars."""
