"""`maintainer demo` and `maintainer emulator`: to try things out."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from maintainer.cli.options import VerboseOption, read_size


class ServiceVersion(StrEnum):
    """Which protocol the printed variables make a client speak."""

    V1 = "v1"
    V2 = "v2"


def demo(*, verbose: VerboseOption = False) -> None:
    """See what a run does, on a recorded history: no account, no network, a few seconds."""
    from maintainer.console import set_up_logging, stdout
    from maintainer.demo import run_demo

    set_up_logging(verbose=verbose, quiet=not verbose)
    run_demo(stdout())


def emulator(
    *,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="Run this with the variables, after `--`, and end with it.", metavar="COMMAND"
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            help="A loopback address. [default: 127.0.0.1:8080; a free port with COMMAND]",
            metavar="HOST:PORT",
        ),
    ] = None,
    quota: Annotated[
        str | None,
        typer.Option(
            help="The size above which entries are evicted, such as 500MB. [default: 10GB]",
            metavar="SIZE",
        ),
    ] = None,
    ref: Annotated[
        str, typer.Option(help="The ref that the token writes.", metavar="REF")
    ] = "refs/heads/main",
    service: Annotated[
        ServiceVersion, typer.Option(help="The protocol for the client to speak.")
    ] = ServiceVersion.V2,
    faults: Annotated[
        Path | None,
        typer.Option(help="A TOML or JSON file of the faults to inject.", metavar="FILE"),
    ] = None,
    closed_pull: Annotated[
        list[int] | None,
        typer.Option(help="The number of a pull request that is closed.", metavar="NUMBER"),
    ] = None,
    deleted_ref: Annotated[
        list[str] | None,
        typer.Option(
            help="A branch or tag that does not exist, refs/heads/… or refs/tags/….", metavar="REF"
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Start with the recorded builds of `maintainer demo`.")
    ] = False,
) -> None:
    """Serve an Actions cache on loopback, and print the variables that a client needs, or run a
    command with them.
    """
    from maintainer.emulator.command import run_emulator

    status = run_emulator(
        listen or ("127.0.0.1:0" if command else "127.0.0.1:8080"),
        None if quota is None else read_size("--quota", quota),
        ref=ref,
        service=service.value,
        faults=faults,
        history=history,
        closed_pulls=closed_pull or (),
        deleted_refs=deleted_ref or (),
        command=command or (),
    )
    if status:
        raise typer.Exit(status)
