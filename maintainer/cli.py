"""Commands: parse, call, print. Decides nothing.

Slow imports that only one command needs are made inside that command.
"""

import asyncio
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer
from sqlalchemy import Connection

from maintainer import __version__
from maintainer.budget import Budget
from maintainer.collect import collect
from maintainer.console import print_error, set_up_logging, stdout, watch
from maintainer.errors import MaintainerError, UsageError
from maintainer.graph.compare import compare
from maintainer.graph.database import Database
from maintainer.graph.explain import explain
from maintainer.graph.forest import load_forest
from maintainer.graph.runs import list_runs, load_report
from maintainer.graph.schedule import load_statuses
from maintainer.logs import LogFormat
from maintainer.report import Report
from maintainer.report.diff import render_diff
from maintainer.report.files import write_atomically
from maintainer.report.github import open_workflow
from maintainer.report.json import to_json
from maintainer.report.markdown import render_markdown
from maintainer.report.terminal import render_report, render_runs
from maintainer.report.tree import render_forest
from maintainer.report.verdict import format_done
from maintainer.report.why import render_why
from maintainer.sanitize import printable
from maintainer.settings import Settings, StepSettings, load_settings, parse_duration
from maintainer.signals import Interrupted, interruptible
from maintainer.stages.run import Collector, now_utc
from maintainer.stores.registry import check, connect

_STEP_TIMEOUT = 2.0
"""Seconds that the request under way may take after SIGINT or SIGTERM, before it is cut off."""
_NOT_SERVED = "No service has run yet: start `maintainer serve`."

app = typer.Typer(
    name="maintainer",
    help="Keep BuildKit's build caches whole, in GitHub Actions and in directories: merge their "
    "indexes, drop what is gone, delete what is unreferenced.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
db = typer.Typer(help="Maintain the database.", no_args_is_help=True)
app.add_typer(db, name="db")

_Config = Annotated[
    Path | None,
    typer.Option("--config", help="A TOML file of settings; or MAINTAINER_CONFIG.", metavar="FILE"),
]
_Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="Where the graph is stored; or MAINTAINER_DATABASE. [default: sqlite:///maintainer.db]",
        metavar="URL",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
_Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more to stderr.")]
_LogFormat = Annotated[
    LogFormat | None,
    typer.Option(
        "--log-format",
        help="The format of log lines on stderr, for people or for machines. [default: text]",
    ),
]


class ServiceVersion(StrEnum):
    """Which protocol the printed variables make a client speak."""

    V1 = "v1"
    V2 = "v2"


def main() -> None:
    """Run the command line; an error is one line and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except MaintainerError as error:
        print_error(str(error))
        sys.exit(error.exit_status)
    except OSError as error:
        print_error(f"{error.filename or 'the output'}: {error.strerror or error}")
        # Otherwise Python would try again to write the rest, and print an error of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _tell_version(wanted: bool) -> None:
    if wanted:
        stdout().print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True),
    ] = False,
) -> None:
    del version


@app.command()
def gc(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, and change nothing in the cache.")
    ] = False,
    no_sweep: Annotated[bool, typer.Option("--no-sweep", help="Delete nothing.")] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Only rewrite indexes that are invalid or reference missing blobs; merge and "
            "delete nothing.",
        ),
    ] = False,
    grace: Annotated[
        str | None,
        typer.Option(
            help="How long an entry must be unreferenced before it is deleted, such as 24h.",
            metavar="DURATION",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Where the cache is: github, as the environment says, or local:DIR, a "
            "directory that BuildKit exports to with type=local. [default: github]",
            metavar="STORE",
        ),
    ] = None,
    merged_tag: Annotated[
        str | None,
        typer.Option(
            help="The tag of a directory to write the merge of all others to, for builds to "
            "import; '' turns it off. [default: maintained]",
            metavar="TAG",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Check the content of each blob of a directory."),
    ] = False,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="A scope to look up if the service cannot list entries; may be repeated."
        ),
    ] = None,
    merged_scope: Annotated[
        str | None,
        typer.Option(
            help="The scope to write the merge of all others to, for builds to import; '' turns "
            "it off. [default: maintained]",
            metavar="SCOPE",
        ),
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(
            help="Send at most this many requests; defer the rest to the next run.", min=1
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            help="Start nothing new after this time, such as 10m; defer the rest to the next run.",
            metavar="DURATION",
        ),
    ] = None,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="Continue even if most known entries are gone."),
    ] = False,
    github: Annotated[
        bool,
        typer.Option(
            "--github", help="Report to the workflow: job summary, step outputs, annotations."
        ),
    ] = False,
    config: _Config = None,
    database: _Database = None,
    json: _Json = False,
    log_format: _LogFormat = None,
    quiet: _Quiet = False,
    verbose: _Verbose = False,
) -> None:
    """Do one full run on a cache: the GitHub Actions cache that the environment names, or a
    directory.
    """
    if json and github:
        raise UsageError("--json and --github exclude each other: both write to stdout")
    with open_workflow(StepSettings.read() if github else None) as workflow:
        settings = _settings(
            config,
            database,
            store=store,
            merged_tag=merged_tag,
            verify=verify or None,
            grace=_duration("--grace", grace),
            scopes=scope or None,
            merged_scope=merged_scope,
            max_requests=max_requests,
            deadline=_duration("--deadline", deadline),
            log_format=log_format,
        )
        set_up_logging(verbose=verbose, quiet=quiet, log_format=settings.log_format)
        mode = _Mode(dry_run, no_sweep, accept_loss, repair, quiet)
        report, interrupted = anyio.run(_collect, settings, mode)
        if report:
            _print_report(report, json=json, quiet=quiet)
            if workflow:
                workflow.tell(report)
    if interrupted.exit_status:
        raise typer.Exit(interrupted.exit_status)
    if report is None or report.status != "done":
        raise typer.Exit(1)


@app.command()
def report(
    *,
    run: Annotated[int | None, typer.Option(help="Its number. [default: the last one]")] = None,
    config: _Config = None,
    database: _Database = None,
    json: _Json = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, as for a workflow's job summary.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write the report as one HTML file.", metavar="FILE")
    ] = None,
) -> None:
    """Show the report of a run: is the cache healthy, and if not, what is there to do?"""
    if json + markdown + (html is not None) > 1:
        raise UsageError("--json, --markdown and --html exclude each other")
    with _reading(config, database) as connection:
        found = load_report(connection, run)
    if json:
        sys.stdout.write(f"{to_json(found)}\n")
    elif markdown:
        sys.stdout.write(render_markdown(found))
    elif html is not None:
        from maintainer.report.html import render_html  # noqa: PLC0415

        write_atomically(html, render_html(found))
    else:
        stdout().print(render_report(found))


@app.command()
def why(
    *,
    subject: Annotated[
        str,
        typer.Argument(
            help="A key, the digest of a layer, or at least the first six digits of it.",
            metavar="DIGEST|KEY",
        ),
    ],
    config: _Config = None,
    database: _Database = None,
    json: _Json = False,
) -> None:
    """Explain why an entry is kept or will be deleted, and what would free it."""
    with _reading(config, database) as connection:
        told = explain(connection, subject)
    if json:
        sys.stdout.write(f"{to_json(told)}\n")
    else:
        stdout().print(render_why(told), soft_wrap=True)


@app.command()
def tree(
    *,
    scope: Annotated[str | None, typer.Argument(help="A scope. [default: all]")] = None,
    config: _Config = None,
    database: _Database = None,
    json: _Json = False,
) -> None:
    """Draw the layers of a scope with their sizes, as its newest index references them."""
    with _reading(config, database) as connection:
        forest = load_forest(connection, scope)
    if json:
        sys.stdout.write(f"{to_json(forest)}\n")
    else:
        stdout().print(render_forest(forest))


@app.command()
def diff(
    *,
    one: Annotated[int, typer.Argument(help="The number of a run.", metavar="RUN")],
    other: Annotated[int, typer.Argument(help="The number of another.", metavar="RUN")],
    config: _Config = None,
    database: _Database = None,
    json: _Json = False,
) -> None:
    """Show what changed between two runs."""
    with _reading(config, database) as connection:
        found = compare(connection, one, other)
    if json:
        sys.stdout.write(f"{to_json(found)}\n")
    else:
        stdout().print(render_diff(found))


@app.command()
def runs(
    *,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    config: _Config = None,
    database: _Database = None,
    json: _Json = False,
) -> None:
    """List the last runs, newest first."""
    with (
        _existing_database(_settings(config, database)) as opened,
        opened.reading() as connection,
    ):
        found = list_runs(connection, limit)
    if json:
        sys.stdout.write(f"{to_json(found)}\n")
    else:
        stdout().print(render_runs(found))


@app.command()
def serve(
    *,
    once: Annotated[bool, typer.Option("--once", help="Run what is due, and exit.")] = False,
    listen: Annotated[
        str | None,
        typer.Option(help="Where to serve pages. [default: 127.0.0.1:9309]", metavar="HOST:PORT"),
    ] = None,
    config: _Config = None,
    database: _Database = None,
    log_format: _LogFormat = None,
    quiet: _Quiet = False,
    verbose: _Verbose = False,
) -> None:
    """Run targets on schedule, and serve reports and metrics."""
    from maintainer.serve import serve as run_service  # noqa: PLC0415
    from maintainer.serve import serve_once as run_what_is_due  # noqa: PLC0415

    def load() -> Settings:
        place = {"listen": listen} if listen else None
        return _settings(config, database, log_format=log_format, serve=place)

    settings = load()
    set_up_logging(verbose=verbose, quiet=quiet, log_format=settings.log_format)
    if not once:
        run_service(load)
    elif any(outcome.status != "done" for outcome in run_what_is_due(settings)):
        raise typer.Exit(1)


@app.command()
def schedule(*, config: _Config = None, database: _Database = None, json: _Json = False) -> None:
    """Show each target's last result and next run."""
    from maintainer.serve.table import render_schedule  # noqa: PLC0415

    with (
        _existing_database(_settings(config, database), made_by="serve") as opened,
        opened.reading() as connection,
    ):
        found = load_statuses(connection)
    if json:
        sys.stdout.write(f"{to_json(found)}\n")
    else:
        stdout().print(render_schedule(found, now_utc()) if found else _NOT_SERVED)


@db.command()
def upgrade(*, config: _Config = None, database: _Database = None) -> None:
    """Upgrade the schema to this version; every run does so when it starts."""
    with _database(_settings(config, database)) as opened:
        stdout().print(f"{opened.path} is at revision {opened.revision()}", markup=False)


@db.command()
def current(*, config: _Config = None, database: _Database = None) -> None:
    """Print the revision of the schema."""
    opened = Database(_settings(config, database).database)
    try:
        revision = opened.revision() or "none: there is no database yet"
    finally:
        opened.close()
    stdout().print(f"{opened.path} is at revision {revision}", markup=False)


@app.command()
def demo(*, verbose: _Verbose = False) -> None:
    """See what a run does, on a recorded history: no account, no network, a few seconds."""
    set_up_logging(verbose=verbose, quiet=not verbose)
    from maintainer.demo import run_demo  # noqa: PLC0415

    run_demo(stdout())


@app.command()
def emulator(
    *,
    listen: Annotated[
        str, typer.Option(help="A loopback address.", metavar="HOST:PORT")
    ] = "127.0.0.1:8080",
    quota: Annotated[
        int | None,
        typer.Option(help="Bytes above which entries are evicted. [default: 10 GB]", min=0),
    ] = None,
    ref: Annotated[str, typer.Option(help="The ref that the token writes.")] = "refs/heads/main",
    service: Annotated[
        ServiceVersion, typer.Option(help="The protocol for the client to speak.")
    ] = ServiceVersion.V2,
    faults: Annotated[
        Path | None,
        typer.Option(help="A TOML or JSON file of the faults to inject.", metavar="FILE"),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Start with the recorded builds of `maintainer demo`.")
    ] = False,
) -> None:
    """Serve an Actions cache on loopback, and print the variables that a client needs."""
    from maintainer.emulator.command import run_emulator  # noqa: PLC0415

    run_emulator(listen, quota, ref=ref, service=service.value, faults=faults, history=history)


@dataclass(frozen=True, slots=True)
class _Mode:
    """How to do a run."""

    dry_run: bool
    no_sweep: bool
    accept_loss: bool
    repair: bool
    quiet: bool


async def _collect(settings: Settings, mode: _Mode) -> tuple[Report | None, Interrupted]:
    """Do one run; there is no report if a signal cut it off."""
    report: Report | None = None
    loop = asyncio.get_running_loop()
    async with connect(settings).open() as store:
        watching = watch(quiet=mode.quiet, log_format=settings.log_format)
        with _database(settings) as database, database.lock(), watching as progress:
            budget = Budget(store.requests, settings, now_utc)
            collector = Collector(store, database, settings, progress=progress, budget=budget)
            with (
                anyio.CancelScope() as scope,
                interruptible(
                    budget.interrupt,
                    lambda: loop.call_soon_threadsafe(scope.cancel),
                    patience=_STEP_TIMEOUT,
                ) as interrupted,
            ):
                report = await collect(
                    collector,
                    dry_run=mode.dry_run,
                    no_sweep=mode.no_sweep,
                    accept_loss=mode.accept_loss,
                    repair=mode.repair,
                )
    return report, interrupted


def _print_report(report: Report, *, json: bool, quiet: bool) -> None:
    if json:
        sys.stdout.write(f"{to_json(report)}\n")
    elif not quiet:
        stdout().print(render_report(report))
    elif report.status != "done":
        print_error(format_done(report))


def _settings(config: Path | None, database: str | None, **more: Any) -> Settings:  # noqa: ANN401
    overrides = {"database": database} | more
    settings = load_settings(config, {k: v for k, v in overrides.items() if v is not None})
    check(settings)
    return settings


def _duration(option: str, text: str | None) -> object:
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {printable(text or '')} {error}") from None


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    """Open the database, at this version's revision."""
    database = Database(settings.database)
    try:
        database.upgrade()
        yield database
    finally:
        database.close()


@contextmanager
def _reading(config: Path | None, database: str | None) -> Iterator[Connection]:
    """Open an existing database for reading."""
    with (
        _existing_database(_settings(config, database)) as opened,
        opened.reading() as connection,
    ):
        yield connection


@contextmanager
def _existing_database(settings: Settings, *, made_by: str = "gc") -> Iterator[Database]:
    """Open a database to read it: a wrong path is an error, not a new file."""
    database = Database(settings.database)
    if not database.exists():
        raise UsageError(f"there is no database {database.path}: run `maintainer {made_by}` first")
    with _database(settings) as opened:
        yield opened
