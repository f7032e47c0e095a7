"""`maintainer init` and `maintainer doctor`: the first steps, and a check of the set-up."""

from pathlib import Path
from typing import Annotated

import typer

from maintainer.cli.options import ConfigOption, DatabaseOption, JsonOption, read_settings
from maintainer.cli.output import print_json


def init(
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a workflow that differs.")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option(
            help="Where the cache is, unless it is GitHub's Actions cache.",
            metavar="registry://ghcr.io/OWNER/NAME",
        ),
    ] = None,
) -> None:
    """Write the workflow that maintains this repository's cache, and say what else to do."""
    from maintainer.setup.init import find_cache, find_repository, format_next_steps, write_workflow

    root, cache = find_repository(Path.cwd()), find_cache(store)
    typer.echo(write_workflow(root, cache, overwrite=overwrite))
    for line in format_next_steps(root, cache):
        typer.echo(line)


def doctor(
    *,
    store: Annotated[
        str | None, typer.Option(help="As for `maintainer gc`.", metavar="STORE")
    ] = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Check the set-up: token, permissions, URLs, clock, limits, database and workflows."""
    import anyio

    from maintainer.clock import now_utc
    from maintainer.console import set_up_logging
    from maintainer.setup.doctor import examine, format_diagnosis

    set_up_logging(verbose=False, quiet=True)
    settings = read_settings(config, database, store=store)
    diagnosis = anyio.run(examine, settings, Path.cwd(), now_utc)
    if json:
        print_json(diagnosis)
    else:
        for line in format_diagnosis(diagnosis):
            typer.echo(line)
    if diagnosis.problems:
        raise typer.Exit(1)
