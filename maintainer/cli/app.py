"""The program: its commands, and the exit status of each error."""

import io
import os
import sys
from inspect import cleandoc
from typing import Annotated

import typer

from maintainer import __version__
from maintainer.cli import (
    config,
    database,
    gc,
    inspect,
    scopes,
    service,
    setup,
    simulate,
    tools,
    usage,
)
from maintainer.errors import MaintainerError

app = typer.Typer(
    name="maintainer",
    help="Keep BuildKit's build caches whole, in GitHub Actions and in directories: merge their "
    "indexes, drop what is gone, delete what is unreferenced.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help: Rich takes longer to import than Typer, and takes "[default: …]" for its markup.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    gc.gc,
    inspect.report,
    inspect.why,
    inspect.tree,
    inspect.diff,
    inspect.runs,
    usage.usage,
    simulate.simulate,
    scopes.forget,
    setup.init,
    setup.doctor,
    service.serve,
    service.schedule,
    tools.demo,
    tools.emulator,
):
    # The list of commands shows all of it: Typer would cut it off.
    app.command(short_help=cleandoc(command.__doc__ or ""))(command)
app.add_typer(config.config, name="config")
app.add_typer(database.db, name="db")


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
        _print_error(str(error))
        sys.exit(error.exit_status)
    except OSError as error:
        _print_error(f"{error.filename or 'the output'}: {error.strerror or error}")
        # Otherwise Python would try again to write the rest, and print an error of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _print_error(text: str) -> None:
    from maintainer.console import print_error  # It may have to write to the log.

    print_error(text)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    del version
