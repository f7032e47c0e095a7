"""`maintainer serve`, `maintainer worker` and `maintainer schedule`."""

from typing import TYPE_CHECKING, Annotated

import typer

from maintainer.cli.options import (
    ConfigOption,
    DatabaseOption,
    JsonOption,
    LogFormatOption,
    QuietOption,
    VerboseOption,
    read_settings,
)
from maintainer.cli.output import print_json, print_layout

if TYPE_CHECKING:
    from maintainer.settings import Settings

_NOT_SERVED = "No service has run yet: start `maintainer serve`."


def serve(
    *,
    once: Annotated[bool, typer.Option("--once", help="Run what is due, and exit.")] = False,
    pages_only: Annotated[
        bool,
        typer.Option("--pages-only", help="Serve pages, and leave the runs to workers."),
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option(help="Where to serve pages. [default: 127.0.0.1:9309]", metavar="HOST:PORT"),
    ] = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    log_format: LogFormatOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run targets on schedule, and serve reports and metrics."""
    from maintainer.console import set_up_logging
    from maintainer.errors import UsageError
    from maintainer.serve import serve as run_service
    from maintainer.serve import serve_once as run_what_is_due

    def load() -> "Settings":
        place = {"listen": listen} if listen else None
        return read_settings(config, database, log_format=log_format, serve=place)

    settings = load()
    set_up_logging(verbose=verbose, quiet=quiet, log_format=settings.log_format)
    if once and pages_only:
        raise UsageError("--once and --pages-only exclude each other")
    if not once:
        run_service(load, pages_only=pages_only)
    elif any(outcome.status not in ("done", "skipped") for outcome in run_what_is_due(settings)):
        raise typer.Exit(1)


def worker(
    *,
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="How many targets it runs at once.", metavar="N")
    ] = 4,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    log_format: LogFormatOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run targets on schedule, as one of several workers on one PostgreSQL database."""
    from maintainer.console import set_up_logging
    from maintainer.serve.work import work

    def load() -> "Settings":
        return read_settings(config, database, log_format=log_format)

    settings = load()
    set_up_logging(verbose=verbose, quiet=quiet, log_format=settings.log_format)
    work(load, concurrency)


def schedule(
    *, config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False
) -> None:
    """Show each target's last result and next run."""
    from maintainer.cli.opening import reading
    from maintainer.clock import now_utc
    from maintainer.graph.schedule import load_statuses
    from maintainer.serve.table import render_schedule

    with reading(config, database, made_by="serve") as connection:
        statuses = load_statuses(connection)
    if json:
        print_json(statuses)
    else:
        print_layout(render_schedule(statuses, now_utc()) if statuses else _NOT_SERVED)
