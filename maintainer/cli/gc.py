"""`maintainer gc`: one run."""

from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from maintainer.cli.help import HOW_MUCH, OUTPUT, WHAT, WHERE
from maintainer.cli.options import (
    ConfigOption,
    DatabaseOption,
    JsonOption,
    LogFormatOption,
    QuietOption,
    read_duration,
    read_settings,
    verbose_option,
)
from maintainer.cli.output import print_json, print_layout
from maintainer.errors import UsageError

if TYPE_CHECKING:
    from maintainer.report import Report
    from maintainer.report.github import Workflow
    from maintainer.report.simulation import Simulation
    from maintainer.settings import Settings, TargetSettings


def gc(
    *,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            "-n",
            help="Print the plan, and change nothing in the cache.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    no_sweep: Annotated[
        bool, typer.Option("--no-sweep", help="Delete nothing.", rich_help_panel=WHAT)
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Only rewrite indexes that are invalid or reference missing blobs; merge and "
            "delete nothing.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    grace: Annotated[
        str | None,
        typer.Option(
            help="How long an entry must be unreferenced before it is deleted, such as 24h.",
            metavar="DURATION",
            rich_help_panel=WHAT,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Where the cache is: github, or the address of another store, such as local:DIR; "
            "`--store help` lists all kinds. [default: github]",
            metavar="STORE",
            rich_help_panel=WHERE,
        ),
    ] = None,
    merged_tag: Annotated[
        str | None,
        typer.Option(
            help="The tag, or the name in a bucket or container, to write the merge of all "
            "others to, for builds to import; '' turns it off. [default: maintained]",
            metavar="TAG",
            rich_help_panel=WHERE,
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Check the content of each blob of a directory.", rich_help_panel=WHAT
        ),
    ] = False,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="A scope to look up if the service cannot list entries; may be repeated.",
            metavar="SCOPE",
            rich_help_panel=WHERE,
        ),
    ] = None,
    merged_scope: Annotated[
        str | None,
        typer.Option(
            help="The scope to write the merge of all others to, for builds to import; '' turns "
            "it off. [default: maintained]",
            metavar="SCOPE",
            rich_help_panel=WHERE,
        ),
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(
            help="Send at most this many requests; defer the rest to the next run.",
            min=1,
            metavar="NUMBER",
            rich_help_panel=HOW_MUCH,
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            help="Start nothing new after this time, such as 10m; defer the rest to the next run.",
            metavar="DURATION",
            rich_help_panel=HOW_MUCH,
        ),
    ] = None,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Continue even if most known entries are gone; not with --dry-run.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    github: Annotated[
        bool,
        typer.Option(
            "--github",
            help="Report to the workflow: job summary, step outputs, annotations.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    log_format: LogFormatOption = None,
    quiet: QuietOption = False,
    verbose: Annotated[bool, verbose_option("Print the whole report")] = False,
) -> None:
    """Do one full run on a cache, by default the Actions cache that the environment names."""
    if store == "help":
        _print_kinds()
        return
    if json and github:
        raise UsageError("--json and --github exclude each other: both write to stdout")
    with _report_to_workflow() if github else nullcontext() as workflow:
        if dry_run and accept_loss:
            # What a run has seen is known, so the run after the dry one would not notice the loss.
            raise UsageError(
                "--dry-run and --accept-loss exclude each other: only a real run accepts a loss"
            )
        given = {
            "store": store,
            "merged_tag": merged_tag,
            "verify": verify or None,
            "grace": read_duration("--grace", grace),
            "scopes": scope or None,
            "merged_scope": merged_scope,
            "max_requests": max_requests,
            "deadline": read_duration("--deadline", deadline),
            "log_format": log_format,
        }
        settings = read_settings(config, database, **given)
        from maintainer.cli.run import run_once
        from maintainer.console import set_up_logging
        from maintainer.stages.run import Mode
        from maintainer.stores.kinds import with_those_of_its_target

        set_up_logging(verbose=verbose, quiet=quiet, log_format=settings.log_format)
        on_command_line = [key for key, value in given.items() if value is not None]
        settings = with_those_of_its_target(settings, _find_targets(settings), on_command_line)
        mode = Mode(dry_run, no_sweep, accept_loss, repair)
        report, interrupted = run_once(settings, mode, quiet=quiet)
        if report:
            _print_report(report, json=json, quiet=quiet, whole=verbose or dry_run)
            if workflow:
                workflow.tell(report, _simulate(settings.database, report))
    if interrupted.exit_status:
        raise typer.Exit(interrupted.exit_status)
    if report is None or not _is_done(report):
        raise typer.Exit(1)
    if repair and report.indexes_broken:
        raise typer.Exit(_REPAIRED)


def _print_kinds() -> None:
    from maintainer.stores.kinds import KINDS

    width = max(len(kind.form) for kind in KINDS)
    for kind in KINDS:
        typer.echo(f"{kind.form:{width}}  {kind.what}")


def _is_done(report: "Report") -> bool:
    """Whether the run is done, and a repair has seen all that may be broken."""
    from maintainer.report.done import cut_off

    return report.status == "done" and not (report.repair and cut_off(report))


_REPAIRED = 3
"""The exit status of a repair that was needed."""


def _report_to_workflow() -> AbstractContextManager["Workflow | None"]:
    from maintainer.report.github import open_workflow
    from maintainer.settings import StepSettings

    return open_workflow(StepSettings.read())


def _find_targets(settings: "Settings") -> "list[TargetSettings]":
    """Return the targets that a service has found by `[[discover]]`, according to its database."""
    if not settings.discover:
        return []
    from maintainer.graph.database import Database
    from maintainer.serve.discovery import load_recorded, select

    with closing(Database(settings.database)) as database:
        if not database.exists():
            return []
        database.upgrade()
        found = load_recorded(database, settings)
    return [one.settings for one in select(settings, found).targets]


def _simulate(database: str, report: "Report") -> "Simulation | None":
    from maintainer.graph.database import open_database
    from maintainer.stages.simulating import simulate_reported

    with open_database(database) as opened, opened.reading() as connection:
        return simulate_reported(connection, report)


def _print_report(report: "Report", *, json: bool, quiet: bool, whole: bool) -> None:
    if json:
        print_json(report)
    elif not quiet:
        from maintainer.report.terminal import render_report, render_summary, render_verdict

        if whole:
            print_layout(render_report(report))
            print_layout(render_verdict(report), soft_wrap=True)
        else:
            print_layout(render_summary(report), soft_wrap=True)
    elif not _is_done(report):
        from maintainer.console import print_error
        from maintainer.report.done import format_done

        print_error(format_done(report))
