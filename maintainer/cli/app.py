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
    forget,
    gc,
    inspect,
    service,
    setup,
    simulate,
    targets,
    tools,
    usage,
)
from maintainer.cli.help import DATABASE, LOOK, MAINTAIN, SET_UP, TRY, Command, Group
from maintainer.errors import MaintainerError

_COMMANDS = {
    SET_UP: (setup.init, setup.doctor),
    MAINTAIN: (
        gc.gc,
        forget.forget,
        service.serve,
        service.worker,
        targets.targets,
        service.schedule,
    ),
    LOOK: (
        usage.usage,
        simulate.simulate,
        inspect.report,
        inspect.why,
        inspect.tree,
        inspect.diff,
        inspect.runs,
    ),
    TRY: (tools.demo, tools.emulator),
}
"""In the order of the help."""

app = typer.Typer(
    name="maintainer",
    cls=Group,
    help="Keep BuildKit's build caches whole, wherever builds export them: merge their "
    "indexes, drop what is gone, delete what is unreferenced.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help: Rich takes longer to import than Typer, and takes "[default: …]" for its markup.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in _COMMANDS.items():
    for command in commands:
        # The list of commands shows the first sentence, the command's own help all of it.
        sentence, _, _ = cleandoc(command.__doc__ or "").replace("\n", " ").partition(". ")
        app.command(cls=Command, short_help=sentence.rstrip("."), rich_help_panel=panel)(command)
app.add_typer(config.config, name="config", rich_help_panel=SET_UP)
app.add_typer(database.db, name="db", rich_help_panel=DATABASE)


def main() -> None:
    """Run the command line; an error is one line and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            status = app(standalone_mode=False)
        finally:
            sys.stdout.flush()
    except MaintainerError as error:
        _print_error(str(error))
        sys.exit(error.exit_status)
    except typer.TyperException as error:
        _print_usage_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        _print_error(f"{error.filename or 'the output'}: {error.strerror or error}")
        # Otherwise Python would try again to write the rest, and print an error of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(status)


def _print_usage_error(error: typer.TyperException) -> None:
    """Print what is wrong with the command line like any other error, and where help is."""
    message, context = _find_message(error), getattr(error, "ctx", None)
    if "\n" in message:  # The help of a group, which was named without a command.
        typer.echo(message, err=True)
        return
    see = " See" if message.endswith("?") else "; see"
    where = f"{see} `{context.command_path} --help`" if context else ""
    _print_error(f"{message}{where}")


def _find_message(error: typer.TyperException) -> str:
    """Return what is wrong, in our words where a validator has found it."""
    if (find := getattr(error.__cause__, "errors", None)) and isinstance(error, typer.BadParameter):
        from maintainer.validation import explain

        (problem, *_) = find()
        return f"{_find_name(error)} {explain(problem)}"
    message = error.format_message()
    return message if "\n" in message else f"{message[:1].lower()}{message[1:].rstrip('.')}"


def _find_name(error: typer.BadParameter) -> str:
    """Return the name of an option or an argument, as the help has it."""
    if error.param is None:
        return "a value"
    is_argument = error.param.param_type_name == "argument"
    return (is_argument and error.param.metavar) or error.param.opts[0]


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
