"""`maintainer init`: the first steps in a repository."""

from pathlib import Path
from typing import Annotated

import typer


def init(
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a workflow that differs.")
    ] = False,
) -> None:
    """Write the workflow that maintains this repository's cache, and say what else to do."""
    from maintainer.setup.init import find_repository, format_next_steps, write_workflow

    root = find_repository(Path.cwd())
    typer.echo(write_workflow(root, overwrite=overwrite))
    for line in format_next_steps(root):
        typer.echo(line)
